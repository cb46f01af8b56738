//! Defines what the agent needs of the kernel side when rules or containers change and events come; tests have their own
//! implementation.

use std::collections::BTreeMap;

use armor_bpf::{BpfError, ContainerId, Counters, Enforcer, Event, Generation, Labelled, Leftover};

/// A `Kernel` is the kernel side.
pub trait Kernel {
    /// Returns the live generation, or 0 if there is none.
    fn generation(&self) -> u32;
    /// Makes a generation live as a whole.
    ///
    /// # Errors
    /// Fails if the kernel does not take the generation; the previous one stays live.
    fn swap(&mut self, generation: &Generation<'_>) -> Result<(), BpfError>;
    /// Returns the registered containers with their domains, or none if they cannot be read.
    fn containers(&self) -> BTreeMap<ContainerId, u32>;
    /// Puts programs that start in a container from now on into a domain.
    ///
    /// # Errors
    /// Fails if the kernel's map cannot be written.
    fn add_container(&mut self, id: ContainerId, domain: u32) -> Result<(), BpfError>;
    /// Unregisters a container.
    ///
    /// # Errors
    /// Fails if the kernel's map cannot be written.
    fn remove_container(&mut self, id: ContainerId) -> Result<(), BpfError>;
    /// Goes through all tasks and puts those that already run in registered containers into their domains.
    ///
    /// # Errors
    /// Fails if the tasks cannot be iterated over.
    fn label_running(&mut self) -> Result<Labelled, BpfError>;
    /// Like [`Self::label_running`], and moves containers unidentified for 10 s to the host's rules.
    ///
    /// # Errors
    /// Fails if the tasks cannot be iterated over.
    fn release_unidentified(&mut self) -> Result<Labelled, BpfError>;
    /// Returns the kernel's counters.
    ///
    /// # Errors
    /// Fails if the counters cannot be read.
    fn counters(&self) -> Result<Counters, BpfError>;
    /// Puts the undecided events into the ring buffer that are settled by now.
    ///
    /// # Errors
    /// Fails if the BPF program for that does not run.
    fn settle(&self) -> Result<(), BpfError>;
    /// Returns what BPF programs of other versions left after they ended.
    ///
    /// # Errors
    /// Fails if the pin directory cannot be read.
    fn leftovers(&self) -> Result<Vec<Leftover>, BpfError>;
    /// Calls `each` with every preexisting handle that the live generation refuses.
    ///
    /// # Errors
    /// Fails if the kernel does not list the handles.
    fn preexisting(&self, each: &mut dyn FnMut(Event)) -> Result<(), BpfError>;
}

impl Kernel for Enforcer {
    fn generation(&self) -> u32 {
        Self::generation(self)
    }

    fn swap(&mut self, generation: &Generation<'_>) -> Result<(), BpfError> {
        Self::swap(self, generation)
    }

    fn containers(&self) -> BTreeMap<ContainerId, u32> {
        Self::containers(self).unwrap_or_else(|error| {
            tracing::error!("{error}: containers are added to the kernel anew");
            BTreeMap::new()
        })
    }

    fn add_container(&mut self, id: ContainerId, domain: u32) -> Result<(), BpfError> {
        Self::add_container(self, id, domain)
    }

    fn remove_container(&mut self, id: ContainerId) -> Result<(), BpfError> {
        Self::remove_container(self, id)
    }

    fn label_running(&mut self) -> Result<Labelled, BpfError> {
        Self::label_running(self)
    }

    fn release_unidentified(&mut self) -> Result<Labelled, BpfError> {
        Self::release_unidentified(self)
    }

    fn counters(&self) -> Result<Counters, BpfError> {
        Self::counters(self)
    }

    fn settle(&self) -> Result<(), BpfError> {
        Self::settle(self)
    }

    fn leftovers(&self) -> Result<Vec<Leftover>, BpfError> {
        Self::leftovers(self)
    }

    fn preexisting(&self, each: &mut dyn FnMut(Event)) -> Result<(), BpfError> {
        Self::preexisting(self, each)
    }
}
