//! Ways to ask a resolver for a name. The resolver is in the same process: an access has succeeded once the question arrived.

use std::io::{self, Read as _, Write as _};
use std::mem::zeroed;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd, FromRawFd as _};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::pipe::{SpliceFlags, pipe, splice};

use crate::uring;

pub const USAGE: &str = "
  ask METHOD ADDRESS NAME...   asks the resolver that it is itself, at ADDRESS, by UDP
      to, connected            with and without the address at each question
      split, corked            the question in pieces of one byte, in one call and in many
      many                     for all names, by one call
      uring                    by io_uring
      segmented                for two names of one length, in a packet that the device divides
      zerocopy, spliced        from memory that the sender can still write
      two, pointer             for two names in one message, or with the name behind the question
      response                 not at all, but answers
      raw, fragment            with a head of its own, whole, or as the first fragment of a packet
      packets                  the same past the kernel's own network layer
  ask stream ADDRESS NAME...   the same by TCP, for all names at once; stream-bytes: byte by byte
  ask stream-fast ADDRESS NAME     in the packet that connects; stream-mptcp: over a socket of MPTCP
  ask stream-urgent ADDRESS NAME   the same with its last byte out of band
  ask-through ADDRESS NAME PROGRAM...    leaves a question behind at a socket that PROGRAM then writes to as its output
  fd-ask FD NAME    fd-ask-spliced FD NAME    over a connected socket of UDP, whether it arrives or not
";

/// How long a question may take to arrive.
const PATIENCE: Duration = Duration::from_secs(3);
const HEADER: usize = 12;
/// include/uapi/linux/udp.h, include/uapi/asm-generic/socket.h
const UDP_SEGMENT: i32 = 103;
const SO_ZEROCOPY: i32 = 60;

/// Does what the words say; `None` if it is none of the methods here.
pub fn run(words: &[&str]) -> Option<anyhow::Result<()>> {
    Some(match words {
        ["ask", method, address, names @ ..] => {
            let address = address.parse().with_context(|| format!("'{address}' is no address"));
            address.and_then(|address| ask(method, address, names))
        }
        ["ask-through", address, name, program, rest @ ..] => {
            let address = address.parse().with_context(|| format!("'{address}' is no address"));
            address.and_then(|address| ask_through(address, name, program, rest))
        }
        ["fd-ask", fd, name] => inherited(fd).and_then(|socket| sent(socket.send(&question(name)))),
        ["fd-ask-spliced", fd, name] => {
            inherited(fd).and_then(|socket| send_spliced(&socket, &question(name)))
        }
        _ => return None,
    })
}

fn ask(method: &str, to: SocketAddr, names: &[&str]) -> anyhow::Result<()> {
    match method {
        "stream" | "stream-bytes" | "stream-fast" | "stream-mptcp" | "stream-urgent" => {
            return ask_by_tcp(method, to, names);
        }
        _ => {}
    }
    let [name, rest @ ..] = names else { bail!("no name") };
    let resolver = UdpSocket::bind(to)?;
    resolver.set_read_timeout(Some(PATIENCE))?;
    let mut expected = vec![question(name)];
    let socket = UdpSocket::bind(SocketAddr::new(to.ip(), 0))?;
    if !matches!(method, "to" | "raw" | "fragment" | "packets") {
        socket.connect(to)?;
    }
    match method {
        "to" => sent(socket.send_to(&expected[0], to))?,
        "connected" => sent(socket.send(&expected[0]))?,
        "split" => {
            let pieces: Vec<_> = expected[0].chunks(1).map(io::IoSlice::new).collect();
            let mut file = std::fs::File::from(socket.as_fd().try_clone_to_owned()?);
            sent(file.write_vectored(&pieces))?;
        }
        "corked" => {
            let (last, first) = expected[0].split_last().context("empty")?;
            first.iter().try_for_each(|byte| send(&socket, &[*byte], libc::MSG_MORE))?;
            send(&socket, &[*last], 0)?;
        }
        "many" => {
            expected.extend(rest.iter().map(|name| question(name)));
            send_many(&socket, &expected)?;
        }
        "uring" => drop(uring::send(socket.as_raw_fd(), &expected[0])?),
        "segmented" => {
            expected.extend(rest.iter().map(|name| question(name)));
            ensure!(expected.iter().all(|of| of.len() == expected[0].len()), "names differ in length");
            set(&socket, libc::IPPROTO_UDP, UDP_SEGMENT, expected[0].len() as i32)?;
            sent(socket.send(&expected.concat()))?;
        }
        "zerocopy" => {
            set(&socket, libc::SOL_SOCKET, SO_ZEROCOPY, 1)?;
            send(&socket, &expected[0], libc::MSG_ZEROCOPY)?;
        }
        "spliced" => send_spliced(&socket, &expected[0])?,
        "two" => {
            expected[0][5] = 2;
            rest.iter().for_each(|name| expected[0].extend(&question(name)[HEADER..]));
            sent(socket.send(&expected[0]))?;
        }
        "pointer" => {
            let named = expected[0].split_off(HEADER);
            // The name is behind type and class.
            expected[0].extend([0xc0, HEADER as u8 + 6, 0, 1, 0, 1]);
            expected[0].extend(named);
            sent(socket.send(&expected[0]))?;
        }
        "response" => {
            expected[0][2] |= 0x80;
            sent(socket.send(&expected[0]))?;
        }
        "raw" => send_raw(&packet(to, &expected[0], 0)?, to)?,
        "fragment" => return send_raw(&packet(to, &expected[0], 0x2000)?, to),
        "packets" => send_to_device(&packet(to, &expected[0], 0)?)?,
        _ => bail!("'{method}' is no method"),
    }
    for question in expected {
        let mut buffer = [0; 2048];
        let length = resolver.recv(&mut buffer)?;
        ensure!(buffer[..length] == question, "something else arrived");
    }
    Ok(())
}

