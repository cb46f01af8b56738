//! `hzn-armor policy explain` prints what policies decide, and by which rule.
//!
//! The answers come from the tables that a node compiles, without the links and further names that only a node knows.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use armor_console as console;
use armor_policy::capability::Capability;
use armor_policy::decision::{Decision, RuleInfo};
use armor_policy::destination::{DestinationTable, Transport};
use armor_policy::dns::DnsName;
use armor_policy::model::Kind;
use armor_policy::network::SocketKind;
use armor_policy::path::Permission;
use armor_policy::{Domain, Links, Policy, PolicySet, Posture, Postures, SUBJECT_NONE, compile_to_explain};
use serde_json::{Value, json};

use super::POSTURES;
use crate::files;
use crate::sources;

/// An `Explain` contains the arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// Policy files or directories
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Start the program with this path
    #[arg(long, value_name = "PATH", value_parser = path)]
    exec: Vec<String>,
    /// Access the file with this path, or the directory if it ends in '/'
    #[arg(long, value_name = "PATH", value_parser = path)]
    file: Vec<String>,
    /// How files are accessed
    #[arg(long, default_value = "read", requires = "file", value_parser = console::one_of(ACCESSES))]
    op: Permission,
    /// Connect to this address and port by TCP, or by UDP if '/udp' follows
    #[arg(long, value_name = "ADDRESS:PORT[/udp]", value_parser = endpoint)]
    connect: Vec<(SocketAddr, Transport)>,
    /// Take what comes from this address to this port of one's own, by TCP, or by UDP if '/udp' follows
    #[arg(long, value_name = "ADDRESS:PORT[/udp]", value_parser = endpoint)]
    accept: Vec<(SocketAddr, Transport)>,
    /// Ask a resolver for this name
    #[arg(long, value_name = "NAME", value_parser = dns_name)]
    dns: Vec<DnsName>,
    /// Use this capability
    #[arg(long, value_name = "NAME", value_parser = capability)]
    capability: Vec<Capability>,
    /// The program that does it, as fromSource names it; repeat for more [default: one that no rule names]
    #[arg(long, value_name = "PATH", value_parser = path)]
    from: Vec<String>,
    /// What becomes of what an allow-list does not list
    #[arg(long, default_value = "audit", value_parser = console::one_of(POSTURES))]
    posture: Posture,
    /// Print one JSON list: per question the decision, the rule, and what would decide without it
    #[arg(long)]
    json: bool,
}

const ACCESSES: [(&str, &str, Permission); 3] =
    [("read", "", Permission::Read), ("write", "", Permission::Write), ("exec", "", Permission::Exec)];

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a path begins with '/'".to_owned()) }
}

fn capability(text: &str) -> Result<Capability, String> {
    Capability::from_name(text).ok_or_else(|| "no capability has this name".to_owned())
}

fn dns_name(text: &str) -> Result<DnsName, String> {
    DnsName::new(text).map_err(|error| error.to_string())
}

fn endpoint(text: &str) -> Result<(SocketAddr, Transport), String> {
    let (address, transport) = match text.split_once('/') {
        None => (text, Transport::Tcp),
        Some((address, name)) => {
            let transport = Transport::from_name(name);
            let known = transport.filter(|of| matches!(of, Transport::Tcp | Transport::Udp));
            (address, known.ok_or("write nothing, '/tcp' or '/udp' behind the port")?)
        }
    };
    let address = address.parse().map_err(|_| "write it as 10.0.0.1:443 or [fd00::1]:443")?;
    Ok((address, transport))
}

