//! Turns YAML trees into [`Policy`] documents, and reports every error of a file at its place.
//!
//! It skips nothing: a field that it does not understand is an error, whatever KubeArmor does with it.

mod choices;
pub mod diagnostics;
pub(crate) mod fields;
mod mapping;
pub(crate) mod mend;
mod migrate;
pub(crate) mod named;
pub(crate) mod paths;
pub(crate) mod rules;
mod selectors;
pub mod text;
pub mod yaml;

use crate::capability;
use crate::decision::{PerClass, Posture, PostureClass};
use crate::destination::network_policy;
use crate::device;
use crate::model::{Kind, Policy, Rule, Selector};
use crate::network;
use crate::path;
use crate::preset;
use crate::syscall;
pub use choices::{Choices, LabelMap, LabelMapError};
use diagnostics::{Diagnostic, Diagnostics, Sink};
use fields::{Fields, Text};
use mend::{Ground, Mender};
pub use migrate::{MigrateError, Migration, migrate};
use rules::{COMMON, Inherited, UNSUPPORTED};
use yaml::{Node, Value};

/// The `apiVersion` of policies of every kind.
pub const API_VERSION: &str = "security.kubearmor.com/v1";

/// A `Checked` is the content of a file without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The policies of the file; there is at least one.
    pub policies: Vec<Policy>,
    /// Warnings about parts that are valid but may not mean what their author thinks.
    pub warnings: Vec<Diagnostic>,
}

/// Reads all policies of a file; `name` is the file's name in diagnostics and alerts.
///
/// # Errors
/// Fails if the file has errors, and returns all of them with line and column.
pub fn parse(name: &str, text: &str) -> Result<Vec<Policy>, Diagnostics> {
    check(name, text).map(|checked| checked.policies)
}

/// Reads policies like [`parse`], and returns warnings too.
///
/// # Errors
/// Fails like [`parse`].
pub fn check(name: &str, text: &str) -> Result<Checked, Diagnostics> {
    let Survey { policies, errors, warnings, .. } = survey(text, Sink::new(name));
    if errors.list.is_empty() { Ok(Checked { policies, warnings: warnings.list }) } else { Err(errors) }
}

/// A `Survey` is everything that was found in a file.
struct Survey<'t> {
    /// The policies as far as they can be read, in a migration as they are mended.
    policies: Vec<Policy>,
    errors: Diagnostics,
    warnings: Diagnostics,
    mender: Option<Mender<'t>>,
}

fn survey<'t>(text: &'t str, mut sink: Sink<'t>) -> Survey<'t> {
    let documents = yaml::documents(text, &mut sink);
    if documents.is_empty() && sink.count() == 0 {
        let start = crate::model::Location { line: 1, column: 1 };
        sink.error(
            start,
            "the file holds no policy",
            "write at least one KubeArmorPolicy or KubeArmorHostPolicy",
        );
    }
    let mut policies: Vec<Policy> = Vec::with_capacity(documents.len());
    for document in &documents {
        let Some(policy) = read_policy(document, &mut sink) else { continue };
        let twin = policies
            .iter()
            .find(|p| (p.kind, &p.namespace, &p.name) == (policy.kind, &policy.namespace, &policy.name));
        if let Some(twin) = twin {
            let message = format!("policy `{}` stands already in line {}", policy.name, twin.location.line);
            sink.error(policy.location, message, "give one of them another metadata.name");
        }
        policies.push(policy);
    }
    let (errors, warnings, mender) = sink.finish();
    Survey { policies, errors, warnings, mender }
}

/// Reads one document; returns `None` only after an error.
fn read_policy(document: &Node, sink: &mut Sink) -> Option<Policy> {
    let mut top = Fields::new(document, "the document", sink)?;
    top.only(&["apiVersion", "kind", "metadata", "spec", "status"], &[], sink);
    if let Some(version) =
        top.required_string("apiVersion", &format!("write apiVersion: {API_VERSION}"), sink)
        && version.text != API_VERSION
    {
        let message = format!("apiVersion `{}` is not known", version.text);
        let help = format!("write {API_VERSION}");
        // A near one can be another version.
        if version.text.eq_ignore_ascii_case(API_VERSION) {
            let edits = |mender: &Mender<'_>| mender.replace(version.at, version.text, API_VERSION);
            sink.mendable(version.at, message, help, Ground::OneReading, edits);
        } else {
            sink.error(version.at, message, help);
        }
    }
    let kind = top.required_string("kind", "write kind: KubeArmorPolicy or KubeArmorHostPolicy", sink);
    let form = kind.and_then(|kind| read_kind(&kind, sink));
    let Metadata { name, namespace, postures } = read_metadata(&top, sink);
    let spec = top.required("spec", "a policy needs a spec", sink)?;
    let form = form?;
    let kind = form.of(spec);
    let (selector, rules) = read_spec(spec, form, namespace, sink)?;
    Some(Policy {
        kind: kind.workloads(),
        name: name?,
        namespace: namespace.map(|namespace| namespace.text.to_owned()),
        postures,
        selector,
        rules,
        file: sink.file().to_owned(),
        location: document.at,
    })
}

