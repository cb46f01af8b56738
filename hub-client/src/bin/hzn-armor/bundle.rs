//! `hzn-armor bundle`: build, sign, verify and look into bundles.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use armor_hub_client::bundle::dsse::Envelope;
use armor_hub_client::bundle::payload::{
    AlreadyHeld, FORMAT, OnAgentStop, Payload, PolicyFile, Posture, Postures, Requires, Settings, Target,
};
use armor_hub_client::bundle::verify::{Signatures, SignedBundle};
use armor_hub_client::bundle::{MAX_BUNDLE, NodeIdentity, SerialFloor, verify};
use armor_hub_client::keys::{KeyId, PrivateKey, PublicKey};
use armor_hub_client::mms::MetaData;
use armor_hub_client::trust::{KeyChanges, TrustChanges, TrustStore};
use armor_policy::names::NODE_PROPERTIES;
use jiff::{Timestamp, ToSpan as _};

use crate::policy::{self, plural};
use crate::publish::{self, Publish};

/// What to do with bundles.
#[derive(Debug, clap::Subcommand)]
pub enum BundleCommand {
    /// Make a payload of policy files, to be signed
    Build(Build),
    /// Sign a payload, or add a signature to a signed bundle
    Sign(Sign),
    /// Decide as a node would, that has accepted none so far, whether it accepts a bundle
    Verify(Verify),
    /// Print what is in a bundle; believes nothing and checks no signature
    Inspect(Inspect),
    /// Publish a bundle at the hub and remove the older serials of its name
    Publish(Publish),
}

