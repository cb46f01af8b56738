//! This module has the state that both ends share inside the process.
//!
//! Lock order: CSS store, then ESS store. No lock is held across an await.

use crate::api::Side;
use crate::auth::{Credential, Credentials, Remembered, basic};
use crate::policy::Properties;
use crate::store::{Key, Store};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// Destination type of a policy-registered node.
pub const NODE_TYPE: &str = "openhorizon.edgenode";

/// Number of objects that may wait for the sender besides the one in flight (ObjectQueueBufferSize).
pub const SEND_QUEUE: usize = 2;

/// `State` is everything that the CSS, the ESS and the link work on.
pub struct State {
    pub org: String,
    pub node: String,
    pub properties: Properties,
    pub agbot: bool,
    pub poll: Duration,
    pub credentials: Mutex<Credentials>,
    /// Callers that the CSS let in, and callers that the ESS let in.
    pub remembered: [Mutex<Remembered>; 2],
    pub css: Mutex<Store>,
    pub ess: Mutex<Store>,
    /// The ESS's queue to its sender. A restart of the ESS replaces it, and the objects in it are lost.
    pub send_queue: Mutex<Option<mpsc::Sender<Key>>>,
    /// The object that the sender holds. It survives a restart, as the real sender has a record of it.
    pub in_flight: Mutex<Option<Key>>,
    /// The ESS's objects whose acknowledgement waits for the hub. A request for one of them waits as well.
    pub held: Mutex<BTreeSet<Key>>,
    pub hub_is_up: watch::Sender<bool>,
    pub registered: AtomicBool,
    pub wake_link: Notify,
}

impl State {
    /// Returns the caller behind the value of an `Authorization` header, or `None` to refuse it.
    pub fn authenticate(&self, side: Side, header: Option<&str>) -> Option<Credential> {
        let (name, token) = basic(header?)?;
        self.remembered(side).check(&lock(&self.credentials), &name, &token)
    }

    /// Returns the callers that an end has let in.
    pub fn remembered(&self, side: Side) -> MutexGuard<'_, Remembered> {
        lock(&self.remembered[usize::from(side == Side::Ess)])
    }

    /// Waits until the hub is up.
    pub async fn hub_comes_up(&self) {
        // Fails only if the sender is gone, and that is in `self`.
        let _ = self.hub_is_up.subscribe().wait_for(|up| *up).await;
    }

    /// Returns the node's name in destinations.
    pub fn destination(&self) -> String {
        format!("{NODE_TYPE}:{}", self.node)
    }
}

/// Locks the mutex, even after a panic elsewhere: every change is completed under one lock, so that the data
/// is whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
