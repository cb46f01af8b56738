//! One end's objects. The CSS and the ESS have one store each; what differs between them is in `api` and `link`.
//!
//! Invariant: `data` is `Some` exactly while the object's bytes can be read from this store.

use crate::meta::{MetaData, ServiceId, Status};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where an object stands with one node. Kept by the CSS for objects the hub made.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// `type:id`.
    pub name: String,
    /// pending, delivered, consumed, deleted or error.
    pub status: &'static str,
    /// Says why, where the status is error.
    pub message: String,
    /// The node has had some instance of the object.
    pub was_delivered: bool,
    /// The object was deleted, or the node taken off the list; the node does not know yet.
    pub withdraw: bool,
}

impl Destination {
    /// A destination that has got nothing yet.
    pub fn pending(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            status: "pending",
            message: String::new(),
            was_delivered: false,
            withdraw: false,
        }
    }
}

/// An object with all that its store knows of it.
#[derive(Clone, Debug)]
pub struct Object {
    /// Metadata as it is handed out.
    pub meta: MetaData,
    /// State in this store.
    pub status: Status,
    /// The bytes.
    pub data: Option<Bytes>,
    /// CSS only.
    pub destinations: Vec<Destination>,
    /// ESS only: services that an update took out of the policy and that have not acknowledged it.
    pub removed_services: Vec<ServiceId>,
    /// The receiver acknowledged the deletion; the sender does not know yet.
    pub deletion_acknowledged: bool,
    /// Metadata instance that the agbot last decided on. CSS only.
    pub placed: i64,
    /// This version was sent to the hub. ESS only.
    pub sent: bool,
}

impl Object {
    /// An object without destinations.
    pub fn new(meta: MetaData, status: Status, data: Option<Bytes>) -> Self {
        Self {
            meta,
            status,
            data,
            destinations: Vec::new(),
            removed_services: Vec::new(),
            deletion_acknowledged: false,
            placed: 0,
            sent: false,
        }
    }
}

/// Org, type and id.
pub type Key = (String, String, String);

/// The objects of one end.
#[derive(Default)]
pub struct Store {
    /// By key, so that lists have a fixed order.
    pub objects: BTreeMap<Key, Object>,
    last_instance: i64,
}

impl Store {
    /// A new instance number: the clock in nanoseconds, always greater than the one before, and never a number that f64 holds.
    pub fn next_instance(&mut self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        // Odd, so that a reader that goes through f64 gets another number and is found out.
        self.last_instance = i64::try_from(now).map_or(i64::MAX, |now| now | 1).max(self.last_instance + 2);
        self.last_instance
    }

    /// All objects of one type in an org.
    pub fn of_type<'a>(&'a self, org: &'a str, object_type: &'a str) -> impl Iterator<Item = &'a Object> {
        self.objects
            .iter()
            .filter(move |((o, t, _), _)| o == org && t == object_type)
            .map(|(_, object)| object)
    }
}
