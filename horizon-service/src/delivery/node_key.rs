//! Keeps the node's Ed25519 key, which signs batches and status.

use std::fs;
use std::path::Path;

use armor_base::replace::sync_dir;
use armor_bundle::keys::{KeyError, KeyType, PrivateKey};

use crate::base::disk::DiskError;

/// A `NodeKeyError` is the reason why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum NodeKeyError {
    /// The new key cannot be put into its place.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The node's key cannot be read or created.
    #[error(
        "node key: {0}; a new one would be a new node to the collector, so put back a good copy or remove the file"
    )]
    Key(#[from] KeyError),
}

/// Returns the node's key in a state directory, which the first call creates.
///
/// # Errors
/// Fails with [`NodeKeyError`] if the key cannot be read or created.
pub fn node_key(state_dir: &Path) -> Result<PrivateKey, NodeKeyError> {
    let path = state_dir.join("node.key");
    if !path.exists() {
        // Under another name first, because a half-written key would be taken for a damaged one.
        let new = state_dir.join("node.key.new");
        let _ = fs::remove_file(&new);
        PrivateKey::generate(KeyType::Ed25519)?.save_new(&new)?;
        fs::rename(&new, &path)
            .and_then(|()| sync_dir(state_dir))
            .map_err(|error| DiskError::Io { path: path.clone(), error })?;
    }
    Ok(PrivateKey::load(&path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_key_stays_and_a_damaged_one_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let id = node_key(dir.path()).unwrap().public().id().clone();
        assert_eq!(node_key(dir.path()).unwrap().public().id(), &id);
        fs::write(dir.path().join("node.key"), "").unwrap();
        assert!(node_key(dir.path()).unwrap_err().to_string().contains("node.key"));
    }
}
