//! `hzn-armor alerts` collects the nodes' alerts.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::collector::{
    Collector, CollectorConfig, Finding, LEDGER_FILE, OutputConfig, ReceiptRoute, Report,
};
use anyhow::{Context as _, anyhow, ensure};
use armor_bundle::keys::{KeyId, PrivateKey};
use armor_console as console;
use armor_mms::{DestinationPolicy, ServiceId};
use armor_policy::escaped_path;

use crate::files::check_output;
use crate::hub::HubArgs;
use crate::text::plural;

/// An `AlertsCommand` is a subcommand of `alerts`.
#[derive(Debug, clap::Subcommand)]
pub enum AlertsCommand {
    /// Take the nodes' alerts from the hub, verify them and print each exactly once
    ///
    /// Other things that an operator must know (lost, forged, overwritten or removed alerts, changed node
    /// keys, refused bundles) go to standard error, and as JSON lines to --report. Nodes get signed receipts
    /// and delete the collected alerts.
    Collect(Collect),
}

/// A `Collect` contains the arguments of `collect`.
#[derive(Debug, clap::Args)]
pub struct Collect {
    #[command(flatten)]
    hub: HubArgs,
    /// Private key that signs receipts; its public half is pinned on the nodes in receipt.d
    #[arg(long, env = "HZN_ARMOR_RECEIPT_KEY")]
    key: PathBuf,
    /// Directory of the collector's state; created if it is missing [default:
    /// ~/.local/state/hzn-armor/collector]
    #[arg(long)]
    state: Option<PathBuf>,
    /// File to append to [default: standard output, where a crash can print an alert twice]
    #[arg(long)]
    out: Option<PathBuf>,
    /// File to append findings to, as JSON lines
    #[arg(long)]
    report: Option<PathBuf>,
    /// Continue until interrupted
    #[arg(long)]
    follow: bool,
    /// Seconds between two queries of the hub, with --follow
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Trust this key of a node from now on: NODE=sha256:...
    #[arg(long = "accept-key", value_name = "NODE=KEY", value_parser = node_key)]
    accept_keys: Vec<(String, KeyId)>,
    /// Show receipts only to this service on the nodes, placed by the agbot: ORG/NAME [default: send them
    /// directly to each node]
    #[arg(long, value_name = "ORG/NAME", value_parser = service)]
    receipt_service: Option<ServiceId>,
    /// Destination type of the nodes; for nodes with a pattern it is the pattern
    #[arg(long, default_value = "openhorizon.edgenode", conflicts_with = "receipt_service")]
    node_type: String,
}

fn node_key(text: &str) -> anyhow::Result<(String, KeyId)> {
    let (node, key) = text.split_once('=').context("write NODE=sha256:...")?;
    Ok((node.to_owned(), key.parse().map_err(|error| anyhow!("{error}"))?))
}

fn service(text: &str) -> anyhow::Result<ServiceId> {
    let (org, name) = text.split_once('/').context("write ORG/NAME")?;
    Ok(ServiceId {
        org_id: org.to_owned(),
        arch: "*".to_owned(),
        service_name: name.to_owned(),
        version: "0.0.0".to_owned(),
    })
}

/// Runs the command.
pub async fn run(command: AlertsCommand) -> anyhow::Result<ExitCode> {
    let AlertsCommand::Collect(collect) = command;
    let state_dir = match &collect.state {
        Some(dir) => dir.clone(),
        None => std::env::home_dir()
            .context("no home directory: give --state")?
            .join(".local/state/hzn-armor/collector"),
    };
    let (out, report_file) = (collect.out.as_deref(), collect.report.as_deref());
    // The files that SQLite keeps beside the database belong to it.
    let ledger = ["", "-wal", "-shm", "-journal"].map(|end| state_dir.join(format!("{LEDGER_FILE}{end}")));
    let certificate = collect.hub.hub_cert.as_ref().map(Path::new);
    let inputs = [("the key", Some(collect.key.as_path())), ("the hub's certificate", certificate)];
    let inputs = inputs.into_iter().filter_map(|(what, path)| Some((what, path?)));
    let inputs = inputs.chain(ledger.iter().map(|file| ("the collector's state", file.as_path())));
    check_output("--out", out, inputs.clone())?;
    check_output("--report", report_file, inputs.chain(out.map(|out| ("the file of --out,", out))))?;
    if out.is_none() {
        // A receipt makes a node delete its alerts, so somebody must be able to read them here.
        console::expect_reader()?;
    }
    let file = fs::metadata(&state_dir).is_ok_and(|meta| !meta.is_dir());
    ensure!(
        !file,
        "{}: no directory: --state names the one of the collector's state",
        escaped_path(&state_dir)
    );
    let key = PrivateKey::load(&collect.key)?;
    let css = collect.hub.client()?;
    fs::create_dir_all(&state_dir).with_context(|| escaped_path(&state_dir))?;
    let config = CollectorConfig {
        org: collect.hub.org,
        state_dir,
        output: collect.out.map_or(OutputConfig::Stdout, OutputConfig::File),
        route: match collect.receipt_service {
            Some(service) => {
                ReceiptRoute::Policy(DestinationPolicy { services: vec![service], ..Default::default() })
            }
            None => ReceiptRoute::Node(collect.node_type),
        },
        accept_keys: collect.accept_keys,
    };
    let mut collector = Collector::open(config, css, key, report(collect.report.as_deref())?)?;
    if collect.follow {
        tokio::select! {
            failed = collector.follow(Duration::from_secs(collect.every)) => failed?,
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let summary = collector.collect_once().await?;
    let count = |number: u64, one, many| plural(usize::try_from(number).unwrap_or(usize::MAX), one, many);
    console::tell(format_args!(
        "{} collected, {} published",
        count(summary.alerts, "alert", "alerts"),
        count(summary.receipts, "receipt", "receipts")
    ));
    if summary.receipts_due > 0 {
        let receipts = count(summary.receipts_due, "receipt", "receipts");
        console::tell(format_args!(
            "{receipts} could not be published: run again; the nodes keep their alerts until then"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns a function that prints findings and appends them to `path`.
fn report(path: Option<&Path>) -> anyhow::Result<Report> {
    let mut file = path
        .map(|path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Ok::<_, anyhow::Error>((path.to_owned(), file.with_context(|| escaped_path(path))?))
        })
        .transpose()?;
    Ok(Box::new(move |finding: &Finding| {
        console::tell(finding);
        if let Some((path, file)) = &mut file {
            let written = serde_json::to_string(finding)
                .map_err(std::io::Error::other)
                .and_then(|line| writeln!(file, "{line}"));
            if let Err(error) = written {
                console::tell(format_args!(
                    "{}: this finding is not in the report: {error}",
                    escaped_path(path)
                ));
            }
        }
    }))
}
