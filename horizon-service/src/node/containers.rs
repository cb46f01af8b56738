//! Keeps the node's containers, each with the number of its domain.
//!
//! Invariants:
//! - A container keeps its number for as long as it is known, whatever policies select it and whether it
//!   runs, because labels in the kernel hold the number.
//! - A number is reused only after its container is gone and a pass over all tasks found none with it.
//! - Every known container has a number, even if no policy selects it, so that none is under the host's
//!   policies.
//! - A container that is entered before it is known is an unidentified container, under all policies for
//!   containers. It stays so until it is known, or until the runtime has listed its containers for 10 s
//!   without it.
//! - Known containers are stored, so that after a restart or a reboot they are under their policies before
//!   the runtime answers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use armor_bpf::{BpfError, ContainerId, HOST_DOMAIN, UNIDENTIFIED_DOMAIN};

use crate::kernel::port::Kernel;
use crate::workloads::runtime::Workloads;
use crate::workloads::workload::Workload;

/// Numbers for containers' domains. Above them are the domain of unidentified containers and that of the
/// enforcement proof.
const NUMBERS: Range<u32> = HOST_DOMAIN + 1..UNIDENTIFIED_DOMAIN;

/// `Containers` holds the known containers and their domain numbers.
#[derive(Debug, Default)]
pub struct Containers {
    known: BTreeMap<ContainerId, (u32, Arc<Workload>)>,
    /// The containers registered with the kernel.
    registered: BTreeMap<ContainerId, u32>,
    /// Numbers of containers that are gone but may still have tasks.
    retired: BTreeSet<u32>,
    /// True if the runtime has listed its containers.
    is_listed: bool,
    /// The kernel's count of unidentified containers when none was left.
    unidentified: u64,
}

impl Containers {
    /// Restores the containers that an earlier agent knew, with the numbers from the kernel or, after a
    /// reboot, from the state.
    pub fn restored(kernel: Option<&impl Kernel>, remembered: Vec<(u32, Arc<Workload>)>) -> Self {
        let registered = kernel.map(Kernel::containers).unwrap_or_default();
        let mut taken: BTreeSet<u32> = registered.values().copied().collect();
        let mut known = BTreeMap::new();
        for (number, workload) in remembered {
            let Some(id) = ContainerId::parse(&workload.id) else { continue };
            let number = match registered.get(&id) {
                Some(number) => *number,
                None if NUMBERS.contains(&number) && taken.insert(number) => number,
                None => continue,
            };
            known.insert(id, (number, workload));
        }
        Self { known, registered, ..Self::default() }
    }

    /// Applies the runtime's list of containers. Returns whether any is new, gone or changed.
    pub fn update(&mut self, workloads: &Workloads) -> bool {
        self.is_listed = true;
        let present: BTreeMap<ContainerId, &Arc<Workload>> = workloads
            .values()
            .filter_map(|workload| Some((ContainerId::parse(&workload.id)?, workload)))
            .collect();
        let before = self.known.len();
        self.known.retain(|id, _| present.contains_key(id));
        let mut changed = self.known.len() != before;
        for (id, workload) in present {
            match self.known.get_mut(&id) {
                Some((_, known)) if known == workload => {}
                Some((_, known)) => {
                    changed = true;
                    known.clone_from(workload);
                }
                None => match self.number_for(&id) {
                    Some(number) => {
                        changed = true;
                        self.known.insert(id, (number, Arc::clone(workload)));
                    }
                    None => tracing::error!(
                        container = workload.name,
                        "no domain is free for it: the host's policies hold in it, and no others"
                    ),
                },
            }
        }
        changed
    }

    fn number_for(&self, id: &ContainerId) -> Option<u32> {
        let number = self.registered.get(id).copied();
        number.or_else(|| {
            let known = self.known.values().map(|(number, _)| number);
            let taken: BTreeSet<u32> =
                known.chain(self.registered.values()).chain(&self.retired).copied().collect();
            let mut numbers = NUMBERS;
            numbers.find(|number| !taken.contains(number))
        })
    }

    /// Returns whether there is a runtime that lists containers. Without one, no unidentified container would
    /// ever be identified.
    pub fn are_named(&self) -> bool {
        self.is_listed || !self.known.is_empty()
    }

