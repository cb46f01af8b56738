//! `armor-man DIR` writes the man pages and the completions of both programs below DIR, from the definitions of
//! their command lines: `man/*.1`, and one file for each shell in `completions/`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use armor_agent::cli::arguments::Cli as Agent;
use armor_cli::command::Cli as Operator;
use clap::CommandFactory as _;
use clap_complete::Shell;

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

fn main() -> Result<()> {
    let dir = std::env::args_os().nth(1).context("usage: armor-man DIR")?;
    write(Path::new(&dir))
}

fn write(dir: &Path) -> Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    for dir in [&man, &completions] {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    for (name, command) in [("hzn-armor-agent", Agent::command()), ("hzn-armor", Operator::command())] {
        let command = command.name(name).bin_name(name);
        clap_mangen::generate_to(command.clone(), &man).with_context(|| man.display().to_string())?;
        for shell in SHELLS {
            clap_complete::generate_to(shell, &mut command.clone(), name, &completions)
                .with_context(|| completions.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;

    fn names(command: &Command, above: &str, list: &mut Vec<String>) {
        let name = if above.is_empty() {
            command.get_name().to_owned()
        } else {
            format!("{above}-{}", command.get_name())
        };
        command.get_subcommands().for_each(|below| names(below, &name, list));
        list.push(format!("{name}.1"));
    }

    #[test]
    fn every_command_has_a_page_and_every_program_its_completions() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let mut expected = Vec::new();
        names(&Agent::command().name("hzn-armor-agent"), "", &mut expected);
        names(&Operator::command().name("hzn-armor"), "", &mut expected);
        for name in &expected {
            let page = fs::read_to_string(dir.path().join("man").join(name))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(page.contains(".SH NAME"), "{name}: {page}");
        }
        assert!(expected.len() > 15, "{expected:?}");
        assert_eq!(fs::read_dir(dir.path().join("completions")).unwrap().count(), 2 * SHELLS.len());
    }
}