/// A `DocumentKind` is a kind of documents that is supported.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DocumentKind {
    Container,
    Host,
    /// For containers, selected by expressions over labels and namespaces.
    Cluster,
}

/// A `Form` is what the name of a kind stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A policy with the usual sections.
    Sections(DocumentKind),
    /// A KubeArmorNetworkPolicy: for containers if it has a `selector`, otherwise for the host.
    Network,
}

impl Form {
    const NAMES: [(&str, Self); 4] = [
        ("KubeArmorPolicy", Self::Sections(DocumentKind::Container)),
        ("KubeArmorHostPolicy", Self::Sections(DocumentKind::Host)),
        ("KubeArmorClusterPolicy", Self::Sections(DocumentKind::Cluster)),
        (NETWORK_POLICY, Self::Network),
    ];

    /// Returns the kind of a document with this spec.
    fn of(self, spec: &Node<'_>) -> DocumentKind {
        match (self, &spec.value) {
            (Self::Sections(kind), _) => kind,
            (Self::Network, Value::Map(entries)) if entries.iter().any(|(key, _)| key.name == "selector") => {
                DocumentKind::Container
            }
            (Self::Network, _) => DocumentKind::Host,
        }
    }
}

impl DocumentKind {
    /// Returns the name of the field that selects the workloads.
    const fn selector(self) -> &'static str {
        match self {
            Self::Container | Self::Cluster => "selector",
            Self::Host => "nodeSelector",
        }
    }

    const fn workloads(self) -> Kind {
        match self {
            Self::Container | Self::Cluster => Kind::Container,
            Self::Host => Kind::Host,
        }
    }
}

fn read_kind(kind: &fields::Text<'_>, sink: &mut Sink) -> Option<Form> {
    let known = |name: &str| Form::NAMES.iter().find(|(known, _)| *known == name).map(|(_, form)| *form);
    if let Some(form) = known(kind.text) {
        return Some(form);
    }
    let names = Form::NAMES.map(|(name, _)| name);
    let help = match fields::nearest(kind.text, &names) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("known: {}", names.join(", ")),
    };
    let message = format!("kind `{}` is not known", kind.text);
    kind.meant(&names, message, &help, sink).and_then(known)
}

/// The fields of `metadata`. Besides `name`, `namespace` and [`POSTURES`] among the annotations they have no meaning here:
/// Kubernetes writes them, or they are for people.
const METADATA: [&str; 13] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "creationTimestamp",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "uid",
];

/// The annotations that give postures. KubeArmor knows them as a namespace's.
const POSTURES: [(&str, PostureClass); 3] = [
    ("kubearmor-file-posture", PostureClass::File),
    ("kubearmor-network-posture", PostureClass::Network),
    ("kubearmor-capabilities-posture", PostureClass::Capabilities),
];

#[derive(Default)]
struct Metadata<'a> {
    name: Option<String>,
    namespace: Option<Text<'a>>,
    postures: PerClass<Option<Posture>>,
}

fn read_metadata<'a>(top: &Fields<'a>, sink: &mut Sink) -> Metadata<'a> {
    let Some(node) = top.required("metadata", "a policy needs metadata.name", sink) else {
        return Metadata::default();
    };
    let Some(mut metadata) = Fields::new(node, "metadata", sink) else { return Metadata::default() };
    metadata.only(&METADATA, &[], sink);
    let named = |field: &str, value: Option<Text<'a>>, sink: &mut Sink| {
        let value = value?;
        if is_dns_name(value.text) {
            return Some(value);
        }
        let message = format!("metadata.{field} `{}` is not a name", value.text);
        let help = "lower-case letters, digits, '-' and '.', at most 253, beginning and ending with a letter or digit";
        sink.error(value.at, message, help);
        None
    };
    let name = metadata.required_string("name", "alerts name the policy by it", sink);
    let namespace = metadata.string("namespace", sink);
    Metadata {
        name: named("name", name, sink).map(|name| name.text.to_owned()),
        namespace: named("namespace", namespace, sink),
        postures: read_postures(&metadata, sink),
    }
}

fn read_postures(metadata: &Fields<'_>, sink: &mut Sink) -> PerClass<Option<Posture>> {
    let mut postures = PerClass::default();
    let annotations = metadata.get("annotations").filter(|node| !node.is_null());
    let Some(annotations) = annotations.and_then(|node| Fields::new(node, "annotations", sink)) else {
        return postures;
    };
    for (name, class) in POSTURES {
        let Some(written) = annotations.string(name, sink) else { continue };
        let posture = match written.text {
            "allow" => Posture::Allow,
            "audit" => Posture::Audit,
            "block" => Posture::Block,
            other => {
                let message = format!("{name} is `{other}`");
                let help = "write allow, audit or block";
                match written.meant(&["allow", "audit", "block"], message, help, sink) {
                    Some("allow") => Posture::Allow,
                    Some("audit") => Posture::Audit,
                    Some(_) => Posture::Block,
                    None => continue,
                }
            }
        };
        *postures.of_mut(class) = Some(posture);
    }
    postures
}

