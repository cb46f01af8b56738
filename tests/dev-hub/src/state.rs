//! What the two ends share inside the process.
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

/// Objects that may wait for the sender besides the one in flight (ObjectQueueBufferSize).
pub const SEND_QUEUE: usize = 2;

/// Everything the CSS, the ESS and the link work on.
pub struct State {
    pub org: String,
    pub node: String,
    pub properties: Properties,
    pub agbot: bool,
    pub poll: Duration,
    pub credentials: Mutex<Credentials>,
    /// Whom the CSS let in, and whom the ESS.
    pub remembered: [Mutex<Remembered>; 2],
    pub css: Mutex<Store>,
    pub ess: Mutex<Store>,
    /// The ESS's way to its sender. Replaced when the ESS restarts: what waited in it is lost then.
    pub send_queue: Mutex<Option<mpsc::Sender<Key>>>,
    /// The object the sender holds. It outlives a restart, for the real sender has a record of that one.
    pub in_flight: Mutex<Option<Key>>,
    /// The ESS's objects whose acknowledgement waits for the hub. Who asks for one of them waits as well.
    pub held: Mutex<BTreeSet<Key>>,
    pub hub_is_up: watch::Sender<bool>,
    pub registered: AtomicBool,
    pub wake_link: Notify,
}

impl State {
    /// The caller behind the value of an `Authorization` header. `None` refuses.
    pub fn authenticate(&self, side: Side, header: Option<&str>) -> Option<Credential> {
        let (name, token) = basic(header?)?;
        self.remembered(side).check(&lock(&self.credentials), &name, &token)
    }

    /// Whom an end has let in.
    pub fn remembered(&self, side: Side) -> MutexGuard<'_, Remembered> {
        lock(&self.remembered[usize::from(side == Side::Ess)])
    }

    /// Waits until the hub is there.
    pub async fn hub_comes_up(&self) {
        // Fails only when the sender is gone, and that is in `self`.
        let _ = self.hub_is_up.subscribe().wait_for(|up| *up).await;
    }

    /// The node as destinations name it.
    pub fn destination(&self) -> String {
        format!("{NODE_TYPE}:{}", self.node)
    }
}

/// Locks; a panic elsewhere does not spoil the data, as every change is made whole under one lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
