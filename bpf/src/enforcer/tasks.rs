//! Puts tasks and containers into domains, and lists what tasks hold.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd};
use std::path::Path;

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::{Enforcer, leading_u32};
use crate::bpffs::entries;
use crate::container::ContainerId;
use crate::contract::{self, label, labelled};
use crate::error::BpfError;
use crate::event::Event;
use crate::iterator::{HELD, LABEL, RELEASE, position};
use crate::pins::is_version;
use crate::{EXEMPT_DOMAIN, UNIDENTIFIED_DOMAIN};

/// Maximum number of passes over all tasks. A pass is repeated for the tasks that were forked during it.
const LABEL_PASSES: usize = 16;

/// A `Labelled` is the result of a pass over all tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    /// Number of tasks that got a label.
    pub new: usize,
    /// Domains that tasks are in, including [`EXEMPT_DOMAIN`].
    pub domains: BTreeSet<u32>,
}

/// A `Labeller` puts tasks into domains without an [`Enforcer`].
pub struct Labeller(MapHandle);

impl Labeller {
    /// Puts a task into a domain, as [`Enforcer::label`] does.
    pub fn label(&self, task: BorrowedFd<'_>, domain: u32) -> Result<(), BpfError> {
        put_label(&self.0, task, domain)
    }
}

fn put_label(labels: &MapHandle, task: BorrowedFd<'_>, domain: u32) -> Result<(), BpfError> {
    let label = label { domain, ..Default::default() };
    labels
        .update(&task.as_raw_fd().to_ne_bytes(), contract::bytes(&label), MapFlags::ANY)
        .map_err(|source| BpfError::Map { map: "labels", source })
}

/// Takes this process out of the rules that are in force already, by the pins below a directory, so that they cannot
/// keep the agent from its work. Needs no capability. Call it on the main thread while it is the only one.
///
/// # Errors
/// Fails if a version's labels cannot be opened or written.
pub fn exempt_from_pinned(directory: &Path) -> Result<(), BpfError> {
    let failed = |source| BpfError::Map { map: "labels", source };
    let this =
        pidfd_open(getpid(), PidfdFlags::empty()).map_err(|error| failed(io::Error::from(error).into()))?;
    if !directory.is_dir() {
        return Ok(());
    }
    let pins = entries(directory)?.into_iter().filter(|entry| is_version(entry));
    for labels in pins.map(|version| version.join("maps/labels")).filter(|labels| labels.exists()) {
        put_label(&MapHandle::from_pinned_path(labels).map_err(failed)?, this.as_fd(), EXEMPT_DOMAIN)?;
    }
    Ok(())
}

impl Enforcer {
    /// Returns the domain of a task that has a label.
    pub(crate) fn label_of(&self, task: BorrowedFd<'_>) -> Result<Option<u32>, BpfError> {
        let label = self.labels.lookup(&task.as_raw_fd().to_ne_bytes(), MapFlags::ANY);
        let label = label.map_err(|source| BpfError::Map { map: "labels", source })?;
        Ok(label.map(|label| leading_u32(&label)))
    }

    /// Puts one task (not its other threads) and all its later children into a domain.
    pub fn label(&self, task: BorrowedFd<'_>, domain: u32) -> Result<(), BpfError> {
        put_label(&self.labels, task, domain)
    }

    /// Returns a [`Labeller`], for a forked process that has not started its program yet.
    pub fn labeller(&self) -> Result<Labeller, BpfError> {
        let labels = MapHandle::try_from(&self.labels);
        labels.map(Labeller).map_err(|source| BpfError::Map { map: "labels", source })
    }

    /// Removes the label of one task, which is then under the host's rules.
    pub fn unlabel(&self, task: BorrowedFd<'_>) -> Result<(), BpfError> {
        self.labels
            .delete(&task.as_raw_fd().to_ne_bytes())
            .map_err(|source| BpfError::Map { map: "labels", source })
    }

