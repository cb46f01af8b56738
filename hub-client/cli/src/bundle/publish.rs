//! `hzn-armor bundle publish` publishes a signed bundle as an object at the hub.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use armor_bundle::Payload;
use armor_bundle::keys::PrivateKey;
use armor_bundle::plain::PlainSignature;
use armor_bundle::verify::{Signatures, SignedBundle};
use armor_console as console;
use armor_mms::css::NewObject;
use armor_mms::{BUNDLE_TYPE, DestinationPolicy, MmsError, ServiceId};
use armor_policy::escaped_path;
use jiff::Timestamp;

use crate::files::read_bundle;
use crate::hub::HubArgs;

/// A `Publish` contains the arguments of `publish`.
#[derive(Debug, clap::Args)]
pub struct Publish {
    /// Signed bundle; with --plain-key, a payload
    file: PathBuf,
    #[command(flatten)]
    hub: HubArgs,
    /// Url of the service that receives the bundle on the nodes
    #[arg(long)]
    service: String,
    /// Org of that service [default: the org]
    #[arg(long)]
    service_org: Option<String>,
    /// Versions of that service; 1.0.0 means that version or newer
    #[arg(long, default_value = "0.0.0")]
    service_version: String,
    /// Architecture of that service, or * for any
    #[arg(long, default_value = "*")]
    service_arch: String,
    /// Publish the bare payload, signed as `hzn mms object publish -k` does with this RSA key
    #[arg(long, value_name = "KEY")]
    plain_key: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(command: Publish) -> anyhow::Result<ExitCode> {
    console::expect_reader()?;
    let file = escaped_path(&command.file);
    let data = read_bundle(&command.file)?;
    let bundle = SignedBundle::open(&data, None).with_context(|| file.clone())?;
    let payload = Payload::parse(bundle.payload()).with_context(|| file.clone())?;
    let plain = match (&command.plain_key, &bundle.signatures) {
        (None, Signatures::Envelope(signatures)) if !signatures.is_empty() => None,
        (None, _) => bail!("{file} is not signed: sign it with `hzn-armor bundle sign`, or give --plain-key"),
        (Some(_), Signatures::Envelope(_)) => bail!("{file} is an envelope: --plain-key signs a payload"),
        (Some(path), Signatures::Plain(_)) => {
            let key = PrivateKey::load(path)?;
            let signature = PlainSignature::make(&data, &key)
                .with_context(|| format!("{}: the hub verifies RSA alone", escaped_path(path)))??;
            Some(signature.fields())
        }
    };
    payload.check_serial(Timestamp::now()).with_context(|| file.clone())?;
    if payload.target.org != command.hub.org {
        bail!(
            "{file} is for org {}, this is {}: no node here would accept it",
            payload.target.org,
            command.hub.org
        );
    }
    let (hash_algorithm, public_key, signature) = plain.map_or((None, None, None), |fields| {
        (Some(fields.hash_algorithm), Some(fields.public_key), Some(fields.signature))
    });
    let object = NewObject {
        object_id: object_id(&payload, &bundle.digest()),
        object_type: BUNDLE_TYPE.to_owned(),
        version: payload.serial.to_string(),
        description: format!("bundle {} serial {}", payload.name, payload.serial),
        destination_policy: Some(DestinationPolicy {
            properties: Vec::new(),
            constraints: payload.target.constraints.clone(),
            services: vec![ServiceId {
                org_id: command.service_org.clone().unwrap_or_else(|| command.hub.org.clone()),
                arch: command.service_arch.clone(),
                service_name: command.service.clone(),
                version: command.service_version.clone(),
            }],
        }),
        destination: None,
        public_key,
        signature,
        hash_algorithm,
    };
    let hub = command.hub.client()?;
    // This checks that the server is a sync service before anything is published.
    hub.list_all(BUNDLE_TYPE).await?;
    hub.publish(&object, &data).await.map_err(|error| match error {
        MmsError::Rejected { status: 400, .. } => anyhow::Error::from(error).context(format!(
            "the hub refuses {}; if an object of that id was deleted and a node has not seen it yet, or was made elsewhere, build \
             with another serial",
            object.object_id
        )),
        other => other.into(),
    })?;
    // The rest is done even if nobody reads the output.
    let mut printed = writeln!(console::stdout(), "published {}/{}", object.object_type, object.object_id);

    let mut left = false;
    for other in
        hub.list_all(BUNDLE_TYPE).await.context("published, but older serials were not looked for")?
    {
        match serial_of(&other.object_id, &payload.name) {
            Some(serial) if serial < payload.serial && !other.deleted => {
                match hub.delete(BUNDLE_TYPE, &other.object_id).await {
                    Ok(()) => {
                        let removed = format!("removed {}/{}", object.object_type, other.object_id);
                        printed = printed.and_then(|()| writeln!(console::stdout(), "{removed}"));
                    }
                    Err(error) => {
                        left = true;
                        console::tell(format_args!(
                            "hzn-armor: {}/{} stays: {error}",
                            object.object_type, other.object_id
                        ));
                    }
                }
            }
            Some(serial) if serial > payload.serial && !other.deleted => console::tell(format_args!(
                "hzn-armor: {} has a higher serial; nodes that accepted it refuse this bundle: build with a serial above {serial}",
                other.object_id
            )),
            _ => {}
        }
    }
    printed?;
    Ok(if left { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Returns an object id that nobody can take in advance, because it depends on the content.
fn object_id(payload: &Payload, digest: &str) -> String {
    format!("{}.{}.{}", payload.name, payload.serial, &digest[..12])
}

/// Returns the serial in the object id of a bundle called `name`.
fn serial_of(object_id: &str, name: &str) -> Option<u64> {
    let (serial, digest) = object_id.strip_prefix(name)?.strip_prefix('.')?.split_once('.')?;
    let is_digest = digest.len() == 12 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    serial.parse().ok().filter(|_| is_digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_the_name_have_a_serial() {
        assert_eq!(serial_of("edge.7.0123456789ab", "edge"), Some(7));
        assert_eq!(serial_of("edge.a.7.0123456789ab", "edge.a"), Some(7));
        for other in [
            "edge.a.7.0123456789ab",
            "edge.7",
            "edge.7.0123",
            "edges.7.0123456789ab",
            "edge.7.0123456789ab.x",
        ] {
            assert_eq!(serial_of(other, "edge"), None, "{other}");
        }
    }
}
