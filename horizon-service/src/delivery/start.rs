//! Opens the spool and starts the uplink.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use armor_alerts::batch::Sealer;
use armor_bundle::keys::PublicKey;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::base::report::{Offline, Problem, Reporter};
use crate::delivery::alert_log::AlertLog;
use crate::delivery::node_key::node_key;
use crate::delivery::uplink::{Uplink, UplinkConfig};
use crate::hub::Hub;

/// `Delivery` opens the spool and starts the uplink to the hub. If their files cannot be created, everything
/// else goes on, and it tries again later.
pub struct Delivery {
    /// The alerts to deliver.
    pub alert_log: AlertLog,
    /// The reporter of all facts about the agent.
    pub reporter: Arc<Reporter>,
    /// The state directory, which has the node's key.
    pub state_dir: PathBuf,
    /// The organisation and the node's id.
    pub node: (String, String),
    /// The uplink's intervals.
    pub config: UplinkConfig,
    /// The pinned keys of collectors.
    pub receipt_keys: watch::Receiver<Vec<PublicKey>>,
    /// The offline state that the previous run left.
    pub last_offline: Option<Offline>,
    /// True once the spool was opened.
    pub spool_is_open: bool,
    /// Set until the uplink runs; also `None` if there is no hub.
    pub hub: Option<Arc<Hub>>,
    /// The running uplink, and its offline state.
    pub uplink: Option<(JoinHandle<()>, watch::Receiver<Option<Offline>>)>,
}

impl Delivery {
    /// Returns since when and why nothing reaches the hub.
    pub fn offline(&self) -> Option<Offline> {
        self.uplink.as_ref().and_then(|(_, offline)| offline.borrow().clone())
    }

    /// Ends the uplink.
    pub fn end(&self) {
        if let Some((uplink, _)) = &self.uplink {
            uplink.abort();
        }
    }

    /// Starts whatever has not started yet; called periodically.
    pub fn begin(&mut self) {
        if !self.spool_is_open {
            self.spool_is_open = self.open_spool();
        }
        if let Some(hub) = self.hub.take() {
            self.start_uplink(hub);
        }
    }

    fn open_spool(&self) -> bool {
        let mut spool = self.alert_log.spool.lock().unwrap_or_else(PoisonError::into_inner);
        match spool.ensure_open() {
            Ok(()) => {
                if let Some(recovered) = spool.recovered() {
                    tracing::error!("{recovered}");
                }
                self.reporter.problem(Problem::Spool, None);
                true
            }
            Err(error) => {
                self.fails(Problem::Spool, &error, "alerts are only counted until it can be opened");
                false
            }
        }
    }

    fn start_uplink(&mut self, hub: Arc<Hub>) {
        let key = match node_key(&self.state_dir) {
            Ok(key) => key,
            Err(error) => {
                self.hub = Some(hub);
                return self.fails(Problem::NodeKey, &error, "nothing is sent until there is a key");
            }
        };
        self.reporter.problem(Problem::NodeKey, None);
        let (org, node) = self.node.clone();
        let uplink = Uplink::new(
            self.config.clone(),
            hub,
            Arc::clone(&self.alert_log.spool),
            Arc::new(Sealer { org, node, key }),
            self.receipt_keys.clone(),
            self.reporter.reports(),
        )
        .that_was(self.last_offline.take());
        let offline = uplink.offline();
        self.uplink = Some((tokio::spawn(uplink.run(Arc::clone(&self.alert_log.appended))), offline));
    }

    /// Reports a failure once, however often the attempt is repeated.
    fn fails(&self, problem: Problem, error: &dyn std::error::Error, meanwhile: &str) {
        if !self.reporter.read(|facts| facts.problems.contains_key(&problem)) {
            let reason = format!("{error}; {meanwhile}");
            tracing::error!("{reason}");
            self.reporter.problem(problem, Some(reason));
        }
    }
}
