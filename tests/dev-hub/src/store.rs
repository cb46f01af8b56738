//! This module keeps the objects of one end. The CSS and the ESS have one store each; `api` and `link` make
//! the differences.
//!
//! Invariant: `data` is `Some` exactly while the object's bytes can be read from this store.

use crate::meta::{MetaData, ServiceId, Status};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// A `Destination` is the state of an object at one node. The CSS keeps it for objects that the hub made.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// `type:id`.
    pub name: String,
    /// One of pending, delivered, consumed, deleted and error.
    pub status: &'static str,
    /// Reason for the status error.
    pub message: String,
    /// True if the node has had any instance of the object.
    pub was_delivered: bool,
    /// True if the object was deleted, or the node taken off its list, and the node does not know yet.
    pub withdraw: bool,
}

impl Destination {
    /// Returns a destination that has got nothing yet.
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

/// An `Object` is an object with everything that its store knows of it.
#[derive(Clone, Debug)]
pub struct Object {
    /// Metadata as it is handed out.
    pub meta: MetaData,
    /// State in this store.
    pub status: Status,
    /// The object's data.
    pub data: Option<Bytes>,
    /// Destinations, at the CSS only.
    pub destinations: Vec<Destination>,
    /// Services that an update took out of the policy and that have not acknowledged that, at the ESS only.
    pub removed_services: Vec<ServiceId>,
    /// True if the receiver acknowledged the deletion and the sender does not know yet.
    pub deletion_acknowledged: bool,
    /// Metadata instance that the agbot last decided on, at the CSS only.
    pub placed: i64,
    /// True if this version was sent to the hub, at the ESS only.
    pub sent: bool,
}

impl Object {
    /// Returns an object without destinations.
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

/// A `Key` is an object's org, type and id.
pub type Key = (String, String, String);

/// A `Store` keeps the objects of one end.
#[derive(Default)]
pub struct Store {
    /// Objects by key, so that lists have a fixed order.
    pub objects: BTreeMap<Key, Object>,
    last_instance: i64,
}

impl Store {
    /// Returns a new instance number: the clock in nanoseconds, always greater than the one before, and never
    /// a number that f64 holds.
    pub fn next_instance(&mut self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        // Odd, so that a client that reads it as f64 gets another number, and is found out.
        self.last_instance = i64::try_from(now).map_or(i64::MAX, |now| now | 1).max(self.last_instance + 2);
        self.last_instance
    }

    /// Returns all objects of one type in an org.
    pub fn of_type<'a>(&'a self, org: &'a str, object_type: &'a str) -> impl Iterator<Item = &'a Object> {
        self.objects
            .iter()
            .filter(move |((o, t, _), _)| o == org && t == object_type)
            .map(|(_, object)| object)
    }
}
