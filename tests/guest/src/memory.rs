//! What the kernel's maps and the agent take in memory, where there are no other maps than the agent's.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::Context as _;

const BPF_MAP_GET_NEXT_ID: i32 = 12;
const BPF_MAP_GET_FD_BY_ID: i32 = 14;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;

/// The first fields of the kernel's `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    numbers: [u32; 6],
    name: [u8; 16],
}

/// Prints `NAME KIB` for each map, their sum, and what the process `pid` has and had resident.
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

/// Every map's name and what the kernel says that it takes, in bytes.
fn maps() -> io::Result<Vec<(String, u64)>> {
    let mut maps = Vec::new();
    let mut id = 0;
    loop {
        let mut attributes = [0; 16];
        attributes[0] = id;
        if let Err(error) = bpf(BPF_MAP_GET_NEXT_ID, &mut attributes) {
            return if error.raw_os_error() == Some(libc::ENOENT) { Ok(maps) } else { Err(error) };
        }
        id = attributes[1];
        attributes = [0; 16];
        attributes[0] = id;
        let Ok(fd) = bpf(BPF_MAP_GET_FD_BY_ID, &mut attributes) else { continue };
        // SAFETY: the kernel just made this descriptor for us alone.
        let map = unsafe { OwnedFd::from_raw_fd(fd) };
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
        let bytes = number(&info, "memlock:").ok_or(io::ErrorKind::InvalidData)?;
        maps.push((name(&map)?, bytes));
    }
}

fn name(map: &OwnedFd) -> io::Result<String> {
    let mut info = MapInfo::default();
    let address = (&raw mut info) as u64;
    let mut attributes = [0; 16];
    attributes[0] = map.as_raw_fd().cast_unsigned();
    attributes[1] = size_of::<MapInfo>() as u32;
    attributes[2] = address as u32;
    attributes[3] = (address >> 32) as u32;
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(String::from_utf8_lossy(&info.name).trim_end_matches('\0').to_owned())
}

/// The system call, with the words of its `union bpf_attr`.
fn bpf(command: i32, attributes: &mut [u32; 16]) -> io::Result<i32> {
    // SAFETY: the commands used here read and write these words, and `MapInfo` where they name its address and size.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// The number behind `field` in a file of `/proc`.
fn number(text: &str, field: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok())
}
