//! Makes a test pass for an agent. Maps and pins belong to agents alone, so a test that loads programs or
//! takes them over by itself has to be one.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

/// Name by which the kernel side recognizes an agent's program.
const NAME: &str = "hzn-armor-agent";

/// Restarts this program under the agent's name, with the same arguments, unless it has that name.
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
