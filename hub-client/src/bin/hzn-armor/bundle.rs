//! `hzn-armor bundle` builds, signs, verifies, inspects and publishes bundles.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use armor_hub_client::bundle::dsse::Envelope;
use armor_hub_client::bundle::payload::{Payload, PolicyFile, Settings, Target};
use armor_hub_client::bundle::plain::PlainFields;
use armor_hub_client::bundle::verify::{Signatures, SignedBundle};
use armor_hub_client::bundle::{MAX_BUNDLE, NodeIdentity, SerialFloor, verify};
use armor_hub_client::console;
use armor_hub_client::file;
use armor_hub_client::keys::{KeyId, PrivateKey, PublicKey};
use armor_hub_client::mms::MetaData;
use armor_hub_client::trust::{BUNDLE_KEYS, RECEIPT_KEYS, TrustChanges, TrustStore, not_read};
use armor_policy::escaped_path;
use jiff::Timestamp;

use crate::build::{self, Build};
use crate::files::{MAX_LEFT_OUT, check_output};
use crate::policy::{self, plural};
use crate::publish::{self, Publish};

/// A `BundleCommand` is a subcommand of `bundle`.
#[derive(Debug, clap::Subcommand)]
pub enum BundleCommand {
    /// Build a payload from policy files, to be signed
    Build(Build),
    /// Sign a payload, or add a signature to a signed bundle
    Sign(Sign),
    /// Check whether a node that has accepted no bundle yet would accept this one
    Verify(Verify),
    /// Print the content of a bundle without verifying any signature
    Inspect(Inspect),
    /// Publish a bundle at the hub and remove the older serials of its name
    Publish(Publish),
}

/// A `Sign` contains the arguments of `sign`.
#[derive(Debug, clap::Args)]
pub struct Sign {
    /// Payload, or bundle that is already signed
    file: PathBuf,
    /// Private key; repeat for more signatures
    #[arg(long = "key", short, required = true)]
    keys: Vec<PathBuf>,
    /// File to write [default: standard output]
    #[arg(long)]
    out: Option<PathBuf>,
}

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

/// An `Inspect` contains the arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// The bundle, signed or not
    file: PathBuf,
}

/// Runs the command.
pub async fn run(command: BundleCommand) -> anyhow::Result<ExitCode> {
    match command {
        BundleCommand::Build(command) => build::run(&command),
        BundleCommand::Sign(command) => sign(&command),
        BundleCommand::Verify(command) => check(&command),
        BundleCommand::Inspect(command) => inspect(&command),
        BundleCommand::Publish(command) => publish::run(command).await,
    }
}

fn sign(command: &Sign) -> anyhow::Result<ExitCode> {
    let keys = command.keys.iter().map(|key| ("the key", key.as_path()));
    let others = keys.chain([("the bundle", command.file.as_path())]);
    check_output("--out", command.out.as_deref(), others)?;
    let keys = command.keys.iter().map(|path| PrivateKey::load(path)).collect::<Result<Vec<_>, _>>()?;
    let bytes = read(&command.file)?;
    let name = escaped_path(&command.file);
    let bundle = SignedBundle::open(&bytes, None).with_context(|| name.to_string())?;
    // An unusable bundle should be refused here, not only by the nodes.
    let payload = Payload::parse(bundle.payload()).with_context(|| name.to_string())?;
    let policies =
        payload.parse_policies().with_context(|| format!("{name}: not signed, a policy is in error"))?;
    policy::compile_as_nodes(&policies).with_context(|| format!("{name}: not signed"))?;
    policy::refuse_twins(&policies).with_context(|| format!("{name}: not signed"))?;
    payload.check_serial(Timestamp::now()).with_context(|| format!("{name}: not signed"))?;
    payload.trust.check().with_context(|| format!("{name}: not signed"))?;
    let mut envelope = Envelope::new(bundle.payload());
    if let Signatures::Envelope(signatures) = &bundle.signatures {
        envelope.signatures.clone_from(signatures);
    }
    for key in &keys {
        envelope.sign(bundle.payload(), key)?;
    }
    let mut signed = serde_json::to_vec(&envelope)?;
    signed.push(b'\n');
    output(command.out.as_deref(), &signed)
}

