//! What the agent's parts ask of the kernel side when rules or containers change; tests have another.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use armor_bpf::{BpfError, ContainerId, Enforcer, Generation, Labelled};

/// The kernel side.
pub trait Kernel {
    /// The live generation, 0 if none.
    fn generation(&self) -> u32;
    /// Makes a generation live as a whole.
    ///
    /// # Errors
    /// If the kernel does not take it; the one before is live then.
    fn swap(&mut self, generation: &Generation<'_>) -> Result<(), BpfError>;
    /// The containers that it knows, with their domains; none if it does not say.
    fn containers(&self) -> BTreeMap<ContainerId, u32>;
    /// Puts what is started in a container from here on into a domain.
    ///
    /// # Errors
    /// [`BpfError`].
    fn add_container(&mut self, id: ContainerId, domain: u32) -> Result<(), BpfError>;
    /// Forgets a container.
    ///
    /// # Errors
    /// [`BpfError`].
    fn remove_container(&mut self, id: ContainerId) -> Result<(), BpfError>;
    /// Puts what runs in known containers already into their domains, and goes through all tasks for that.
    ///
    /// # Errors
    /// [`BpfError`].
    fn label_running(&mut self) -> Result<Labelled, BpfError>;
    /// The same; containers that are not known for 10 s come under the host's rules.
    ///
    /// # Errors
    /// [`BpfError`].
    fn release_unidentified(&mut self) -> Result<Labelled, BpfError>;
    /// How often a container was entered that is not known.
    ///
    /// # Errors
    /// [`BpfError`].
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
