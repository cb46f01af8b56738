use super::*;
use bollard::models::{ContainerConfig, ContainerState, DriverData, EventActor, MountPoint};

fn id(n: u32) -> String {
    format!("{n:064x}")
}

/// A `Bare` host knows nothing, and records where it is asked to look for credentials.
#[derive(Default)]
struct Bare(Vec<Option<PathBuf>>);

impl Host for Bare {
    fn service(&mut self, _: &Labels, credentials: Option<&Path>) -> Option<HorizonService> {
        self.0.push(credentials.map(Path::to_owned));
        None
    }

    fn layers(&mut self, _: &str) -> Vec<PathBuf> {
        Vec::new()
    }
}

fn event(known: &mut Known, action: &str, n: u32, attributes: &[(&str, &str)]) {
    let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let actor = EventActor { id: Some(id(n)), attributes: Some(attributes) };
    let event =
        EventMessage { action: Some(action.to_owned()), actor: Some(actor), ..EventMessage::default() };
    known.event(event, &mut Bare::default());
}

fn create(known: &mut Known, n: u32, name: &str) {
    event(known, "create", n, &[("name", name), ("image", "busybox"), ("app", "web")]);
}

fn summary(n: u32, name: &str) -> ContainerSummary {
    ContainerSummary {
        id: Some(id(n)),
        names: Some(vec!["/other/alias".to_owned(), format!("/{name}")]),
        image: Some("busybox".to_owned()),
        labels: Some([("app".to_owned(), "web".to_owned())].into()),
        ..ContainerSummary::default()
    }
}

fn inspection(n: u32, name: &str, pid: i64) -> ContainerInspectResponse {
    let data = [("UpperDir", "/u"), ("LowerDir", "/l1:/l2"), ("MergedDir", "/m")];
    ContainerInspectResponse {
        id: Some(id(n)),
        name: Some(format!("/{name}")),
        state: Some(ContainerState { pid: Some(pid), ..ContainerState::default() }),
        config: Some(ContainerConfig {
            image: Some("busybox".to_owned()),
            labels: Some([("app".to_owned(), "web".to_owned())].into()),
            ..ContainerConfig::default()
        }),
        graph_driver: Some(DriverData {
            name: "overlay2".to_owned(),
            data: data.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }),
        mounts: Some(vec![MountPoint {
            source: Some("/var/horizon/ess-auth/a1".to_owned()),
            destination: Some("/ess-auth".to_owned()),
            ..MountPoint::default()
        }]),
        ..ContainerInspectResponse::default()
    }
}

/// Answers all open inspections as if `pid` were each container's first process.
fn answer(known: &mut Known, name: &str, pid: i64) {
    while let Some(asked) = known.next_inspection() {
        let n = u32::from_str_radix(&asked, 16).unwrap();
        known.inspected(&asked, Some(inspection(n, name, pid)), &mut Bare::default());
    }
}

fn get(known: &Known, n: u32) -> Option<&Workload> {
    known.workloads.get(&id(n)).map(AsRef::as_ref)
}

#[test]
fn a_container_is_known_from_its_first_event_on() {
    let mut known = Known::default();
    create(&mut known, 1, "web");
    let workload = get(&known, 1).unwrap();
    assert_eq!((workload.name.as_str(), workload.image.as_str()), ("web", "busybox"));
    assert_eq!(workload.labels, [("app".to_owned(), "web".to_owned())].into());
    assert_eq!((workload.pid, workload.layers.len()), (None, 0));
    assert!(known.has_changed() && !known.is_complete());
    assert_eq!(known.changes().unwrap().len(), 1);
    answer(&mut known, "web", 0);
    assert_eq!(get(&known, 1).unwrap().layers, ["/u", "/l1", "/l2"].map(PathBuf::from));
    assert!(known.is_complete() && known.changes().is_some() && known.changes().is_none());
}

#[test]
fn a_life_from_create_to_destroy() {
    let mut known = Known::default();
    for (action, pid_after, settled_pid) in [
        ("create", 0, None),
        ("start", 42, Some(42)),
        ("die", 0, None),
        ("start", 43, Some(43)),
        ("died", 0, None),
    ] {
        event(&mut known, action, 1, &[("name", "web")]);
        if action.starts_with("die") {
            assert_eq!(get(&known, 1).unwrap().pid, None, "at once");
        }
        answer(&mut known, "web", pid_after);
        assert_eq!(get(&known, 1).unwrap().pid, settled_pid, "{action}");
    }
    event(&mut known, "rename", 1, &[("name", "shop"), ("oldName", "/web")]);
    assert_eq!(get(&known, 1).unwrap().name, "shop");
    answer(&mut known, "shop", 0);
    for ignored in ["pause", "exec_create: sh", "top", "kill", "restart", "health_status: healthy", ""] {
        event(&mut known, ignored, 1, &[("name", "x")]);
        assert!(known.is_complete(), "{ignored}");
    }
    event(&mut known, "destroy", 1, &[]);
    assert!(get(&known, 1).is_none() && known.is_complete());
}

#[test]
fn an_inspection_overtaken_by_an_event_does_not_tell_the_pid() {
    let mut known = Known::default();
    create(&mut known, 1, "web");
    let asked = known.next_inspection().unwrap();
    event(&mut known, "die", 1, &[]);
    known.inspected(&asked, Some(inspection(1, "web", 42)), &mut Bare::default());
    let workload = get(&known, 1).unwrap();
    assert_eq!((workload.pid, workload.layers.len()), (None, 3));
    assert_eq!(known.next_inspection(), Some(id(1)));
    known.inspected(&id(1), Some(inspection(1, "web", 43)), &mut Bare::default());
    assert_eq!(get(&known, 1).unwrap().pid, Some(43));
}