/// Arguments of `build`.
#[derive(Debug, clap::Args)]
pub struct Build {
    /// Policy files or folders of them; for none say --lift
    #[arg(required_unless_present = "lift", conflicts_with = "lift")]
    policies: Vec<PathBuf>,
    /// No policies: nodes that accept the bundle end what earlier ones of the name enforce
    #[arg(long)]
    lift: bool,
    /// Name of the bundle; serials count per name
    #[arg(long)]
    name: String,
    /// Serial; must rise with every bundle of the name [default: seconds since 1970]
    #[arg(long)]
    serial: Option<u64>,
    /// Days from now until no node accepts it any more (one that did goes on enforcing it)
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_days: u32,
    /// Org of the nodes
    #[arg(long, short, env = "HZN_ORG_ID")]
    org: String,
    /// Id of a node that it is for; repeat for more [default: all that fulfil the constraints]
    #[arg(long = "node")]
    nodes: Vec<String>,
    /// Constraint on node properties, such as 'openhorizon.arch == arm64'; repeat for more, all must hold
    #[arg(long = "constraint")]
    constraints: Vec<String>,
    /// Lowest version of the agent
    #[arg(long)]
    requires_agent: Option<String>,
    /// What happens to files and programs that an allow-list does not list
    #[arg(long, value_enum, default_value = "audit")]
    file_posture: FilePosture,
    /// Most alerts per second and rule; the rest is counted
    #[arg(long)]
    alerts_per_second: Option<u32>,
    /// What becomes of enforcement when the agent is stopped in good order
    #[arg(long, value_enum, default_value = "keep")]
    on_agent_stop: Stop,
    /// What becomes of a process that holds from before what the policies refuse: a descriptor, a mapping, its own program
    #[arg(long, value_enum, default_value = "report")]
    already_held: Held,
    /// Public key that nodes believe for bundles from now on; repeat for more
    #[arg(long, value_name = "PEM")]
    add_key: Vec<PathBuf>,
    /// Id of a bundle key that nodes do not believe any more; repeat for more
    #[arg(long, value_name = "ID")]
    remove_key: Vec<KeyId>,
    /// Public key that nodes believe for receipts from now on; repeat for more
    #[arg(long, value_name = "PEM")]
    add_receipt_key: Vec<PathBuf>,
    /// Id of a receipt key that nodes do not believe any more; repeat for more
    #[arg(long, value_name = "ID")]
    remove_receipt_key: Vec<KeyId>,
    /// How many keys must have signed later bundles
    #[arg(long)]
    threshold: Option<u32>,
    /// File to write [default: standard output]
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum FilePosture {
    Audit,
    Block,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Stop {
    Keep,
    Lift,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Held {
    Report,
    Kill,
}

/// Arguments of `sign`.
#[derive(Debug, clap::Args)]
pub struct Sign {
    /// Payload, or bundle that is signed already
    file: PathBuf,
    /// Private key; repeat for more signatures
    #[arg(long = "key", short, required = true)]
    keys: Vec<PathBuf>,
    /// File to write [default: standard output]
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// The bundle
    file: PathBuf,
    /// Folder with the node's trust.d
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

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// The bundle, signed or not
    file: PathBuf,
}

/// Runs the command.
pub async fn run(command: BundleCommand) -> anyhow::Result<ExitCode> {
    match command {
        BundleCommand::Build(command) => build(&command),
        BundleCommand::Sign(command) => sign(&command),
        BundleCommand::Verify(command) => check(&command),
        BundleCommand::Inspect(command) => inspect(&command),
        BundleCommand::Publish(command) => publish::run(command).await,
    }
}

fn build(command: &Build) -> anyhow::Result<ExitCode> {
    let sources = policy::sources(&command.policies)?;
    for source in sources.iter().filter(|source| !source.is_good()) {
        eprintln!("{}", source.report());
    }
    if !sources.iter().all(policy::Source::is_good) {
        bail!("nothing built: correct the policies first");
    }
    let policies = sources
        .into_iter()
        .map(|source| {
            let file = source.path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
            let file = file.with_context(|| format!("{}: the name is not text", source.path.display()))?;
            Ok(PolicyFile { file, text: source.text })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    // Whole seconds: nobody needs more, and the payload stays readable.
    let created = Timestamp::from_second(Timestamp::now().as_second())?;
    let payload = Payload {
        format: FORMAT.to_owned(),
        name: command.name.clone(),
        serial: match command.serial {
            Some(serial) => serial,
            None => u64::try_from(created.as_second()).context("the clock is before 1970: give --serial")?,
        },
        created,
        expires: created.checked_add((i64::from(command.expires_days) * 24).hours())?,
        target: Target {
            org: command.org.clone(),
            nodes: command.nodes.clone(),
            constraints: command.constraints.clone(),
        },
        requires: Requires { agent: command.requires_agent.clone() },
        settings: Settings {
            posture: Postures {
                file: match command.file_posture {
                    FilePosture::Audit => Posture::Audit,
                    FilePosture::Block => Posture::Block,
                },
            },
            alerts_per_second: command.alerts_per_second,
            on_agent_stop: match command.on_agent_stop {
                Stop::Keep => OnAgentStop::Keep,
                Stop::Lift => OnAgentStop::Lift,
            },
            already_held: match command.already_held {
                Held::Report => AlreadyHeld::Report,
                Held::Kill => AlreadyHeld::Kill,
            },
        },
        policies,
        trust: TrustChanges {
            bundle: changes(&command.add_key, &command.remove_key)?,
            receipt: changes(&command.add_receipt_key, &command.remove_receipt_key)?,
            threshold: command.threshold,
        },
    };
    let bytes = payload.to_bytes()?;
    for constraint in payload.constraints()? {
        if let Some(unknown) =
            constraint.properties().into_iter().find(|name| !NODE_PROPERTIES.contains(name))
        {
            bail!(
                "--constraint: the agent of no node knows the property {unknown:?}, but {}",
                NODE_PROPERTIES.join(", ")
            );
        }
    }
    policy::compile_as_nodes(&payload.parse_policies()?)
        .context("nothing built: together, the policies are too complex")?;
    output(command.out.as_deref(), &bytes)
}

fn changes(add: &[PathBuf], remove: &[KeyId]) -> anyhow::Result<KeyChanges> {
    let add = add.iter().map(|path| Ok(PublicKey::load(path)?.to_pem())).collect::<anyhow::Result<_>>()?;
    Ok(KeyChanges { add, remove: remove.to_vec() })
}

fn sign(command: &Sign) -> anyhow::Result<ExitCode> {
    let keys = command.keys.iter().map(|path| PrivateKey::load(path)).collect::<Result<Vec<_>, _>>()?;
    let bytes = read(&command.file)?;
    let name = command.file.display();
    let bundle = SignedBundle::open(&bytes, None).with_context(|| name.to_string())?;
    // Nobody should have to learn from a node that what was signed cannot be used.
    let payload = Payload::parse(bundle.payload()).with_context(|| name.to_string())?;
    let policies =
        payload.parse_policies().with_context(|| format!("{name}: not signed, a policy is in error"))?;
    policy::compile_as_nodes(&policies).with_context(|| format!("{name}: not signed"))?;
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
    let (trust, problems) = TrustStore::load(&command.trust)?;
    for problem in problems {
        eprintln!("left out: {problem}");
    }
    let meta = match &command.meta {
        None => None,
        Some(path) => Some(read_meta(path)?),
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
                // As hzn does: what reads as a number or a boolean is one.
                let typed = serde_json::from_str(value)
                    .ok()
                    .filter(|v: &serde_json::Value| v.is_number() || v.is_boolean())
                    .unwrap_or_else(|| value.into());
                Ok((name.to_owned(), typed))
            })
            .collect::<anyhow::Result<_>>()?,
    };
    match verify(&read(&command.file)?, meta.as_ref(), &trust, &node, &SerialFloor::new(), Timestamp::now()) {
        Ok(bundle) => {
            if let Err(error) = policy::compile_as_nodes(&bundle.policies) {
                eprintln!("refused (does-not-compile): {error}");
                return Ok(ExitCode::from(1));
            }
            let keys: Vec<_> = bundle.keys.iter().map(KeyId::as_str).collect();
            let policies = plural(bundle.policies.len(), "policy", "policies");
            println!(
                "accepted: {} serial {}, {policies}, signed by {}",
                bundle.payload.name,
                bundle.payload.serial,
                keys.join(", ")
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(refusal) => {
            eprintln!("refused ({}): {refusal}", refusal.code());
            Ok(ExitCode::from(1))
        }
    }
}

fn read_meta(path: &Path) -> anyhow::Result<MetaData> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum OneOrList {
        List(Vec<MetaData>),
        One(Box<MetaData>),
    }
    let name = path.display();
    match serde_json::from_slice(&read(path)?).with_context(|| name.to_string())? {
        OneOrList::One(meta) => Ok(*meta),
        OneOrList::List(list) => match <[MetaData; 1]>::try_from(list) {
            Ok([meta]) => Ok(meta),
            Err(list) => bail!("{name}: the metadata of {} objects, one is wanted", list.len()),
        },
    }
}

fn inspect(command: &Inspect) -> anyhow::Result<ExitCode> {
    let name = command.file.display();
    let bytes = read(&command.file)?;
    let bundle = SignedBundle::open(&bytes, None).with_context(|| name.to_string())?;
    println!("Nothing here is verified; `hzn-armor bundle verify` does that.");
    match &bundle.signatures {
        Signatures::Envelope(signatures) if signatures.is_empty() => {
            println!("form:     DSSE envelope, not signed")
        }
        Signatures::Envelope(signatures) => {
            println!("form:     DSSE envelope");
            for signature in signatures {
                let id = if signature.keyid.is_empty() { "a key without id" } else { &signature.keyid };
                println!("claims:   to be signed by {}", id.escape_debug());
            }
        }
        Signatures::Plain(_) => println!("form:     payload without a signature of its own"),
    }
    println!("digest:   sha256:{}", bundle.digest());
    let payload = Payload::parse(bundle.payload()).with_context(|| name.to_string())?;
    println!("name:     {}\nserial:   {}", payload.name, payload.serial);
    println!("created:  {}\nexpires:  {}", payload.created, payload.expires);
    let Target { org, nodes, constraints } = &payload.target;
    let nodes = if nodes.is_empty() { "all nodes".to_owned() } else { format!("nodes {}", nodes.join(", ")) };
    println!("target:   org {org}, {nodes}");
    for constraint in constraints {
        println!("          if {}", constraint.escape_debug());
    }
    if let Some(agent) = &payload.requires.agent {
        println!("requires: agent {agent} or newer");
    }
    let Settings { posture, alerts_per_second, on_agent_stop, already_held } = &payload.settings;
    let limit = alerts_per_second.map_or("the agent's limit".to_owned(), |n| n.to_string());
    println!("settings: file posture {:?}, on agent stop {on_agent_stop:?}", posture.file);
    println!("          already held {already_held:?}");
    println!("          alerts per second and rule: {limit}");
    let TrustChanges { bundle: keys, receipt, threshold } = &payload.trust;
    for (role, changes) in [("bundle", keys), ("receipt", receipt)] {
        for pem in &changes.add {
            let id = PublicKey::from_pem(pem.as_bytes())
                .map_or_else(|e| e.to_string(), |key| key.id().to_string());
            println!("trust:    adds {role} key {id}");
        }
        for id in &changes.remove {
            println!("trust:    removes {role} key {id}");
        }
    }
    if let Some(threshold) = threshold {
        println!("trust:    later bundles need {threshold} signatures");
    }
    if payload.policies.is_empty() {
        println!("policies: none; this bundle lifts enforcement");
    }
    for PolicyFile { file, text } in &payload.policies {
        match armor_policy::parse(file, text) {
            Ok(policies) => {
                for policy in policies {
                    println!("policy:   {file}: {:?} {}", policy.kind, policy.name.escape_debug());
                }
            }
            Err(diagnostics) => println!("policy:   in error\n{diagnostics}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a bundle's file, no further than a bundle may go.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BUNDLE as u64 + 1).read_to_end(&mut bytes))
        .with_context(|| path.display().to_string())?;
    Ok(bytes)
}

fn output(path: Option<&Path>, bytes: &[u8]) -> anyhow::Result<ExitCode> {
    match path {
        Some(path) => std::fs::write(path, bytes).with_context(|| path.display().to_string())?,
        None => std::io::stdout().write_all(bytes)?,
    }
    Ok(ExitCode::SUCCESS)
}