fn check(command: &Verify) -> anyhow::Result<ExitCode> {
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
    match verify(&read(&command.file)?, plain.as_ref(), &trust, &node, &SerialFloor::new(), Timestamp::now())
    {
        Ok(bundle) => {
            if let Err(error) = policy::compile_as_nodes(&bundle.policies) {
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
    match serde_json::from_slice(&read(path)?).with_context(|| name.to_string())? {
        OneOrList::One(meta) => Ok(*meta),
        OneOrList::List(list) => match <[MetaData; 1]>::try_from(list) {
            Ok([meta]) => Ok(meta),
            Err(list) => bail!("{name}: the metadata of {} objects, one is wanted", list.len()),
        },
    }
}

fn inspect(command: &Inspect) -> anyhow::Result<ExitCode> {
    let name = escaped_path(&command.file);
    let bytes = read(&command.file)?;
    let bundle = SignedBundle::open(&bytes, None).with_context(|| name.to_string())?;
    let mut out = console::stdout();
    writeln!(out, "Nothing here is verified; `hzn-armor bundle verify` does that.")?;
    match &bundle.signatures {
        Signatures::Envelope(signatures) if signatures.is_empty() => {
            writeln!(out, "form:     DSSE envelope, not signed")?
        }
        Signatures::Envelope(signatures) => {
            writeln!(out, "form:     DSSE envelope")?;
            for signature in signatures {
                let id = if signature.keyid.is_empty() { "a key without id" } else { &signature.keyid };
                writeln!(out, "claims:   to be signed by {}", id.escape_debug())?;
            }
        }
        Signatures::Plain(_) => writeln!(out, "form:     payload without a signature of its own")?,
    }
    writeln!(out, "digest:   sha256:{}", bundle.digest())?;
    let payload = Payload::parse(bundle.payload()).with_context(|| name.to_string())?;
    writeln!(out, "name:     {}\nserial:   {}", payload.name, payload.serial)?;
    writeln!(out, "created:  {}\nexpires:  {}", payload.created, payload.expires)?;
    let Target { org, nodes, constraints } = &payload.target;
    let nodes = if nodes.is_empty() { "all nodes".to_owned() } else { format!("nodes {}", nodes.join(", ")) };
    writeln!(out, "target:   org {org}, {nodes}")?;
    for constraint in constraints {
        writeln!(out, "          if {}", constraint.escape_debug())?;
    }
    if let Some(agent) = &payload.requires.agent {
        writeln!(out, "requires: agent {agent} or newer")?;
    }
    let Settings { posture, alerts_per_second, on_agent_stop, already_held, secure_sources } =
        &payload.settings;
    let limit = alerts_per_second.map_or("the agent's limit".to_owned(), |n| n.to_string());
    writeln!(out, "settings: file posture {:?}, on agent stop {on_agent_stop:?}", posture.file)?;
    writeln!(out, "          already held {already_held:?}, secure sources {secure_sources}")?;
    writeln!(out, "          alerts per second and rule: {limit}")?;
    let TrustChanges { bundle: keys, receipt, threshold } = &payload.trust;
    for (role, changes) in [("bundle", keys), ("receipt", receipt)] {
        for pem in &changes.add {
            let id = PublicKey::from_pem(pem.as_bytes())
                .map_or_else(|e| e.to_string(), |key| key.id().to_string());
            writeln!(out, "trust:    adds {role} key {id}")?;
        }
        for id in &changes.remove {
            writeln!(out, "trust:    removes {role} key {id}")?;
        }
    }
    if let Some(threshold) = threshold {
        writeln!(out, "trust:    later bundles need {threshold} signatures")?;
    }
    if payload.policies.is_empty() {
        writeln!(out, "policies: none; this bundle lifts enforcement")?;
    }
    for PolicyFile { file, text } in &payload.policies {
        match armor_policy::parse(file, text) {
            Ok(policies) => {
                for policy in policies {
                    writeln!(out, "policy:   {file}: {:?} {}", policy.kind, policy.name.escape_debug())?;
                }
            }
            Err(diagnostics) => writeln!(out, "policy:   in error\n{diagnostics}")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a bundle's file, up to the maximum size of a bundle.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    file::read(path, MAX_BUNDLE).with_context(|| escaped_path(path))
}

/// Writes a command's result to `path`, or to standard output.
pub fn output(path: Option<&Path>, bytes: &[u8]) -> anyhow::Result<ExitCode> {
    match path {
        Some(path) => std::fs::write(path, bytes).with_context(|| escaped_path(path))?,
        None => {
            let mut out = console::stdout();
            out.write_all(bytes).and_then(|()| out.flush())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
