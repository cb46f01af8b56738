//! What the agent needs of Horizon's Model Management System, at whichever end of it this machine is.
//!
//! A Horizon node has an ESS, which brings what is for it and takes away what it sends. Another machine logs in at the CSS, as a
//! user of the org that has the machine's name: that name is what the hub says of the objects it makes, and so what the collector
//! believes. There it sees the objects of the whole org.
//!
//! Invariants of the second way:
//! - Nothing that the machine did not make is changed at the hub. What it has dealt with it remembers for itself, until it ends.
//! - What it sends is delivered to no node.
//! - An object of its own that is gone was taken, by the collector or somebody else: the hub tells its maker nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, OnceLock, PoisonError};

use armor_hub_client::bundle::NodeIdentity;
use armor_hub_client::bundle::constraint::Constraint;
use armor_hub_client::css::{CssClient, CssConfig};
use armor_hub_client::ess::{EssClient, EssConfig};
use armor_hub_client::keys::KeyId;
use armor_hub_client::mms::{BUNDLE_TYPE, MetaData, MmsError, ObjectStatus, RECEIPT_TYPE};

/// How the hub is reached.
#[derive(Debug, Clone)]
pub enum HubConfig {
    /// By the node's ESS.
    Ess(EssConfig),
    /// At the CSS itself.
    Css(CssConfig),
}

/// A way to the hub. Cheap to share by reference; connects when it is used.
#[derive(Debug)]
pub enum Hub {
    /// By the node's ESS.
    Ess(EssClient),
    /// At the CSS itself.
    Css(Box<AtCss>),
}

/// What became of an object that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It waits to be taken.
    Waits,
    /// Somebody took it; not a proof of who.
    Taken,
    /// It is not there, or without its data.
    Missing,
}

impl Hub {
    /// The way of `config`, for this node.
    ///
    /// # Errors
    /// [`MmsError::Config`] if it cannot work.
    pub fn new(config: HubConfig, node: &NodeIdentity) -> Result<Self, MmsError> {
        Ok(match config {
            HubConfig::Ess(config) => Self::Ess(EssClient::new(config)?),
            HubConfig::Css(config) => Self::Css(Box::new(AtCss::new(config, node.clone()))),
        })
    }

    /// Bundles for this node that it did not acknowledge, deletions too; with `also_received` all of them. For whom a bundle
    /// really is, only its signed bytes say.
    ///
    /// # Errors
    /// [`MmsError`], as of all that follow.
    pub async fn bundles(&self, also_received: bool) -> Result<Vec<MetaData>, MmsError> {
        match self {
            Self::Ess(ess) => ess.list(BUNDLE_TYPE, also_received).await,
            Self::Css(css) => {
                let mut objects = css.client()?.list_all(BUNDLE_TYPE).await?;
                objects.retain(|object| css.may_be_for_us(object));
                Ok(css.without_seen(BUNDLE_TYPE, objects, also_received))
            }
        }
    }

    /// Whether [`bundles`](Self::bundles) may well be for other nodes: nobody has placed them on this one.
    pub fn shows_those_of_others(&self) -> bool {
        matches!(self, Self::Css(_))
    }

    /// Receipts for this node that it did not acknowledge, deletions too.
    pub async fn receipts(&self) -> Result<Vec<MetaData>, MmsError> {
        match self {
            Self::Ess(ess) => ess.list(RECEIPT_TYPE, false).await,
            Self::Css(css) => {
                let objects = css.client()?.list_staying(RECEIPT_TYPE, Some(&css.node.id)).await?;
                Ok(css.without_seen(RECEIPT_TYPE, objects, false))
            }
        }
    }

    /// The data of an object, at most `limit` bytes.
    pub async fn data(&self, object: &MetaData, limit: u64) -> Result<Vec<u8>, MmsError> {
        let MetaData { object_type, object_id, .. } = object;
        match self {
            Self::Ess(ess) => ess.data(object_type, object_id, limit).await,
            Self::Css(css) => css.client()?.data(object_type, object_id, limit).await,
        }
    }

    /// Acknowledges that a bundle was looked at.
    pub async fn received(&self, object: &MetaData) -> Result<(), MmsError> {
        match self {
            Self::Ess(ess) => ess.received(&object.object_type, &object.object_id).await,
            Self::Css(css) => css.remember(object),
        }
    }

