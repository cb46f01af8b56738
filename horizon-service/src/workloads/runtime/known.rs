//! Tracks what is known of the runtime's containers and what must be asked, without I/O.
//!
//! Events and lists come quickly and may be out of order; an inspection is authoritative. So:
//! - An event is applied at once, and its container is inspected.
//! - An inspection during which another event came does not say whether the container runs, and is repeated.
//! - A list during which an event came says nothing about that event's container.
//! - A container is removed when the runtime says that it is gone, never for lack of an answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::models::{ContainerInspectResponse, ContainerSummary, EventMessage};

use crate::workloads::services::CREDENTIALS_MOUNT;
use crate::workloads::workload::{HorizonService, Workload};

/// `Workloads` are the runtime's containers by id, running or not.
pub type Workloads = BTreeMap<String, Arc<Workload>>;
/// `Labels` are labels by key.
pub type Labels = BTreeMap<String, String>;

/// Maximum number of containers followed: half the number of domains, so that domains of removed containers
/// can wait for their last task.
pub const MAX_WORKLOADS: usize = 1024;
/// Maximum number of simultaneous inspections.
const MAX_INSPECTIONS: usize = 16;

/// A `Host` answers questions about containers from the host's files.
pub trait Host {
    /// Returns a container's Horizon service, found by its labels and the host directory with its
    /// credentials.
    fn service(&mut self, labels: &Labels, credentials: Option<&Path>) -> Option<HorizonService>;
    /// Returns the layers of a container's root, uppermost first, if they can be found without the runtime.
    fn layers(&mut self, id: &str) -> Vec<PathBuf>;
}

/// `Known` holds the known containers and the open questions.
#[derive(Debug, Default)]
pub struct Known {
    workloads: Workloads,
    /// Containers to inspect.
    wanted: BTreeSet<String>,
    /// Containers being inspected, and whether an event came meanwhile.
    asked: BTreeMap<String, bool>,
    /// During a list request, the containers that events were about.
    touched: Option<BTreeSet<String>>,
    /// Containers beyond [`MAX_WORKLOADS`].
    left_out: BTreeSet<String>,
    changed: bool,
}

/// `Facts` are the runtime's data on a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    name: String,
    image: String,
    labels: Labels,
    pid: Option<u32>,
    layers: Vec<PathBuf>,
    credentials: Option<PathBuf>,
}

impl Known {
    /// Returns the containers if they have changed since the last call.
    pub fn changes(&mut self) -> Option<Workloads> {
        std::mem::take(&mut self.changed).then(|| self.workloads.clone())
    }

    /// Returns whether [`Self::changes`] would return anything.
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// Returns whether no inspection is needed or under way.
    pub fn is_complete(&self) -> bool {
        self.wanted.is_empty() && self.asked.is_empty()
    }

    /// Returns the number of containers beyond [`MAX_WORKLOADS`].
    pub fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// Returns the Horizon services of all containers.
    pub fn services(&self) -> impl Iterator<Item = &HorizonService> {
        self.workloads.values().filter_map(|workload| workload.horizon.as_ref())
    }

    /// Returns a container to inspect now. Pass the result to [`Self::inspected`] or [`Self::not_inspected`].
    pub fn next_inspection(&mut self) -> Option<String> {
        if self.asked.len() >= MAX_INSPECTIONS {
            return None;
        }
        let id = self.wanted.pop_first()?;
        self.asked.insert(id.clone(), false);
        Some(id)
    }

    /// Drops all open questions after the loss of the connection. Known containers stay.
    pub fn disconnected(&mut self) {
        self.wanted.clear();
        self.asked.clear();
        self.touched = None;
    }

    /// Applies an event.
    pub fn event(&mut self, event: EventMessage, host: &mut impl Host) {
        let Some(actor) = event.actor else { return };
        let Some(id) = actor.id.filter(|id| is_id(id)) else { return };
        let action = event.action.unwrap_or_default();
        let mut attributes = actor.attributes.unwrap_or_default();
        // Docker's and Podman's names of actions.
        match action.as_str() {
            "create" | "init" | "start" => {
                if !self.workloads.contains_key(&id) {
                    self.insert(&id, Facts::of_event(attributes), host);
                }
            }
            "rename" => {
                if let (Some(workload), Some(name)) = (self.workloads.get_mut(&id), attributes.remove("name"))
                {
                    Arc::make_mut(workload).name = plain_name(&name);
                    self.changed = true;
                }
            }
            "die" | "died" => self.update(&id, |workload| workload.pid = None),
            "destroy" | "remove" => {
                self.remove(&id);
                self.asked.remove(&id);
                self.touch(&id);
                return;
            }
            _ => return,
        }
        self.touch(&id);
        self.want(&id);
    }

    /// Notes that a list is being requested.
    pub fn listing(&mut self) {
        self.touched = Some(BTreeSet::new());
    }

