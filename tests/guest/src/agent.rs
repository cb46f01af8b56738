//! What a test must be that loads programs or takes them over by itself: maps and pins are an agent's alone.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

/// By which the kernel side knows an agent's program.
const NAME: &str = "hzn-armor-agent";

/// Starts this program anew under the agent's name, with the same arguments, unless it has it.
pub fn be_an_agent() -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    if program.ends_with(NAME) {
        return Ok(());
    }
    let agent = Path::new("/run/armor-guest-tests").join(NAME);
    fs::create_dir_all(agent.parent().context("no directory")?)?;
    fs::copy(program, &agent)?;
    Err(Command::new(agent).args(std::env::args_os().skip(1)).exec().into())
}
