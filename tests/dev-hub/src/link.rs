//! This module links ESS and CSS: the ESS's sender with its queue, and the poll that carries everything else
//! both ways.

use crate::meta::{Status, is_transportable_name};
use crate::policy;
use crate::signature;
use crate::state::{NODE_TYPE, SEND_QUEUE, State, lock};
use crate::store::{Destination, Key, Object, Store};
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Starts the sender and the poll of an ESS. Both end when the set is dropped, and the objects in the queue
/// are lost.
pub fn start(state: &Arc<State>) -> JoinSet<()> {
    let (queue, waiting) = mpsc::channel(SEND_QUEUE);
    *lock(&state.send_queue) = Some(queue);
    let mut tasks = JoinSet::new();
    tasks.spawn(send(state.clone(), waiting));
    tasks.spawn(poll(state.clone()));
    tasks
}

async fn send(state: Arc<State>, mut waiting: mpsc::Receiver<Key>) {
    loop {
        let held = lock(&state.in_flight).clone();
        let key = match held {
            Some(key) => key,
            None => match waiting.recv().await {
                Some(key) => key,
                None => return,
            },
        };
        *lock(&state.in_flight) = Some(key.clone());
        state.hub_comes_up().await;
        push(&state, &key);
        *lock(&state.in_flight) = None;
    }
}

async fn poll(state: Arc<State>) {
    loop {
        if *state.hub_is_up.borrow() {
            exchange(&state);
        }
        tokio::select! {
            () = state.wake_link.notified() => {}
            () = tokio::time::sleep(state.poll) => {}
        }
    }
}

/// Sends one of the node's own objects, or its deletion, to the CSS. The CSS refuses an id that was made at
/// the hub, and a signature that does not verify; the ESS goes on saying `ready` in both cases.
fn push(state: &State, key: &Key) {
    let mut css = lock(&state.css);
    let mut ess = lock(&state.ess);
    let Some(object) = ess.objects.get_mut(key) else { return };
    if !travels(key) {
        return;
    }
    if css.objects.get(key).is_some_and(|there| there.status.is_senders()) {
        return;
    }
    let first = !std::mem::replace(&mut object.sent, true);
    let mut meta = object.meta.clone();
    meta.owner_id = format!("{}/{}", state.org, state.node);
    meta.destination_type = NODE_TYPE.to_owned();
    meta.destination_id = state.node.clone();
    match object.status {
        Status::Ready => {
            let verified = object.data.as_ref().is_none_or(|data| signature::verifies(&meta, data));
            let copy = match verified {
                true => Object::new(meta, Status::CompletelyReceived, object.data.clone()),
                false => Object::new(meta, Status::ReceiverVerificationFailed, None),
            };
            css.objects.insert(key.clone(), copy);
        }
        Status::Deleted => match css.objects.get_mut(key) {
            Some(there) => mark_deleted(there),
            // Deleted before it was sent: the hub gets the object and its deletion at once.
            None if first => {
                css.objects.insert(key.clone(), Object::new(meta, Status::Deleted, None));
            }
            None => {}
        },
        _ => {}
    }
}

/// Returns whether the ESS can name the object in a URL to the CSS.
fn travels((_, object_type, id): &Key) -> bool {
    is_transportable_name(object_type) && is_transportable_name(id)
}

/// Turns the object into a tombstone.
pub fn mark_deleted(object: &mut Object) {
    object.meta.deleted = true;
    object.status = Status::Deleted;
    object.data = None;
}

/// Runs one poll: places, delivers and withdraws objects, and carries acknowledgements both ways.
fn exchange(state: &State) {
    let mut css = lock(&state.css);
    let mut ess = lock(&state.ess);
    state.registered.store(true, Ordering::SeqCst);
    if state.agbot {
        place(state, &mut css);
    }
    add_broadcast_destinations(state, &mut css);
    acknowledge_to_hub(state, &mut css, &mut ess);
    lock(&state.held).clear();
    acknowledge_to_node(&mut css, &mut ess);
    deliver(state, &mut css, &mut ess);
    css.objects.retain(|_, object| {
        let withdrawn_everywhere =
            object.destinations.iter().all(|destination| destination.status == "deleted");
        !(object.status == Status::Deleted && !object.destinations.is_empty() && withdrawn_everywhere)
    });
}

/// Sets destinations as the agbot does, once for each instance of an object with a destination policy.
fn place(state: &State, css: &mut Store) {
    let services: Vec<String> = lock(&state.credentials)
        .values()
        .filter(|credential| credential.role == crate::auth::Role::Service)
        .map(|credential| credential.identity.clone())
        .collect();
    for object in css.objects.values_mut().filter(|object| object.status.is_senders()) {
        let Some(policy) = &object.meta.destination_policy else { continue };
        if object.placed == object.meta.instance_id {
            continue;
        }
        object.placed = object.meta.instance_id;
        let names = match policy::places_on(policy, services.iter().map(String::as_str), &state.properties) {
            true => vec![state.destination()],
            false => vec![],
        };
        set_destinations(object, &names);
    }
}

