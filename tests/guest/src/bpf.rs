//! Calls bpf(2) directly to get objects by id and by pin, as a process does that has nothing to do with the
//! agent.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const BPF_OBJ_PIN: i32 = 6;
const BPF_OBJ_GET: i32 = 7;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_F_RDONLY: u32 = 1 << 3;

/// A `Kind` is a kind of objects that have ids.
#[derive(Clone, Copy)]
pub enum Kind {
    Map,
    Program,
    Link,
}

impl Kind {
    fn next(self) -> i32 {
        match self {
            Self::Program => 11,
            Self::Map => 12,
            Self::Link => 31,
        }
    }

    fn get(self) -> i32 {
        match self {
            Self::Program => 13,
            Self::Map => 14,
            Self::Link => 30,
        }
    }
}

/// Returns the lowest id above `id`, if there is one.
pub fn next_id(kind: Kind, id: u32) -> io::Result<Option<u32>> {
    let mut words = [0; 16];
    words[0] = id;
    match bpf(kind.next(), &mut words) {
        Ok(_) => Ok(Some(words[1])),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens an object by its id. With `looked`, the descriptor of a map is read-only.
pub fn by_id(kind: Kind, id: u32, looked: bool) -> io::Result<OwnedFd> {
    let mut words = [0; 16];
    words[0] = id;
    words[2] = if looked { BPF_F_RDONLY } else { 0 };
    let fd = bpf(kind.get(), &mut words)?;
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A `MapInfo` has the first fields of the kernel's `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    numbers: [u32; 6],
    name: [u8; 16],
}

/// Returns a map's name.
pub fn name(map: &OwnedFd) -> io::Result<String> {
    let mut info = MapInfo::default();
    let address = (&raw mut info) as u64;
    let mut words = [0; 16];
    words[0] = map.as_raw_fd().cast_unsigned();
    words[1] = size_of::<MapInfo>() as u32;
    words[2] = address as u32;
    words[3] = (address >> 32) as u32;
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut words)?;
    Ok(String::from_utf8_lossy(&info.name).trim_end_matches('\0').to_owned())
}

/// Opens a pinned object.
pub fn pinned(path: &str) -> io::Result<OwnedFd> {
    let fd = with_path(BPF_OBJ_GET, path, 0)?;
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins an object.
pub fn pin(object: &OwnedFd, path: &str) -> io::Result<()> {
    with_path(BPF_OBJ_PIN, path, object.as_raw_fd().cast_unsigned()).map(drop)
}

fn with_path(command: i32, path: &str, fd: u32) -> io::Result<i32> {
    let path = CString::new(path)?;
    let address = path.as_ptr() as u64;
    let mut words = [0; 16];
    (words[0], words[1], words[2]) = (address as u32, (address >> 32) as u32, fd);
    bpf(command, &mut words)
}

/// Makes the system call with the words of its `union bpf_attr`.
fn bpf(command: i32, words: &mut [u32; 16]) -> io::Result<i32> {
    // SAFETY: the commands used here read and write these words and the memory whose addresses are in them,
    // which outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, words.as_mut_ptr(), size_of_val(words)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
