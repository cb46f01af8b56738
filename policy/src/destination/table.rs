//! Defines the table that decides, for each subject class, with whom sockets communicate.
//!
//! An address leads through a trie to a list, which divides transports and their ports into ranges. Each range has the
//! number of a cell, and a keyed table has the decision on each cell.

use super::model::Transport;
use super::trie::{ENTRIES, Entry, find};
use crate::decision::Decision;
use crate::keyed::KeyedTable;
use std::net::IpAddr;

/// A `DestinationTable` decides with whom sockets communicate in one direction. Without rules it is empty, and decides
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationTable {
    /// The nodes of both tries. The values of their entries are indices of `lists`.
    pub nodes: Vec<[Entry; ENTRIES]>,
    /// Where the trie of IPv4 addresses begins.
    pub ipv4: Entry,
    /// Where the trie of IPv6 addresses begins.
    pub ipv6: Entry,
    /// Index of the list that decides where the peer is not known yet, on what may communicate with somebody: the least
    /// strict of all addresses. Of ingress alone.
    pub anybody: u32,
    /// Lists of ranges: the first key of each ([`DestinationTable::key`]), in rising order from 0, and its cell.
    pub lists: Vec<Vec<(u32, u32)>>,
    /// The decisions on cells. What is no cell stands for everybody: the decision is the strictest of all.
    pub cells: KeyedTable,
}

impl Default for DestinationTable {
    fn default() -> Self {
        let nobody = Entry::Value(0);
        Self {
            nodes: Vec::new(),
            ipv4: nobody,
            ipv6: nobody,
            anybody: 0,
            lists: Vec::new(),
            cells: KeyedTable::default(),
        }
    }
}

impl DestinationTable {
    /// Returns the key of a transport and a port, which is 0 if there is none.
    #[must_use]
    pub const fn key(transport: Transport, port: u16) -> u32 {
        (transport as u32) << 16 | port as u32
    }

    /// Returns the decision on an address and a key for a subject class. Without rules everything is permitted
    /// silently.
    #[must_use]
    pub fn decision(&self, subject: u16, address: IpAddr, key: u32) -> Decision {
        let list = match address.to_canonical() {
            IpAddr::V4(v4) => find(&self.nodes, self.ipv4, u128::from(v4.to_bits()) << 96),
            IpAddr::V6(v6) => find(&self.nodes, self.ipv6, v6.to_bits()),
        };
        self.decision_of_list(subject, list, key)
    }

    fn decision_of_list(&self, subject: u16, list: u32, key: u32) -> Decision {
        let Some(list) = self.lists.get(list as usize) else { return Decision::ALLOW };
        let behind = list.partition_point(|(first, _)| *first <= key);
        let cell = behind.checked_sub(1).map_or(usize::MAX, |at| list[at].1 as usize);
        self.cells.decision(subject, cell)
    }

    /// Returns the decision on a key for a subject class where the peer is not known yet: the least strict one of all
    /// addresses. Without rules everything is permitted silently.
    #[must_use]
    pub fn decision_on_anybody(&self, subject: u16, key: u32) -> Decision {
        self.decision_of_list(subject, self.anybody, key)
    }

    /// Returns whether ingress depends on the peer's address.
    #[must_use]
    pub fn depends_on_peer(&self) -> bool {
        self.ipv4 != self.ipv6 || matches!(self.ipv4, Entry::Node(_))
    }

    /// Returns the decision for a subject class on what may communicate with everybody.
    #[must_use]
    pub fn decision_on_everybody(&self, subject: u16) -> Decision {
        self.cells.decision(subject, usize::MAX)
    }
}
