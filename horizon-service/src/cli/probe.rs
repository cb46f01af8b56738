//! Implements `probe`, which describes what this kernel can do and what is missing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Context as _;
use armor_bpf::{Probe, ProgramProbe};
use armor_console as console;

use crate::devices::sysfs::UsbTree;
use crate::kernel::requirements::{FLAGS_UNSEEN, without_bpf};

/// Prints what this kernel can do. Returns the exit status: 0 if it can enforce, 1 if not.
///
/// # Errors
/// Fails if the output cannot be written.
pub fn show(json: bool) -> anyhow::Result<u8> {
    let result = armor_bpf::probe();
    let usb = usb(&UsbTree::of_host());
    let enforces = result.enforces() && usb.is_ok();
    if json {
        let mut value = serde_json::to_value(&result).context("probe")?;
        if let Some(object) = value.as_object_mut() {
            object.insert("enforces".to_owned(), enforces.into());
            object.insert("missing".to_owned(), missing(&result, &usb).into());
        }
        writeln!(console::stdout(), "{value:#}")?;
    } else {
        console::stdout().write_all(text(&result, &usb).as_bytes())?;
    }
    Ok(u8::from(!enforces))
}

/// Returns what becomes of rules for USB devices, or why they could not hold.
fn usb(tree: &UsbTree) -> Result<&'static str, String> {
    match tree.obstacle() {
        _ if !tree.exists() => Ok("none, so that rules of `device` are about nothing"),
        None => Ok("devices can be kept out"),
        Some(error) => Err(format!(
            "USB devices cannot be kept out: {error}: run it with a writable sysfs, as a privileged container has"
        )),
    }
}

/// Returns what keeps this kernel from enforcing, each with the remedy; empty if nothing does.
fn missing(probe: &Probe, usb: &Result<&str, String>) -> Vec<String> {
    let mut missing: Vec<String> = usb.as_ref().err().cloned().into_iter().collect();
    if !probe.btf {
        missing.push(
            "no BTF (/sys/kernel/btf/vmlinux): a kernel with CONFIG_DEBUG_INFO_BTF=y is needed".to_owned(),
        );
    }
    missing.extend(probe.kallsyms.clone());
    if probe.lsm.is_empty() && probe.denial.is_some() {
        missing.push(
            "the LSM list (/sys/kernel/security/lsm) cannot be read: mount securityfs to see whether bpf is in it".to_owned(),
        );
    }
    missing.extend(without_bpf(&probe.lsm));
    if probe.lockdown.as_deref() == Some("confidentiality") {
        missing.push(
            "lockdown is at `confidentiality`, which forbids BPF to read the kernel: use `integrity`"
                .to_owned(),
        );
    }
    let mut unloadable: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for ProgramProbe { name, error, .. } in &probe.programs {
        if let Some(error) = error {
            unloadable.entry(error).or_default().push(name);
        }
    }
    missing.extend(
        unloadable.iter().map(|(error, names)| format!("not loadable: {}: {error}", names.join(", "))),
    );
    // BPF programs that do not load, or would not work, already explain this.
    if let Some(error) = probe.denial.as_ref().filter(|_| unloadable.is_empty() && probe.kallsyms.is_none()) {
        missing.push(format!("an access that must be denied was not: {error}"));
    }
    missing
}

/// Returns the whole result as text.
fn text(probe: &Probe, usb: &Result<&str, String>) -> String {
    let yes = |held: bool| if held { "yes" } else { "no" };
    let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{name:<14}{value}");
    };
    line("kernel", &probe.kernel);
    line("BTF", yes(probe.btf));
    line("kallsyms", probe.kallsyms.as_deref().unwrap_or("shown"));
    line("LSM list", &if probe.lsm.is_empty() { "not readable".to_owned() } else { probe.lsm.join(",") });
    line("lockdown", probe.lockdown.as_deref().unwrap_or("none"));
    line("cgroup", &or_none(&if probe.cgroup == 0 { String::new() } else { format!("v{}", probe.cgroup) }));
    line(
        "bpffs",
        if probe.bpffs { "mounted" } else { "not mounted: enforcement could not outlive the agent" },
    );
    line("file flags", if probe.file_attributes { "asked about" } else { FLAGS_UNSEEN });
    line(
        "USB",
        match usb {
            Ok(said) => said,
            Err(why) => why,
        },
    );
    for ProgramProbe { name, verified_instructions, error } in &probe.programs {
        let said = match (error, verified_instructions) {
            (Some(error), _) => error.clone(),
            (None, Some(count)) => format!("loads, {count} instructions verified"),
            (None, None) => "loads".to_owned(),
        };
        line("program", &format!("{name}: {said}"));
    }
    match &probe.denial {
        None => line("denial", "a denied access was really denied"),
        Some(error) => line("denial", &format!("did not happen: {error}")),
    }
    let missing = missing(probe, usb);
    if probe.enforces() && usb.is_ok() {
        text.push_str("This kernel enforces policies.\n");
    } else {
        text.push_str("This kernel does NOT enforce policies:\n");
        for reason in missing {
            let _ = writeln!(text, "- {reason}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_missing_and_what_to_do() {
        let probe = Probe {
            btf: true,
            kallsyms: None,
            lsm: vec!["landlock".into(), "apparmor".into()],
            lockdown: None,
            cgroup: 2,
            bpffs: true,
            file_attributes: false,
            kernel: "6.1.0".into(),
            programs: vec![
                ProgramProbe { name: "file_open".into(), verified_instructions: Some(1200), error: None },
                ProgramProbe {
                    name: "path_link".into(),
                    verified_instructions: None,
                    error: Some("EPERM".into()),
                },
            ],
            denial: Some("the file opened".into()),
        };
        let text = text(&probe, &Err("USB devices cannot be kept out".to_owned()));
        for part in [
            "lsm=landlock,apparmor,bpf",
            "1200 instructions",
            "not loadable: path_link: EPERM",
            "NOT enforce",
            "CAP_LINUX_IMMUTABLE",
            "- USB devices cannot be kept out",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(missing(&probe, &Ok("")).len(), 2);
    }

    #[test]
    fn a_list_that_cannot_be_read_matters_only_without_a_denial() {
        let mut probe = Probe {
            btf: true,
            kallsyms: None,
            lsm: Vec::new(),
            lockdown: None,
            cgroup: 2,
            bpffs: true,
            file_attributes: true,
            kernel: "6.12.0".into(),
            programs: Vec::new(),
            denial: None,
        };
        let usb = Ok("none");
        assert!(missing(&probe, &usb).is_empty() && text(&probe, &usb).contains("This kernel enforces"));
        assert!(!text(&probe, &usb).contains(FLAGS_UNSEEN));
        probe.denial = Some("the file opened".into());
        assert!(missing(&probe, &usb)[0].contains("mount securityfs"));
    }
}
