//! Measures the memory of the kernel's maps and of the agent, on a machine that has no other maps than the
//! agent's.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;

use anyhow::Context as _;

use crate::bpf::{self, Kind};

/// Prints `NAME KIB` for each map, for their sum, and for the resident memory that the process `pid` has and
/// had at most.
pub fn print(pid: u32) -> anyhow::Result<()> {
    let mut maps = maps().context("cannot list the BPF maps")?;
    maps.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    for (name, bytes) in &maps {
        println!("map-{name} {}", bytes.div_ceil(1024));
    }
    println!("maps {}", maps.iter().map(|(_, bytes)| bytes).sum::<u64>().div_ceil(1024));
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    for (name, field) in [("agent", "VmRSS:"), ("agent-most", "VmHWM:"), ("agent-own", "RssAnon:")] {
        println!("{name} {}", number(&status, field).with_context(|| format!("{path}: no {field}"))?);
    }
    Ok(())
}

/// Returns every map's name and the bytes that the kernel says it takes.
fn maps() -> io::Result<Vec<(String, u64)>> {
    let mut maps = Vec::new();
    let mut id = 0;
    while let Some(next) = bpf::next_id(Kind::Map, id)? {
        id = next;
        let map = match bpf::by_id(Kind::Map, id, true) {
            Ok(map) => map,
            // The map is gone.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) => return Err(error),
        };
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
        let bytes = number(&info, "memlock:").ok_or(io::ErrorKind::InvalidData)?;
        maps.push((bpf::name(&map)?, bytes));
    }
    Ok(maps)
}

/// Returns the number behind `field` in a file of `/proc`.
fn number(text: &str, field: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok())
}
