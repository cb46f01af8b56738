//! These tests run `alerts collect` on a full disk: objects whose alerts are not durable are neither consumed
//! nor get a receipt, the error names the file, and when there is room again each alert is written once.

#![allow(clippy::unwrap_used)]

mod node;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use armor_alerts::alert::Alert;
use armor_bundle::keys::{KeyType, PrivateKey};
use armor_contract_tests::disk::{SmallDisk, own_mounts};
use armor_contract_tests::{Fixture, Hub, both_hubs, run_all};
use armor_mms::css::CssClient;
use armor_mms::{ALERTS_TYPE, RECEIPT_TYPE, STATUS_TYPE};
use node::{Sealed, Stream};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if let Err(error) = own_mounts() {
        eprintln!("full_disk: {error}");
        return ExitCode::FAILURE;
    }
    run_all([both_hubs![
        a_full_disk_under_the_output,
        a_full_disk_under_the_state,
        a_full_disk_under_both,
        a_full_disk_under_the_report,
        a_standard_output_that_takes_nothing,
    ]])
}

struct World<H> {
    hub: Fixture<H>,
    css: CssClient,
    disk: SmallDisk,
    node: Stream,
    output: PathBuf,
    state: PathBuf,
}

impl<H: Hub> World<H> {
    /// Sets up a world in which one alert is already collected; `output` and `state` are below the fixture's
    /// directory, and the disk is `disk` there.
    async fn new(hub: Fixture<H>, output: &str, state: &str) -> Self {
        let disk = SmallDisk::mount(&hub.dir().join("disk"), 1 << 20).unwrap();
        PrivateKey::generate(KeyType::P256).unwrap().save_new(&hub.dir().join("receipt.key")).unwrap();
        let (output, state) = (hub.dir().join(output), hub.dir().join(state));
        let mut world = Self { css: hub.css().unwrap(), hub, disk, node: Stream::new(), output, state };
        let status = world.node.status();
        world.arrive(STATUS_TYPE, "node1.status", &status).await;
        world.send(1).await;
        let collected = world.collect().output().await.unwrap();
        assert!(collected.status.success(), "{}", String::from_utf8_lossy(&collected.stderr));
        assert_eq!(world.collected(), [1]);
        world
    }

    async fn arrive(&self, object_type: &str, id: &str, data: &[u8]) {
        self.hub.ess().unwrap().put(object_type, id, data).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !self.css.list(object_type).await.unwrap().iter().any(|object| object.object_id == id) {
            assert!(Instant::now() < deadline, "{id} does not arrive");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn send(&mut self, count: u64) -> Sealed {
        // These alerts are so long that they do not fit into the last page of an existing file.
        let sealed = self.node.next(0, count, &"/etc/secret".repeat(1000));
        self.arrive(ALERTS_TYPE, &sealed.id, &sealed.object).await;
        sealed
    }

    fn collect(&self) -> Command {
        let mut command = self.print();
        command.arg("--out").arg(&self.output);
        command
    }

    /// Returns the command that prints alerts to standard output.
    fn print(&self) -> Command {
        let css = self.hub.css_config();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hzn-armor"));
        command
            .args(["alerts", "collect", "--key"])
            .arg(self.hub.dir().join("receipt.key"))
            .arg("--state")
            .arg(&self.state)
            .env("HZN_ORG_ID", &css.org)
            .env("HZN_EXCHANGE_USER_AUTH", &css.user)
            .env("HZN_FSS_CSSURL", &css.url)
            .stdin(Stdio::null());
        command
    }

    fn collected(&self) -> Vec<u64> {
        sequences(&fs::read(&self.output).unwrap())
    }

    async fn receipts(&self) -> Vec<String> {
        let list = self.css.list_all(RECEIPT_TYPE).await.unwrap();
        list.into_iter().map(|object| object.object_id).collect()
    }

    /// Checks that collecting fails, names `file` and acknowledges nothing, and that with room again all
    /// alerts are collected once.
    async fn fails_until_there_is_room(mut self, file: &str) {
        let receipts = self.receipts().await;
        let sealed = self.send(20).await;
        self.disk.fill().unwrap();
        for _ in 0..2 {
            let failed = self.collect().output().await.unwrap();
            let said = String::from_utf8_lossy(&failed.stderr).into_owned();
            assert!(!failed.status.success(), "{said}");
            assert!(said.contains(file) && (said.contains("full") || said.contains("No space")), "{said}");
            assert_eq!(self.css.list(ALERTS_TYPE).await.unwrap()[0].object_id, sealed.id, "still at the hub");
            assert_eq!(self.receipts().await, receipts, "nothing is receipted");
        }
        self.disk.free().unwrap();
        let collected = self.collect().output().await.unwrap();
        assert!(collected.status.success(), "{}", String::from_utf8_lossy(&collected.stderr));
        assert_eq!(self.collected(), (1..=sealed.end.sequence).collect::<Vec<_>>());
        assert!(self.css.list(ALERTS_TYPE).await.unwrap().is_empty());
        assert_ne!(self.receipts().await, receipts);
    }
}

fn sequences(text: &[u8]) -> Vec<u64> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice::<Alert>(line).unwrap().sequence).collect()
}

async fn a_full_disk_under_the_output<H: Hub>(hub: Fixture<H>) {
    World::new(hub, "disk/alerts.ndjson", "state")
        .await
        .fails_until_there_is_room("disk/alerts.ndjson")
        .await;
}

async fn a_full_disk_under_the_state<H: Hub>(hub: Fixture<H>) {
    World::new(hub, "alerts.ndjson", "disk/state").await.fails_until_there_is_room("collector.db").await;
}

async fn a_full_disk_under_both<H: Hub>(hub: Fixture<H>) {
    World::new(hub, "disk/alerts.ndjson", "disk/state").await.fails_until_there_is_room("disk/").await;
}

async fn a_full_disk_under_the_report<H: Hub>(hub: Fixture<H>) {
    let world = World::new(hub, "alerts.ndjson", "state").await;
    let status = world.node.status();
    world.arrive(STATUS_TYPE, "node1.again", &status).await;
    world.disk.fill().unwrap();
    let collected =
        world.collect().arg("--report").arg(world.disk.dir().join("report")).output().await.unwrap();
    let said = String::from_utf8_lossy(&collected.stderr).into_owned();
    assert!(collected.status.success(), "{said}");
    assert!(said.contains("disk/report: this finding is not in the report: No space"), "{said}");
}

async fn a_standard_output_that_takes_nothing<H: Hub>(hub: Fixture<H>) {
    let mut world = World::new(hub, "alerts.ndjson", "state").await;
    let sealed = world.send(20).await;
    let full = File::options().write(true).open(Path::new("/dev/full")).unwrap();
    let failed = world.print().stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let failed = failed.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && said.contains("standard output"), "{said}");
    assert_eq!(world.css.list(ALERTS_TYPE).await.unwrap()[0].object_id, sealed.id, "still at the hub");
    let printed = world.print().output().await.unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    assert_eq!(sequences(&printed.stdout), (2..=sealed.end.sequence).collect::<Vec<_>>());
}
