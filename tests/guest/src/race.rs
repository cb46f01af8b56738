//! Races a reader under a policy against a task under none that moves what the reader opens, to catch a
//! verdict that outlives the path it was made for.
//!
//! Both share a turn: the object is free, on its way, guarded, on its way back, and so on. A result of the
//! reader counts if the turn was the same before and after: free objects open, guarded ones never do. With
//! two processors, a move can hit any point of a decision and of filling the verdict cache.
//!
//! The races run on /disk, on a filesystem that reuses inode numbers, as most on disk do: scripts/vm --disk.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};

use crate::run::PROGRAMS;

const FOLDER: &str = "/disk/race";
const FREE: &str = "/disk/race/free";
const GUARDED: &str = "/disk/race/guarded";
const SHARED: &str = "/disk/race/shared";
const ROUNDS: u64 = 300;
/// Number of directories that [`make_anew`] makes.
const FOLDERS: u32 = 16;
/// Number of opens by the reader in each stable turn, so that the cache holds its verdict.
const OPENS: u64 = 4;
/// Time limit of a race. It includes the verification of the programs, on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(300);
const STOP: u64 = u64::MAX;

/// The races, each named by what moves.
const RACES: [Race; 5] = [
    Race { name: "rename-of-the-file", object: "f", free: 0, moves: rename_file },
    Race { name: "rename-of-the-parent", object: "d/f", free: 0, moves: rename_parent },
    Race { name: "move-of-the-mount", object: "m/f", free: 0, moves: move_mount },
    Race { name: "directories-made-anew", object: "0/f", free: 0, moves: make_anew },
    Race { name: "link", object: "f", free: Errno::NOENT.raw_os_error(), moves: link },
];

struct Race {
    name: &'static str,
    /// The object's path below [`FREE`] at the start.
    object: &'static str,
    /// Result of opening the object while it is free: 0 or an errno.
    free: i32,
    moves: fn(guard: bool) -> io::Result<()>,
}

fn rename_between(name: &str, guard: bool) -> io::Result<()> {
    let (free, guarded) = (Path::new(FREE).join(name), Path::new(GUARDED).join(name));
    if guard { fs::rename(free, guarded) } else { fs::rename(guarded, free) }
}

fn rename_file(guard: bool) -> io::Result<()> {
    rename_between("f", guard)
}

fn rename_parent(guard: bool) -> io::Result<()> {
    rename_between("d", guard)
}

fn move_mount(guard: bool) -> io::Result<()> {
    let (free, guarded) = (format!("{FREE}/m"), format!("{GUARDED}/m"));
    Ok(if guard { mount_move(free, guarded) } else { mount_move(guarded, free) }?)
}

/// Removes directories and makes others, so that the kernel uses the memory of the old ones for the new.
/// Nothing is renamed.
fn make_anew(guard: bool) -> io::Result<()> {
    let (from, to) = if guard { (FREE, GUARDED) } else { (GUARDED, FREE) };
    for directory in 0..FOLDERS {
        match fs::remove_dir_all(format!("{from}/{directory}")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    (0..FOLDERS).try_for_each(|directory| {
        fs::create_dir(format!("{to}/{directory}"))?;
        fs::write(format!("{to}/{directory}/f"), "x")
    })
}

/// Links a new file each time, since a file that ever had a second name is not cached again.
fn link(guard: bool) -> io::Result<()> {
    let (free, guarded) = (format!("{FREE}/f"), format!("{GUARDED}/f"));
    if guard {
        return fs::hard_link(free, guarded);
    }
    fs::remove_file(guarded)?;
    fs::remove_file(&free)?;
    fs::write(free, "x")
}

/// A `Shared` has the words that both processes see.
struct Shared {
    /// Number of the turn. Modulo 4: free, on its way, guarded, on its way back.
    turn: AtomicU64,
    opens: AtomicU64,
}

fn shared() -> anyhow::Result<&'static Shared> {
    let file = fs::File::options().read(true).write(true).open(SHARED).context(SHARED)?;
    // SAFETY: a new mapping of a file that is long enough, never unmapped; its words are only used as
    // atomics.
    let memory = unsafe {
        mmap(std::ptr::null_mut(), 4096, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)?
    };
    // SAFETY: as above; a page is aligned for it.
    Ok(unsafe { &*memory.cast::<Shared>() })
}

/// Runs every race; the output is that of a Rust test.
pub fn main() -> anyhow::Result<()> {
    let mut failed = 0;
    for race in &RACES {
        let outcome = run(race);
        println!("test race::{} ... {}", race.name, if outcome.is_ok() { "ok" } else { "FAILED" });
        if let Err(error) = outcome {
            println!("    {error:#}");
            failed += 1;
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {} passed; {failed} failed", RACES.len() - failed);
    ensure!(failed == 0, "{failed} races were lost");
    Ok(())
}

fn run(race: &Race) -> anyhow::Result<()> {
    prepare(race)?;
    let shared = shared()?;
    let policy = format!("{FOLDER}/policy.yaml");
    fs::write(
        &policy,
        format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: race}}\nspec:\n  \
             selector: {{matchLabels: {{app: race}}}}\n  file:\n    \
             matchDirectories: [{{dir: {GUARDED}/, recursive: true}}]\n  action: Block\n"
        ),
    )?;
    let mut reader = Command::new("hzn-armor-agent")
        .args(["try", "--keep", PROGRAMS, "--policy", &policy, "--alerts", "/dev/null", "--"])
        .args(["armor-guest-tests", "race-reader", race.name])
        .spawn()
        .context("hzn-armor-agent")?;
    let moved = move_back_and_forth(race, shared, &mut reader);
    shared.turn.store(STOP, SeqCst);
    let status = reader.wait()?;
    if race.name == "move-of-the-mount" {
        // The mount is at one of the two places.
        for place in [FREE, GUARDED] {
            unmount(format!("{place}/m"), UnmountFlags::DETACH).ok();
        }
    }
    moved?;
    ensure!(status.success(), "the reader ended with {status}");
    Ok(())
}

