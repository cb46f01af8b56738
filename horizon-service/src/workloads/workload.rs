//! Describes containers as policies see them, and decides which policies select them.
//!
//! A condition on labels only ever adds policies to a container: its own labels, which an image's author may
//! have written, cannot hide its real name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use armor_policy::Policy;
use armor_policy::model::Operator;
use armor_policy::selector_keys::{
    AGREEMENT, CONTAINER_NAME, IMAGE, NameError, Names, SERVICE_NAME, SERVICE_ORG, SERVICE_URL,
    SERVICE_VERSION,
};

use serde::{Deserialize, Serialize};

use crate::workloads::root::Root;

/// A `Workload` is a container. It is stored, and found again by the next agent or after a reboot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// The container's id, 64 hexadecimal digits.
    pub id: String,
    /// The container's name, without the leading `/`.
    pub name: String,
    /// The image as it was given to the runtime.
    pub image: String,
    /// The container's labels, including the image's.
    pub labels: BTreeMap<String, String>,
    /// Pid of the first process in the host's pid namespace; `None` if the container does not run or the pid
    /// is not known yet.
    #[serde(skip)]
    pub pid: Option<u32>,
    /// The container's service, if Horizon started it.
    pub horizon: Option<HorizonService>,
    /// Layers of the root as host paths, uppermost first; empty if they are not known (yet).
    pub layers: Vec<PathBuf>,
}

/// A `HorizonService` is the Horizon service that a container belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HorizonService {
    /// The agreement's id, or the instance's key for a service that others depend on.
    pub agreement: String,
    /// The container's name in the service's deployment.
    pub container: String,
    /// The service's name; `None` while it is unknown.
    pub service: Option<ServiceName>,
}

/// A `ServiceName` is a service's full name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceName {
    /// The organisation that owns the service.
    pub org: String,
    /// The service's url, normalised as Horizon does: without scheme, `-` for `/`.
    pub url: String,
    /// The service's version; empty if Horizon does not say it (on nodes registered with a pattern).
    pub version: String,
}

impl Workload {
    /// Returns the container's root: that of its first process or, if there is none, its layers.
    pub fn root(&self) -> Root {
        match self.process() {
            Some(process) => Root::of_process(&process),
            None => Root::of_layers(&self.layers),
        }
    }

    /// Returns the roots in which symlinks in rules' paths are resolved: the container's own, in which its
    /// root user may change them, and its image, in which nobody can. So renaming a symlink takes no rule
    /// away.
    pub fn roots(&self) -> Vec<Root> {
        let image = self.layers.get(1..).filter(|layers| !layers.is_empty()).map(Root::of_layers);
        std::iter::once(self.root()).chain(image).collect()
    }

    /// Returns the pid of the container's first process for `/proc`. Rules out that the pid was reused: a
    /// container's control group is named after its id.
    pub fn process(&self) -> Option<String> {
        let pid = self.pid?.to_string();
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        groups.contains(&self.id).then_some(pid)
    }
}

/// A `Selector` is a parsed policy selector.
#[derive(Debug, Clone)]
pub struct Selector {
    labels: Vec<Label>,
    expressions: Vec<(Operator, Vec<Label>)>,
}

/// A `Label` is one `key: value` of a selector.
#[derive(Debug, Clone)]
enum Label {
    /// A label that the container must carry with this value.
    Plain(String, String),
    Name(Names),
    Image(Names),
    ServiceName(Names),
    ServiceUrl(Names),
    ServiceOrg(Names),
    ServiceVersion(Names),
    Agreement(Names),
}

impl Selector {
    /// Parses the selector of a container policy.
    ///
    /// # Errors
    /// Fails with [`NameError`] if a value is invalid, which never happens for a parsed policy.
    pub fn new(policy: &Policy) -> Result<Self, NameError> {
        let read = |labels: &[(String, String)]| -> Result<Vec<Label>, NameError> {
            labels.iter().map(|(key, value)| Label::new(key, value)).collect()
        };
        let expressions = &policy.selector.expressions;
        Ok(Self {
            labels: read(&policy.selector.labels)?,
            expressions: expressions
                .iter()
                .map(|expression| Ok((expression.operator, read(&expression.labels)?)))
                .collect::<Result<_, NameError>>()?,
        })
    }

    /// Returns whether all conditions hold for the container.
    pub fn selects(&self, workload: &Workload) -> bool {
        self.labels.iter().all(|label| label.holds(workload))
            && self.expressions.iter().all(|(operator, labels)| {
                let carries = labels.iter().any(|label| label.holds(workload));
                match operator {
                    Operator::In => carries,
                    Operator::NotIn => !carries,
                }
            })
    }
}

