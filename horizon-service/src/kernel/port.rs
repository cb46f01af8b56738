//! Defines what the agent needs of the kernel side when rules or containers change; tests have their own
//! implementation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use armor_bpf::{BpfError, ContainerId, Enforcer, Generation, Labelled};

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
    /// Returns how often an unidentified container was entered.
    ///
    /// # Errors
    /// Fails if the counters cannot be read.
    fn unidentified(&self) -> Result<u64, BpfError>;
}

impl Kernel for Rc<RefCell<Enforcer>> {
    fn generation(&self) -> u32 {
        self.borrow().generation()
    }

    fn swap(&mut self, generation: &Generation<'_>) -> Result<(), BpfError> {
        self.borrow_mut().swap(generation)
    }

    fn containers(&self) -> BTreeMap<ContainerId, u32> {
        self.borrow().containers().unwrap_or_else(|error| {
            tracing::error!("{error}: containers are told to the kernel anew");
            BTreeMap::new()
        })
    }

    fn add_container(&mut self, id: ContainerId, domain: u32) -> Result<(), BpfError> {
        self.borrow().add_container(id, domain)
    }

    fn remove_container(&mut self, id: ContainerId) -> Result<(), BpfError> {
        self.borrow().remove_container(id)
    }

    fn label_running(&mut self) -> Result<Labelled, BpfError> {
        self.borrow().label_running()
    }

    fn release_unidentified(&mut self) -> Result<Labelled, BpfError> {
        self.borrow().release_unidentified()
    }

    fn unidentified(&self) -> Result<u64, BpfError> {
        Ok(self.borrow().counters()?.unidentified)
    }
}
