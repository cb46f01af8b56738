//! Ways to get and to use a socket.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{access, other, uring, visits};

pub const USAGE: &str = "
SOCKET is FAMILY:TYPE:PROTOCOL, each by name or number, as inet:stream:tcp or inet6:dgram:0; ADDRESS is 127.0.0.1:80 or [::1]:80
  socket SOCKET                    makes it                     uring-socket SOCKET   the same by io_uring
  with-socket FD SOCKET PROGRAM...    makes it as FD and starts PROGRAM, which inherits it
  with FD SOCKET METHOD ADDRESS PROGRAM...    the same once fd-METHOD is done with it
  offer-socket PATH SOCKET         serves its descriptor once, in the background
  offer-connected PATH SOCKET ADDRESS    the same once it is connected
  offer-listening PATH SOCKET ADDRESS    the same once it is bound, and listens if it is a stream
  offer-visited PATH SOCKET ADDRESS PEER    the same once somebody from PEER has come to it
  new SOCKET METHOD ARGUMENT...    makes it and does fd-METHOD with it
  fd-connect FD ADDRESS    fd-uring-connect FD ADDRESS    fd-bind FD ADDRESS    fd-listen FD    fd-accept FD
  fd-send FD ADDRESS       fd-send-many FD ADDRESS        fd-fastopen FD ADDRESS
  fd-write FD                      sends without an address       fd-port-range FD    has the kernel choose port 40000
  fd-flow-label FD                 manages labels, in no valid way
  fd-listen-at FD ADDRESS          binds and listens
  fd-serve FD ADDRESS PEER         binds, listens if it is a stream, and does fd-visit
  fd-visit FD PEER                 a socket bound to PEER comes to FD, which takes what it sends
  fd-visit-again FD PEER           does fd-visit twice
  fd-visit-either FD OTHER PEER    does fd-visit, and takes it from the one that it comes to
  fd-share-listen-at FD ADDRESS    does fd-listen-at at a port that others may share
  fd-take-visit FD                 takes what somebody who came before has sent
  fd-ask FD ADDRESS OTHER          binds, sends to a socket at OTHER, and takes its answer
  fd-disconnect FD                 fd-send-without-family FD ADDRESS    the family of IPv4 left out
  fd-connect-from FD OWN ADDRESS   binds and connects             fd-connect-send FD ADDRESS OTHER    sends elsewhere
  fd-route FD VIA                  has packets go by way of this address
  fd-send-route FD ADDRESS VIA     has one packet go by way of it    fd-route6 FD    the same for IPv6, in no valid way
  getfd-connect PID FD ADDRESS     takes PID's descriptor and connects it
";

/// include/uapi/linux/in.h and in6.h, which libc does not name.
const IP_LOCAL_PORT_RANGE: i32 = 51;
const IPV6_FLOWLABEL_MGR: i32 = 32;