impl Label {
    fn new(key: &str, value: &str) -> Result<Self, NameError> {
        Ok(match key {
            CONTAINER_NAME => Self::Name(Names::with_regexes(value)?),
            IMAGE => Self::Image(Names::exact(value)?),
            SERVICE_NAME => Self::ServiceName(Names::exact(value)?),
            SERVICE_URL => Self::ServiceUrl(Names::exact(value)?),
            SERVICE_ORG => Self::ServiceOrg(Names::exact(value)?),
            SERVICE_VERSION => Self::ServiceVersion(Names::exact(value)?),
            AGREEMENT => Self::Agreement(Names::exact(value)?),
            _ => Self::Plain(key.to_owned(), value.to_owned()),
        })
    }

    fn holds(&self, workload: &Workload) -> bool {
        let horizon = workload.horizon.as_ref();
        let service = horizon.and_then(|horizon| horizon.service.as_ref());
        let has_url = |names: &Names| {
            service.is_some_and(|service| names.matches_by(&service.url, |name, url| normal_url(name) == url))
        };
        match self {
            Self::Plain(key, value) => workload.labels.get(key) == Some(value),
            // As in KubeArmor, a label may give the container a name; but that does not hide its real one.
            Self::Name(names) => {
                names.matches(&workload.name)
                    || workload.labels.get(CONTAINER_NAME).is_some_and(|name| names.matches(name))
            }
            Self::Image(names) => names.matches_by(&workload.image, is_image),
            Self::ServiceName(names) => {
                has_url(names) || horizon.is_some_and(|horizon| names.matches(&horizon.container))
            }
            Self::ServiceUrl(names) => has_url(names),
            Self::ServiceOrg(names) => service.is_some_and(|service| names.matches(&service.org)),
            Self::ServiceVersion(names) => {
                service.is_some_and(|service| !service.version.is_empty() && names.matches(&service.version))
            }
            Self::Agreement(names) => horizon.is_some_and(|horizon| names.matches(&horizon.agreement)),
        }
    }
}

/// Returns a service's url as Horizon writes it into names and files.
fn normal_url(url: &str) -> String {
    let without_scheme = url.split("://").nth(1).unwrap_or(url);
    without_scheme.replace('/', "-")
}

/// Returns whether `wanted` names the image `found`. Without digest or tag, it names any image of that
/// repository.
fn is_image(wanted: &str, found: &str) -> bool {
    let (wanted, found) = (full_image(wanted), full_image(found));
    let repository_and_tag = found.split('@').next().unwrap_or(&found);
    let repository = match repository_and_tag.rsplit_once(':') {
        // A colon before the last slash is a registry's port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => repository_and_tag,
    };
    wanted == found || wanted == repository_and_tag || wanted == repository
}

