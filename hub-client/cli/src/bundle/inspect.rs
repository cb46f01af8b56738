//! `hzn-armor bundle inspect` prints the content of a bundle without verifying any signature.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use armor_bundle::keys::PublicKey;
use armor_bundle::payload::{Payload, PolicyFile, Settings, Target};
use armor_bundle::trust::TrustChanges;
use armor_bundle::verify::{Signatures, SignedBundle};
use armor_console as console;
use armor_policy::escaped_path;

use crate::files::read_bundle;

/// An `Inspect` contains the arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// The bundle, signed or not
    file: PathBuf,
}

/// Runs the command.
pub fn run(command: &Inspect) -> anyhow::Result<ExitCode> {
    let name = escaped_path(&command.file);
    let bytes = read_bundle(&command.file)?;
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
    let armor_policy::Postures { file, network, capabilities, device } = posture.for_classes();
    writeln!(
        out,
        "settings: posture of files {file:?}, of networks {network:?}, of capabilities {capabilities:?}, of devices {device:?}"
    )?;
    writeln!(out, "          on agent stop {on_agent_stop:?}")?;
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