/// Does what the words say; `None` if it is none of the methods here.
pub fn run(words: &[&str]) -> Option<anyhow::Result<()>> {
    Some(match words {
        ["socket", socket] => make(socket).map(drop),
        ["uring-socket", socket] => parsed(socket)
            .and_then(|[family, kind, protocol]| Ok(uring::socket(family, kind, protocol).map(drop)?)),
        ["with-socket", fd, socket, program, rest @ ..] => {
            make(socket).and_then(|socket| start_with(fd, &socket, program, rest))
        }
        ["with", fd, socket, method, address, program, rest @ ..] => make(socket).and_then(|socket| {
            call(&socket, method, &[address])?;
            start_with(fd, &socket, program, rest)
        }),
        ["offer-socket", path, socket] => make(socket).and_then(|socket| access::offer(path, &socket)),
        ["offer-connected", path, socket, address] => make(socket).and_then(|socket| {
            connect(socket.as_raw_fd(), address)?;
            access::offer(path, &socket)
        }),
        ["new", socket, method, rest @ ..] => make(socket).and_then(|socket| call(&socket, method, rest)),
        ["fd-listen-at", fd, address] => number(fd).and_then(|fd| listen_at(fd, address)),
        ["fd-serve", fd, address, peer] => number(fd).and_then(|fd| {
            listen_at(fd, address)?;
            visits::visit(fd, visits::own(fd)?, peer)
        }),
        ["fd-visit", fd, peer] => number(fd).and_then(|fd| visits::visit(fd, visits::own(fd)?, peer)),
        ["offer-visited", path, socket, address, peer] => make(socket).and_then(|socket| {
            let fd = socket.as_raw_fd();
            listen_at(fd, address)?;
            let _peer = visits::come(fd, visits::own(fd)?, peer)?;
            access::offer(path, &socket)
        }),
        ["fd-visit-again", fd, peer] => number(fd).and_then(|fd| {
            visits::visit(fd, visits::own(fd)?, peer)?;
            visits::visit(fd, visits::own(fd)?, peer)
        }),
        ["fd-visit-either", fd, other, peer] => number(fd).and_then(|fd| {
            let _peer = visits::come(fd, visits::own(fd)?, peer)?;
            visits::take(fd).or_else(|_| visits::take(number(other)?))
        }),
        ["fd-share-listen-at", fd, address] => number(fd).and_then(|fd| {
            set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1i32.to_ne_bytes())?;
            listen_at(fd, address)
        }),
        ["offer-listening", path, socket, address] => make(socket).and_then(|socket| {
            listen_at(socket.as_raw_fd(), address)?;
            access::offer(path, &socket)
        }),
        ["fd-take-visit", fd] => number(fd).and_then(visits::take),
        ["fd-ask", fd, address, other] => number(fd).and_then(|fd| visits::ask(fd, address, other)),
        ["fd-write", fd] => number(fd).and_then(|fd| {
            // SAFETY: the text is as long as said.
            check(unsafe { libc::send(fd, c"x".as_ptr().cast(), 1, 0) } as i32)
        }),
        ["fd-port-range", fd] => number(fd).and_then(|fd| {
            set(fd, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, &(40000u32 << 16 | 40000).to_ne_bytes())
        }),
        ["fd-flow-label", fd] => {
            number(fd).and_then(|fd| set(fd, libc::IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, &[0; 8]))
        }
        ["fd-disconnect", fd] => number(fd).and_then(disconnect),
        ["fd-send-without-family", fd, address] => number(fd).and_then(|fd| send_without_family(fd, address)),
        ["fd-connect-from", fd, own, address] => number(fd).and_then(|fd| {
            bind(fd, own)?;
            connect(fd, address)
        }),
        ["fd-connect-send", fd, address, other] => number(fd).and_then(|fd| {
            connect(fd, address)?;
            send(fd, other, 0)
        }),
        ["fd-route", fd, via] => {
            number(fd).and_then(|fd| set(fd, libc::IPPROTO_IP, libc::IP_OPTIONS, &route(via)?))
        }
        ["fd-route6", fd] => number(fd).and_then(|fd| set(fd, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &[0; 8])),
        ["fd-send-route", fd, address, via] => number(fd).and_then(|fd| send_route(fd, address, via)),
        ["fd-connect", fd, address] => number(fd).and_then(|fd| connect(fd, address)),
        ["fd-uring-connect", fd, address] => uring_connect(fd, address),
        ["fd-bind", fd, address] => number(fd).and_then(|fd| bind(fd, address)),
        // SAFETY: only numbers are passed.
        ["fd-listen", fd] => number(fd).and_then(|fd| check(unsafe { libc::listen(fd, 1) })),
        ["fd-accept", fd] => number(fd).and_then(accept),
        ["fd-send", fd, address] => number(fd).and_then(|fd| send(fd, address, 0)),
        ["fd-send-many", fd, address] => number(fd).and_then(|fd| send_many(fd, address)),
        ["fd-fastopen", fd, address] => number(fd).and_then(|fd| send(fd, address, libc::MSG_FASTOPEN)),
        ["getfd-connect", pid, fd, address] => {
            other::getfd(pid, fd).and_then(|socket| connect(socket.as_raw_fd(), address))
        }
        _ => return None,
    })
}

/// Does `fd-METHOD` with a socket.
fn call(socket: &OwnedFd, method: &str, rest: &[&str]) -> anyhow::Result<()> {
    let (method, fd) = (format!("fd-{method}"), socket.as_raw_fd().to_string());
    let words = [&[method.as_str(), fd.as_str()], rest].concat();
    run(&words).with_context(|| format!("'{method}' is no method"))?
}

fn number(text: &str) -> anyhow::Result<i32> {
    text.parse().with_context(|| format!("'{text}' is no number"))
}

