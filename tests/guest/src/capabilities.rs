//! Ways to get and to use a capability.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::fs::XattrFlags;
use rustix::thread::{CapabilitySet, CapabilitySets};

pub const USAGE: &str = "
  file-capability PATH NUMBER      lets whoever starts PATH have that capability, permitted and effective
  ambient UID NUMBER PROGRAM...    starts PROGRAM as that user, with that capability and no other
  filter                           installs a seccomp filter that permits everything, without no_new_privs
";

/// Revision 2 of a file's capabilities, effective (include/uapi/linux/capability.h).
const FILE_CAPABILITIES: u32 = 0x0200_0001;

/// Does what the words say; `None` if it is none of the methods here.
pub fn run(words: &[&str]) -> Option<anyhow::Result<()>> {
    Some(match words {
        ["file-capability", path, number] => file_capability(path, number),
        ["ambient", uid, number, program, rest @ ..] => ambient(uid, number, program, rest),
        ["filter"] => filter(),
        _ => return None,
    })
}

fn set(number: &str) -> anyhow::Result<u64> {
    Ok(1 << number.parse::<u32>()?)
}

fn file_capability(path: &str, number: &str) -> anyhow::Result<()> {
    let (low, high) = (set(number)? as u32, (set(number)? >> 32) as u32);
    let value: Vec<u8> =
        [FILE_CAPABILITIES, low, 0, high, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    Ok(rustix::fs::setxattr(path, "security.capability", &value, XattrFlags::empty())?)
}

fn ambient(uid: &str, number: &str, program: &str, rest: &[&str]) -> anyhow::Result<()> {
    let uid: libc::uid_t = uid.parse()?;
    let capability: libc::c_ulong = number.parse()?;
    let only = CapabilitySet::from_bits_retain(set(number)?);
    check(prctl(libc::PR_SET_KEEPCAPS, 1, 0))?;
    // SAFETY: only numbers are passed.
    check(unsafe { libc::setresuid(uid, uid, uid) })?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: only, permitted: only, inheritable: only },
    )?;
    check(prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, capability))?;
    Err(Command::new(program).args(rest).exec().into())
}

fn filter() -> anyhow::Result<()> {
    let mut permit = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    let program = libc::sock_fprog { len: 1, filter: &raw mut permit };
    // SAFETY: the program is one instruction, which outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    check(result as i32)
}

fn prctl(option: i32, second: libc::c_ulong, third: libc::c_ulong) -> i32 {
    // SAFETY: only numbers are passed, and unused arguments are 0.
    unsafe { libc::prctl(option, second, third, 0, 0) }
}

fn check(result: i32) -> anyhow::Result<()> {
    if result < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}