/// A `Question` is one use of something.
enum Question<'a> {
    Path(&'a str, Permission),
    Connect(SocketAddr, Transport),
    Accept(SocketAddr, Transport),
    Dns(&'a DnsName),
    Capability(Capability),
}

impl Question<'_> {
    fn shown(&self) -> String {
        match self {
            Self::Path(path, Permission::Exec) => format!("exec {path}"),
            Self::Path(path, Permission::Write) => format!("write {path}"),
            Self::Path(path, _) => format!("read {path}"),
            Self::Connect(address, Transport::Udp) => format!("connect {address}/udp"),
            Self::Connect(address, _) => format!("connect {address}"),
            Self::Accept(address, Transport::Udp) => format!("accept {address}/udp"),
            Self::Accept(address, _) => format!("accept {address}"),
            Self::Dns(name) => format!("dns {name}"),
            Self::Capability(capability) => format!("capability {capability}"),
        }
    }

    /// Returns the decision.
    fn decide(&self, domain: &Domain, program: Option<&str>, circumstances: Circumstances) -> Decision {
        let Circumstances { owner, unlisted, terminal } = circumstances;
        let class = |path: &str| domain.subjects.class(domain.subjects.walk(path.as_bytes()));
        let object = |path: &str| domain.path.objects.class(domain.path.objects.walk(path.as_bytes()));
        let without_terminal = u32::from(program.map_or(SUBJECT_NONE, class));
        let subject = (without_terminal + if terminal { domain.terminals } else { 0 }) as u16;
        match *self {
            Self::Path(path, permission) => {
                let vector = domain.path.vector(subject, object(path));
                let decision = vector.decision(permission, owner);
                let by_list = domain.path.arguments.lists.decision(vector.1, 0);
                let counts = unlisted && permission == Permission::Exec;
                if counts && by_list.verdict() > decision.verdict() { by_list } else { decision }
            }
            Self::Connect(address, transport) => {
                communicate(domain, &domain.egress, subject, address, transport)
            }
            Self::Accept(address, transport) => {
                communicate(domain, &domain.ingress, subject, address, transport)
            }
            Self::Dns(name) => domain.dns.decision(subject, name),
            Self::Capability(capability) => domain.capability.decision(subject, capability.number()),
        }
    }
}

/// Returns the decision on communication with an address in the direction that a table is of.
fn communicate(
    domain: &Domain,
    table: &DestinationTable,
    subject: u16,
    address: SocketAddr,
    transport: Transport,
) -> Decision {
    let kind = if transport == Transport::Udp { SocketKind::Udp } else { SocketKind::Tcp };
    let protocol = domain.network.decision(subject, kind as usize);
    let destination = table.decision(subject, address.ip(), DestinationTable::key(transport, address.port()));
    // Where both permit, the destination says more.
    if protocol.verdict() > destination.verdict() { protocol } else { destination }
}

/// `Circumstances` are what else decides on a question.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Circumstances {
    /// The file's owner asks.
    owner: bool,
    /// The program is started with arguments that `allowedArgs` does not list, or with none.
    unlisted: bool,
    /// A terminal controls who asks.
    terminal: bool,
}

impl Circumstances {
    /// Returns all of them, the plain ones first.
    fn all() -> impl Iterator<Item = Self> {
        let both = [false, true];
        both.into_iter().flat_map(move |terminal| {
            both.into_iter().flat_map(move |unlisted| both.map(|owner| Self { owner, unlisted, terminal }))
        })
    }

    /// Returns those that lack one that these have.
    fn without_one(self) -> impl Iterator<Item = Self> {
        let less = [
            Self { owner: false, ..self },
            Self { unlisted: false, ..self },
            Self { terminal: false, ..self },
        ];
        less.into_iter().filter(move |less| *less != self)
    }
}

/// An `Answer` is what decides on a question.
struct Answer {
    decision: Decision,
    by: RuleInfo,
}

impl Answer {
    fn new(domain: &Domain, decision: Decision) -> Self {
        Self { decision, by: domain.rules[decision.rule() as usize].clone() }
    }

    fn is_by_rule(&self) -> bool {
        !self.by.location.is_empty()
    }

    fn text(&self) -> String {
        let verdict = self.decision.verdict();
        match self {
            Self { by: RuleInfo { policy, location, message, .. }, .. } if self.is_by_rule() => {
                let mut text = format!("{verdict:?} by {location} (policy {policy})");
                if !message.is_empty() {
                    let _ = write!(text, ": {message}");
                }
                text
            }
            _ if self.decision == Decision::new(verdict, Decision::RULE_DEFAULT)
                && verdict == armor_policy::decision::Verdict::Allow =>
            {
                format!("{verdict:?}: no rule is about it")
            }
            _ => format!("{verdict:?} by the posture of an allow-list"),
        }
    }

    fn json(&self) -> Value {
        json!({
            "decision": format!("{:?}", self.decision.verdict()), "policy": self.by.policy, "rule": self.by.location,
            "message": self.by.message,
        })
    }
}