pub(crate) fn check(result: i32) -> anyhow::Result<()> {
    if result < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

/// Returns family, type and protocol.
fn parsed(socket: &str) -> anyhow::Result<[i32; 3]> {
    const NAMES: [(&str, i32); 24] = [
        ("inet", libc::AF_INET),
        ("inet6", libc::AF_INET6),
        ("unix", libc::AF_UNIX),
        ("netlink", libc::AF_NETLINK),
        ("packet", libc::AF_PACKET),
        ("vsock", libc::AF_VSOCK),
        ("xdp", libc::AF_XDP),
        ("alg", libc::AF_ALG),
        ("smc", 43),
        ("rxrpc", 33),
        ("stream", libc::SOCK_STREAM),
        ("dgram", libc::SOCK_DGRAM),
        ("raw", libc::SOCK_RAW),
        ("seqpacket", libc::SOCK_SEQPACKET),
        ("old", 10),
        ("tcp", libc::IPPROTO_TCP),
        ("udp", libc::IPPROTO_UDP),
        ("udplite", libc::IPPROTO_UDPLITE),
        ("icmp", libc::IPPROTO_ICMP),
        ("icmpv6", libc::IPPROTO_ICMPV6),
        ("sctp", libc::IPPROTO_SCTP),
        ("mptcp", libc::IPPROTO_MPTCP),
        ("rawip", libc::IPPROTO_RAW),
        ("dccp", libc::SOCK_DCCP),
    ];
    let named = |word: &str| match NAMES.iter().find(|(name, _)| *name == word) {
        Some((_, number)) => Ok(*number),
        None => number(word),
    };
    match *socket.split(':').collect::<Vec<_>>().as_slice() {
        [family, kind, protocol] => Ok([named(family)?, named(kind)?, named(protocol)?]),
        _ => bail!("'{socket}' is not FAMILY:TYPE:PROTOCOL"),
    }
}

fn make(socket: &str) -> anyhow::Result<OwnedFd> {
    let [family, kind, protocol] = parsed(socket)?;
    // SAFETY: only numbers are passed.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    check(fd)?;
    // SAFETY: the kernel just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Becomes a program that has the socket as descriptor `fd`.
fn start_with(fd: &str, socket: &OwnedFd, program: &str, rest: &[&str]) -> anyhow::Result<()> {
    // SAFETY: the case names a number that nothing in this process uses.
    check(unsafe { libc::dup2(socket.as_raw_fd(), number(fd)?) })?;
    Err(Command::new(program).args(rest).exec().into())
}

/// Returns an address as the kernel has it, and its length.
fn address(text: &str) -> anyhow::Result<(libc::sockaddr_storage, libc::socklen_t)> {
    // SAFETY: all zeros are a valid value.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let place = &raw mut storage;
    let length = match text.parse().with_context(|| format!("'{text}' is no address"))? {
        SocketAddr::V4(address) => {
            // SAFETY: every address fits into the storage, which is aligned for it.
            let to = unsafe { &mut *place.cast::<libc::sockaddr_in>() };
            to.sin_family = libc::AF_INET as u16;
            to.sin_port = address.port().to_be();
            to.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            // SAFETY: as above.
            let to = unsafe { &mut *place.cast::<libc::sockaddr_in6>() };
            to.sin6_family = libc::AF_INET6 as u16;
            to.sin6_port = address.port().to_be();
            to.sin6_addr.s6_addr = address.ip().octets();
            size_of::<libc::sockaddr_in6>()
        }
    };
    Ok((storage, length as libc::socklen_t))
}

/// Binds a socket, which then listens if it is no datagram's.
fn listen_at(fd: i32, at: &str) -> anyhow::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1i32.to_ne_bytes())?;
    bind(fd, at)?;
    if number_of_option(fd, libc::SO_TYPE)? == libc::SOCK_DGRAM {
        return Ok(());
    }
    // SAFETY: only numbers are passed.
    check(unsafe { libc::listen(fd, 4) })
}

pub(crate) fn number_of_option(fd: i32, option: i32) -> anyhow::Result<i32> {
    let (mut value, mut length) = (0i32, size_of::<i32>() as libc::socklen_t);
    let place = (&raw mut value).cast();
    // SAFETY: the value is as long as said.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, place, &raw mut length) })?;
    Ok(value)
}

pub(crate) fn connect(fd: i32, to: &str) -> anyhow::Result<()> {
    let (address, length) = address(to)?;
    // SAFETY: the address is as long as said.
    check(unsafe { libc::connect(fd, (&raw const address).cast(), length) })
}

fn uring_connect(fd: &str, to: &str) -> anyhow::Result<()> {
    let (address, length) = address(to)?;
    Ok(uring::connect(number(fd)?, (&raw const address).cast(), length)?)
}

