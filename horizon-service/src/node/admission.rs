//! Decides whether a bundle can be in force together with others.

use std::sync::Arc;

use armor_bundle::VerifiedBundle;
use armor_policy::CompileError;

use crate::node::accepted::{AcceptedBundle, Bundles, with_policies};
use crate::node::bundles::{CompiledBundles, Host};

/// Maximum number of accepted bundles.
const MAX_BUNDLES: usize = 16;
/// An `AdmissionError` is the reason why a bundle cannot be in force together with those that are.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// There are as many bundles with policies as there may be.
    #[error("{MAX_BUNDLES} bundles with policies are in force, and no more may be: lift one of {names}")]
    TooMany {
        /// The names of the bundles in force.
        names: String,
    },
    /// The policies of all bundles cannot be compiled together.
    #[error("{error}{others}")]
    Compile {
        /// The compiler's reason.
        error: CompileError,
        /// A list of the other bundles, to follow the reason; empty if there are none.
        others: String,
    },
}

impl AdmissionError {
    /// Returns the refusal's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooMany { .. } => "too-many-bundles",
            Self::Compile { .. } => "does-not-compile",
        }
    }
}

/// Compiles a bundle together with those in force, in the place of an earlier one of its name. Those of
/// `left_out` that then fit come in again. If there are too many, a bundle without policies is left out of the
/// result.
///
/// # Errors
/// Fails with [`AdmissionError`]; the others stay in force as they are.
pub fn compile_with(
    in_force: &Bundles,
    left_out: &Bundles,
    bundle: &VerifiedBundle,
    host: &Host,
) -> Result<CompiledBundles, AdmissionError> {
    let name = &bundle.payload.name;
    let mut bundles = in_force.clone();
    bundles.remove(name);
    let others: Vec<&str> = with_policies(&bundles).map(|(name, _)| name.as_str()).collect();
    let others = others.join(", ");
    if with_policies(&bundles).count() == MAX_BUNDLES && !bundle.policies.is_empty() {
        return Err(AdmissionError::TooMany { names: others });
    }
    bundles.insert(name.clone(), Arc::new(AcceptedBundle::new(bundle)));
    while bundles.len() > MAX_BUNDLES {
        let lifted = bundles.iter().find(|(_, bundle)| bundle.policies.is_empty());
        let Some(lifted) = lifted.map(|(name, _)| name.clone()) else { break };
        bundles.remove(&lifted);
    }
    let mut compiled = CompiledBundles::new(bundles, host).map_err(|error| {
        let others =
            if others.is_empty() { others } else { format!(" (together with what is in force of {others})") };
        AdmissionError::Compile { error, others }
    })?;
    for (name, bundle) in left_out.iter().filter(|(left_out, _)| *left_out != name) {
        let mut bundles = compiled.bundles().clone();
        if with_policies(&bundles).count() == MAX_BUNDLES {
            break;
        }
        bundles.insert(name.clone(), Arc::clone(bundle));
        if let Ok(with_more) = CompiledBundles::new(bundles, host) {
            compiled = with_more;
        }
    }
    Ok(compiled)
}
