//! Implements `detach`, which ends the enforcement that a stopped agent left behind.

use std::io::Write as _;

use anyhow::bail;
use armor_console as console;
use armor_policy::escaped_path;

use crate::base::config::Settings;
use crate::base::lock::InstanceLock;
use crate::devices::guard::DeviceGuard;
use crate::devices::sysfs::UsbTree;
use crate::events::alerts::Origin;

/// Ends the enforcement, and returns the exit status.
///
/// # Errors
/// Fails if an agent runs, or if what is pinned cannot be removed.
pub fn run(settings: &Settings) -> anyhow::Result<u8> {
    console::expect_reader()?;
    for lock in [InstanceLock::State(&settings.state_dir), InstanceLock::Tables(&settings.pin_dir)] {
        if let Some(holder) = lock.holder()? {
            bail!("{holder}: stop it first");
        }
    }
    let pins = escaped_path(&settings.pin_dir);
    // Without it, rules could refuse to be lifted. If it fails, so will what follows, and say why.
    let _ = armor_bpf::exempt_from_pinned(&settings.pin_dir);
    let done = armor_bpf::detach(&settings.pin_dir)?;
    if done.ended {
        writeln!(console::stdout(), "Detached: nothing below {pins} is enforced any more.")?;
    } else {
        writeln!(console::stdout(), "Nothing was attached below {pins}.")?;
    }
    let mut guard = DeviceGuard::new(UsbTree::of_host(), &settings.state_dir, Origin::default());
    if let Err(error) = guard.lift() {
        bail!("{error}: USB devices are still kept out; a reboot ends that");
    }
    for path in done.left {
        let path = escaped_path(&path);
        writeln!(console::stdout(), "Left there, as it is not the agent's: {path}")?;
    }
    Ok(0)
}
