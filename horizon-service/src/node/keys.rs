//! Keeps the pinned keys: those that an operator put on the node, as accepted bundles have changed them.

use std::path::PathBuf;
use std::sync::Arc;

use armor_bundle::keys::{KeyId, PublicKey};
use armor_bundle::trust::{TrustError, TrustStore};
use tokio::sync::watch;

use crate::base::report::{Problem, Reporter};
use crate::node::state::State;

/// `PinnedKeys` are the keys that bundles and receipts must be signed with.
pub struct PinnedKeys {
    dir: PathBuf,
    store: Arc<TrustStore>,
    /// The keys of collectors, for the uplink.
    receipt_keys: watch::Sender<Vec<PublicKey>>,
    reporter: Arc<Reporter>,
}

impl PinnedKeys {
    /// Creates a store without keys, for those in `dir`. Collectors' keys go to `receipt_keys`.
    pub fn new(dir: PathBuf, receipt_keys: watch::Sender<Vec<PublicKey>>, reporter: Arc<Reporter>) -> Self {
        Self { dir, store: Arc::default(), receipt_keys, reporter }
    }

    /// Returns the keys as they are now.
    pub fn store(&self) -> &Arc<TrustStore> {
        &self.store
    }

    /// Reads the keys again, because an operator may add and remove files at any time. Returns whether those
    /// for bundles differ.
    pub fn reload(&mut self, state: &mut State) -> bool {
        let store = match TrustStore::load(&self.dir) {
            Ok((store, problems)) => {
                let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                self.reporter.problem(Problem::Trust, (!text.is_empty()).then_some(text));
                store
            }
            Err(error) => {
                self.fails(&error);
                return false;
            }
        };
        let ids =
            |store: &TrustStore| -> Vec<KeyId> { store.bundle_keys().map(|key| key.id().clone()).collect() };
        let differ = ids(&store) != ids(&self.store);
        self.store = Arc::new(store);
        self.change(state);
        differ
    }

    /// Applies the key changes of accepted bundles.
    pub fn change(&mut self, state: &mut State) {
        if !state.pending_trust().is_empty() {
            let store = Arc::make_mut(&mut self.store);
            let outcome = state.pending_trust().iter().try_for_each(|changes| store.apply(changes));
            // Any other error is a change that pinned files have made impossible, and a retry would not help.
            if let Err(error @ (TrustError::File { .. } | TrustError::Changes { .. })) = outcome {
                return self.fails(&error);
            }
            if let Err(error) = state.trust_is_changed() {
                tracing::warn!("{error}: the same key changes are made again");
            }
        }
        let keys: Vec<PublicKey> = self.store.receipt_keys().cloned().collect();
        self.receipt_keys.send_if_modified(|old| {
            let is_new = *old != keys;
            *old = keys;
            is_new
        });
    }

    fn fails(&self, error: &TrustError) {
        self.reporter.problem(Problem::Trust, Some(error.to_string()));
    }
}
