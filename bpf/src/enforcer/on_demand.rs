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

use armor_policy::preset::Preset;
use armor_policy::{Domain, escaped_path};
use libbpf_rs::libbpf_sys;

use super::{Enforcer, syscalls};
use crate::error::{BpfError, pin_error};
use crate::image::Generation;
use crate::iterator::{RECEIVERS, position};
use crate::pins::{self, VERSION};
use crate::raw;
use crate::root_cgroup;

/// A `Needed` says whether a domain's rules need a program.
type Needed = fn(&Domain) -> bool;

/// The programs that see the packets of all sockets, and which. They have no hook, but are attached to the root control group.
const PACKET_PROGRAMS: [(&str, libbpf_sys::bpf_attach_type); 3] = [
    ("dns_egress", libbpf_sys::BPF_CGROUP_INET_EGRESS),
    ("peer_egress", libbpf_sys::BPF_CGROUP_INET_EGRESS),
    (PEERS, libbpf_sys::BPF_CGROUP_INET_INGRESS),
];
/// The program that decides on who comes to a socket.
const PEERS: &str = "peer_ingress";
/// What is said if one of them may not be attached.
const NEEDS_NET_ADMIN: &str = "rules for names of DNS, and for the addresses of ingress, need the capability NET_ADMIN: give it to \
                               the agent, by this version's systemd unit (scripts/install) or a privileged container";
/// The programs that are attached on demand.
const PROGRAMS: [(&str, Needed); 24] = [
    ("capable", |domain| !domain.capability.rows.is_empty()),
    ("socket_create", has_sockets),
    ("socket_connect", |domain| has_protocols(domain) || has_egress(domain) || has_names(domain)),
    ("socket_bind", |domain| has_protocols(domain) || has_ingress(domain) || has_names(domain)),
    ("socket_listen", |domain| has_protocols(domain) || has_ingress(domain)),
    ("socket_accept", |domain| has_protocols(domain) || has_ingress(domain)),
    ("socket_sendmsg", |domain| {
        has_protocols(domain) || has_egress(domain) || has_names(domain) || has_peers(domain)
    }),
    ("socket_graft", has_peers),
    ("socket_recvmsg", has_peers),
    ("socket_setsockopt", |domain| has_egress(domain) || has_ingress(domain)),
    ("sctp_bind_connect", has_sockets),
    ("socket_receive", has_sockets),
    ("dns_egress", has_names),
    ("peer_egress", has_peers),
    (PEERS, has_peers),
    ("preset_exec", |domain| {
        decides(domain, &[Preset::FilelessExec, Preset::AnonymousMapExec, Preset::Exec])
    }),
    ("preset_map", |domain| decides(domain, &[Preset::FilelessExec, Preset::AnonymousMapExec])),
    ("preset_protect", |domain| decides(domain, &[Preset::FilelessExec, Preset::AnonymousMapExec])),
    ("preset_open", |domain| decides(domain, &[Preset::ProtectEnv, Preset::ProtectProc])),
    ("preset_receive", |domain| decides(domain, &[Preset::ProtectEnv, Preset::ProtectProc])),
    ("preset_follow_link", |domain| decides(domain, &[Preset::ProtectProc])),
    ("preset_readlink", |domain| decides(domain, &[Preset::ProtectProc])),
    ("arguments_decide", has_lists),
    ("arguments_note", has_lists),
];

fn has_lists(domain: &Domain) -> bool {
    !domain.path.arguments.lists.rows.is_empty()
}

fn decides(domain: &Domain, presets: &[Preset]) -> bool {
    presets.iter().any(|preset| domain.presets.decides(*preset as usize))
}

fn has_protocols(domain: &Domain) -> bool {
    !domain.network.rows.is_empty()
}

fn has_egress(domain: &Domain) -> bool {
    !domain.egress.lists.is_empty()
}

fn has_ingress(domain: &Domain) -> bool {
    !domain.ingress.lists.is_empty()
}

fn has_peers(domain: &Domain) -> bool {
    domain.ingress.depends_on_peer()
}

fn has_names(domain: &Domain) -> bool {
    !domain.dns.cells.rows.is_empty()
}

fn has_sockets(domain: &Domain) -> bool {
    has_protocols(domain) || has_egress(domain) || has_ingress(domain)
}

/// Returns whether a program is attached on demand.
pub(crate) fn is_on_demand(program: &OsStr) -> bool {
    program == syscalls::PROGRAM || PROGRAMS.iter().any(|(name, _)| program == *name)
}

/// An `OnDemand` is a loaded program that is attached on demand.
pub(super) struct OnDemand {
    name: &'static str,
    needed: Needed,
    program: OwnedFd,
    /// The link's pin, if the programs are pinned.
    pin: Option<PathBuf>,
    /// The link, if it is attached. It is kept beside its pin: enforcement goes on while this process runs, whatever
    /// becomes of the pin.
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

