//! What is known of the runtime's containers, and what of it must be asked: no I/O.
//!
//! Events and lists are quick and may be behind one another; what an inspection says is the truth. So:
//! - An event shows at once what it says, and has the container inspected.
//! - An inspection during which another event came says nothing of whether the container runs, and is made again.
//! - A list during which an event came says nothing of that event's container.
//! - A container goes when the runtime says that it is gone, never for want of an answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::models::{ContainerInspectResponse, ContainerSummary, EventMessage};

use crate::services::CREDENTIALS_MOUNT;
use crate::workload::{HorizonService, Workload};

/// Containers of the runtime by id, those that do not run among them.
pub type Workloads = BTreeMap<String, Arc<Workload>>;
/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// Containers that are looked after: half as many as there are domains, so that those of containers that are gone may wait for
/// their last task.
pub const MAX_WORKLOADS: usize = 1024;
/// Inspections at a time.
const MAX_INSPECTIONS: usize = 16;

/// What the host tells of containers.
pub trait Host {
    /// Who a container is to Horizon, by its labels and the host's directory with its credentials.
    fn service(&mut self, labels: &Labels, credentials: Option<&Path>) -> Option<HorizonService>;
    /// The layers of its root, uppermost first, if they are found without the runtime.
    fn layers(&mut self, id: &str) -> Vec<PathBuf>;
}

/// The containers and the questions.
#[derive(Debug, Default)]
pub struct Known {
    workloads: Workloads,
    /// To be inspected.
    wanted: BTreeSet<String>,
    /// Being inspected, and whether an event came meanwhile.
    asked: BTreeMap<String, bool>,
    /// While a list is under way: containers that events were about.
    touched: Option<BTreeSet<String>>,
    /// Containers beyond [`MAX_WORKLOADS`].
    left_out: BTreeSet<String>,
    changed: bool,
}

/// What the runtime says of a container.
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
    /// The containers, if they are others than when this was last asked.
    pub fn changes(&mut self) -> Option<Workloads> {
        std::mem::take(&mut self.changed).then(|| self.workloads.clone())
    }

    /// Whether there is anything that [`Self::changes`] would tell.
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// Whether nothing is to be inspected or is being inspected.
    pub fn is_complete(&self) -> bool {
        self.wanted.is_empty() && self.asked.is_empty()
    }

    /// How many containers are there beyond the bound.
    pub fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// The Horizon services of all containers.
    pub fn services(&self) -> impl Iterator<Item = &HorizonService> {
        self.workloads.values().filter_map(|workload| workload.horizon.as_ref())
    }

    /// A container to be inspected now. What comes of it is told to [`Self::inspected`].
    pub fn next_inspection(&mut self) -> Option<String> {
        if self.asked.len() >= MAX_INSPECTIONS {
            return None;
        }
        let id = self.wanted.pop_first()?;
        self.asked.insert(id.clone(), false);
        Some(id)
    }

    /// The connection is lost: what was asked will not be answered. What is known stays.
    pub fn disconnected(&mut self) {
        self.wanted.clear();
        self.asked.clear();
        self.touched = None;
    }

    /// Takes an event.
    pub fn event(&mut self, event: EventMessage, host: &mut impl Host) {
        let Some(actor) = event.actor else { return };
        let Some(id) = actor.id.filter(|id| is_id(id)) else { return };
        let action = event.action.unwrap_or_default();
        let mut attributes = actor.attributes.unwrap_or_default();
        // Docker's words and Podman's.
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

    /// A list is being asked for.
    pub fn listing(&mut self) {
        self.touched = Some(BTreeSet::new());
    }

    /// The list has come; `None` if it could not be had. Containers are inspected again where it shows something new, all
    /// of them if `all`.
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
        // The first one is news, even that there is none.
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

    /// A container was inspected; `None` if there is none of that id any more.
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

    /// A container could not be inspected; the next list will have it tried again.
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
    /// An event carries the labels, among a few words of its own.
    fn of_event(mut attributes: HashMap<String, String>) -> Self {
        Self {
            name: plain_name(&attributes.remove("name").unwrap_or_default()),
            image: attributes.remove("image").unwrap_or_default(),
            labels: attributes.into_iter().collect(),
            ..Self::default()
        }
    }

    fn of_summary(summary: ContainerSummary) -> Self {
        // Names with another slash are those of links from other containers.
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

/// The layers of an overlay, uppermost first; none where the runtime keeps containers in another way.
fn layers(driver: &HashMap<String, String>) -> Vec<PathBuf> {
    let Some(upper) = driver.get("UpperDir").filter(|upper| !upper.is_empty()) else { return Vec::new() };
    let lower = driver.get("LowerDir").map(String::as_str).unwrap_or_default();
    let lower = lower.split(':').filter(|layer| !layer.is_empty());
    std::iter::once(upper.as_str()).chain(lower).map(PathBuf::from).collect()
}

fn plain_name(name: &str) -> String {
    name.strip_prefix('/').unwrap_or(name).to_owned()
}

/// Whether this is a container's id, as it stands in the name of its control group.
fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
