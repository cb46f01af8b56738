//! Attaches the BPF programs, and proves that the kernel refuses accesses by them.

use std::path::Path;

use armor_bpf::{BpfError, Enforcer, ProofError};

use crate::kernel::requirements;

/// An `AttachError` is the reason why nothing can be enforced.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel's list of security modules shows that it cannot enforce; nothing was loaded.
    #[error("this kernel cannot enforce: {0}")]
    Missing(String),
    /// The kernel does not take the BPF programs or their pins.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// An access that must be refused was not, or could not be tried.
    #[error("no denial was seen: {0}")]
    Proof(#[from] ProofError),
}

/// Returns attached BPF programs that are proven to refuse accesses: by this process, or by the process that
/// made the generation live which is taken over, since none does so without that proof. Call it only on the
/// main thread while it is the only one.
///
/// # Errors
/// Fails with [`AttachError`] after unloading what was loaded.
pub fn attach(pins: Option<&Path>) -> Result<Enforcer, AttachError> {
    if let Some(reason) = requirements::without_bpf(&armor_bpf::active_modules()) {
        return Err(AttachError::Missing(reason));
    }
    let mut enforcer = Enforcer::attach(pins)?;
    if enforcer.generation() == 0
        && let Err(error) = enforcer.prove()
    {
        if let Err(error) = enforcer.unload() {
            tracing::warn!("{error}");
        }
        return Err(error.into());
    }
    Ok(enforcer)
}
