//! Defines the kinds of sockets, the names that policies have for them, and what a rule for one says.

/// A `SocketKind` is what rules for protocols can tell of a socket. Every socket that is judged has one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SocketKind {
    /// A stream of IPv4 or IPv6 that is not SCTP's: TCP, and MPTCP and SMC, which fall back to it.
    Tcp,
    /// UDP or UDP-Lite over IPv4 or IPv6, or RxRPC, which goes over UDP.
    Udp,
    /// A datagram socket for ICMP, as ping(8) uses it.
    Ping,
    /// The same for ICMPv6.
    Ping6,
    /// A raw socket for ICMP.
    RawIcmp,
    /// A raw socket for ICMPv6.
    RawIcmp6,
    /// Any other raw socket, of any family; `AF_XDP` has such.
    Raw,
    /// A socket of `AF_PACKET`, of any type.
    Packet,
    /// SCTP with one association.
    SctpStream,
    /// SCTP with many.
    SctpSeqpacket,
    /// DCCP.
    Dccp,
    /// A stream of another family, such as `AF_VSOCK`.
    Stream,
    /// Datagrams of another family or protocol.
    Dgram,
    /// Reliable datagrams of another family.
    Rdm,
    /// Sequenced packets of another family.
    Seqpacket,
    /// A socket of a type that has no name.
    Other,
}

impl SocketKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Tcp,
        Self::Udp,
        Self::Ping,
        Self::Ping6,
        Self::RawIcmp,
        Self::RawIcmp6,
        Self::Raw,
        Self::Packet,
        Self::SctpStream,
        Self::SctpSeqpacket,
        Self::Dccp,
        Self::Stream,
        Self::Dgram,
        Self::Rdm,
        Self::Seqpacket,
        Self::Other,
    ];
}

/// A `Protocol` is a name that `protocol` may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "they are the names themselves")]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
    Icmpv6,
    Sctp,
    Dccp,
    Packet,
    Raw,
    Stream,
    Dgram,
    Rdm,
    Seqpacket,
    All,
}

impl Protocol {
    /// The names as policies write them.
    pub(super) const NAMES: [(&'static str, Self); 13] = [
        ("tcp", Self::Tcp),
        ("udp", Self::Udp),
        ("icmp", Self::Icmp),
        ("icmpv6", Self::Icmpv6),
        ("sctp", Self::Sctp),
        ("dccp", Self::Dccp),
        ("packet", Self::Packet),
        ("raw", Self::Raw),
        ("stream", Self::Stream),
        ("dgram", Self::Dgram),
        ("rdm", Self::Rdm),
        ("seqpacket", Self::Seqpacket),
        ("all", Self::All),
    ];

    /// Returns the protocol of a name in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, protocol)| *protocol)
    }

    /// Returns the kinds of sockets that the name stands for.
    #[must_use]
    pub const fn kinds(self) -> &'static [SocketKind] {
        use SocketKind as Kind;
        match self {
            Self::Tcp => &[Kind::Tcp],
            Self::Udp => &[Kind::Udp],
            Self::Icmp => &[Kind::Ping, Kind::RawIcmp],
            Self::Icmpv6 => &[Kind::Ping6, Kind::RawIcmp6],
            Self::Sctp => &[Kind::SctpStream, Kind::SctpSeqpacket],
            Self::Dccp => &[Kind::Dccp],
            Self::Packet => &[Kind::Packet],
            Self::Raw => &[Kind::RawIcmp, Kind::RawIcmp6, Kind::Raw, Kind::Packet],
            Self::Stream => &[Kind::Tcp, Kind::SctpStream, Kind::Stream],
            Self::Dgram => &[Kind::Udp, Kind::Ping, Kind::Ping6, Kind::Dgram],
            Self::Rdm => &[Kind::Rdm],
            Self::Seqpacket => &[Kind::SctpSeqpacket, Kind::Seqpacket],
            Self::All => &Kind::ALL,
        }
    }

    /// Returns a sort key by which more specific names come first: protocols, types of sockets, `all`.
    pub(super) const fn specificity(self) -> u8 {
        match self {
            Self::Tcp | Self::Udp | Self::Icmp | Self::Icmpv6 | Self::Sctp | Self::Dccp | Self::Packet => 0,
            Self::Raw | Self::Stream | Self::Dgram | Self::Rdm | Self::Seqpacket => 1,
            Self::All => 2,
        }
    }
}

/// A `NetworkRule` is a rule of the section `network`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkRule {
    /// The sockets whose use the rule decides.
    pub protocol: Protocol,
}

impl NetworkRule {
    /// Returns whether this rule is about all sockets that `other` is about.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.protocol.kinds().iter().all(|kind| self.protocol.kinds().contains(kind))
    }
}
