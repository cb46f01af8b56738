//! Says what a kernel lacks, with the remedy.

/// Text for a kernel without a hook for changes of a file's flags and project id, with the remedy.
pub const FLAGS_UNSEEN: &str = "not asked about: `readOnly` does not keep a file's flags and project id from an ioctl (since \
    6.17 it does): Block the file whole, or take CAP_LINUX_IMMUTABLE and the file from who may not change them";

/// Returns the remedy if `bpf` is not among the active security modules. BPF programs load and attach without
/// it, but are never called. If the list cannot be read (it is empty then), only a refused access proves
/// anything.
pub fn without_bpf(active: &[String]) -> Option<String> {
    (!active.is_empty() && !active.iter().any(|name| name == "bpf")).then(|| {
        format!(
            "bpf is not in the LSM list: boot with `lsm={},bpf` on the kernel command line",
            active.join(",")
        )
    })
}