fn is_dns_name(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=253).contains(&text.len())
        && text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text.chars().all(|c| alphanumeric(c) || c == '-' || c == '.')
}

/// A `ReadSection` reads a section of a spec, appends its rules, and reports its errors. The rules inherit
/// the given values.
type ReadSection = fn(&Node<'_>, &Inherited, &mut Vec<Rule>, &mut Sink);

/// The sections of a spec in the order of their rules in the [`Policy`], with the functions that read them.
const SECTIONS: [(&str, ReadSection); 7] = [
    ("process", path::parse::read_process),
    ("file", path::parse::read_file),
    ("network", network::parse::read_network),
    ("capabilities", capability::parse::read_capabilities),
    ("syscalls", syscall::parse::read_syscalls),
    (PRESETS, preset::parse::read_presets),
    (DEVICE, device::parse::read_device),
];

/// The kind of policies that have [`DIRECTIONS`] in place of the other sections.
const NETWORK_POLICY: &str = "KubeArmorNetworkPolicy";
const DIRECTIONS: [(&str, ReadSection); 2] =
    [("ingress", network_policy::read_ingress), ("egress", network_policy::read_egress)];

/// The section that only policies for containers have.
const PRESETS: &str = "presets";

/// The section that only policies for hosts have.
const DEVICE: &str = "device";

/// The sections and fields of a spec that KubeArmor has and that are not supported.
const UNSUPPORTED_SECTIONS: [&str; 1] = ["apparmor"];

fn read_spec(
    node: &Node,
    form: Form,
    namespace: Option<Text<'_>>,
    sink: &mut Sink,
) -> Option<(Selector, Vec<Rule>)> {
    let mut spec = Fields::new(node, "spec", sink)?;
    let kind = form.of(node);
    let selector_field = kind.selector();
    let (other_selector, other_kind) = match kind {
        DocumentKind::Container | DocumentKind::Cluster => ("nodeSelector", "KubeArmorHostPolicy"),
        DocumentKind::Host => ("selector", "KubeArmorPolicy"),
    };
    let misplaced = match form {
        Form::Sections(_) => format!("it belongs to {other_kind}; here it is {selector_field}"),
        Form::Network => "a network policy has either `selector` or `nodeSelector`".to_owned(),
    };
    let mut refused = UNSUPPORTED_SECTIONS.map(|field| (field, UNSUPPORTED)).to_vec();
    refused.push((other_selector, &misplaced));
    let mut known = COMMON.to_vec();
    let (own, others) = match form {
        Form::Sections(_) => (&SECTIONS[..], &DIRECTIONS[..]),
        Form::Network => (&DIRECTIONS[..], &SECTIONS[..]),
    };
    let elsewhere = match form {
        Form::Sections(_) => format!("it belongs to {NETWORK_POLICY}"),
        Form::Network => "it belongs to KubeArmorPolicy or KubeArmorHostPolicy".to_owned(),
    };
    refused.extend(others.iter().map(|(field, _)| (*field, elsewhere.as_str())));
    refused.push((
        "level",
        "it says what a limit of bandwidth is for, and nothing here limits that: leave it out",
    ));
    known.extend(own.iter().map(|(field, _)| *field));
    let (foreign, why) = match kind {
        DocumentKind::Host => (PRESETS, "presets are for containers: it belongs to KubeArmorPolicy"),
        DocumentKind::Container | DocumentKind::Cluster => {
            (DEVICE, "devices are the host's: it belongs to KubeArmorHostPolicy")
        }
    };
    if form != Form::Network {
        known.retain(|field| *field != foreign);
        refused.push((foreign, why));
    }
    known.push(selector_field);
    spec.only(&known, &refused, sink);

    let selector = selectors::read(node, &spec, kind, namespace, sink);
    let inherited = Inherited::default().or_own(&spec, sink);
    let mut rules = Vec::new();
    let mut sections = 0;
    for &(field, read) in own.iter().filter(|(field, _)| known.contains(field)) {
        if let Some(node) = spec.get(field) {
            sections += 1;
            read(node, &inherited, &mut rules, sink);
        }
    }
    // If a policy has only unsupported sections, the error about these is enough.
    if sections == 0
        && !refused.iter().any(|(field, _)| *field != other_selector && spec.get(field).is_some())
    {
        let help = match form {
            Form::Sections(_) => {
                "add a `process`, `file`, `network`, `capabilities`, `syscalls`, `presets` or `device` section"
            }
            Form::Network => "add `ingress` or `egress`",
        };
        sink.error(spec.at, "the policy has no rules", help);
    }
    Some((selector?, rules))
}
