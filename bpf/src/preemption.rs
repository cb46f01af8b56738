//! Finds out whether the kernel may skip a program because it is already running on the same processor.
//!
//! Before 6.2 a kernel does so with all programs that are attached to its functions, LSM programs among them
//! (`prog->active`, kernel/bpf/trampoline.c). From 6.2 on, and where that change was backported,
//! `__bpf_prog_enter_recur` does it for tracing programs alone. A program is found running only where a task
//! can be preempted inside of it. An access that a skipped program would have refused is permitted.

use std::fs;
use std::io;

use crate::symbols;

/// A kernel function whose presence shows that LSM programs are not skipped.
const TRACING_ALONE: &str = "__bpf_prog_enter_recur";
/// `preempt_dynamic_none` and `preempt_dynamic_voluntary`, kernel/sched/core.c. In all other modes a task can
/// be preempted anywhere.
const YIELDING: [u32; 2] = [0, 1];

/// Returns whether programs may be skipped. `mode` is the kernel's `preempt_dynamic_mode`, if it has one.
pub(crate) fn passes_over(mode: Option<u32>) -> io::Result<bool> {
    let is_tracing_alone = symbols::is_named(TRACING_ALONE)?;
    Ok(!is_tracing_alone && is_preemptible(&fs::read_to_string("/proc/version")?, mode))
}

/// Returns whether tasks are preempted inside the kernel, according to its version string (`UTS_VERSION`).
fn is_preemptible(version: &str, mode: Option<u32>) -> bool {
    let says = |word| version.split_whitespace().any(|said| said == word);
    if says("PREEMPT_DYNAMIC") {
        return !mode.is_some_and(|mode| YIELDING.contains(&mode));
    }
    says("PREEMPT") || says("PREEMPT_RT") || says("PREEMPT_LAZY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_preemption_is_understood() {
        let version = |says: &str| {
            format!(
                "Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org) #1 SMP {says} Debian 6.1.176-1"
            )
        };
        for (says, mode, expected) in [
            ("PREEMPT_DYNAMIC", Some(0), false),
            ("PREEMPT_DYNAMIC", Some(1), false),
            ("PREEMPT_DYNAMIC", Some(2), true),
            ("PREEMPT_DYNAMIC", Some(3), true),
            ("PREEMPT_DYNAMIC", None, true),
            ("PREEMPT_RT", None, true),
            ("PREEMPT", None, true),
            ("", None, false),
        ] {
            assert_eq!(is_preemptible(&version(says), mode), expected, "{says} {mode:?}");
        }
    }
}
