//! `hzn-armor bundle verify` checks whether a node would accept a bundle.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use armor_bundle::keys::KeyId;
use armor_bundle::plain::PlainFields;
use armor_bundle::trust::{BUNDLE_KEYS, RECEIPT_KEYS, TrustStore, not_read};
use armor_bundle::{NodeIdentity, SerialFloor, verify};
use armor_console as console;
use armor_mms::MetaData;
use armor_policy::escaped_path;
use jiff::Timestamp;

use crate::files::{MAX_LEFT_OUT, read_bundle};
use crate::sources;
use crate::text::plural;

/// A `Verify` contains the arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// The bundle
    file: PathBuf,
    /// Directory with the node's trust.d
    #[arg(long)]
    trust: PathBuf,
    /// The object's metadata as JSON, for a payload that `hzn mms object publish -k` signed
    #[arg(long)]
    meta: Option<PathBuf>,
    /// Org of the node
    #[arg(long, env = "HZN_ORG_ID")]
    node_org: String,
    /// Id of the node
    #[arg(long)]
    node_id: String,
    /// Architecture of the node
    #[arg(long, default_value = "amd64")]
    arch: String,
    /// Property of the node; repeat for more
    #[arg(long = "property", value_name = "NAME=VALUE")]
    properties: Vec<String>,
}

/// Runs the command.
pub fn run(command: &Verify) -> anyhow::Result<ExitCode> {
    let trust = load_trust(&command.trust)?;
    let plain = match &command.meta {
        None => None,
        Some(path) => {
            let MetaData { hash_algorithm, public_key, signature, .. } = read_meta(path)?;
            Some(PlainFields { hash_algorithm, public_key, signature })
        }
    };
    let node = NodeIdentity {
        org: command.node_org.clone(),
        id: command.node_id.clone(),
        arch: command.arch.clone(),
        properties: command
            .properties
            .iter()
            .map(|text| {
                let (name, value) =
                    text.split_once('=').with_context(|| format!("{text:?} is not NAME=VALUE"))?;
                // As in hzn, a value that parses as a number or a boolean is one.
                let typed = serde_json::from_str(value)
                    .ok()
                    .filter(|v: &serde_json::Value| v.is_number() || v.is_boolean())
                    .unwrap_or_else(|| value.into());
                Ok((name.to_owned(), typed))
            })
            .collect::<anyhow::Result<_>>()?,
    };
    match verify(
        &read_bundle(&command.file)?,
        plain.as_ref(),
        &trust,
        &node,
        &SerialFloor::new(),
        Timestamp::now(),
    ) {
        Ok(bundle) => {
            if let Err(error) = sources::compile_as_nodes(&bundle.policies) {
                console::tell(format_args!("refused (does-not-compile): {error}"));
                return Ok(ExitCode::from(1));
            }
            let keys: Vec<_> = bundle.keys.iter().map(KeyId::as_str).collect();
            let policies = plural(bundle.policies.len(), "policy", "policies");
            writeln!(
                console::stdout(),
                "accepted: {} serial {}, {policies}, signed by {}",
                bundle.payload.name,
                bundle.payload.serial,
                keys.join(", ")
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Err(refusal) => {
            console::tell(format_args!("refused ({}): {refusal}", refusal.code()));
            Ok(ExitCode::from(1))
        }
    }
}

/// Returns the keys that a node with this directory trusts; prints the files that are skipped.
fn load_trust(dir: &Path) -> anyhow::Result<TrustStore> {
    let name = escaped_path(dir);
    ensure!(
        dir.is_dir(),
        "{name}: no such directory: --trust names the one that holds the node's {BUNDLE_KEYS}"
    );
    let (trust, problems) = TrustStore::load(dir)?;
    for problem in problems {
        console::tell(format_args!("left out: {problem}"));
    }
    for role in [BUNDLE_KEYS, RECEIPT_KEYS] {
        let not_read = not_read(&dir.join(role), MAX_LEFT_OUT + 1)?;
        for path in not_read.iter().take(MAX_LEFT_OUT) {
            console::tell(format_args!("left out: {}: its name does not end in .pem", escaped_path(path)));
        }
        if not_read.len() > MAX_LEFT_OUT {
            console::tell(format_args!("left out: more in {}", escaped_path(&dir.join(role))));
        }
    }
    if !dir.join(BUNDLE_KEYS).is_dir() {
        let missing = format!("{name} holds no directory {BUNDLE_KEYS}: --trust names the one that does");
        ensure!(trust.bundle_keys().next().is_some(), missing);
        console::tell(format_args!("{missing}; believed is only what accepted bundles added"));
    }
    Ok(trust)
}

fn read_meta(path: &Path) -> anyhow::Result<MetaData> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum OneOrList {
        List(Vec<MetaData>),
        One(Box<MetaData>),
    }
    let name = escaped_path(path);
    match serde_json::from_slice(&read_bundle(path)?).with_context(|| name.to_string())? {
        OneOrList::One(meta) => Ok(*meta),
        OneOrList::List(list) => match <[MetaData; 1]>::try_from(list) {
            Ok([meta]) => Ok(meta),
            Err(list) => bail!("{name}: the metadata of {} objects, one is wanted", list.len()),
        },
    }
}
