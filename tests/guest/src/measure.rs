//! What single operations cost, in guest instructions: under `scripts/vm --icount` a nanosecond is one.
//!
//! `prepare` makes the files beforehand, so that the first measured open of each is the first that a policy sees.

use std::ffi::CString;
use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};
use rustix::mount::{MountFlags, UnmountFlags, mount};
use rustix::net::{AddressFamily, SocketType};

/// On ext4, five components and 55 bytes below the root, as a library or a configuration file has.
const FILES: &str = "/disk/measured/a-directory-with-a-name/another-one";
/// The same as an overlay shows it, in whose lower layer the files are.
const OVERLAY: &str = "/overlay";
const OVERLAID: &str = "/overlay/measured/a-directory-with-a-name/another-one";
const LAYERS: &str = "/disk/layers";
/// Enough that what is done once for a directory or a generation does not show.
const COUNT: usize = 2000;
/// Instructions spent before anything counts: the first ones after boot run caches of the emulated kernel warm.
const WARM_UP: Duration = Duration::from_millis(500);

const REPETITIONS: usize = 7;
/// Of what can be done once alone, as many are measured at a time.
const BATCH: usize = 50;
/// Of the program.
const STARTS: usize = 140;

const NOW: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
};

/// A program that only ends, as what is measured is starting it: the smallest ELF file for x86-64, of header, one segment with
/// all of the file, `exit(0)`.
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

/// As many as there are starts to be measured.
fn program(index: usize) -> PathBuf {
    Path::new(FILES).join(format!("program-{index:03}"))
}

/// Makes the measured files, anew if they exist.
pub fn prepare() -> anyhow::Result<()> {
    let make = |directory: &str| {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory)?;
        (0..COUNT).try_for_each(|index| fs::write(file(directory, index), "x"))
    };
    make(FILES).with_context(|| format!("cannot write below {FILES}: `scripts/vm --disk`"))?;
    // What is below an overlay must not change while it is mounted.
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

/// Prints a policy of about this many rules for every node and for a command under `try`, none of which decides over what is
/// measured but all over its neighbours.
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
    let repeat =
        |work: &dyn Fn() -> anyhow::Result<()>| least(REPETITIONS, || (0..COUNT).try_for_each(|_| work()));
    print("pwrite", repeat(&|| Ok(data.write_all_at(b"x", 0)?))?, COUNT);
    print("pread", repeat(&|| Ok(data.read_exact_at(&mut [0], 0)?))?, COUNT);
    let stat = || {
        black_box(fs::metadata(target)?);
        Ok(())
    };
    print("stat", repeat(&stat)?, COUNT);
    let times = || Ok(rustix::fs::utimensat(CWD, target, &NOW, AtFlags::empty())?);
    print("times", repeat(&times)?, COUNT);
    // As a log's is written to.
    let name = Path::new(FILES).join("log");
    let _ = fs::remove_file(&name);
    let (log, logging) = (UnixDatagram::bind(&name)?, UnixDatagram::unbound()?);
    let datagram = || {
        logging.send_to(b"x", &name)?;
        log.recv(&mut [0])?;
        Ok(())
    };
    print("datagram", repeat(&datagram)?, COUNT);
    let socket = || {
        rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        Ok(())
    };
    print("socket", repeat(&socket)?, COUNT);
    let start = |path: PathBuf| {
        let status = Command::new(&path).status()?;
        anyhow::ensure!(status.success(), "{}: {status}", path.display());
        Ok(())
    };
    // One at a time: several hold a timer interrupt each time, which is more than what a policy adds.
    let mut programs = (0..STARTS).map(program);
    print("exec-first", least(STARTS, || programs.next().map_or(Ok(()), start))?, 1);
    print("exec", least(STARTS, || start(program(0)))?, 1);
    Ok(())
}

/// The least of some repetitions: a timer interrupt may fall into any of them.
fn least(repetitions: usize, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..repetitions {
        let start = Instant::now();
        work()?;
        least = least.min(start.elapsed());
    }
    Ok(least)
}

/// What the middle one of some batches takes: a kernel that has just started does other work for milliseconds now and then.
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
