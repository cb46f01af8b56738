//! Defines what a rule for destinations says.

use ipnet::IpNet;

/// A `Direction` says which end began to communicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The workload's own end.
    Egress,
    /// The other end.
    Ingress,
}

/// A `Transport` is what carries data between two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transport {
    /// TCP, and MPTCP and SMC, which fall back to it.
    Tcp,
    /// UDP and UDP-Lite.
    Udp,
    /// SCTP.
    Sctp,
    /// DCCP.
    Dccp,
    /// ICMP and ICMPv6, which have no ports.
    Icmp,
    /// Any other, which no rule can name.
    Other,
}

impl Transport {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Tcp, Self::Udp, Self::Sctp, Self::Dccp, Self::Icmp, Self::Other];

    /// The names as policies write them.
    pub(super) const NAMES: [(&'static str, Self); 5] = [
        ("tcp", Self::Tcp),
        ("udp", Self::Udp),
        ("sctp", Self::Sctp),
        ("dccp", Self::Dccp),
        ("icmp", Self::Icmp),
    ];

    /// Returns the transport of a name in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, transport)| *transport)
    }

    /// Returns whether its addresses have ports.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        !matches!(self, Self::Icmp | Self::Other)
    }
}

/// A `Ports` is a range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// The first port, which is above 0.
    pub first: u16,
    /// The last port, which is not below the first.
    pub last: u16,
}

/// A `DestinationRule` is a rule of the list `matchDestinations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationRule {
    /// Which end began to communicate.
    pub direction: Direction,
    /// The peer's addresses, with zeros behind the prefix and never within `::ffff:0:0/96`; `None`: all of both families.
    pub prefix: Option<IpNet>,
    /// The ports, of the end that did not begin; `None`: all of them, and what has no ports.
    pub ports: Option<Ports>,
    /// The transport; `None`: all of them, or all with ports if the rule gives ports.
    pub transport: Option<Transport>,
}

impl DestinationRule {
    /// Returns whether the rule is about all that `other` is about.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let holds = |range: Ports, other: Ports| range.first <= other.first && other.last <= range.last;
        let prefix = match (self.prefix, other.prefix) {
            (None, _) => true,
            (Some(own), Some(other)) => own.contains(&other),
            (Some(_), None) => false,
        };
        let ports = match (self.ports, other.ports) {
            (None, _) => true,
            (Some(own), Some(other)) => holds(own, other),
            (Some(_), None) => false,
        };
        let transport = self.transport.is_none() || self.transport == other.transport;
        self.direction == other.direction && prefix && ports && transport
    }

    /// Returns a sort key by which more specific rules come first.
    pub(super) fn specificity(&self) -> Specificity {
        let width = self.ports.map_or(u32::MAX, |ports| u32::from(ports.last - ports.first));
        let prefix = self.prefix.map_or(0, |prefix| prefix.prefix_len() + 1);
        Specificity { without_prefix: u8::MAX - prefix, width, any_transport: self.transport.is_none() }
    }
}

/// A `Specificity` orders rules that match the same address and port; the least is the most specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Specificity {
    without_prefix: u8,
    width: u32,
    any_transport: bool,
}
