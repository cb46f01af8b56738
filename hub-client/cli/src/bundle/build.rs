//! `hzn-armor bundle build` makes policy files into a payload to be signed, or writes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use armor_base::file::is_same;
use armor_bundle::keys::{KeyId, PublicKey};
use armor_bundle::payload::{
    AlreadyHeld, FORMAT, OnAgentStop, Payload, PolicyFile, Postures, Requires, Settings, Target,
};
use armor_bundle::trust::{KeyChanges, TrustChanges};
use armor_console as console;
use armor_policy::selector_keys::NODE_PROPERTIES;
use armor_policy::{Posture, escaped_path};
use jiff::{Timestamp, ToSpan as _};

use crate::files::{self, check_output, write_output};
use crate::policy::POSTURES;
use crate::sources::{self, bundled_name};

/// A `Build` contains the arguments of `build`.
#[derive(Debug, clap::Args)]
pub struct Build {
    /// Policy files, or directories of them with their sub-directories; for none say --lift
    #[arg(required_unless_present = "lift", conflicts_with = "lift")]
    policies: Vec<PathBuf>,
    /// No policies: nodes that accept the bundle end the enforcement of earlier ones of the name
    #[arg(long)]
    lift: bool,
    /// Name of the bundle; serials count per name
    #[arg(long)]
    name: String,
    /// Serial; must rise with every bundle of the name [default: seconds since 1970]
    #[arg(long)]
    serial: Option<u64>,
    /// Days from now until nodes no longer accept the bundle (nodes that accepted it continue to enforce it)
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_days: u32,
    /// Org of the nodes
    #[arg(long, short, env = "HZN_ORG_ID")]
    org: String,
    /// Id of a target node; repeat for more [default: all nodes that fulfil the constraints]
    #[arg(long = "node")]
    nodes: Vec<String>,
    /// Constraint on node properties, such as 'openhorizon.arch == arm64'; repeat for more, all must hold
    #[arg(long = "constraint")]
    constraints: Vec<String>,
    /// Lowest version of the agent
    #[arg(long)]
    requires_agent: Option<String>,
    /// What to do with accesses to files and programs that an allow-list does not list
    #[arg(long, default_value = "audit", value_parser = console::one_of(POSTURES))]
    file_posture: Posture,
    /// What to do with the use of networks that an allow-list does not list [default: as for files]
    #[arg(long, value_parser = console::one_of(POSTURES))]
    network_posture: Option<Posture>,
    /// What to do with the use of capabilities that an allow-list does not list [default: as for files]
    #[arg(long, value_parser = console::one_of(POSTURES))]
    capabilities_posture: Option<Posture>,
    /// What to do with USB devices that an allow-list does not list [default: as for files]
    #[arg(long, value_parser = console::one_of(POSTURES))]
    device_posture: Option<Posture>,
    /// Maximum number of alerts per second and rule; the rest is only counted
    #[arg(long)]
    alerts_per_second: Option<u32>,
    /// What to do with the enforcement when the agent is stopped in an orderly way
    #[arg(long, default_value = "keep", value_parser = console::one_of(STOPS))]
    on_agent_stop: OnAgentStop,
    /// What to do with processes that already hold a file, mapping or program that the new policies deny
    #[arg(long, default_value = "report", value_parser = console::one_of(HELD))]
    already_held: AlreadyHeld,
    /// Start programs that have rights by fromSource as if they were setuid: without LD_PRELOAD and its like
    #[arg(long)]
    secure_sources: bool,
    /// Public key that nodes trust for bundles from now on; repeat for more
    #[arg(long, value_name = "PEM")]
    add_key: Vec<PathBuf>,
    /// Id of a bundle key that nodes no longer trust; repeat for more
    #[arg(long, value_name = "ID")]
    remove_key: Vec<KeyId>,
    /// Public key that nodes trust for receipts from now on; repeat for more
    #[arg(long, value_name = "PEM")]
    add_receipt_key: Vec<PathBuf>,
    /// Id of a receipt key that nodes no longer trust; repeat for more
    #[arg(long, value_name = "ID")]
    remove_receipt_key: Vec<KeyId>,
    /// Number of keys that must have signed later bundles
    #[arg(long)]
    threshold: Option<u32>,
    /// File to write [default: standard output]
    #[arg(long)]
    out: Option<PathBuf>,
}