fn ask_by_tcp(method: &str, to: SocketAddr, names: &[&str]) -> anyhow::Result<()> {
    let resolver = TcpListener::bind(to)?;
    let mut data = names.iter().flat_map(|name| framed(name)).collect::<Vec<_>>();
    let mut client = if method == "stream-fast" {
        connect_with(to, &data)?
    } else {
        connect(to, if method == "stream-mptcp" { libc::IPPROTO_MPTCP } else { 0 })?
    };
    client.set_nodelay(true)?;
    match method {
        "stream" | "stream-mptcp" => client.write_all(&data)?,
        "stream-urgent" => {
            send(&client, &data, libc::MSG_OOB)?;
            data.pop();
        }
        "stream-bytes" => data.chunks(1).try_for_each(|byte| client.write_all(byte))?,
        _ => {}
    }
    await_arrival(&resolver, &data)
}

/// Corks a connection, sends a question over it, and starts a program with it as its output.
fn ask_through(to: SocketAddr, name: &str, program: &str, rest: &[&str]) -> anyhow::Result<()> {
    let resolver = TcpListener::bind(to)?;
    let data = framed(name);
    let client = connect(to, 0)?;
    client.set_nodelay(true)?;
    set(&client, libc::IPPROTO_TCP, libc::TCP_CORK, 1)?;
    send(&client, &data, libc::MSG_EOR)?;
    let output = client.as_fd().try_clone_to_owned()?;
    let status = std::process::Command::new(program).args(rest).stdout(output).status()?;
    ensure!(status.success(), "{program}: {status}");
    await_arrival(&resolver, &data)
}

/// Accepts a connection, and waits until the data comes over it.
fn await_arrival(resolver: &TcpListener, data: &[u8]) -> anyhow::Result<()> {
    let mut ready = [rustix::event::PollFd::new(resolver, rustix::event::PollFlags::IN)];
    let patience = rustix::event::Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    if rustix::event::poll(&mut ready, Some(&patience))? == 0 {
        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
    }
    let (mut accepted, _) = resolver.accept()?;
    accepted.set_read_timeout(Some(PATIENCE))?;
    let mut arrived = vec![0; data.len()];
    accepted.read_exact(&mut arrived)?;
    ensure!(arrived == data, "something else arrived");
    Ok(())
}

/// Returns a question as TCP carries it, behind its length.
fn framed(name: &str) -> Vec<u8> {
    let question = question(name);
    [&(question.len() as u16).to_be_bytes()[..], &question].concat()
}

/// Returns a question for the addresses of a name.
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

fn sent(result: io::Result<usize>) -> anyhow::Result<()> {
    Ok(result.map(drop)?)
}