    /// Acknowledges that a receipt was used.
    pub async fn consumed(&self, object: &MetaData) -> Result<(), MmsError> {
        match self {
            Self::Ess(ess) => ess.consumed(&object.object_type, &object.object_id).await,
            Self::Css(css) => css.remember(object),
        }
    }

    /// Acknowledges a deletion that a list shows.
    pub async fn deleted(&self, object: &MetaData) -> Result<(), MmsError> {
        match self {
            Self::Ess(ess) => ess.deleted(&object.object_type, &object.object_id).await,
            Self::Css(css) => css.remember(object),
        }
    }

    /// Sends an object, which `key` has signed; one of that id is replaced. After a [`MmsError::Timeout`] it may be stored.
    pub async fn put(&self, object_type: &str, id: &str, data: &[u8], key: &KeyId) -> Result<(), MmsError> {
        match self {
            Self::Ess(ess) => ess.put(object_type, id, data).await,
            Self::Css(css) => css.client()?.put_staying(object_type, id, key.as_str(), data).await,
        }
    }

    /// What became of an object that was sent; `was_stored`: its PUT was answered.
    pub async fn sent(&self, object_type: &str, id: &str, was_stored: bool) -> Result<Sent, MmsError> {
        use ObjectStatus::{Consumed, ConsumedByDest, Deleted, NotReady};
        Ok(match self {
            Self::Ess(ess) => match ess.status(object_type, id).await? {
                Some(ConsumedByDest | Consumed) => Sent::Taken,
                None | Some(Deleted | NotReady) => Sent::Missing,
                Some(_) => Sent::Waits,
            },
            Self::Css(css) => match css.client()?.status(object_type, id).await? {
                None | Some(Deleted) if was_stored => Sent::Taken,
                None | Some(Deleted | NotReady) => Sent::Missing,
                Some(_) => Sent::Waits,
            },
        })
    }

    /// Deletes an object that was sent. One that is gone already is no error.
    pub async fn delete(&self, object_type: &str, id: &str) -> Result<(), MmsError> {
        match self {
            Self::Ess(ess) => ess.delete(object_type, id).await,
            Self::Css(css) => css.client()?.delete(object_type, id).await,
        }
    }
}

/// A machine at the CSS.
#[derive(Debug)]
pub struct AtCss {
    config: CssConfig,
    /// Made when it is first used: the hub's certificate may come later.
    client: OnceLock<CssClient>,
    node: NodeIdentity,
    /// Type and id of what was dealt with, and which instance of it.
    seen: Mutex<HashMap<(String, String), i64>>,
}

impl AtCss {
    fn new(config: CssConfig, node: NodeIdentity) -> Self {
        Self { config, client: OnceLock::new(), node, seen: Mutex::default() }
    }

    fn client(&self) -> Result<&CssClient, MmsError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = CssClient::new(&self.config)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Whether a bundle is worth fetching: not what says itself that it is for others, which an ESS would not get.
    fn may_be_for_us(&self, object: &MetaData) -> bool {
        let mut properties = self.node.properties.clone();
        properties.insert("openhorizon.arch".to_owned(), self.node.arch.as_str().into());
        let mut constraints = object.destination_policy.iter().flat_map(|policy| &policy.constraints);
        let excludes =
            |text: &String| Constraint::parse(text).is_ok_and(|constraint| !constraint.holds(&properties));
        (object.destination_id.is_empty() || object.destination_id == self.node.id)
            && !constraints.any(excludes)
    }

    /// The objects, all that there are of the type, without those that were dealt with unless `also_seen`.
    fn without_seen(&self, object_type: &str, mut objects: Vec<MetaData>, also_seen: bool) -> Vec<MetaData> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let listed: HashSet<&str> = objects.iter().map(|object| object.object_id.as_str()).collect();
        seen.retain(|(kind, id), _| kind != object_type || listed.contains(id.as_str()));
        objects.retain(|object| also_seen || seen.get(&name_of(object)) != Some(&object.instance_id));
        objects
    }

    fn remember(&self, object: &MetaData) -> Result<(), MmsError> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(name_of(object), object.instance_id);
        Ok(())
    }
}

fn name_of(object: &MetaData) -> (String, String) {
    (object.object_type.clone(), object.object_id.clone())
}
