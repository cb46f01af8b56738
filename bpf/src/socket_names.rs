//! Names sockets and addresses in events, as KubeArmor writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::contract::socket_event;

/// `AF_SMC` (include/linux/socket.h), which the libc crate does not name.
const AF_SMC: i32 = 43;
/// The old type of `AF_PACKET` (include/linux/net.h), which libc calls deprecated.
const SOCK_PACKET: i32 = 10;

/// Returns protocol and type of a socket, and its family unless that is IPv4 or IPv6.
pub(crate) fn socket(event: &socket_event) -> String {
    let (family, kind) = (i32::from(event.family), i32::from(event.r#type));
    let protocol = i32::from(event.protocol);
    let kind_name = named(kind, &KINDS);
    if matches!(family, libc::AF_INET | libc::AF_INET6) {
        let protocol = match (protocol, kind) {
            // What a type stands for (socket(2)).
            (0, libc::SOCK_STREAM) => libc::IPPROTO_TCP,
            (0, libc::SOCK_DGRAM) => libc::IPPROTO_UDP,
            _ => protocol,
        };
        format!("protocol={} type={kind_name}", named(protocol, &PROTOCOLS))
    } else {
        format!("family={} protocol={protocol} type={kind_name}", named(family, &FAMILIES))
    }
}

/// Returns the address that an access names.
pub(crate) fn address(event: &socket_event) -> Option<SocketAddr> {
    let [a, b, c, d, ..] = event.address;
    let address = match i32::from(event.address_family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(event.address)),
        _ => return None,
    };
    Some(SocketAddr::new(address, event.port))
}

const KINDS: [(i32, &str); 7] = [
    (libc::SOCK_STREAM, "SOCK_STREAM"),
    (libc::SOCK_DGRAM, "SOCK_DGRAM"),
    (libc::SOCK_RAW, "SOCK_RAW"),
    (libc::SOCK_RDM, "SOCK_RDM"),
    (libc::SOCK_SEQPACKET, "SOCK_SEQPACKET"),
    (libc::SOCK_DCCP, "SOCK_DCCP"),
    (SOCK_PACKET, "SOCK_PACKET"),
];

const PROTOCOLS: [(i32, &str); 9] = [
    (libc::IPPROTO_ICMP, "ICMP"),
    (libc::IPPROTO_TCP, "TCP"),
    (libc::IPPROTO_UDP, "UDP"),
    (libc::IPPROTO_DCCP, "DCCP"),
    (libc::IPPROTO_ICMPV6, "ICMPV6"),
    (libc::IPPROTO_SCTP, "SCTP"),
    (libc::IPPROTO_UDPLITE, "UDPLITE"),
    (libc::IPPROTO_RAW, "RAW"),
    (libc::IPPROTO_MPTCP, "MPTCP"),
];

const FAMILIES: [(i32, &str); 11] = [
    (libc::AF_PACKET, "AF_PACKET"),
    (libc::AF_VSOCK, "AF_VSOCK"),
    (libc::AF_XDP, "AF_XDP"),
    (libc::AF_ALG, "AF_ALG"),
    (libc::AF_BLUETOOTH, "AF_BLUETOOTH"),
    (libc::AF_CAN, "AF_CAN"),
    (libc::AF_KEY, "AF_KEY"),
    (libc::AF_TIPC, "AF_TIPC"),
    (libc::AF_RDS, "AF_RDS"),
    (libc::AF_RXRPC, "AF_RXRPC"),
    (AF_SMC, "AF_SMC"),
];

/// Returns the name of a number, or the number if it has none.
fn named(number: i32, names: &[(i32, &str)]) -> String {
    let found = names.iter().find(|(known, _)| *known == number);
    found.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}