fn prepare(race: &Race) -> anyhow::Result<()> {
    match fs::remove_dir_all(FOLDER) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context(FOLDER),
        _ => {}
    }
    for directory in ["free/d", "free/m", "guarded/m"] {
        fs::create_dir_all(Path::new(FOLDER).join(directory))?;
    }
    if race.name == "move-of-the-mount" {
        mount("race", format!("{FREE}/m"), "tmpfs", MountFlags::empty(), None)?;
    }
    if race.name == "directories-made-anew" {
        make_anew(false)?;
    }
    fs::write(Path::new(FREE).join(race.object), "x")?;
    Ok(fs::write(SHARED, [0; 4096])?)
}

fn move_back_and_forth(race: &Race, shared: &Shared, reader: &mut Child) -> anyhow::Result<()> {
    let deadline = Instant::now() + TIME_LIMIT;
    for turn in (0..4 * ROUNDS).step_by(2) {
        let until = shared.opens.load(SeqCst) + OPENS;
        while shared.opens.load(SeqCst) < until {
            if let Some(status) = reader.try_wait()? {
                bail!("the reader ended with {status} in turn {turn}");
            }
            ensure!(Instant::now() < deadline, "the reader stands still in turn {turn}");
            std::thread::yield_now();
        }
        shared.turn.store(turn + 1, SeqCst);
        (race.moves)(turn % 4 == 0).with_context(|| format!("moving in turn {turn}"))?;
        shared.turn.store(turn + 2, SeqCst);
    }
    Ok(())
}

/// Reads under the policy: opens the object until it is told to stop, and fails at the first wrong result.
pub fn reader(name: &str) -> anyhow::Result<()> {
    let race = RACES.iter().find(|race| race.name == name).context("no such race")?;
    let shared = shared()?;
    let object = Path::new(FREE).join(race.object);
    // The descriptor follows the object wherever it goes.
    let held = rustix::fs::open(&object, OFlags::PATH, Mode::empty())?;
    let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    let open = |path: &str| match rustix::fs::openat(CWD, path, OFlags::RDONLY, Mode::empty()) {
        Ok(_) => 0,
        Err(errno) => errno.raw_os_error(),
    };
    loop {
        let before = shared.turn.load(SeqCst);
        if before == STOP {
            return Ok(());
        }
        let expected = if before % 4 == 0 { race.free } else { Errno::ACCESS.raw_os_error() };
        let found = match name {
            "link" => {
                // Fills the cache through the free path, then opens the other path.
                open(&format!("{FREE}/f"));
                open(&format!("{GUARDED}/f"))
            }
            "directories-made-anew" => {
                let place = if before % 4 == 0 { FREE } else { GUARDED };
                let mut found = (0..FOLDERS).map(|directory| open(&format!("{place}/{directory}/f")));
                found.find(|&found| found != expected).unwrap_or(expected)
            }
            _ => open(&through),
        };
        if shared.turn.load(SeqCst) == before && before.is_multiple_of(2) {
            ensure!(found == expected, "errno {found} instead of {expected} in turn {before}");
        }
        shared.opens.fetch_add(1, SeqCst);
    }
}
