//! Checks the kernel programs for arm64, without a guest to run them. The build compiles them; here libbpf
//! resolves every CO-RE relocation of the object against the types of Debian's arm64 kernels, and the hooks
//! are looked up there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fs};

use libbpf_rs::ObjectBuilder;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Func, Typedef};

const OBJECT: &str = concat!(env!("OUT_DIR"), "/aarch64/armor.o");

struct Kernel {
    /// Name for scripts/arm64-kernel.
    name: &'static str,
    /// Programs whose hook the kernel lacks; the loader leaves them out.
    lacks: &'static [&'static str],
    /// Types and fields that the kernel lacks, and whose presence the programs check before they read them.
    without: &'static [&'static str],
    /// True if programs can be attached to the kernel's functions: on arm64 since 6.4.
    attaches: bool,
}

const KERNELS: [Kernel; 3] = [
    Kernel {
        name: "6.1",
        lacks: &["lsm/file_truncate", "lsm/inode_file_setattr", "lsm/inode_remove_acl", "lsm/inode_set_acl"],
        without: &[".__ns_ref", "ns.ns_id", "struct backing_file", "dentry_flags", "dentry___flat"],
        attaches: false,
    },
    Kernel {
        name: "6.12",
        lacks: &["lsm/inode_file_setattr"],
        without: &[".__ns_ref", "ns.ns_id", "dentry_flags", "dentry___flat"],
        attaches: true,
    },
    Kernel {
        name: "latest",
        lacks: &[],
        without: &["ns.count", "mnt_namespace.seq", "dentry.d_u"],
        attaches: true,
    },
];

/// Files with the types of [`KERNELS`], in the same order.
static TYPES: LazyLock<Vec<PathBuf>> = LazyLock::new(|| KERNELS.iter().map(types_of).collect());

#[test]
fn every_relocation_resolves() {
    for (kernel, types) in KERNELS.iter().zip(&*TYPES) {
        let said = resolve(types);
        let mut relocations: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for line in said.lines() {
            if let Some((relocation, what)) = about(line) {
                relocations.entry(relocation).or_default().push(what);
            }
        }
        // There would be few if bpftool worded its output differently; the test would then show nothing.
        assert!(relocations.len() > 300, "{}: only {} relocations: {said}", kernel.name, relocations.len());
        // A check whether something exists need not resolve, nor need what is read after it.
        let is_asked = |what: &str| {
            what.contains("_exists>") || kernel.without.iter().any(|without| what.contains(without))
        };
        relocations.retain(|_, whats| {
            !whats.iter().any(|what| what.starts_with("matching candidate #") || is_asked(what))
        });
        assert!(relocations.is_empty(), "{}: does not resolve: {relocations:#?}", kernel.name);
    }
}

#[test]
fn the_hooks_are_there() {
    let object = ObjectBuilder::default().open_file(OBJECT).unwrap();
    let sections: BTreeSet<_> =
        object.progs().map(|program| program.section().to_str().unwrap().to_owned()).collect();
    for (kernel, types) in KERNELS.iter().zip(&*TYPES) {
        let types = Btf::from_path(types).unwrap();
        let functions: BTreeSet<_> = types.type_by_kind::<Func<'_>>().filter_map(|it| it.name()).collect();
        let typedefs: BTreeSet<_> = types.type_by_kind::<Typedef<'_>>().filter_map(|it| it.name()).collect();
        let function = |name: &str| functions.contains(OsStr::new(name));
        let hook = |section: &str| match section.split_once('/').unwrap_or((section, "")) {
            ("lsm", name) => function(&format!("bpf_lsm_{name}")),
            ("iter", name) => function(&format!("bpf_iter_{name}")),
            // The object's own function.
            ("freplace", "judge") => true,
            // The functions are those of the calls that rules name.
            ("kprobe", "") => true,
            // It is attached to a control group.
            ("cgroup_skb", "egress" | "ingress") => true,
            ("tp_btf", name) => typedefs.contains(OsStr::new(&format!("btf_trace_{name}"))),
            _ => panic!("{section}: what hook is that?"),
        };
        let missing: Vec<_> = sections.iter().filter(|section| !hook(section)).collect();
        assert_eq!(missing, kernel.lacks, "{}", kernel.name);
        // Without it, attaching fails with ENOTSUPP.
        assert_eq!(function("register_ftrace_direct"), kernel.attaches, "{}", kernel.name);
    }
}

/// Returns what libbpf prints about each relocation. bpftool collects the types that an object needs, and for
/// that resolves all of them.
fn resolve(types: &Path) -> String {
    let output = Command::new("bpftool")
        // /usr/sbin is not on every user's PATH.
        .env("PATH", format!("{}:/usr/sbin", env::var("PATH").unwrap()))
        .args(["--debug", "gen", "min_core_btf"])
        .args([types, &types.with_extension("needed")])
        .arg(OBJECT)
        .output()
        .expect("bpftool, which scripts/setup installs");
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {said}", types.display());
    said
}

/// Splits `libbpf: prog 'lsm/file_open': relo #3: WHAT` before WHAT.
fn about(line: &str) -> Option<(&str, &str)> {
    let number = line.find(": relo #")? + 2;
    let end = number + line[number..].find(": ")?;
    Some((&line[..end], &line[end + 2..]))
}

/// Cuts the types of a kernel out of its image, and returns their file.
fn types_of(kernel: &Kernel) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/arm64-kernel");
    let output = Command::new(script).arg(kernel.name).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    let image = fs::read(String::from_utf8(output.stdout).unwrap().trim_end()).unwrap();
    // struct btf_header: magic, version, flags and its own length, then the offset and length of the types,
    // and the same of the strings.
    let header = [0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
    let start = image.windows(header.len()).position(|window| window == header);
    let types =
        &image[start.unwrap_or_else(|| panic!("{}: no types; is the image compressed?", kernel.name))..];
    let field = |at: usize| u32::from_le_bytes(types[at..at + 4].try_into().unwrap()) as usize;
    let length = 24 + field(16) + field(20);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("arm64-{}.btf", kernel.name));
    fs::write(&file, &types[..length]).unwrap();
    file
}
