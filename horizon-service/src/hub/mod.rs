//! Gives the agent its part of Horizon's Model Management System, through an ESS or at the CSS itself.
//!
//! A Horizon node has an ESS, which brings the node's objects and takes away what it sends. Any other machine
//! logs in at the CSS as a user of the org with the machine's name. The hub records that name as the creator
//! of objects, so the collector believes it. At the CSS, the machine sees the objects of the whole org.
//!
//! Invariants at the CSS:
//! - The machine changes only its own objects. It remembers the objects that it has processed until it ends.
//! - The objects that it sends are delivered to no node.
//! - An object of its own that is gone was taken, by the collector or somebody else; the hub does not notify
//!   its creator.

pub mod directory;
pub mod horizon;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, OnceLock, PoisonError};

use armor_bundle::NodeIdentity;
use armor_bundle::constraint::Constraint;
use armor_bundle::keys::KeyId;
use armor_mms::css::{CssClient, CssConfig};
use armor_mms::ess::{EssClient, EssConfig};
use armor_mms::{BUNDLE_TYPE, MetaData, MmsError, ObjectStatus, RECEIPT_TYPE};

/// A `HubConfig` says how to reach the hub.
#[derive(Debug, Clone)]
pub enum HubConfig {
    /// Through the node's ESS.
    Ess(EssConfig),
    /// Directly at the CSS.
    Css(CssConfig),
}

/// A `Hub` is a client of the hub, cheap to share by reference, that connects when it is used.
#[derive(Debug)]
pub enum Hub {
    /// Through the node's ESS.
    Ess(EssClient),
    /// Directly at the CSS.
    Css(Box<AtCss>),
}

/// A `Sent` is the state of a sent object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is there and waits to be taken.
    Waits,
    /// Somebody took it, which does not prove that the collector did.
    Taken,
    /// It is not there, or has no data.
    Missing,
}

impl Hub {
    /// Creates a client for this node.
    ///
    /// # Errors
    /// Fails with [`MmsError::Config`] if the configuration cannot work.
    pub fn new(config: HubConfig, node: &NodeIdentity) -> Result<Self, MmsError> {
        Ok(match config {
            HubConfig::Ess(config) => Self::Ess(EssClient::new(config)?),
            HubConfig::Css(config) => Self::Css(Box::new(AtCss::new(config, node.clone()))),
        })
    }

    /// Lists this node's bundles that it has not acknowledged, including deletions; all of them with
    /// `also_received`. Only the signed bytes say which node a bundle is really for.
    ///
    /// # Errors
    /// This and the following functions fail with [`MmsError`] if the request fails.
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

    /// Returns whether [`bundles`](Self::bundles) may list those of other nodes, because nothing assigns them
    /// to this one.
    pub fn shows_those_of_others(&self) -> bool {
        matches!(self, Self::Css(_))
    }

    /// Lists this node's receipts that it has not acknowledged, including deletions.
    pub async fn receipts(&self) -> Result<Vec<MetaData>, MmsError> {
        match self {
            Self::Ess(ess) => ess.list(RECEIPT_TYPE, false).await,
            Self::Css(css) => {
                let objects = css.client()?.list_staying(RECEIPT_TYPE, Some(&css.node.id)).await?;
                Ok(css.without_seen(RECEIPT_TYPE, objects, false))
            }
        }
    }

    /// Returns the data of an object, at most `limit` bytes.
    pub async fn data(&self, object: &MetaData, limit: u64) -> Result<Vec<u8>, MmsError> {
        let MetaData { object_type, object_id, .. } = object;
        match self {
            Self::Ess(ess) => ess.data(object_type, object_id, limit).await,
            Self::Css(css) => css.client()?.data(object_type, object_id, limit).await,
        }
    }

    /// Acknowledges that a bundle was processed.
    pub async fn received(&self, object: &MetaData) -> Result<(), MmsError> {
        match self {
            Self::Ess(ess) => ess.received(&object.object_type, &object.object_id).await,
            Self::Css(css) => css.remember(object),
        }
    }

    /// Acknowledges that a receipt was processed.
    pub async fn consumed(&self, object: &MetaData) -> Result<(), MmsError> {
        match self {
            Self::Ess(ess) => ess.consumed(&object.object_type, &object.object_id).await,
            Self::Css(css) => css.remember(object),
        }
    }

    /// Acknowledges a listed deletion.
    pub async fn deleted(&self, object: &MetaData) -> Result<(), MmsError> {
        match self {
            Self::Ess(ess) => ess.deleted(&object.object_type, &object.object_id).await,
            Self::Css(css) => css.remember(object),
        }
    }

    /// Sends an object signed by `key`, replacing that of the same id. It may be stored even after a
    /// [`MmsError::Timeout`].
    pub async fn put(&self, object_type: &str, id: &str, data: &[u8], key: &KeyId) -> Result<(), MmsError> {
        match self {
            Self::Ess(ess) => ess.put(object_type, id, data).await,
            Self::Css(css) => css.client()?.put_staying(object_type, id, key.as_str(), data).await,
        }
    }

    /// Returns the state of a sent object; `was_stored` says whether its PUT was answered.
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

    /// Deletes a sent object. It is no error if it is gone already.
    pub async fn delete(&self, object_type: &str, id: &str) -> Result<(), MmsError> {
        match self {
            Self::Ess(ess) => ess.delete(object_type, id).await,
            Self::Css(css) => css.client()?.delete(object_type, id).await,
        }
    }
}

/// An `AtCss` is a machine's client of the CSS.
#[derive(Debug)]
pub struct AtCss {
    config: CssConfig,
    /// Created at the first use, because the hub's certificate may come later.
    client: OnceLock<CssClient>,
    node: NodeIdentity,
    /// Instance of each processed object, by type and id.
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

    /// Returns whether a bundle is worth fetching. It is not if it names other nodes, where an ESS would not
    /// get it either.
    fn may_be_for_us(&self, object: &MetaData) -> bool {
        let mut properties = self.node.properties.clone();
        properties.insert("openhorizon.arch".to_owned(), self.node.arch.as_str().into());
        let mut constraints = object.destination_policy.iter().flat_map(|policy| &policy.constraints);
        let excludes =
            |text: &String| Constraint::parse(text).is_ok_and(|constraint| !constraint.holds(&properties));
        (object.destination_id.is_empty() || object.destination_id == self.node.id)
            && !constraints.any(excludes)
    }

    /// Filters a list of all objects of a type: removes the processed ones, unless `also_seen`.
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