#[test]
fn one_that_is_gone_before_it_is_inspected_stays_gone() {
    let mut known = Known::default();
    create(&mut known, 1, "web");
    let asked = known.next_inspection().unwrap();
    event(&mut known, "destroy", 1, &[]);
    known.inspected(&asked, Some(inspection(1, "web", 42)), &mut Bare::default());
    assert!(get(&known, 1).is_none() && known.is_complete());
}

#[test]
fn an_answer_that_does_not_come_removes_nothing() {
    let mut known = Known::default();
    create(&mut known, 1, "web");
    let asked = known.next_inspection().unwrap();
    known.not_inspected(&asked);
    assert!(get(&known, 1).is_some() && known.is_complete());
    known.listing();
    known.listed(Some(vec![summary(1, "web")]), false, &mut Bare::default());
    assert_eq!(known.next_inspection(), Some(id(1)), "the next list has it tried again");
    known.disconnected();
    known.inspected(&id(1), None, &mut Bare::default());
    assert!(get(&known, 1).is_some(), "an answer of an earlier connection");
}

#[test]
fn a_list_adds_removes_and_asks_where_something_is_new() {
    let mut known = Known::default();
    known.listing();
    known.listed(Some(vec![summary(1, "web"), summary(2, "db")]), true, &mut Bare::default());
    assert_eq!(get(&known, 2).unwrap().name, "db");
    answer(&mut known, "db", 7);
    known.changes();
    known.listing();
    known.listed(Some(vec![summary(1, "db"), summary(2, "db")]), false, &mut Bare::default());
    assert!(known.is_complete() && known.changes().is_none(), "nothing new");
    known.listing();
    known.listed(Some(vec![summary(2, "renamed")]), false, &mut Bare::default());
    assert!(get(&known, 1).is_none());
    assert_eq!(known.next_inspection(), Some(id(2)));
    known.inspected(&id(2), Some(inspection(2, "renamed", 7)), &mut Bare::default());
    known.listing();
    known.listed(None, false, &mut Bare::default());
    assert!(get(&known, 2).is_some(), "a list that failed says nothing");
    known.listing();
    known.listed(Some(vec![summary(2, "renamed")]), true, &mut Bare::default());
    assert!(!known.is_complete(), "after a gap all are asked");
}

#[test]
fn a_list_says_nothing_of_what_happened_meanwhile() {
    let mut known = Known::default();
    known.listing();
    create(&mut known, 1, "new");
    known.listed(Some(vec![]), true, &mut Bare::default());
    assert!(get(&known, 1).is_some(), "created after the list was made");
    known.listing();
    event(&mut known, "destroy", 1, &[]);
    known.listed(Some(vec![summary(1, "new")]), false, &mut Bare::default());
    assert!(get(&known, 1).is_none(), "destroyed after the list was made");
}

#[test]
fn five_hundred_at_once_are_asked_a_few_at_a_time() {
    let mut known = Known::default();
    for n in 0..500 {
        create(&mut known, n, "many");
    }
    let first: Vec<String> = std::iter::from_fn(|| known.next_inspection()).collect();
    assert_eq!(first.len(), MAX_INSPECTIONS);
    for asked in &first {
        known.not_inspected(asked);
    }
    answer(&mut known, "many", 1);
    assert_eq!((known.changes().unwrap().len(), known.is_complete()), (500, true));
}

#[test]
fn what_is_beyond_the_bound_is_counted() {
    let mut known = Known::default();
    let all = MAX_WORKLOADS as u32;
    for n in 0..=all {
        create(&mut known, n, "many");
    }
    assert_eq!((known.workloads.len(), known.left_out()), (MAX_WORKLOADS, 1));
    event(&mut known, "destroy", 0, &[]);
    known.listing();
    known.listed(Some((1..=all).map(|n| summary(n, "many")).collect()), false, &mut Bare::default());
    assert_eq!((known.workloads.len(), known.left_out()), (MAX_WORKLOADS, 0));
    assert!(get(&known, all).is_some());
}

#[test]
fn horizon_is_asked_with_the_mount_once_that_is_known() {
    let mut known = Known::default();
    let mut host = Bare::default();
    known.listing();
    known.listed(Some(vec![summary(1, "web")]), true, &mut host);
    let id = known.next_inspection().unwrap();
    known.inspected(&id, Some(inspection(1, "web", 1)), &mut host);
    assert_eq!(host.0, [None, Some(PathBuf::from("/var/horizon/ess-auth/a1"))]);
}

#[test]
fn what_is_no_container_id_is_passed_over() {
    let mut known = Known::default();
    let actor = EventActor { id: Some("../../etc".to_owned()), attributes: None };
    let event =
        EventMessage { action: Some("create".to_owned()), actor: Some(actor), ..EventMessage::default() };
    known.event(event, &mut Bare::default());
    known.listing();
    known.listed(
        Some(vec![ContainerSummary { id: Some("abc".to_owned()), ..summary(1, "x") }]),
        true,
        &mut Bare::default(),
    );
    assert!(known.workloads.is_empty());
}