    /// Opens the pinned programs of a version, and those of their links that are pinned.
    pub(super) fn pinned(pins: &Path) -> Result<Vec<Self>, BpfError> {
        let open = |path: &Path| raw::pinned(path).map_err(|source| pin_error(path, source));
        let mut all = Self::all(Some(pins), |name| open(&pins.join("programs").join(name)))?;
        for program in &mut all {
            program.link = program.pin.as_deref().filter(|pin| pin.exists()).map(open).transpose()?;
        }
        Ok(all)
    }

    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    fn new_link(&self) -> io::Result<OwnedFd> {
        let program = self.program.as_fd();
        let Some((_, packets)) = PACKET_PROGRAMS.iter().find(|(name, _)| *name == self.name) else {
            return raw::link_create(program, None, libbpf_sys::BPF_LSM_MAC);
        };
        let root = root_cgroup::open()?;
        raw::link_create(program, Some(root.as_fd()), *packets).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => io::Error::new(error.kind(), NEEDS_NET_ADMIN),
            _ => error,
        })
    }

    /// Attaches the program, and returns its link's id; `None` if it is attached already.
    fn attach(&mut self) -> Result<Option<u32>, BpfError> {
        if self.link.is_some() && self.pin.as_ref().is_none_or(|pin| pin.exists()) {
            return Ok(None);
        }
        let failed =
            |source: io::Error| BpfError::Attach { program: self.name.to_owned(), source: source.into() };
        let link = match self.link.take() {
            Some(link) => link,
            None => self.new_link().map_err(failed)?,
        };
        let id = raw::link_id(link.as_fd()).map_err(failed);
        let link = self.link.insert(link);
        if let Some(pin) = &self.pin
            && let Err(error) = raw::pin(link.as_fd(), pin)
        {
            tracing::error!("{}: {error}: {} ends with the agent", escaped_path(pin), self.name);
        }
        id.map(Some)
    }

    fn detach(&mut self) -> Result<(), BpfError> {
        if let Some(pin) = self.pin.as_deref().filter(|pin| pin.exists()) {
            fs::remove_file(pin).map_err(|source| pin_error(pin, source))?;
        }
        self.link = None;
        Ok(())
    }
}

impl Enforcer {
    /// Attaches what a generation needs.
    pub(super) fn attach_for(&mut self, generation: &Generation<'_>) -> Result<(), BpfError> {
        let mut attached = Vec::new();
        let outcome = self.attach_needed(generation, &mut attached);
        // What is attached stays so, even if the rest fails, and is as protected as all else.
        if !attached.is_empty() {
            self.guarded.add_links(attached.into_iter())?;
            self.seal_pins()?;
        }
        outcome
    }

    fn attach_needed(&mut self, generation: &Generation<'_>, ids: &mut Vec<u32>) -> Result<(), BpfError> {
        for program in self.on_demand.iter_mut().filter(|program| is_needed(program, generation)) {
            ids.extend(program.attach()?);
        }
        ids.extend(self.syscalls.attach_for(generation));
        Ok(())
    }

    /// Notes who takes what comes to the sockets that tasks had before their rules, if live rules depend on the peer.
    pub(super) fn note_receivers(&self) -> Result<(), BpfError> {
        let decides = |program: &OnDemand| program.name == PEERS && program.link.is_some();
        if !self.on_demand.iter().any(decides) {
            return Ok(());
        }
        self.iterate(position(RECEIVERS), |_| None)
    }

    /// Detaches what the live generation does not need. What cannot be detached costs time alone, and is tried again
    /// at the next swap.
    pub(super) fn detach_beyond(&mut self, live: &Generation<'_>) {
        let is_unneeded = |program: &&mut OnDemand| program.link.is_some() && !is_needed(program, live);
        let unneeded = self.on_demand.iter_mut().filter(is_unneeded);
        let mut detached: Vec<Result<(), BpfError>> = unneeded.map(OnDemand::detach).collect();
        if self.syscalls.detach_beyond(live) {
            detached.push(Ok(()));
        }
        if detached.is_empty() {
            return;
        }
        for error in detached.into_iter().chain([self.seal_pins()]).filter_map(Result::err) {
            tracing::warn!("what no rules need is not wholly detached: {error}");
        }
    }

    fn seal_pins(&self) -> Result<(), BpfError> {
        self.directory.as_deref().map_or(Ok(()), |directory| pins::seal(&directory.join(VERSION)))
    }
}

fn is_needed(program: &OnDemand, generation: &Generation<'_>) -> bool {
    generation.domains.iter().any(|domain| (program.needed)(domain.tables))
}
