//! `hzn-armor bundle sign` signs a payload, or adds a signature to a signed bundle.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use armor_bundle::dsse::Envelope;
use armor_bundle::keys::PrivateKey;
use armor_bundle::payload::Payload;
use armor_bundle::verify::{Signatures, SignedBundle};
use armor_policy::escaped_path;
use jiff::Timestamp;

use crate::files::{check_output, read_bundle, write_output};
use crate::sources;

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

/// Runs the command.
pub fn run(command: &Sign) -> anyhow::Result<ExitCode> {
    let keys = command.keys.iter().map(|key| ("the key", key.as_path()));
    let others = keys.chain([("the bundle", command.file.as_path())]);
    check_output("--out", command.out.as_deref(), others)?;
    let keys = command.keys.iter().map(|path| PrivateKey::load(path)).collect::<Result<Vec<_>, _>>()?;
    let bytes = read_bundle(&command.file)?;
    let name = escaped_path(&command.file);
    let bundle = SignedBundle::open(&bytes, None).with_context(|| name.to_string())?;
    // An unusable bundle should be refused here, not only by the nodes.
    let payload = Payload::parse(bundle.payload()).with_context(|| name.to_string())?;
    let policies =
        payload.parse_policies().with_context(|| format!("{name}: not signed, a policy is in error"))?;
    sources::compile_as_nodes(&policies).with_context(|| format!("{name}: not signed"))?;
    sources::refuse_twins(&policies).with_context(|| format!("{name}: not signed"))?;
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
    write_output(command.out.as_deref(), &signed)
}