    /// Returns the containers that the kernel side knows, with their domains.
    pub fn containers(&self) -> Result<BTreeMap<ContainerId, u32>, BpfError> {
        let look = || {
            self.containers
                .keys()
                .filter_map(|key| {
                    let id = ContainerId(key.as_slice().try_into().ok()?);
                    let domain = self.containers.lookup(&key, MapFlags::ANY).transpose()?;
                    Some(domain.map(|domain| (id, leading_u32(&domain))))
                })
                .collect::<libbpf_rs::Result<_>>()
        };
        look().map_err(|source| BpfError::Map { map: "containers", source })
    }

    /// Clears the entry root and the bounding set of a domain, which is another container's from here on.
    pub fn forget_container(&self, domain: u32) -> Result<(), BpfError> {
        let failed = |map| move |source| BpfError::Map { map, source };
        self.set_entry_root(domain, 0).map_err(failed("entrances"))?;
        let none = 0u64.to_ne_bytes();
        self.bounding_sets
            .update(&domain.to_ne_bytes(), &none, MapFlags::ANY)
            .map_err(failed("bounding_sets"))
    }

    /// Puts every program that is started in a container from here on into a domain. [`Self::label_running`]
    /// finds those that run there already. If the domain was another container's before, a pass over all
    /// tasks must have found no task in it since.
    pub fn add_container(&self, id: ContainerId, domain: u32) -> Result<(), BpfError> {
        let failed = |map| move |source| BpfError::Map { map, source };
        self.forget_container(domain)?;
        self.containers.update(&id.0, &domain.to_ne_bytes(), MapFlags::ANY).map_err(failed("containers"))
    }

    /// Removes a container. Its remaining tasks stay in its domain.
    pub fn remove_container(&self, id: ContainerId) -> Result<(), BpfError> {
        match self.containers.delete(&id.0) {
            Err(source) if source.kind() != libbpf_rs::ErrorKind::NotFound => {
                Err(BpfError::Map { map: "containers", source })
            }
            _ => Ok(()),
        }
    }

    /// Puts tasks of known containers into their container's domain, if they are in no domain yet or in
    /// [`UNIDENTIFIED_DOMAIN`].
    pub fn label_running(&self) -> Result<Labelled, BpfError> {
        self.label_all(LABEL)
    }

    /// Does what [`label_running`](Self::label_running) does, and moves tasks that have been in an
    /// unidentified container for 10 s to the host's rules. Call it only once all containers to be named have
    /// been added.
    pub fn release_unidentified(&self) -> Result<Labelled, BpfError> {
        self.label_all(RELEASE)
    }

    fn label_all(&self, iterator: &str) -> Result<Labelled, BpfError> {
        let which = position(iterator);
        let mut all = Labelled::default();
        for _ in 0..LABEL_PASSES {
            let mut pass = Labelled::default();
            self.iterate(which, |bytes| {
                let task: labelled = contract::read(bytes)?;
                pass.new += usize::from(task.is_new != 0);
                pass.domains.insert(task.domain);
                Some(size_of::<labelled>())
            })?;
            all.new += pass.new;
            all.domains = pass.domains;
            if pass.new == 0 {
                break;
            }
        }
        if all.new > 0 {
            self.note_receivers()?;
        }
        if !all.domains.contains(&UNIDENTIFIED_DOMAIN) {
            // What is noted there was about containers that are gone or named.
            self.forget_container(UNIDENTIFIED_DOMAIN)?;
        }
        Ok(all)
    }

    /// Goes through every descriptor and mapping of every task, and passes those that the live rules would
    /// refuse to `each`, as the event of the refused access. Handles that are obtained meanwhile are decided
    /// on where they are obtained. But a task that forks meanwhile can pass its handles to a child that is
    /// not looked at any more.
    pub fn preexisting(&self, mut each: impl FnMut(Event)) -> Result<(), BpfError> {
        self.note_receivers()?;
        (0..HELD).try_for_each(|which| {
            self.iterate(which, |bytes| {
                let (event, length) = Event::decode_first(bytes)?;
                each(event);
                Some(length)
            })
        })
    }
}