    /// Applies a list; `None` if it could not be fetched. Containers for which it shows something new are
    /// inspected again, or all if `all`.
    pub fn listed(&mut self, list: Option<Vec<ContainerSummary>>, all: bool, host: &mut impl Host) {
        let touched = self.touched.take().unwrap_or_default();
        let Some(list) = list else { return };
        let list: BTreeMap<String, Facts> = list
            .into_iter()
            .filter_map(|container| {
                Some((container.id.clone().filter(|id| is_id(id))?, Facts::of_summary(container)))
            })
            .collect();
        let gone = |id: &String| !list.contains_key(id) && !touched.contains(id);
        let lost: Vec<String> = self.workloads.keys().filter(|id| gone(id)).cloned().collect();
        for id in &lost {
            self.remove(id);
        }
        self.left_out.retain(|id| list.contains_key(id));
        // The first list counts as a change even if it is empty.
        self.changed |= all;
        for (id, facts) in list {
            if touched.contains(&id) {
                continue;
            }
            let known = self.workloads.get(&id);
            let is_complete = known.is_some_and(|workload| {
                workload.name == facts.name
                    && workload.horizon.as_ref().is_none_or(|horizon| horizon.service.is_some())
                    && !workload.layers.is_empty()
            });
            if known.is_none() {
                self.insert(&id, facts, host);
            }
            if all || !is_complete {
                self.want(&id);
            }
        }
    }

    /// Applies the result of an inspection; `None` if there is no such container any more.
    pub fn inspected(&mut self, id: &str, found: Option<ContainerInspectResponse>, host: &mut impl Host) {
        let Some(again) = self.asked.remove(id) else { return };
        let Some(found) = found else {
            if !again {
                self.remove(id);
            } else {
                self.want(id);
            }
            return;
        };
        let mut facts = Facts::of_inspection(found);
        if again {
            facts.pid = self.workloads.get(id).and_then(|workload| workload.pid);
            self.want(id);
        }
        self.insert(id, facts, host);
    }

    /// Notes that an inspection failed; the next list triggers another.
    pub fn not_inspected(&mut self, id: &str) {
        if self.asked.remove(id) == Some(true) {
            self.want(id);
        }
    }

    fn insert(&mut self, id: &str, facts: Facts, host: &mut impl Host) {
        if !self.workloads.contains_key(id) && self.workloads.len() >= MAX_WORKLOADS {
            if self.left_out.len() < MAX_WORKLOADS {
                self.left_out.insert(id.to_owned());
            }
            return;
        }
        self.left_out.remove(id);
        let horizon = host.service(&facts.labels, facts.credentials.as_deref());
        let Facts { name, image, labels, pid, mut layers, .. } = facts;
        if layers.is_empty() {
            layers = host.layers(id);
        }
        let workload = Workload { id: id.to_owned(), name, image, labels, pid, horizon, layers };
        if self.workloads.get(id).is_none_or(|known| **known != workload) {
            self.workloads.insert(id.to_owned(), Arc::new(workload));
            self.changed = true;
        }
    }

    fn update(&mut self, id: &str, change: impl FnOnce(&mut Workload)) {
        if let Some(workload) = self.workloads.get_mut(id) {
            change(Arc::make_mut(workload));
            self.changed = true;
        }
    }

    fn remove(&mut self, id: &str) {
        self.wanted.remove(id);
        self.left_out.remove(id);
        self.changed |= self.workloads.remove(id).is_some();
    }

    fn want(&mut self, id: &str) {
        if let Some(again) = self.asked.get_mut(id) {
            *again = true;
        } else if self.workloads.contains_key(id) {
            self.wanted.insert(id.to_owned());
        }
    }

    fn touch(&mut self, id: &str) {
        if let Some(touched) = &mut self.touched {
            touched.insert(id.to_owned());
        }
    }
}

impl Facts {
    /// Reads an event's attributes, which are the labels and a few others.
    fn of_event(mut attributes: HashMap<String, String>) -> Self {
        Self {
            name: plain_name(&attributes.remove("name").unwrap_or_default()),
            image: attributes.remove("image").unwrap_or_default(),
            labels: attributes.into_iter().collect(),
            ..Self::default()
        }
    }

    fn of_summary(summary: ContainerSummary) -> Self {
        // A name with another slash comes from a link of another container.
        let names = summary.names.unwrap_or_default();
        let name = names.iter().map(|name| plain_name(name)).find(|name| !name.contains('/'));
        Self {
            name: name.unwrap_or_default(),
            image: summary.image.unwrap_or_default(),
            labels: summary.labels.unwrap_or_default().into_iter().collect(),
            ..Self::default()
        }
    }

    fn of_inspection(found: ContainerInspectResponse) -> Self {
        let config = found.config.unwrap_or_default();
        let pid = found.state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok());
        let driver = found.graph_driver.unwrap_or_default();
        let mounts = found.mounts.unwrap_or_default();
        let credentials =
            mounts.into_iter().find(|mount| mount.destination.as_deref() == Some(CREDENTIALS_MOUNT));
        Self {
            name: plain_name(&found.name.unwrap_or_default()),
            image: config.image.unwrap_or_default(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
            pid: pid.filter(|pid| *pid != 0),
            layers: layers(&driver.data),
            credentials: credentials.and_then(|mount| mount.source).map(PathBuf::from),
        }
    }
}

/// Returns the layers of an overlay, uppermost first, or none for another storage driver.
fn layers(driver: &HashMap<String, String>) -> Vec<PathBuf> {
    let Some(upper) = driver.get("UpperDir").filter(|upper| !upper.is_empty()) else { return Vec::new() };
    let lower = driver.get("LowerDir").map(String::as_str).unwrap_or_default();
    let lower = lower.split(':').filter(|layer| !layer.is_empty());
    std::iter::once(upper.as_str()).chain(lower).map(PathBuf::from).collect()
}

fn plain_name(name: &str) -> String {
    name.strip_prefix('/').unwrap_or(name).to_owned()
}

/// Returns whether `id` is a container's id, as it appears in the name of its control group.
fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
