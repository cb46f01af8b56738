//! Attaches the programs of hooks that only some kinds of rules need, and only while rules in force need them: a
//! node without such rules pays nothing.
//!
//! Invariant: a program is attached before the first generation that needs it is live, and detached only after the
//! first that does not.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use armor_policy::Domain;
use libbpf_rs::libbpf_sys;

use super::Enforcer;
use crate::error::{BpfError, pin_error};
use crate::image::Generation;
use crate::raw;

/// A `Needed` says whether a domain's rules need a program.
type Needed = fn(&Domain) -> bool;

/// The programs that are attached on demand.
const PROGRAMS: [(&str, Needed); 8] = [
    ("capable", |domain| !domain.capability.rows.is_empty()),
    ("socket_create", has_network),
    ("socket_connect", has_network),
    ("socket_bind", has_network),
    ("socket_listen", has_network),
    ("socket_accept", has_network),
    ("socket_sendmsg", has_network),
    ("socket_receive", has_network),
];

fn has_network(domain: &Domain) -> bool {
    !domain.network.rows.is_empty()
}

/// Returns whether a program is attached on demand.
pub(crate) fn is_on_demand(program: &OsStr) -> bool {
    PROGRAMS.iter().any(|(name, _)| program == *name)
}

/// An `OnDemand` is a loaded program that is attached on demand.
pub(super) struct OnDemand {
    name: &'static str,
    needed: Needed,
    program: OwnedFd,
    /// The link's pin, if the programs are pinned.
    pin: Option<PathBuf>,
    /// The link, if the programs are not pinned and it is attached.
    link: Option<OwnedFd>,
}

impl OnDemand {
    /// Returns the programs. `open` opens one by its name, and `pins` is the directory of the version's pins.
    pub(super) fn all(
        pins: Option<&Path>,
        open: impl Fn(&'static str) -> Result<OwnedFd, BpfError>,
    ) -> Result<Vec<Self>, BpfError> {
        let of = |(name, needed): (&'static str, Needed)| {
            let pin = pins.map(|pins| pins.join("links").join(name));
            Ok(Self { name, needed, program: open(name)?, pin, link: None })
        };
        PROGRAMS.into_iter().map(of).collect()
    }

    /// Opens the pinned programs of a version.
    pub(super) fn pinned(pins: &Path) -> Result<Vec<Self>, BpfError> {
        Self::all(Some(pins), |name| {
            let path = pins.join("programs").join(name);
            raw::pinned_program(&path).map_err(|source| pin_error(&path, source))
        })
    }

    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    fn is_attached(&self) -> bool {
        self.link.is_some() || self.pin.as_ref().is_some_and(|pin| pin.exists())
    }

    /// Attaches the program and returns its link's id.
    fn attach(&mut self) -> Result<u32, BpfError> {
        let failed =
            |source: io::Error| BpfError::Attach { program: self.name.to_owned(), source: source.into() };
        let link = raw::link_create(self.program.as_fd(), libbpf_sys::BPF_LSM_MAC).map_err(failed)?;
        let id = raw::link_id(link.as_fd()).map_err(failed)?;
        if let Some(pin) = &self.pin {
            raw::pin(link.as_fd(), pin).map_err(|source| pin_error(pin, source))?;
        }
        self.link = Some(link).filter(|_| self.pin.is_none());
        Ok(id)
    }

    fn detach(&mut self) -> Result<(), BpfError> {
        self.link = None;
        match &self.pin {
            Some(pin) => fs::remove_file(pin).map_err(|source| pin_error(pin, source)),
            None => Ok(()),
        }
    }
}

impl Enforcer {
    /// Attaches what a generation needs.
    pub(super) fn attach_for(&mut self, generation: &Generation<'_>) -> Result<(), BpfError> {
        for program in &mut self.on_demand {
            if !program.is_attached() && is_needed(program, generation) {
                let id = program.attach()?;
                self.guarded.add_links([id].into_iter())?;
            }
        }
        Ok(())
    }

    /// Detaches what the live generation does not need. What cannot be detached costs time alone, and is tried again
    /// at the next swap.
    pub(super) fn detach_beyond(&mut self, live: &Generation<'_>) {
        for program in self.on_demand.iter_mut().filter(|of| of.is_attached() && !is_needed(of, live)) {
            if let Err(error) = program.detach() {
                tracing::warn!("program {} stays attached though no rules need it: {error}", program.name);
            }
        }
    }
}

fn is_needed(program: &OnDemand, generation: &Generation<'_>) -> bool {
    generation.domains.iter().any(|domain| (program.needed)(domain.tables))
}