/// Makes `names` the object's destinations: new ones wait for delivery, those left out get a deletion.
pub fn set_destinations(object: &mut Object, names: &[String]) {
    for name in names {
        match object.destinations.iter_mut().find(|destination| destination.name == *name) {
            Some(destination) if destination.withdraw => *destination = Destination::pending(name),
            Some(_) => {}
            None => object.destinations.push(Destination::pending(name)),
        }
    }
    for destination in &mut object.destinations {
        if !names.contains(&destination.name) {
            destination.withdraw = true;
        }
    }
    object.destinations.retain(|destination| !destination.withdraw || destination.was_delivered);
}

/// Adds the node to objects without a policy: to those whose metadata names it, and to those that name no
/// node, which go to every registered one.
fn add_broadcast_destinations(state: &State, css: &mut Store) {
    let node = state.destination();
    for ((org, ..), object) in &mut css.objects {
        let meta = &object.meta;
        let wanted = meta.destination_policy.is_none()
            && *org == state.org
            && match &meta.destinations_list {
                Some(list) => list.contains(&node),
                None => {
                    (meta.destination_type.is_empty() || meta.destination_type == NODE_TYPE)
                        && (meta.destination_id.is_empty() || meta.destination_id == state.node)
                }
            };
        if wanted && object.status.is_senders() && !object.destinations.iter().any(|there| there.name == node)
        {
            object.destinations.push(Destination::pending(&node));
        }
    }
}

/// Carries the acknowledgements consumed and deleted from the service to the hub.
fn acknowledge_to_hub(state: &State, css: &mut Store, ess: &mut Store) {
    let node = state.destination();
    ess.objects.retain(|key, object| {
        let status = match object.status {
            Status::Consumed => "consumed",
            Status::Deleted if object.deletion_acknowledged => "deleted",
            _ => return true,
        };
        if let Some(there) = css.objects.get_mut(key) {
            for destination in there.destinations.iter_mut().filter(|destination| destination.name == node) {
                if status == "deleted" || !destination.withdraw {
                    destination.status = status;
                }
            }
            if there.status != Status::Deleted {
                there.destinations.retain(|destination| destination.status != "deleted");
            }
        }
        false
    });
}

/// Carries the acknowledgements consumed and deleted from a user of the hub to the node. The CSS forgets the
/// object then.
fn acknowledge_to_node(css: &mut Store, ess: &mut Store) {
    css.objects.retain(|key, object| {
        match object.status {
            Status::Consumed => {
                if let Some(there) = ess.objects.get_mut(key).filter(|there| there.status == Status::Ready) {
                    there.status = Status::ConsumedByDest;
                    there.data = None;
                }
            }
            Status::Deleted if object.deletion_acknowledged => {
                if let Entry::Occupied(there) = ess.objects.entry(key.clone())
                    && there.get().status == Status::Deleted
                {
                    there.remove();
                }
            }
            _ => return true,
        }
        false
    });
}

fn deliver(state: &State, css: &mut Store, ess: &mut Store) {
    let node = state.destination();
    for (key, object) in &mut css.objects {
        let Some(destination) = object.destinations.iter_mut().find(|destination| destination.name == node)
        else {
            continue;
        };
        let there = ess.objects.get(key);
        if destination.withdraw {
            if destination.status != "deleted" && there.is_none_or(|there| !there.status.is_senders()) {
                let mut tombstone =
                    there.cloned().unwrap_or_else(|| Object::new(object.meta.clone(), Status::Deleted, None));
                if tombstone.status != Status::Deleted || there.is_none() {
                    mark_deleted(&mut tombstone);
                    ess.objects.insert(key.clone(), tombstone);
                }
            }
            continue;
        }
        if !travels(key)
            || object.status != Status::Ready
            || destination.status != "pending"
            || object.meta.inactive
        {
            continue;
        }
        if there.is_some_and(|there| there.status.is_senders()) {
            destination.status = "error";
            "the node has an object of its own under this id".clone_into(&mut destination.message);
            continue;
        }
        let mut copy = Object::new(object.meta.clone(), Status::CompletelyReceived, object.data.clone());
        // A hub's expiration never reaches the ESS.
        copy.meta.expiration.clear();
        if object.data.as_ref().is_some_and(|data| !signature::verifies(&object.meta, data)) {
            copy.status = Status::ReceiverVerificationFailed;
            copy.data = None;
            destination.status = "error";
            "the data does not verify against its signature".clone_into(&mut destination.message);
        } else {
            destination.status = "delivered";
            destination.was_delivered = true;
        }
        if let Some(there) = there {
            copy.removed_services = there.removed_services.clone();
            let before = there.meta.destination_policy.iter().flat_map(|policy| &policy.services);
            let after = object.meta.destination_policy.as_ref().map(|policy| &policy.services);
            copy.removed_services.extend(
                before.filter(|service| after.is_some_and(|after| !after.contains(service))).cloned(),
            );
        }
        ess.objects.insert(key.clone(), copy);
    }
}