pub(crate) fn bind(fd: i32, at: &str) -> anyhow::Result<()> {
    let (address, length) = address(at)?;
    // SAFETY: the address is as long as said.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), length) })
}

/// Accepts without waiting for somebody who connects.
fn accept(fd: i32) -> anyhow::Result<()> {
    // SAFETY: only numbers are passed.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) })?;
    // SAFETY: no address is asked for.
    check(unsafe { libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()) })
}

pub(crate) fn send(fd: i32, to: &str, flags: i32) -> anyhow::Result<()> {
    let (address, length) = address(to)?;
    // SAFETY: address and text are as long as said.
    let sent =
        unsafe { libc::sendto(fd, c"x".as_ptr().cast(), 1, flags, (&raw const address).cast(), length) };
    check(sent as i32)
}

/// Sends two messages with one call, the second to the address: the first one goes to this machine's discard port.
fn send_many(fd: i32, to: &str) -> anyhow::Result<()> {
    let (good, good_length) = address("127.0.0.1:9")?;
    let (bad, bad_length) = address(to)?;
    let mut text = libc::iovec { iov_base: c"x".as_ptr().cast_mut().cast(), iov_len: 1 };
    let mut message = |address: &libc::sockaddr_storage, length: libc::socklen_t| {
        // SAFETY: all zeros are a valid value.
        let mut message: libc::mmsghdr = unsafe { zeroed() };
        message.msg_hdr.msg_name = (&raw const *address).cast_mut().cast();
        message.msg_hdr.msg_namelen = length;
        message.msg_hdr.msg_iov = &raw mut text;
        message.msg_hdr.msg_iovlen = 1;
        message
    };
    let mut messages = [message(&good, good_length), message(&bad, bad_length)];
    // SAFETY: there are two messages, whose parts outlive the call.
    match unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), 2, 0) } {
        2 => Ok(()),
        1 => send(fd, to, 0),
        failed => check(failed),
    }
}

/// Ends a connection, or does nothing.
fn disconnect(fd: i32) -> anyhow::Result<()> {
    // SAFETY: all zeros are a valid value, and stand for no family.
    let none: libc::sockaddr_storage = unsafe { zeroed() };
    // SAFETY: the address is as long as said.
    check(unsafe { libc::connect(fd, (&raw const none).cast(), size_of::<libc::sockaddr_in>() as u32) })
}

fn send_without_family(fd: i32, to: &str) -> anyhow::Result<()> {
    let (mut address, length) = address(to)?;
    address.ss_family = 0;
    // SAFETY: address and text are as long as said.
    let sent = unsafe { libc::sendto(fd, c"x".as_ptr().cast(), 1, 0, (&raw const address).cast(), length) };
    check(sent as i32)
}

pub(crate) fn set(fd: i32, level: i32, option: i32, value: &[u8]) -> anyhow::Result<()> {
    // SAFETY: the value is as long as said.
    check(unsafe { libc::setsockopt(fd, level, option, value.as_ptr().cast(), value.len() as u32) })
}

/// Returns the options of IPv4 by which packets first go to an address (RFC 791, loose source route).
fn route(via: &str) -> anyhow::Result<[u8; 8]> {
    let [a, b, c, d] = via.parse::<std::net::Ipv4Addr>()?.octets();
    Ok([131, 7, 4, a, b, c, d, 0])
}

fn send_route(fd: i32, to: &str, via: &str) -> anyhow::Result<()> {
    let ((address, length), route) = (address(to)?, route(via)?);
    let mut text = libc::iovec { iov_base: c"x".as_ptr().cast_mut().cast(), iov_len: 1 };
    let mut control = [0u64; 8];
    // SAFETY: all zeros are a valid value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = (&raw const address).cast_mut().cast();
    message.msg_namelen = length;
    message.msg_iov = &raw mut text;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: only a number is computed.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(route.len() as u32) } as usize;
    // SAFETY: the control data has room for this head and its data.
    unsafe {
        let head = &mut *libc::CMSG_FIRSTHDR(&raw const message);
        head.cmsg_level = libc::IPPROTO_IP;
        head.cmsg_type = libc::IP_RETOPTS;
        head.cmsg_len = libc::CMSG_LEN(route.len() as u32) as usize;
        libc::CMSG_DATA(head).copy_from(route.as_ptr(), route.len());
    }
    // SAFETY: all parts of the message outlive the call.
    check(unsafe { libc::sendmsg(fd, &raw const message, 0) } as i32)
}
