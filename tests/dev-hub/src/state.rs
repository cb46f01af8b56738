//! What the two ends share inside the process.
//!
//! Lock order: CSS store, then ESS store. No lock is held across an await.

use crate::auth::Credentials;
use crate::policy::Properties;
use crate::store::{Key, Store};
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
    pub css: Mutex<Store>,
    pub ess: Mutex<Store>,
    /// The ESS's way to its sender. Replaced when the ESS restarts: what waited in it is lost then.
    pub send_queue: Mutex<Option<mpsc::Sender<Key>>>,
    /// The object the sender holds. It outlives a restart, for the real sender has a record of that one.
    pub in_flight: Mutex<Option<Key>>,
    pub hub_is_up: watch::Sender<bool>,
    pub registered: AtomicBool,
    pub wake_link: Notify,
}

impl State {
    /// The node as destinations name it.
    pub fn destination(&self) -> String {
        format!("{NODE_TYPE}:{}", self.node)
    }
}

/// Locks; a panic elsewhere does not spoil the data, as every change is made whole under one lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