/// Adds the registry and the directory that Docker leaves out.
fn full_image(image: &str) -> String {
    match image.split_once('/') {
        None if image.starts_with("sha256:") => image.to_owned(),
        None => format!("docker.io/library/{image}"),
        Some((first, _)) if first == "localhost" || first.contains(['.', ':']) => image.to_owned(),
        Some(_) => format!("docker.io/{image}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(selector: &str) -> Selector {
        selector_of("KubeArmorPolicy", selector)
    }

    fn selector_of(kind: &str, selector: &str) -> Selector {
        let text = format!(
            "apiVersion: security.kubearmor.com/v1\nkind: {kind}\nmetadata: {{name: p, namespace: \
             other}}\nspec:\n  selector: {{{selector}}}\n  process: {{matchPaths: [{{path: /x}}]}}\n"
        );
        let policies = armor_policy::parse("p.yaml", &text).unwrap_or_else(|e| panic!("{e}"));
        Selector::new(&policies[0]).unwrap()
    }

    fn web() -> Workload {
        let service = ServiceName {
            org: "myorg".to_owned(),
            url: "example.com-web".to_owned(),
            version: "1.2.0".to_owned(),
        };
        Workload {
            id: "a".repeat(64),
            name: "shop-web-1".to_owned(),
            image: "registry.local:5000/shop/web:2.1@sha256:00ff".to_owned(),
            labels: [("app", "web"), ("tier", "front"), ("list", "a,b")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            horizon: Some(HorizonService {
                agreement: "f".repeat(64),
                container: "frontend".to_owned(),
                service: Some(service),
            }),
            ..Workload::default()
        }
    }

    #[test]
    fn a_policy_is_for_the_containers_it_selects() {
        let agreement = format!("matchLabels: {{horizon.agreement: {}}}", "f".repeat(64));
        for (text, yes) in [
            ("matchLabels: {app: web}", true),
            ("matchLabels: {app: web, tier: back}", false),
            ("matchLabels: {app: web, tier: front}", true),
            ("matchLabels: {app: 'web, db'}", false),
            ("matchLabels: {list: 'a,b'}", true),
            ("matchLabels: {missing: ''}", false),
            ("matchLabels: {kubearmor.io/container.name: shop-web-1}", true),
            ("matchLabels: {kubearmor.io/container.name: shop-web}", false),
            ("matchLabels: {kubearmor.io/container.name: 'shop-web-.*'}", true),
            ("matchLabels: {kubearmor.io/container.name: '.*'}", true),
            ("matchLabels: {kubearmor.io/container.name: '[db, shop-web-1]'}", true),
            ("matchLabels: {kubearmor.io/container.name: 'db, shop-web-1', app: web}", true),
            ("matchLabels: {kubearmor.io/container.name: '*', app: db}", false),
            ("matchLabels: {horizon.image: 'registry.local:5000/shop/web'}", true),
            ("matchLabels: {horizon.image: 'nginx, registry.local:5000/shop/web:2.1'}", true),
            ("matchLabels: {horizon.image: 'registry.local:5000/shop/web:2.1@sha256:00ff'}", true),
            ("matchLabels: {horizon.image: 'registry.local:5000/shop/web:2.2'}", false),
            ("matchLabels: {horizon.image: 'registry.local:5000/shop'}", false),
            ("matchLabels: {horizon.service.name: frontend}", true),
            ("matchLabels: {horizon.service.name: 'other, example.com/web'}", true),
            ("matchLabels: {horizon.service.url: 'https://example.com/web'}", true),
            ("matchLabels: {horizon.service.url: example.com-web}", true),
            ("matchLabels: {horizon.service.url: frontend}", false),
            ("matchLabels: {horizon.service.url: example.com/web, horizon.service.org: myorg}", true),
            ("matchLabels: {horizon.service.url: example.com/web, horizon.service.org: other}", false),
            ("matchLabels: {horizon.service.version: '1.1.0, 1.2.0'}", true),
            ("matchLabels: {horizon.service.version: '1.2'}", false),
            (&agreement, true),
            ("matchLabels: {horizon.agreement: '*'}", true),
            ("matchExpressions: [{key: label, operator: In, values: ['app=db', 'app=web']}]", true),
            ("matchExpressions: [{key: label, operator: NotIn, values: ['app=db', 'app=web']}]", false),
            (
                "matchExpressions: [{key: label, operator: NotIn, values: ['horizon.service.name=frontend']}]",
                false,
            ),
            (
                "matchLabels: {app: web}, matchExpressions: [{key: label, operator: NotIn, values: ['tier=back']}]",
                true,
            ),
        ] {
            assert_eq!(selector(text).selects(&web()), yes, "{text}");
        }
    }

    #[test]
    fn who_is_no_horizon_service_is_selected_as_none() {
        let unknown = HorizonService { container: "frontend".to_owned(), ..HorizonService::default() };
        for (horizon, key, yes) in [
            (None, "horizon.service.name", false),
            (None, "horizon.agreement", false),
            (Some(unknown.clone()), "horizon.service.url", false),
            (Some(unknown.clone()), "horizon.service.version", false),
            (Some(unknown), "horizon.service.name", true),
        ] {
            let workload = Workload { horizon, ..web() };
            assert_eq!(selector(&format!("matchLabels: {{{key}: '*'}}")).selects(&workload), yes, "{key}");
        }
    }

    #[test]
    fn a_cluster_policy_selects_by_the_organisation_of_the_service() {
        let other = Workload { horizon: None, ..web() };
        for (operator, values, of_service, of_other) in [
            ("In", "[myorg]", true, false),
            ("In", "[other, myorg]", true, false),
            ("In", "[other]", false, false),
            ("NotIn", "[other]", true, true),
            ("NotIn", "[myorg]", false, true),
        ] {
            let text =
                format!("matchExpressions: [{{key: namespace, operator: {operator}, values: {values}}}]");
            let selector = selector_of("KubeArmorClusterPolicy", &text);
            assert_eq!(
                (selector.selects(&web()), selector.selects(&other)),
                (of_service, of_other),
                "{text}"
            );
        }
    }

    #[test]
    fn a_label_adds_a_name_and_takes_none() {
        let mut workload = web();
        workload.labels.insert(CONTAINER_NAME.to_owned(), "alias".to_owned());
        for name in ["alias", "shop-web-1"] {
            let text = format!("matchLabels: {{kubearmor.io/container.name: {name}}}");
            assert!(selector(&text).selects(&workload), "{name}");
        }
    }

    #[test]
    fn images_are_the_same_however_much_of_their_name_is_left_out() {
        for (wanted, found, yes) in [
            ("nginx", "nginx:1.27", true),
            ("docker.io/library/nginx", "nginx", true),
            ("nginx", "docker.io/library/nginx@sha256:aa", true),
            ("nginx:1.27", "nginx", false),
            ("bitnami/nginx", "docker.io/bitnami/nginx:1", true),
            ("nginx", "bitnami/nginx", false),
            ("localhost:5000/nginx", "localhost:5000/nginx:1", true),
            ("localhost", "localhost:5000/nginx:1", false),
            ("sha256:aa", "sha256:aa", true),
        ] {
            assert_eq!(is_image(wanted, found), yes, "{wanted} {found}");
        }
    }
}
