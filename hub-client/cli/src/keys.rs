//! `hzn-armor keys` generates and shows signing keys.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use armor_bundle::keys::{KeyError, KeyType, Malformed, PrivateKey, PublicKey};
use armor_console as console;
use armor_policy::escaped_path;

/// A `KeysCommand` is a subcommand of `keys`.
#[derive(Debug, clap::Subcommand)]
pub enum KeysCommand {
    /// Generate a key: NAME.key, the private half that only you can read, and NAME.pem for the nodes' trust.d
    Generate(Generate),
    /// Print the id, kind and public PEM of a key file, private or public
    Show(Show),
}

/// A `Generate` contains the arguments of `generate`.
#[derive(Debug, clap::Args)]
pub struct Generate {
    /// Path and name of the key, without extension
    name: PathBuf,
    /// Kind of key; `hzn mms object publish -k` needs rsa
    #[arg(long = "type", value_enum, default_value = "ed25519")]
    kind: Kind,
}

/// A `Show` contains the arguments of `show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// PEM file
    file: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    Ed25519,
    P256,
    Rsa,
}

/// Runs the command.
pub fn run(command: KeysCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeysCommand::Generate(Generate { name, kind }) => {
            console::expect_reader()?;
            let kind = match kind {
                Kind::Ed25519 => KeyType::Ed25519,
                Kind::P256 => KeyType::P256,
                Kind::Rsa => KeyType::Rsa,
            };
            let with = |extension: &str| {
                let mut path = name.clone().into_os_string();
                path.push(extension);
                PathBuf::from(path)
            };
            let (private, public) = (with(".key"), with(".pem"));
            let key = PrivateKey::generate(kind)?;
            key.public().save_new(&public)?;
            if let Err(error) = key.save_new(&private) {
                // The public half was just written, and is useless alone.
                let _ = fs::remove_file(&public);
                return Err(error.into());
            }
            let mut out = console::stdout();
            writeln!(out, "{}  {}", key.public().id(), key.public().key_type())?;
            writeln!(out, "private: {} (keep it off the nodes)", escaped_path(&private))?;
            writeln!(
                out,
                "public:  {} (copy it to trust.d or receipt.d of the nodes)",
                escaped_path(&public)
            )?;
        }
        KeysCommand::Show(Show { file }) => {
            let key = match PublicKey::load(&file) {
                Err(KeyError::Content { problem: Malformed::Private, .. }) => {
                    PrivateKey::load(&file)?.public().clone()
                }
                other => other?,
            };
            write!(console::stdout(), "{}  {}\n{}", key.id(), key.key_type(), key.to_pem())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
