//! A node whose kernel only remembers what it was given.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use armor_agent::base::disk::DiskError;
use armor_agent::base::report::{BundleInForce, HealthFacts, Reporter};
use armor_agent::events::history::History;
use armor_agent::hub::Hub as Route;
use armor_agent::hub::directory::Directory;
use armor_agent::kernel::port::Kernel;
use armor_agent::node::bundles::Host;
use armor_agent::node::containers::Containers;
use armor_agent::node::enforcement::NodeEnforcement;
use armor_agent::node::intake::BundleIntake;
use armor_agent::node::keys::PinnedKeys;
use armor_agent::node::owner::{NodeHandle, Owner};
use armor_agent::node::state::State;
use armor_agent::workloads::node_selector::NodeNames;
use armor_agent::workloads::workload::Workload;
use armor_bpf::{BpfError, ContainerId, Counters, Event, Generation, Labelled, Leftover};
use armor_bundle::NodeIdentity;
use armor_bundle::dsse::Envelope;
use armor_bundle::keys::{KeyType, PrivateKey, PublicKey};
use armor_contract_tests::{Fixture, Hub};
use armor_mms::BUNDLE_TYPE;
use armor_mms::css::{CssClient, NewObject};
use serde_json::{Value, json};
use tokio::sync::watch;

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const SHELL: &str = "process: {matchPaths: [{path: /bin/true}]}";

/// A `FakeKernel` remembers the generation, its number of domains, and the containers.
#[derive(Clone, Default)]
pub struct FakeKernel(Arc<Mutex<FakeState>>);

#[derive(Default)]
pub struct FakeState {
    pub live: (u32, usize),
    pub containers: BTreeMap<ContainerId, u32>,
    pub refuses: bool,
}

impl FakeKernel {
    pub fn state(&self) -> MutexGuard<'_, FakeState> {
        self.0.lock().unwrap()
    }
}

impl Kernel for FakeKernel {
    fn generation(&self) -> u32 {
        self.state().live.0
    }

    fn swap(&mut self, generation: &Generation<'_>) -> Result<(), BpfError> {
        let mut state = self.state();
        assert!(generation.id > state.live.0);
        if state.refuses {
            return Err(BpfError::Generation { id: generation.id, reason: "no memory".into() });
        }
        state.live = (generation.id, generation.domains.len());
        Ok(())
    }

    fn containers(&self) -> BTreeMap<ContainerId, u32> {
        self.state().containers.clone()
    }

    fn add_container(&mut self, id: ContainerId, domain: u32) -> Result<(), BpfError> {
        self.state().containers.insert(id, domain);
        Ok(())
    }

    fn remove_container(&mut self, id: ContainerId) -> Result<(), BpfError> {
        self.state().containers.remove(&id);
        Ok(())
    }

    fn label_running(&mut self) -> Result<Labelled, BpfError> {
        Ok(Labelled::default())
    }

    fn release_unidentified(&mut self) -> Result<Labelled, BpfError> {
        self.label_running()
    }

    fn counters(&self) -> Result<Counters, BpfError> {
        Ok(Counters::default())
    }

    fn settle(&self) -> Result<(), BpfError> {
        Ok(())
    }

    fn leftovers(&self) -> Result<Vec<Leftover>, BpfError> {
        Ok(Vec::new())
    }

    fn preexisting(&self, _: &mut dyn FnMut(Event)) -> Result<(), BpfError> {
        Ok(())
    }
}

pub fn identity() -> NodeIdentity {
    let [org, id, arch] = ["myorg", "node1", "amd64"].map(str::to_owned);
    NodeIdentity { org, id, arch, ..NodeIdentity::default() }
}

pub struct Node<H> {
    pub hub: Fixture<H>,
    pub css: CssClient,
    pub kernel: FakeKernel,
    pub handle: Option<NodeHandle>,
    pub reporter: Arc<Reporter>,
    pub receipt_keys: watch::Sender<Vec<PublicKey>>,
    pub signer: PrivateKey,
}

impl<H: Hub> Node<H> {
    pub fn new(hub: Fixture<H>) -> Self {
        let signer = PrivateKey::generate(KeyType::Ed25519).unwrap();
        let node = Self {
            css: hub.css().unwrap(),
            hub,
            kernel: FakeKernel::default(),
            handle: None,
            reporter: Arc::default(),
            receipt_keys: watch::Sender::new(Vec::new()),
            signer,
        };
        node.pin("trust.d", node.signer.public());
        node
    }

    pub fn pin(&self, role: &str, key: &PublicKey) {
        let dir = self.hub.dir().join("trust").join(role);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{}.pem", &key.id().as_str()[7..15])), key.to_pem()).unwrap();
    }

    /// Starts an agent on the node, with everything that its earlier runs left.
    pub fn start(&mut self) -> BundleIntake {
        let ess = self.hub.ess().unwrap();
        self.start_with(Some(Route::Ess(ess)))
    }

    pub fn start_with(&mut self, route: Option<Route>) -> BundleIntake {
        let (intake, problems) = self.start_anyhow(route);
        assert!(problems.is_empty(), "{problems:?}");
        intake
    }