    /// Returns all containers with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<Workload>)> + Clone {
        self.known.values().map(|(number, workload)| (*number, workload))
    }

    /// Returns the containers for the state directory.
    pub fn to_remember(&self) -> Vec<(u32, Arc<Workload>)> {
        self.iter().map(|(number, workload)| (number, Arc::clone(workload))).collect()
    }

    /// Registers the containers with the kernel and makes it label the tasks that already run in them.
    /// Returns the number of newly labelled tasks. Call it after the swap to the generation with their rules.
    ///
    /// # Errors
    /// Fails with [`BpfError`]; repeat the call then.
    pub fn apply(&mut self, kernel: &mut impl Kernel) -> Result<usize, BpfError> {
        if self.is_listed {
            let gone = self.registered.iter().filter(|(id, _)| !self.known.contains_key(id));
            for (id, number) in gone.map(|(id, number)| (*id, *number)).collect::<Vec<_>>() {
                kernel.remove_container(id)?;
                self.registered.remove(&id);
                self.retired.insert(number);
            }
        }
        for (id, (number, _)) in &self.known {
            if self.registered.get(id) != Some(number) {
                kernel.add_container(*id, *number)?;
                self.registered.insert(*id, *number);
            }
        }
        let found = kernel.label_running()?;
        self.retired.retain(|number| found.domains.contains(number));
        Ok(found.new)
    }

    /// Puts the tasks of unidentified containers into their containers' domains, if any were counted since
    /// the last call that found none left. If the runtime `answers`, also releases containers that it has not
    /// listed for long. Returns the number of newly labelled tasks.
    ///
    /// # Errors
    /// Fails with [`BpfError`]; repeat the call then.
    pub fn look_for_unidentified(
        &mut self,
        kernel: &mut impl Kernel,
        answers: bool,
    ) -> Result<usize, BpfError> {
        let unidentified = kernel.counters()?.unidentified;
        if unidentified == self.unidentified {
            return Ok(0);
        }
        let found = if answers && self.is_listed {
            kernel.release_unidentified()?
        } else {
            kernel.label_running()?
        };
        if !found.domains.contains(&UNIDENTIFIED_DOMAIN) {
            self.unidentified = unidentified;
        }
        Ok(found.new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use armor_bpf::{Counters, Event, Generation, Labelled, Leftover};

    #[derive(Default)]
    struct FakeKernel {
        containers: BTreeMap<ContainerId, u32>,
        tasks: BTreeSet<u32>,
        unidentified: u64,
        /// Number of passes that only label, and of those that also release unidentified containers.
        passes: (u32, u32),
    }

    impl Kernel for FakeKernel {
        fn generation(&self) -> u32 {
            1
        }
        fn swap(&mut self, _: &Generation<'_>) -> Result<(), BpfError> {
            Ok(())
        }
        fn containers(&self) -> BTreeMap<ContainerId, u32> {
            self.containers.clone()
        }
        fn add_container(&mut self, id: ContainerId, domain: u32) -> Result<(), BpfError> {
            self.containers.insert(id, domain);
            Ok(())
        }
        fn remove_container(&mut self, id: ContainerId) -> Result<(), BpfError> {
            self.containers.remove(&id);
            Ok(())
        }
        fn label_running(&mut self) -> Result<Labelled, BpfError> {
            self.passes.0 += 1;
            Ok(Labelled { new: 0, domains: self.tasks.clone() })
        }
        fn release_unidentified(&mut self) -> Result<Labelled, BpfError> {
            self.passes.1 += 1;
            Ok(Labelled { new: 0, domains: self.tasks.clone() })
        }
        fn counters(&self) -> Result<Counters, BpfError> {
            Ok(Counters { unidentified: self.unidentified, ..Counters::default() })
        }
        fn settle(&self) -> Result<(), BpfError> {
            Ok(())
        }
        fn leftovers(&self) -> Result<Vec<Leftover>, BpfError> {
            Ok(Vec::new())
        }
        fn preexisting(&self, _: &mut dyn FnMut(Event)) -> Result<(), BpfError> {
            Ok(())
        }
    }

    fn workloads(names: &[&str]) -> Workloads {
        let workload = |name: &&str| {
            let id = name.repeat(64);
            (id.clone(), Arc::new(Workload { id, name: (*name).to_owned(), ..Workload::default() }))
        };
        names.iter().map(workload).collect()
    }

    fn numbers(containers: &Containers) -> Vec<(String, u32)> {
        containers.iter().map(|(number, workload)| (workload.name.clone(), number)).collect()
    }

    fn expect(names: &[(&str, u32)]) -> Vec<(String, u32)> {
        names.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
    }

    #[test]
    fn a_number_is_given_again_only_after_no_task_has_it() {
        let mut kernel = FakeKernel::default();
        let mut containers = Containers::restored(Some(&kernel), Vec::new());
        assert!(containers.update(&workloads(&["a", "b"])) && !containers.update(&workloads(&["a", "b"])));
        containers.apply(&mut kernel).unwrap();
        assert_eq!(numbers(&containers), expect(&[("a", 1), ("b", 2)]));
        assert_eq!(kernel.containers.len(), 2);

        kernel.tasks = [1, 2].into();
        assert!(containers.update(&workloads(&["b", "c"])));
        assert_eq!(numbers(&containers), expect(&[("b", 2), ("c", 3)]), "the kernel still has a");
        containers.apply(&mut kernel).unwrap();
        containers.update(&workloads(&["b", "c", "d"]));
        assert_eq!(numbers(&containers), expect(&[("b", 2), ("c", 3), ("d", 4)]), "a task of a is left");
        kernel.tasks = [2, 3].into();
        containers.apply(&mut kernel).unwrap();
        containers.update(&workloads(&["b", "c", "d", "e"]));
        assert_eq!(numbers(&containers), expect(&[("b", 2), ("c", 3), ("d", 4), ("e", 1)]));
    }

    #[test]
    fn unidentified_containers_are_released_only_while_the_runtime_answers() {
        let tasks = [UNIDENTIFIED_DOMAIN].into();
        let mut kernel = FakeKernel { unidentified: 1, tasks, ..FakeKernel::default() };
        let mut containers = Containers::restored(Some(&kernel), Vec::new());
        assert!(!containers.are_named());
        let look = |containers: &mut Containers, kernel: &mut FakeKernel, answers| {
            kernel.passes = (0, 0);
            containers.look_for_unidentified(kernel, answers).unwrap();
            kernel.passes
        };
        assert_eq!(look(&mut containers, &mut kernel, true), (1, 0), "it has not said which there are");
        containers.update(&workloads(&[]));
        assert!(containers.are_named());
        assert_eq!(look(&mut containers, &mut kernel, false), (1, 0));
        assert_eq!(look(&mut containers, &mut kernel, true), (0, 1));
        kernel.tasks.clear();
        assert_eq!(look(&mut containers, &mut kernel, true), (0, 1));
        assert_eq!(look(&mut containers, &mut kernel, true), (0, 0), "none left");
        kernel.unidentified = 2;
        assert_eq!(look(&mut containers, &mut kernel, true), (0, 1), "another one");
    }

    #[test]
    fn the_next_agent_keeps_the_numbers_of_kernel_or_state() {
        let mut kernel = FakeKernel::default();
        let mut containers = Containers::restored(Some(&kernel), Vec::new());
        containers.update(&workloads(&["a", "b"]));
        containers.apply(&mut kernel).unwrap();
        let remembered = containers.to_remember();
        kernel.tasks = [1, 2].into();

        let mut next = Containers::restored(Some(&kernel), remembered[..1].to_vec());
        next.apply(&mut kernel).unwrap();
        assert_eq!(kernel.containers.len(), 2, "nobody said that b is gone");
        next.update(&workloads(&["a", "b", "c"]));
        assert_eq!(numbers(&next), expect(&[("a", 1), ("b", 2), ("c", 3)]));
        next.update(&workloads(&["a", "d"]));
        next.apply(&mut kernel).unwrap();
        assert_eq!(kernel.containers.values().copied().collect::<Vec<_>>(), [1, 3]);

        let rebooted = Containers::restored(Some(&FakeKernel::default()), remembered);
        assert_eq!(numbers(&rebooted), expect(&[("a", 1), ("b", 2)]));
        let nonsense = [(0, workloads(&["a"])), (9999, workloads(&["b"]))];
        let nonsense = nonsense
            .into_iter()
            .flat_map(|(n, all)| all.into_values().map(move |workload| (n, workload)))
            .collect();
        assert_eq!(numbers(&Containers::restored(None::<&FakeKernel>, nonsense)), expect(&[]));
    }
}
