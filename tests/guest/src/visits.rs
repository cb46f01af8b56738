//! Peers that come to a socket, and what they send.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::Context as _;

use crate::sockets::{bind, check, connect, number_of_option, send, set};

/// How long is waited for what does not come, in microseconds.
const PATIENCE: i64 = 700_000;

/// Returns the address that a socket is bound to.
pub fn own(fd: i32) -> anyhow::Result<SocketAddr> {
    // SAFETY: all zeros are a valid value.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the storage is as long as said.
    check(unsafe { libc::getsockname(fd, (&raw mut storage).cast(), &raw mut length) })?;
    let place = &raw const storage;
    Ok(if i32::from(storage.ss_family) == libc::AF_INET {
        // SAFETY: the family says that it is one of IPv4.
        let address = unsafe { &*place.cast::<libc::sockaddr_in>() };
        let ip = Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr));
        SocketAddr::new(ip.into(), u16::from_be(address.sin_port))
    } else {
        // SAFETY: the family says that it is one of IPv6.
        let address = unsafe { &*place.cast::<libc::sockaddr_in6>() };
        let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
        SocketAddr::new(ip.into(), u16::from_be(address.sin6_port))
    })
}

/// Has a socket bound to the address `peer` come to the address `at` and send something, by the same protocol as `fd`, which
/// takes it. What does not come in time is an error.
pub fn visit(fd: i32, at: SocketAddr, peer: &str) -> anyhow::Result<()> {
    let _peer = come(fd, at, peer)?;
    take(fd)
}

/// Does the first half of [`visit`], and returns the peer's socket.
pub fn come(fd: i32, at: SocketAddr, peer: &str) -> anyhow::Result<OwnedFd> {
    let from: IpAddr = peer.parse().with_context(|| format!("'{peer}' is no address"))?;
    let family = if from.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket =
        make(family, number_of_option(fd, libc::SO_TYPE)?, number_of_option(fd, libc::SO_PROTOCOL)?)?;
    let to = match at.ip().to_canonical() {
        ip if !ip.is_unspecified() => ip,
        _ if from.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    wait_at_most(socket.as_raw_fd(), libc::SO_SNDTIMEO)?;
    bind(socket.as_raw_fd(), &SocketAddr::new(from, 0).to_string())?;
    in_time(connect(socket.as_raw_fd(), &SocketAddr::new(to, at.port()).to_string()))?;
    end_at_once(socket.as_raw_fd())?;
    // SAFETY: the text is as long as said.
    check(unsafe { libc::send(socket.as_raw_fd(), c"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL) } as i32)?;
    Ok(socket)
}

/// Takes what somebody sends who has come.
pub fn take(fd: i32) -> anyhow::Result<()> {
    wait_at_most(fd, libc::SO_RCVTIMEO)?;
    let is_listening = number_of_option(fd, libc::SO_ACCEPTCONN)? != 0;
    // SCTP has sockets that listen and take what comes by themselves.
    if !is_listening || number_of_option(fd, libc::SO_TYPE)? == libc::SOCK_SEQPACKET {
        return receive(fd);
    }
    // SAFETY: no address is asked for.
    let accepted = unsafe { libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()) };
    in_time(check(accepted))?;
    // SAFETY: the kernel just made it.
    let accepted = unsafe { OwnedFd::from_raw_fd(accepted) };
    wait_at_most(accepted.as_raw_fd(), libc::SO_RCVTIMEO)?;
    end_at_once(accepted.as_raw_fd())?;
    receive(accepted.as_raw_fd())
}

/// Binds to an address, sends to a socket at another one, which answers, and takes the answer.
pub fn ask(fd: i32, address: &str, other: &str) -> anyhow::Result<()> {
    bind(fd, address)?;
    let family = if other.starts_with('[') { libc::AF_INET6 } else { libc::AF_INET };
    let answering = make(family, libc::SOCK_DGRAM, 0)?;
    bind(answering.as_raw_fd(), other)?;
    send(fd, other, 0)?;
    take(answering.as_raw_fd())?;
    send(answering.as_raw_fd(), &own(fd)?.to_string(), 0)?;
    take(fd)
}

fn make(family: i32, kind: i32, protocol: i32) -> anyhow::Result<OwnedFd> {
    // SAFETY: only numbers are passed.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    check(fd)?;
    // SAFETY: the kernel just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn receive(fd: i32) -> anyhow::Result<()> {
    let mut byte = 0u8;
    // SAFETY: there is room for the one byte.
    in_time(check(unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, 0) } as i32))
}

fn wait_at_most(fd: i32, option: i32) -> anyhow::Result<()> {
    let time = [0i64, PATIENCE];
    let bytes: Vec<u8> = time.iter().flat_map(|part| part.to_ne_bytes()).collect();
    set(fd, libc::SOL_SOCKET, option, &bytes)
}

/// Has a connection end without a trace, so that the next one may have its port.
fn end_at_once(fd: i32) -> anyhow::Result<()> {
    let on_for_no_time = [1i32, 0];
    let bytes: Vec<u8> = on_for_no_time.iter().flat_map(|part| part.to_ne_bytes()).collect();
    set(fd, libc::SOL_SOCKET, libc::SO_LINGER, &bytes)
}

/// Names the error alike by which each call says that it has waited long enough.
fn in_time(result: anyhow::Result<()>) -> anyhow::Result<()> {
    let waited = |error: &anyhow::Error| {
        let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        matches!(code, Some(libc::EAGAIN | libc::EINPROGRESS))
    };
    match result {
        Err(error) if waited(&error) => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT).into()),
        result => result,
    }
}