    /// Starts an agent that finds something unreadable in its state.
    pub fn start_damaged(&mut self) -> BundleIntake {
        let ess = self.hub.ess().unwrap();
        let (intake, problems) = self.start_anyhow(Some(Route::Ess(ess)));
        assert!(!problems.is_empty());
        intake
    }

    fn start_anyhow(&mut self, route: Option<Route>) -> (BundleIntake, Vec<DiskError>) {
        let (state, stored, problems) = State::open(&self.hub.dir().join("state")).unwrap();
        self.reporter = Arc::default();
        self.reporter.change(|facts| facts.proven = true);
        let containers = Containers::restored(Some(&self.kernel), state.containers());
        let names = NodeNames { hostname: "gw".into(), id: "node1".into(), ..NodeNames::default() };
        let host = Host { identity: identity(), names, process: "self" };
        let trust = self.hub.dir().join("trust");
        let mut enforcement = NodeEnforcement {
            keys: PinnedKeys::new(trust, self.receipt_keys.clone(), Arc::clone(&self.reporter)),
            state,
            history: self.history(),
            kernel: Some(self.kernel.clone()),
            reporter: Arc::clone(&self.reporter),
            left_out: BTreeMap::new(),
            live: None,
            devices: watch::Sender::default(),
            containers,
            labelled: false,
        };
        enforcement.restore(stored, &host);
        enforcement.reload_keys();
        let (mut owner, handle) = Owner::new(enforcement, None);
        tokio::spawn(async move { owner.run(std::future::ready(())).await });
        self.handle = Some(handle.clone());
        let directory = Directory::new(self.directory());
        let reporter = Arc::clone(&self.reporter);
        (BundleIntake::new(route.map(Arc::new), directory, host, handle, reporter), problems)
    }

    pub fn history(&self) -> History {
        History::new(&self.hub.dir().join("state"))
    }

    pub fn directory(&self) -> PathBuf {
        self.hub.dir().join("bundles")
    }

    /// Passes on `containers` as all that the runtime has.
    pub async fn follow(&self, containers: &[&Workload]) {
        let workload = |workload: &&Workload| (workload.id.clone(), Arc::new(Workload::clone(workload)));
        let workloads = Arc::new(containers.iter().map(workload).collect());
        self.handle.as_ref().unwrap().follow(workloads).await.unwrap();
    }

    pub fn known(&self) -> Vec<u32> {
        self.kernel.state().containers.values().copied().collect()
    }

    pub async fn publish(&self, id: &str, data: &[u8]) {
        let object = NewObject {
            object_id: id.into(),
            object_type: BUNDLE_TYPE.into(),
            destination: Some(self.hub.destination()),
            ..NewObject::default()
        };
        self.css.publish(&object, data).await.unwrap();
    }

    pub fn live(&self) -> (u32, usize) {
        self.kernel.state().live
    }

    pub async fn until(&self, intake: &mut BundleIntake, expected: impl Fn(&HealthFacts) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            intake.pass().await.unwrap();
            let facts = self.reporter.facts();
            if expected(&facts) {
                return;
            }
            assert!(Instant::now() < deadline, "{facts:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn until_serial(&self, intake: &mut BundleIntake, serial: u64) {
        self.until_accepted(intake, "edge", serial).await;
    }

    pub async fn until_accepted(&self, intake: &mut BundleIntake, name: &str, serial: u64) {
        self.until(intake, |facts| in_force(facts, name).is_some_and(|bundle| bundle.serial == serial)).await;
    }

    pub async fn until_refused(&self, intake: &mut BundleIntake, id: &str) -> String {
        let found = |facts: &HealthFacts| facts.refused.iter().find(|refused| refused.object == id).cloned();
        self.until(intake, |facts| found(facts).is_some()).await;
        found(&self.reporter.facts()).unwrap().code
    }
}

/// Returns what is in force of the bundle `name`.
pub fn in_force(facts: &HealthFacts, name: &str) -> Option<BundleInForce> {
    facts.in_force.as_ref()?.bundles.iter().find(|bundle| bundle.name == name).cloned()
}

pub fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {{name: h}}\nspec:\n  nodeSelector: \
         {{matchLabels: {{kubearmor.io/hostname: '*'}}}}\n  {spec}\n"
    )
}

pub fn payload(name: &str, serial: u64, policies: &[String]) -> Value {
    let policies: Vec<Value> = policies
        .iter()
        .enumerate()
        .map(|(number, text)| json!({"file": format!("{number}.yaml"), "text": text}))
        .collect();
    json!({
        "format": "horizon-armor.bundle/1", "name": name, "serial": serial, "created": "2026-01-01T00:00:00Z",
        "expires": "2099-01-01T00:00:00Z", "target": {"org": "myorg"}, "policies": policies,
    })
}

pub fn signed(payload: &Value, key: &PrivateKey) -> Vec<u8> {
    let bytes = payload.to_string();
    let mut envelope = Envelope::new(bytes.as_bytes());
    envelope.sign(bytes.as_bytes(), key).unwrap();
    serde_json::to_vec(&envelope).unwrap()
}