/// Runs the command.
pub fn run(command: &Explain) -> anyhow::Result<ExitCode> {
    let questions = questions(command);
    ensure!(
        !questions.is_empty(),
        "nothing is asked: give --exec, --file, --connect, --accept, --dns or --capability"
    );
    let found = files::find(&command.files)?;
    found.tell_left_out();
    let sources = sources::read(&found.files);
    for source in sources.iter().filter(|source| !source.is_good()) {
        console::tell(source.report());
    }
    if !sources.iter().all(sources::Source::is_good) {
        bail!("correct the policies first");
    }
    let programs: Vec<Option<&str>> = match command.from.as_slice() {
        [] => vec![None],
        from => from.iter().map(|path| Some(path.as_str())).collect(),
    };
    let (mut list, mut out) = (Vec::new(), console::stdout());
    for (kind, workloads) in [(Kind::Container, "containers"), (Kind::Host, "hosts")] {
        let policies: Vec<&Policy> =
            sources.iter().flat_map(sources::Source::policies).filter(|policy| policy.kind == kind).collect();
        if policies.is_empty() {
            continue;
        }
        let domain = compiled(&policies, None, command.posture)?;
        for (question, program) in questions.iter().flat_map(|of| programs.iter().map(move |by| (of, *by))) {
            for circumstances in Circumstances::all() {
                let decision = question.decide(&domain, program, circumstances);
                // What makes no difference is not told.
                if circumstances.without_one().any(|less| decision == question.decide(&domain, program, less))
                {
                    continue;
                }
                let answer = Answer::new(&domain, decision);
                let otherwise = if answer.is_by_rule() {
                    let without = compiled(&policies, Some(&answer.by.location), command.posture)?;
                    Some(Answer::new(&without, question.decide(&without, program, circumstances)))
                } else {
                    None
                };
                let asked = shown(question, program, circumstances);
                if command.json {
                    list.push(json!({
                        "question": asked, "workloads": workloads, "answer": answer.json(),
                        "otherwise": otherwise.map(|answer| answer.json()),
                    }));
                } else {
                    writeln!(out, "{workloads}: {asked}\n  {}", answer.text())?;
                    if let Some(otherwise) = otherwise {
                        writeln!(out, "  otherwise {}", otherwise.text())?;
                    }
                }
            }
        }
    }
    if command.json {
        writeln!(out, "{:#}", Value::from(list))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn questions(command: &Explain) -> Vec<Question<'_>> {
    let exec = command.exec.iter().map(|path| Question::Path(path, Permission::Exec));
    let file = command.file.iter().map(|path| Question::Path(path, command.op));
    let connect = command.connect.iter().map(|(address, transport)| Question::Connect(*address, *transport));
    let accept = command.accept.iter().map(|(address, transport)| Question::Accept(*address, *transport));
    let dns = command.dns.iter().map(Question::Dns);
    let capability = command.capability.iter().map(|capability| Question::Capability(*capability));
    exec.chain(file).chain(connect).chain(accept).chain(dns).chain(capability).collect()
}

fn shown(question: &Question<'_>, program: Option<&str>, circumstances: Circumstances) -> String {
    let Circumstances { owner, unlisted, terminal } = circumstances;
    let mut shown = question.shown();
    if let Some(program) = program {
        let _ = write!(shown, " from {program}");
    }
    if owner {
        shown.push_str(" as its owner");
    }
    if unlisted {
        shown.push_str(" with arguments that its list does not have");
    }
    if terminal {
        shown.push_str(" on a terminal");
    }
    shown
}

/// Compiles policies, without the rules at the place `without`.
fn compiled(policies: &[&Policy], without: Option<&str>, posture: Posture) -> anyhow::Result<Domain> {
    let left: Vec<Policy> = policies
        .iter()
        .map(|policy| {
            let mut policy = (*policy).clone();
            let file = policy.file.clone();
            policy.rules.retain(|rule| {
                without.is_none_or(|place| place != format!("{file}:{}", rule.common.location.line))
            });
            policy
        })
        .collect();
    let set = PolicySet { postures: Some(Postures::all(posture)), ..PolicySet::of(&left) };
    compile_to_explain(&[set], &Links::new()).context("the policies cannot be compiled together")
}
