//! Measures what single operations cost, in guest instructions: under `scripts/vm --icount` a nanosecond is
//! one.
//!
//! `prepare` makes the files beforehand, so that the first measured open of each file is the first under a
//! policy.

use std::ffi::CString;
use std::fs::{self, File};
use std::hint::black_box;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};
use rustix::mount::{MountFlags, UnmountFlags, mount};
use rustix::net::{AddressFamily, SocketType};

/// Directory of the measured files, on ext4. Their paths have five components and about 60 bytes, as those of
/// libraries and configuration files have.
const FILES: &str = "/disk/measured/a-folder-with-a-name/another-one";
/// Mount point of an overlay whose lower layer has the same files.
const OVERLAY: &str = "/overlay";
const OVERLAID: &str = "/overlay/measured/a-folder-with-a-name/another-one";
const LAYERS: &str = "/disk/layers";
/// Number of measured files: so many that work done once per directory or generation does not show.
const COUNT: usize = 2000;
/// Instructions that are spent before the measurement: the first ones after boot warm caches of the emulated
/// kernel.
const WARM_UP: Duration = Duration::from_millis(500);

/// Address and port of the measured sockets: this machine, and any.
const LOOPBACK: &str = "127.0.0.1:0";

const REPETITIONS: usize = 7;
/// Number of operations measured at a time, for those that can be done only once per file.
const BATCH: usize = 50;
/// Number of measured program starts.
const STARTS: usize = 140;

const NOW: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
};

/// A program that only exits, since starting it is what is measured. It is the smallest ELF file for x86-64:
/// a header, one segment with the whole file, and `exit(0)`.
#[rustfmt::skip]
const ELF: [u8; 129] = [
    0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    2, 0, 62, 0, 1, 0, 0, 0, 0x78, 0, 0x40, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0,
    1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0,
    129, 0, 0, 0, 0, 0, 0, 0, 129, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0,
    0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05,
];

fn file(directory: &str, index: usize) -> PathBuf {
    Path::new(directory).join(format!("file-{index:03}"))
}

/// Returns the path of one of the programs, of which there are [`STARTS`].
fn program(index: usize) -> PathBuf {
    Path::new(FILES).join(format!("program-{index:03}"))
}

/// Makes the measured files, and replaces those that exist.
pub fn prepare() -> anyhow::Result<()> {
    let make = |directory: &str| {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory)?;
        (0..COUNT).try_for_each(|index| fs::write(file(directory, index), "x"))
    };
    make(FILES).with_context(|| format!("cannot write below {FILES}: `scripts/vm --disk`"))?;
    // The layers of an overlay must not change while it is mounted.
    let _ = rustix::mount::unmount(OVERLAY, UnmountFlags::empty());
    let lower = OVERLAID.replacen(OVERLAY, &format!("{LAYERS}/lower"), 1);
    make(&lower).with_context(|| format!("cannot write below {lower}"))?;
    for directory in [format!("{LAYERS}/upper"), format!("{LAYERS}/work"), OVERLAY.to_owned()] {
        fs::create_dir_all(directory)?;
    }
    let layers =
        CString::new(format!("lowerdir={LAYERS}/lower,upperdir={LAYERS}/upper,workdir={LAYERS}/work"))?;
    mount("overlay", OVERLAY, "overlay", MountFlags::empty(), Some(layers.as_c_str()))
        .context("an overlay")?;
    (0..STARTS).try_for_each(|index| {
        fs::write(program(index), ELF)?;
        Ok(fs::set_permissions(program(index), fs::Permissions::from_mode(0o755))?)
    })
}

/// Prints a policy of about this many rules for every node and for a command under `try`. No rule is about
/// what is measured, but all are about its neighbours.
pub fn print_policy(rules: usize) {
    println!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {{name: measured}}\nspec:"
    );
    println!("  nodeSelector: {{matchLabels: {{kubearmor.io/hostname: '*'}}}}\n  file:\n    matchPaths:");
    for rule in 0..rules.div_ceil(2) {
        println!("    - {{path: {FILES}/secret-{rule}}}");
    }
    println!("  process:\n    matchPaths:");
    for rule in 0..rules.div_ceil(2) {
        println!("    - {{path: /usr/bin/forbidden-{rule}}}");
    }
    for (section, list, field, names) in [
        ("network", "matchProtocols", "protocol", ["sctp", "dccp", "rdm", "packet"]),
        ("capabilities", "matchCapabilities", "capability", ["sys_time", "sys_boot", "mac_admin", "lease"]),
    ] {
        println!("  {section}:\n    {list}:");
        // A file takes a mebibyte.
        for rule in 0..rules.min(1000) {
            println!("    - {{{field}: {}}}", names[rule % names.len()]);
        }
        if section == "network" {
            print_destinations(rules.min(4000));
        }
    }
}

/// Prints rules for other destinations than the measured ones, half of them for egress.
fn print_destinations(rules: usize) {
    println!("    matchDestinations:");
    for rule in 0..rules.div_ceil(2) {
        println!("    - {{cidr: 127.{}.{}.1, ports: [{}]}}", 1 + rule % 200, rule / 200, 1 + rule);
        println!("    - {{direction: ingress, ports: [{}]}}", 1 + rule);
    }
}

