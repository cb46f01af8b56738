//! Defines the compiled form of one domain: the tables that the kernel side reads, and the descriptions of
//! rules for alerts.
//!
//! Each program's path leads to exactly one subject class. The tables of each kind of rule decide by it.

use crate::automaton::Automaton;
use crate::decision::{Decision, RuleInfo};
use crate::destination::DestinationTable;
use crate::device::DeviceTable;
use crate::dns::NameTable;
use crate::keyed::KeyedTable;
use crate::path::PathTables;
use crate::syscall::SyscallTable;

/// The subject class of a program that no `fromSource` names.
pub const SUBJECT_NONE: u16 = 0;

/// A `Domain` holds everything that the kernel side needs to know about one domain, and `rules` for alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The automaton from a program's path to its subject class.
    pub subjects: Automaton,
    /// Number of subject classes, [`SUBJECT_NONE`] included.
    pub subject_count: u32,
    /// What is added to the class of a program that a terminal controls: the number of classes of others, or 0 if that makes
    /// no difference.
    pub terminals: u32,
    /// The tables that decide accesses to paths.
    pub path: PathTables,
    /// The table that decides uses of capabilities, by [their numbers](crate::capability::Capability::number).
    pub capability: KeyedTable,
    /// The table that decides uses of sockets, by [their kinds](crate::network::SocketKind).
    pub network: KeyedTable,
    /// The table that decides to whom sockets connect and send.
    pub egress: DestinationTable,
    /// The table that decides on which ports sockets take connections and datagrams.
    pub ingress: DestinationTable,
    /// The table that decides for which names a resolver is asked.
    pub dns: NameTable,
    /// The table of [presets](crate::preset::Preset), by their numbers.
    pub presets: KeyedTable,
    /// The table that says which system calls are reported.
    pub syscalls: SyscallTable,
    /// The table that decides on devices. The agent reads it, not the kernel side.
    pub devices: DeviceTable,
    /// The description of each rule for alerts. The first are reserved:
    /// [`Decision::RULE_DEFAULT`](crate::decision::Decision::RULE_DEFAULT) and
    /// [`Decision::RULE_UNRESOLVED`](crate::decision::Decision::RULE_UNRESOLVED). After the rules come the
    /// postures of further bundles.
    pub rules: Vec<RuleInfo>,
}

impl Domain {
    /// Returns the decisions of all tables that the kernel side reads.
    pub fn decisions(&self) -> impl Iterator<Item = Decision> {
        let of_paths = self.path.vectors.iter().flat_map(|vector| vector.0);
        let arguments = &self.path.arguments.lists;
        let Self { capability, network, egress, ingress, dns, presets, syscalls, .. } = self;
        let cells = [&egress.cells, &ingress.cells, &dns.cells, &syscalls.cells];
        let keyed = [arguments, capability, network, presets, &syscalls.calls].into_iter().chain(cells);
        of_paths.chain(keyed.flat_map(KeyedTable::decisions))
    }

    /// Returns the decisions of all tables that the kernel side reads, to be changed.
    pub fn decisions_mut(&mut self) -> impl Iterator<Item = &mut Decision> {
        let of_paths = self.path.vectors.iter_mut().flat_map(|vector| &mut vector.0);
        let arguments = &mut self.path.arguments.lists;
        let Self { capability, network, egress, ingress, dns, presets, syscalls, .. } = self;
        let cells = [&mut egress.cells, &mut ingress.cells, &mut dns.cells, &mut syscalls.cells];
        let keyed = [arguments, capability, network, presets, &mut syscalls.calls].into_iter().chain(cells);
        of_paths.chain(keyed.flat_map(KeyedTable::decisions_mut))
    }
}
