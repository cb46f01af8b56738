//! These tests follow the containers of a real dockerd, those that exist and those that come and go, and
//! check that the agent sees each before it runs.
//!
//! Each test starts its own dockerd beside any other, which needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use armor_agent::workloads::root::Root;
use armor_agent::workloads::runtime::{Runtime, RuntimeState, Workloads};
use armor_agent::workloads::workload::Workload;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RenameContainerOptions, StartContainerOptions,
    StopContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::TryStreamExt as _;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);
const IMAGE: &str = "armor-test:1";
/// Statically linked, as the image has no C library.
const BUSYBOX: &str = "/usr/bin/busybox";

struct Dockerd {
    dir: TempDir,
    child: Child,
}

impl Dockerd {
    /// Starts a dockerd. Without root it prints so and returns `None`.
    fn start() -> Option<Self> {
        if !geteuid().is_root() {
            eprintln!("left out: dockerd needs root");
            return None;
        }
        // Not below a long TMPDIR, as a socket's path has at most 107 bytes.
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let child = Self::spawn(dir.path());
        Some(Self { dir, child })
    }

    fn spawn(dir: &Path) -> Child {
        let log = || File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let option = |name: &str, path: &str| format!("--{name}={}", dir.join(path).display());
        Command::new("dockerd")
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .arg(format!("--host=unix://{}", dir.join("docker.sock").display()))
            .args([option("data-root", "data"), option("exec-root", "exec"), option("pidfile", "pid")])
            .stdout(log())
            .stderr(log())
            .spawn()
            .expect("dockerd; scripts/setup installs it")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Waits until dockerd answers and returns a client.
    async fn client(&self) -> Docker {
        let ready = async {
            loop {
                if let Ok(docker) =
                    Docker::connect_with_unix(&self.socket().to_string_lossy(), 60, API_DEFAULT_VERSION)
                    && let Ok(docker) = docker.negotiate_version().await
                {
                    return docker;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match timeout(DEADLINE, ready).await {
            Ok(docker) => docker,
            Err(_) => panic!("dockerd: {}", fs::read_to_string(self.dir.path().join("log")).unwrap()),
        }
    }

    fn stop(&mut self) {
        let pid = Pid::from_child(&self.child);
        // Fails if dockerd has ended already, which does no harm.
        let _ = kill_process(pid, Signal::TERM);
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = Self::spawn(self.dir.path());
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Imports an image in which `/bin` is a link, as in most images.
async fn import_image(docker: &Docker) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("usr/bin")).unwrap();
    fs::copy(BUSYBOX, root.path().join("usr/bin/busybox"))
        .expect("busybox-static; scripts/setup installs it");
    symlink("usr/bin", root.path().join("bin")).unwrap();
    for tool in ["sh", "sleep", "cat"] {
        symlink("busybox", root.path().join("usr/bin").join(tool)).unwrap();
    }
    let tar = Command::new("tar").arg("-C").arg(root.path()).args(["-c", "."]).output().unwrap();
    let options = CreateImageOptionsBuilder::new().from_src("-").repo("armor-test").tag("1").build();
    let body = bollard::body_full(tar.stdout.into());
    docker.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>().await.unwrap();
}

async fn create(
    docker: &Docker,
    name: &str,
    command: &[&str],
    labels: &[(&str, &str)],
    binds: &[String],
) -> String {
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let labels: HashMap<String, String> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(own(command)),
        labels: Some(labels),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            binds: Some(binds.to_vec()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    docker.create_container(Some(options), body).await.unwrap().id
}

async fn start(docker: &Docker, id: &str) {
    docker.start_container(id, None::<StartContainerOptions>).await.unwrap();
}

async fn stop(docker: &Docker, id: &str) {
    docker.stop_container(id, Some(StopContainerOptionsBuilder::new().t(0).build())).await.unwrap();
}

async fn remove(docker: &Docker, id: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    docker.remove_container(id, Some(options)).await.unwrap();
}

/// A `View` is what the agent knows of a runtime and its containers.
struct View {
    state_dir: TempDir,
    workloads: watch::Receiver<Arc<Workloads>>,
    state: watch::Receiver<RuntimeState>,
}

impl View {
    fn of(socket: &Path) -> Self {
        let state_dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new(socket, state_dir.path());
        let (workloads, state) = (runtime.workloads(), runtime.state());
        tokio::spawn(runtime.run());
        Self { state_dir, workloads, state }
    }

    /// Waits until `holds` is true of the container, and returns it.
    async fn until(
        &self,
        what: &str,
        id: &str,
        holds: impl Fn(Option<&Workload>) -> bool,
    ) -> Option<Arc<Workload>> {
        let mut workloads = self.workloads.clone();
        let seen = timeout(DEADLINE, workloads.wait_for(|all| holds(all.get(id).map(AsRef::as_ref)))).await;
        match seen {
            Ok(seen) => seen.unwrap().get(id).cloned(),
            Err(_) => panic!("{what}: {:?}", self.workloads.borrow().get(id)),
        }
    }

    async fn state(&mut self, what: &str, holds: impl Fn(&RuntimeState) -> bool) {
        let seen =
            timeout(DEADLINE, self.state.wait_for(|state| holds(state))).await.map(|seen| seen.is_ok());
        assert_eq!(seen, Ok(true), "{what}: {:?}", self.state.borrow());
    }
}

fn is_connected(state: &RuntimeState) -> bool {
    matches!(state, RuntimeState::Connected { left_out: 0, .. })
}

fn runs(workload: Option<&Workload>) -> bool {
    workload.is_some_and(|workload| workload.pid.is_some())
}

fn is_complete(workload: Option<&Workload>) -> bool {
    workload.is_some_and(|workload| !workload.layers.is_empty())
}

const SLEEP: [&str; 2] = ["/bin/sleep", "600"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_are_followed_from_create_to_destroy() {
    let Some(dockerd) = Dockerd::start() else { return };
    let docker = dockerd.client().await;
    import_image(&docker).await;
    let running = create(&docker, "running", &SLEEP, &[("app", "web")], &[]).await;
    start(&docker, &running).await;
    let created = create(&docker, "created", &SLEEP, &[], &[]).await;

    let mut view = View::of(&dockerd.socket());
    let found = view.until("one that ran before", &running, |w| runs(w) && is_complete(w)).await.unwrap();
    assert_eq!(
        (found.name.as_str(), found.image.as_str(), found.id.as_str()),
        ("running", IMAGE, running.as_str())
    );
    assert_eq!((found.labels["app"].as_str(), found.horizon.as_ref()), ("web", None));
    let process = found.process().expect("its first process is of its control group");
    assert_eq!(fs::read_to_string(format!("/proc/{process}/comm")).unwrap(), "sleep\n");
    assert!(found.root().directory().is_some());
    let found = view.until("one that was only created", &created, is_complete).await.unwrap();
    assert_eq!((found.pid, found.root().directory()), (None, None));
    assert_eq!(found.root().resolve("/bin/sh", false), Path::new("/usr/bin/sh"));
    assert_eq!(found.root().resolve("/bin/sh", true), Path::new("/usr/bin/busybox"));
    view.state("all are known", is_connected).await;

    start(&docker, &created).await;
    let started = view.until("started", &created, runs).await.unwrap();
    assert_eq!(started.root().resolve("/bin/sh", true), Path::new("/usr/bin/busybox"));
    stop(&docker, &created).await;
    let stopped = view.until("died", &created, |w| w.is_some() && !runs(w)).await.unwrap();
    assert_eq!(stopped.process(), None);
    start(&docker, &created).await;
    let again = view.until("started again", &created, runs).await.unwrap();
    assert_ne!(again.pid, started.pid);
    let options = RenameContainerOptions { name: "renamed".to_owned() };
    docker.rename_container(&created, options).await.unwrap();
    view.until("renamed", &created, |w| w.is_some_and(|w| w.name == "renamed")).await;
    remove(&docker, &created).await;
    view.until("destroyed", &created, |w| w.is_none()).await;

    let credentials = tempfile::tempdir().unwrap();
    let agreement = "f".repeat(64);
    let host = credentials.path().join(&agreement);
    fs::create_dir(&host).unwrap();
    fs::write(host.join("auth.json"), r#"{"id":"myorg/x-web","token":"t","version":"1.0.0"}"#).unwrap();
    let labels =
        [("openhorizon.anax.agreement_id", agreement.as_str()), ("openhorizon.anax.service_name", "front")];
    let bind = format!("{}:/ess-auth:ro", host.display());
    let horizon = create(&docker, "horizon", &SLEEP, &labels, &[bind]).await;
    let found = view
        .until("a Horizon service", &horizon, |w| {
            w.and_then(|w| w.horizon.as_ref()).is_some_and(|h| h.service.is_some())
        })
        .await
        .unwrap();
    let service = found.horizon.as_ref().unwrap();
    assert_eq!((service.agreement.as_str(), service.container.as_str()), (agreement.as_str(), "front"));
    let name = service.service.as_ref().unwrap();
    assert_eq!((name.org.as_str(), name.url.as_str(), name.version.as_str()), ("myorg", "x-web", "1.0.0"));
    let file = view.state_dir.path().join("services.json");
    let remembered = async {
        while !fs::read_to_string(&file).unwrap_or_default().contains("x-web") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, remembered).await.expect("the service is remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_may_come_go_and_come_again() {
    let Some(mut dockerd) = Dockerd::start() else { return };
    let elsewhere = tempfile::tempdir().unwrap();
    let socket = elsewhere.path().join("docker.sock");
    let mut view = View::of(&socket);
    view.state("no socket", |state| *state == RuntimeState::Absent).await;
    let docker = dockerd.client().await;
    import_image(&docker).await;
    let kept = create(&docker, "kept", &SLEEP, &[("app", "web")], &[]).await;
    start(&docker, &kept).await;
    symlink(dockerd.socket(), &socket).unwrap();
    view.until("once there is a socket", &kept, runs).await;
    view.state("connected", is_connected).await;

    dockerd.stop();
    view.state("lost", |state| matches!(state, RuntimeState::Lost { .. })).await;
    assert_eq!(view.workloads.borrow().get(&kept).unwrap().labels["app"], "web", "what is known stays");

    dockerd.start_again();
    let docker = dockerd.client().await;
    let fresh = create(&docker, "fresh", &SLEEP, &[], &[]).await;
    view.until("created after the gap", &fresh, is_complete).await;
    // It died with the daemon, and nobody received the events about it.
    view.until("stopped in the gap", &kept, |w| w.is_some() && !runs(w)).await;
    view.state("connected again", is_connected).await;
    remove(&docker, &kept).await;
    view.until("destroyed", &kept, |w| w.is_none()).await;
}

/// Returns the seconds since boot, by the clock that containers read too.
fn uptime() -> f64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_twenty_quick_starts_is_seen_before_it_runs() {
    const STARTS: usize = 20;
    let Some(dockerd) = Dockerd::start() else { return };
    let docker = dockerd.client().await;
    import_image(&docker).await;
    let mut view = View::of(&dockerd.socket());
    view.state("connected", is_connected).await;
    let mut all = view.workloads.clone();
    // The times at which each container was seen, and at which its layers were.
    let watching = tokio::spawn(async move {
        let mut seen: HashMap<String, [Option<f64>; 2]> = HashMap::new();
        while seen.len() < STARTS || seen.values().any(|[_, layers]| layers.is_none()) {
            all.changed().await.unwrap();
            let now = uptime();
            for (id, workload) in all.borrow_and_update().iter() {
                let [first, layers] = seen.entry(id.clone()).or_default();
                first.get_or_insert(now);
                if !workload.layers.is_empty() {
                    layers.get_or_insert(now);
                    assert_eq!(
                        Root::of_layers(&workload.layers).resolve("/bin/sh", false),
                        Path::new("/usr/bin/sh")
                    );
                }
            }
        }
        seen
    });
    let mut ids = Vec::new();
    for n in 0..STARTS {
        let label = n.to_string();
        let id = create(&docker, &format!("quick-{n}"), &["/bin/cat", "/proc/uptime"], &[("n", &label)], &[])
            .await;
        start(&docker, &id).await;
        ids.push(id);
    }
    let seen = timeout(DEADLINE, watching).await.expect("each is seen, with its layers").unwrap();
    let mut with_layers = 0;
    let mut margins = Vec::new();
    for id in &ids {
        let output = async {
            let options = LogsOptionsBuilder::new().stdout(true).follow(true).build();
            docker
                .logs(id, Some(options))
                .map_ok(|line| line.to_string())
                .try_collect::<String>()
                .await
                .unwrap()
        };
        let output = timeout(DEADLINE, output).await.unwrap();
        let ran: f64 = output.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{output:?}"));
        let [first, layers] = seen[id];
        margins.push(ran - first.unwrap());
        with_layers += usize::from(layers.is_some_and(|at| at < ran));
    }
    let least = margins.iter().copied().fold(f64::INFINITY, f64::min);
    println!(
        "seen at least {:.0} ms before the first instruction; {with_layers} of {STARTS} with layers",
        least * 1e3
    );
    // The clock that the container prints has two decimal places.
    assert!(least > 0.01, "{margins:?}");
    assert_eq!(with_layers, STARTS);
}