/// Prints one line `NAME INSTRUCTIONS` for each operation.
pub fn measure() -> anyhow::Result<()> {
    let files_in = |directory| (0..COUNT).map(|index| file(directory, index)).collect::<Vec<_>>();
    let files = files_in(FILES);
    let start = Instant::now();
    while start.elapsed() < WARM_UP {
        drop(File::open("/etc/passwd")?);
    }
    for (name, files) in [("open", &files), ("overlay", &files_in(OVERLAID))] {
        let open_all = |files: &[PathBuf]| files.iter().try_for_each(|path| Ok(File::open(path).map(drop)?));
        print(&format!("{name}-first"), median(files.chunks(BATCH), open_all)?, BATCH);
        print(name, least(REPETITIONS, || open_all(files))?, COUNT);
    }

    let target = &files[0];
    let data = File::options().write(true).read(true).open(target)?;
    print("pwrite", repeated(&|| Ok(data.write_all_at(b"x", 0)?))?, COUNT);
    print("pread", repeated(&|| Ok(data.read_exact_at(&mut [0], 0)?))?, COUNT);
    let stat = || {
        black_box(fs::metadata(target)?);
        Ok(())
    };
    print("stat", repeated(&stat)?, COUNT);
    let times = || Ok(rustix::fs::utimensat(CWD, target, &NOW, AtFlags::empty())?);
    print("times", repeated(&times)?, COUNT);
    // A named datagram socket, as programs write their logs to.
    let name = Path::new(FILES).join("log");
    let _ = fs::remove_file(&name);
    let (log, logging) = (UnixDatagram::bind(&name)?, UnixDatagram::unbound()?);
    let datagram = || {
        logging.send_to(b"x", &name)?;
        log.recv(&mut [0])?;
        Ok(())
    };
    print("datagram", repeated(&datagram)?, COUNT);
    let socket = || {
        rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        Ok(())
    };
    print("socket", repeated(&socket)?, COUNT);
    measure_network()?;
    let start = |path: PathBuf| {
        let status = Command::new(&path).status()?;
        anyhow::ensure!(status.success(), "{}: {status}", path.display());
        Ok(())
    };
    // Starts are measured one at a time: several always include a timer interrupt, which takes more than a
    // policy adds.
    let mut programs = (0..STARTS).map(program);
    print("exec-first", least(STARTS, || programs.next().map_or(Ok(()), start))?, 1);
    print("exec", least(STARTS, || start(program(0)))?, 1);
    Ok(())
}

/// Measures sockets of this machine's own network.
fn measure_network() -> anyhow::Result<()> {
    let (server, client) = (UdpSocket::bind(LOOPBACK)?, UdpSocket::bind(LOOPBACK)?);
    let at = server.local_addr()?;
    let unconnected = UdpSocket::bind(LOOPBACK)?;
    let sendto = || {
        unconnected.send_to(b"x", at)?;
        server.recv(&mut [0])?;
        Ok(())
    };
    print("sendto", repeated(&sendto)?, COUNT);
    let connect = || {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        Ok(rustix::net::connect(&socket, &at)?)
    };
    print("connect-udp", repeated(&connect)?, COUNT);
    client.connect(at)?;
    let send = || {
        client.send(b"x")?;
        server.recv(&mut [0])?;
        Ok(())
    };
    print("send", repeated(&send)?, COUNT);
    print("bind", repeated(&|| Ok(UdpSocket::bind(LOOPBACK).map(drop)?))?, COUNT);
    let listener = TcpListener::bind(LOOPBACK)?;
    let at = listener.local_addr()?;
    // A connection that is reset leaves nothing behind.
    let connect = || {
        let stream = TcpStream::connect(at)?;
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        drop(stream);
        listener.accept()?;
        Ok(())
    };
    print("connect-tcp", repeated(&connect)?, COUNT);
    Ok(())
}

/// Returns the shortest time of [`COUNT`] times the work.
fn repeated(work: &dyn Fn() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    least(REPETITIONS, || (0..COUNT).try_for_each(|_| work()))
}

/// Returns the shortest time of some repetitions, since a timer interrupt may fall into any of them.
fn least(repetitions: usize, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..repetitions {
        let start = Instant::now();
        work()?;
        least = least.min(start.elapsed());
    }
    Ok(least)
}

/// Returns the median time of some batches: a kernel that has just started does other work for milliseconds
/// now and then.
fn median<T>(
    batches: impl Iterator<Item = T>,
    mut work: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let mut taken = batches
        .map(|batch| {
            let start = Instant::now();
            work(batch)?;
            Ok(start.elapsed())
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    taken.sort_unstable();
    taken.get(taken.len() / 2).copied().context("no batch")
}

fn print(name: &str, elapsed: Duration, count: usize) {
    println!("{name} {}", elapsed.as_nanos() / count as u128);
}