const STOPS: [(&str, &str, OnAgentStop); 2] =
    [("keep", "", OnAgentStop::Keep), ("lift", "", OnAgentStop::Lift)];
const HELD: [(&str, &str, AlreadyHeld); 2] =
    [("report", "", AlreadyHeld::Report), ("kill", "", AlreadyHeld::Kill)];

/// Runs the command.
pub fn run(command: &Build) -> anyhow::Result<ExitCode> {
    let found = files::find(&command.policies)?;
    let policies = found.files.iter().map(|path| ("the policy file", path.as_path()));
    let keys = command.add_key.iter().chain(&command.add_receipt_key).map(|path| ("the key", path.as_path()));
    check_output("--out", command.out.as_deref(), policies.chain(keys))?;
    let names = bundled_names(&found.files)?;
    found.tell_left_out();
    let sources = sources::read(&found.files);
    for source in sources.iter().filter(|source| !source.is_good()) {
        console::tell(source.report());
    }
    if !sources.iter().all(sources::Source::is_good) {
        bail!("nothing built: correct the policies first");
    }
    sources::refuse_twins(sources.iter().flat_map(sources::Source::policies)).context("nothing built")?;
    let policies =
        names.into_iter().zip(sources).map(|(file, source)| PolicyFile { file, text: source.text }).collect();
    // Whole seconds are precise enough, and the payload stays readable.
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
                file: command.file_posture,
                network: command.network_posture,
                capabilities: command.capabilities_posture,
                device: command.device_posture,
            },
            alerts_per_second: command.alerts_per_second,
            on_agent_stop: command.on_agent_stop,
            already_held: command.already_held,
            secure_sources: command.secure_sources,
        },
        policies,
        trust: TrustChanges {
            bundle: changes(&command.add_key, &command.remove_key)?,
            receipt: changes(&command.add_receipt_key, &command.remove_receipt_key)?,
            threshold: command.threshold,
        },
    };
    payload.check_serial(created).context("nothing built")?;
    payload.trust.check().context("nothing built")?;
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
    sources::compile_as_nodes(&payload.parse_policies()?)
        .context("nothing built: together, the policies are too complex")?;
    if let Some(moment) = ahead(&payload) {
        console::tell(format_args!(
            "hzn-armor: serial {} is above the seconds since 1970, which serials are by default: build later bundles of the name with a \
             --serial above it, nodes refuse lower ones; by default they are until {moment}",
            payload.serial
        ));
    }
    write_output(command.out.as_deref(), &bytes)
}

/// Returns the time until which default serials are lower than this one, if it is above the current time.
fn ahead(payload: &Payload) -> Option<Timestamp> {
    let moment = Timestamp::from_second(i64::try_from(payload.serial).ok()?).ok()?;
    (moment > payload.created).then_some(moment)
}

/// Returns the names of files in a bundle.
fn bundled_names(files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut seen: BTreeMap<&str, &Path> = BTreeMap::new();
    for path in files {
        let name = bundled_name(path)?;
        if let Some(twin) = seen.insert(name, path) {
            let (file, other) = (escaped_path(path), escaped_path(twin));
            if is_same(path, twin) {
                bail!("{file} is the file {other} once more: name it once");
            }
            bail!(
                "{file} has the name of {other}, and a bundle knows files by their names alone: rename one of them"
            );
        }
    }
    Ok(files.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
}

fn changes(add: &[PathBuf], remove: &[KeyId]) -> anyhow::Result<KeyChanges> {
    let add = add.iter().map(|path| Ok(PublicKey::load(path)?.to_pem())).collect::<anyhow::Result<_>>()?;
    Ok(KeyChanges { add, remove: remove.to_vec() })
}
