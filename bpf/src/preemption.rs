//! Whether the kernel may pass over a program because it is already running on the same processor.
//!
//! Before 6.2 a kernel does so with all programs on its functions, LSM programs among them (`prog->active`, kernel/bpf/trampoline.c);
//! from there on, and where that was taken over, `__bpf_prog_enter_recur` does it for tracing programs alone. A program is found
//! running only where a task can be preempted inside of it. What it would have refused is permitted then.

use std::fs;
use std::io;

use crate::symbols;

/// What shows that LSM programs are not passed over.
const TRACING_ALONE: &str = "__bpf_prog_enter_recur";
/// `preempt_dynamic_none` and `preempt_dynamic_voluntary`, kernel/sched/core.c. With all others a task is preempted anywhere.
const YIELDING: [u32; 2] = [0, 1];

/// Whether programs may be passed over. `mode` is the kernel's `preempt_dynamic_mode`, where it has one.
pub(crate) fn passes_over(mode: Option<u32>) -> io::Result<bool> {
    let is_tracing_alone = symbols::is_named(TRACING_ALONE)?;
    Ok(!is_tracing_alone && is_preemptible(&fs::read_to_string("/proc/version")?, mode))
}

/// Whether tasks are preempted inside the kernel, by its version as it says it (`UTS_VERSION`).
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