fn check(result: isize) -> anyhow::Result<()> {
    if result < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

fn send(socket: &impl AsRawFd, data: &[u8], flags: i32) -> anyhow::Result<()> {
    // SAFETY: the data is as long as said.
    check(unsafe { libc::send(socket.as_raw_fd(), data.as_ptr().cast(), data.len(), flags) })
}

fn inherited(fd: &str) -> anyhow::Result<UdpSocket> {
    let fd = fd.parse().with_context(|| format!("'{fd}' is no number"))?;
    // SAFETY: the case names a descriptor that this process has inherited, and that nothing else here uses.
    Ok(unsafe { UdpSocket::from_raw_fd(fd) })
}

fn send_spliced(socket: &UdpSocket, data: &[u8]) -> anyhow::Result<()> {
    let (out, into) = pipe()?;
    rustix::io::write(&into, data)?;
    splice(&out, None, socket, None, data.len(), SpliceFlags::empty())?;
    Ok(())
}

fn set(socket: &impl AsRawFd, level: i32, option: i32, value: i32) -> anyhow::Result<()> {
    let value = value.to_ne_bytes();
    let length = value.len() as u32;
    // SAFETY: the value is as long as said.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), length) };
    check(result as isize)
}

fn send_many(socket: &UdpSocket, messages: &[Vec<u8>]) -> anyhow::Result<()> {
    let mut data: Vec<libc::iovec> = messages
        .iter()
        .map(|of| libc::iovec { iov_base: of.as_ptr().cast_mut().cast(), iov_len: of.len() })
        .collect();
    let mut heads: Vec<libc::mmsghdr> = data
        .iter_mut()
        .map(|data| {
            // SAFETY: all zeros are a valid value.
            let mut head: libc::mmsghdr = unsafe { zeroed() };
            head.msg_hdr.msg_iov = data;
            head.msg_hdr.msg_iovlen = 1;
            head
        })
        .collect();
    // SAFETY: there are as many messages as said, whose parts outlive the call.
    let count = unsafe { libc::sendmmsg(socket.as_raw_fd(), heads.as_mut_ptr(), heads.len() as u32, 0) };
    check(count as isize)?;
    // The kernel says why it sent no more when it is asked again.
    messages[count as usize..].iter().try_for_each(|message| sent(socket.send(message)))
}

/// Returns a packet of UDP with its head. `fragment` is what it says of fragments.
fn packet(to: SocketAddr, message: &[u8], fragment: u16) -> anyhow::Result<Vec<u8>> {
    let SocketAddr::V4(to) = to else { bail!("only IPv4") };
    let length = 8 + message.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend((20 + length).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, libc::IPPROTO_UDP as u8, 0, 0]);
    packet.extend(Ipv4Addr::LOCALHOST.octets());
    packet.extend(to.ip().octets());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    for half in [40000, to.port(), length, 0] {
        packet.extend(half.to_be_bytes());
    }
    packet.extend(message);
    Ok(packet)
}

fn send_raw(packet: &[u8], to: SocketAddr) -> anyhow::Result<()> {
    let SocketAddr::V4(to) = to else { bail!("only IPv4") };
    // SAFETY: only numbers are passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    check(fd as isize)?;
    // SAFETY: all zeros are a valid value.
    let mut address: libc::sockaddr_in = unsafe { zeroed() };
    address.sin_family = libc::AF_INET as u16;
    address.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
    let length = size_of::<libc::sockaddr_in>() as u32;
    // SAFETY: packet and address are as long as said.
    check(unsafe {
        libc::sendto(fd, packet.as_ptr().cast(), packet.len(), 0, (&raw const address).cast(), length)
    })
}

/// Hands a packet to the loopback device.
fn send_to_device(packet: &[u8]) -> anyhow::Result<()> {
    // SAFETY: only numbers are passed.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(fd as isize)?;
    // SAFETY: all zeros are a valid value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    // SAFETY: the name is a C string.
    address.sll_ifindex = unsafe { libc::if_nametoindex(c"lo".as_ptr()) } as i32;
    address.sll_halen = 6;
    let length = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: packet and address are as long as said.
    check(unsafe {
        libc::sendto(fd, packet.as_ptr().cast(), packet.len(), 0, (&raw const address).cast(), length)
    })
}

/// Returns a socket for a stream over IPv4 that ends at once when it is closed.
fn stream(protocol: i32) -> anyhow::Result<TcpStream> {
    // SAFETY: only numbers are passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, protocol) };
    check(fd as isize)?;
    // SAFETY: the kernel just made it.
    let stream = unsafe { TcpStream::from_raw_fd(fd) };
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(stream)
}

fn connect(to: SocketAddr, protocol: i32) -> anyhow::Result<TcpStream> {
    if to.is_ipv6() {
        let stream = TcpStream::connect(to)?;
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        return Ok(stream);
    }
    let stream = stream(protocol)?;
    rustix::net::connect(&stream, &to)?;
    Ok(stream)
}

/// Connects and sends by one packet (TCP fast open).
fn connect_with(to: SocketAddr, data: &[u8]) -> anyhow::Result<TcpStream> {
    let client = stream(0)?;
    rustix::net::sendto(
        &client,
        data,
        rustix::net::SendFlags::from_bits_retain(libc::MSG_FASTOPEN as u32),
        &to,
    )?;
    Ok(client)
}
