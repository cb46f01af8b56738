//! Keeps a bundle's policies for containers, and compiles those that select a container for its root.
//!
//! Nothing here changes anything but what is kept of it; all of it may be repeated at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use armor_policy::Domain;
use armor_policy::model::Kind;
use armor_policy::{CompileError, CompileOptions, Policy, Posture, compile};

use crate::workloads::compiled::{CompiledPolicies, warn_of_flags};
use crate::workloads::effect::without_effect;
use crate::workloads::linked_files::linked_files;
use crate::workloads::links::{Links, Watched, Whose, links};
use crate::workloads::root::Root;
use crate::workloads::workload::{Selector, Workload};

/// Maximum number of entries searched for files with hard links in a container; lower than for the host,
/// because other containers wait meanwhile.
const MAX_ENTRIES: usize = 10_000;

/// `ContainerPolicies` holds a bundle's policies for containers and the tables compiled from them.
pub struct ContainerPolicies {
    policies: Vec<(Arc<Policy>, Selector)>,
    posture: Posture,
    /// The result of [`Self::unidentified`].
    unidentified: Option<Arc<Domain>>,
    /// By container id, the container at the last call of [`Self::build`] and its tables.
    built: BTreeMap<String, (Arc<Workload>, Option<CompiledPolicies>)>,
    compiled: Vec<Compiled>,
}

/// `Compiled` is a set of policies, compiled for all roots in which their paths have the same targets.
struct Compiled {
    policies: Vec<usize>,
    links: Links,
    domain: Arc<Domain>,
}

impl ContainerPolicies {
    /// Takes the container policies among `policies`, which may be for hosts too.
    ///
    /// # Errors
    /// Fails with [`CompileError`] if they cannot be compiled together, as for a container that all of them
    /// select. If they can, any subset can.
    pub fn new(policies: &[Policy], posture: Posture) -> Result<Self, CompileError> {
        let ours: Vec<&Policy> = policies.iter().filter(|policy| policy.kind == Kind::Container).collect();
        let mut unidentified = None;
        if !ours.is_empty() {
            let mut options = CompileOptions { posture, links: links(&[Root::of_layers(&[])], &ours) };
            compile(&ours, &options)?;
            options.posture = Posture::Allow;
            unidentified = Some(Arc::new(compile(&ours, &options)?));
            warn_of_flags(&ours);
        }
        // The selector of a parsed policy is always valid.
        let selectable = |policy: &&Policy| Some((Arc::new((*policy).clone()), Selector::new(policy).ok()?));
        let policies = ours.iter().filter_map(selectable).collect();
        Ok(Self { policies, posture, unidentified, built: BTreeMap::new(), compiled: Vec::new() })
    }

    /// Returns whether there are no policies for containers.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Returns the tables for unidentified containers. Any policy may apply to these, so the tables hold all
    /// of them, but permit what an allow-list leaves out.
    pub fn unidentified(&self) -> Option<&Arc<Domain>> {
        self.unidentified.as_ref()
    }

    /// Returns the names of the policies that select none of `workloads`, and the number of the others.
    pub fn idle<'a>(&self, workloads: impl Iterator<Item = &'a Workload> + Clone) -> (Vec<String>, usize) {
        let is_idle = |(_, selector): &&(Arc<Policy>, Selector)| {
            !workloads.clone().any(|workload| selector.selects(workload))
        };
        let idle: Vec<String> =
            self.policies.iter().filter(is_idle).map(|(policy, _)| policy.name.clone()).collect();
        let selecting = self.policies.len() - idle.len();
        (idle, selecting)
    }

    /// Returns the tables for a container, or `None` if no policy selects it.
    ///
    /// # Errors
    /// Fails with [`CompileError`] if its policies cannot be compiled.
    pub fn build(&mut self, workload: &Arc<Workload>) -> Result<Option<CompiledPolicies>, CompileError> {
        if let Some((as_it_was, built)) = self.built.get(&workload.id)
            && as_it_was == workload
        {
            return Ok(built.clone());
        }
        let built = self.build_anew(workload)?;
        self.built.insert(workload.id.clone(), (Arc::clone(workload), built.clone()));
        Ok(built)
    }

    fn build_anew(&mut self, workload: &Workload) -> Result<Option<CompiledPolicies>, CompileError> {
        let selected: Vec<usize> =
            (0..self.policies.len()).filter(|at| self.policies[*at].1.selects(workload)).collect();
        if selected.is_empty() {
            return Ok(None);
        }
        let policies: Vec<&Policy> = selected.iter().map(|at| &*self.policies[*at].0).collect();
        let root = workload.root();
        let links = Arc::new(links(&workload.roots(), &policies));
        let known = self.compiled.iter().find(|known| known.policies == selected && known.links == links);
        let domain = match known {
            Some(known) => Arc::clone(&known.domain),
            None => {
                let options = CompileOptions { posture: self.posture, links: BTreeMap::clone(&links) };
                let domain = Arc::new(compile(&policies, &options)?);
                let (policies, links, domain_too) =
                    (selected.clone(), Arc::clone(&links), Arc::clone(&domain));
                self.compiled.push(Compiled { policies, links, domain: domain_too });
                domain
            }
        };
        let linked = linked_files(&root, &policies, &domain, MAX_ENTRIES);
        let notes = without_effect(&root, &policies);
        Ok(Some(CompiledPolicies { domain, linked, links, notes }))
    }

    /// Returns the names of all policies.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.policies.iter().map(|(policy, _)| policy.name.as_str())
    }

    /// Returns the policies that select a container.
    pub fn selecting<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = &'a Arc<Policy>> {
        self.policies.iter().filter(|(_, selector)| selector.selects(workload)).map(|(policy, _)| policy)
    }

    /// Returns the notes on rules without effect, each with its container.
    pub fn notes(&self) -> impl Iterator<Item = (&str, &Workload)> {
        self.built.values().flat_map(|(workload, built)| {
            let notes = built.iter().flat_map(|built| &built.notes);
            notes.map(|note| (note.as_str(), &**workload))
        })
    }

    /// Returns the paths to resolve again in each container.
    pub fn watched(&self) -> Vec<Watched> {
        let watch = |(workload, built): &(Arc<Workload>, Option<CompiledPolicies>)| {
            let links = Arc::clone(&built.as_ref()?.links);
            let policies = self.selecting(workload).cloned().collect();
            Some(Watched { whose: Whose::Container(Arc::clone(workload)), policies, links })
        };
        self.built.values().filter_map(watch).collect()
    }

    /// Discards the tables of a container, so that they are compiled again.
    pub fn forget(&mut self, id: &str) {
        self.built.remove(id);
    }

    /// Discards the tables of containers that are gone.
    pub fn keep<'a>(&mut self, present: impl Iterator<Item = &'a Workload>) {
        let present: BTreeSet<&str> = present.map(|workload| workload.id.as_str()).collect();
        self.built.retain(|id, _| present.contains(id.as_str()));
        let built = &self.built;
        let is_used = |domain: &Arc<Domain>| {
            built
                .values()
                .any(|(_, built)| built.as_ref().is_some_and(|built| Arc::ptr_eq(&built.domain, domain)))
        };
        self.compiled.retain(|known| is_used(&known.domain));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::testing::host_policy;

    #[test]
    fn containers_with_the_same_policies_and_links_share_tables() {
        let text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: NAME}\nspec:\n  selector: \
                    {matchLabels: {app: NAME}}\n  process: {matchPaths: [{path: /bin/x}]}\n";
        let policies: Vec<Policy> = ["web", "db"]
            .iter()
            .flat_map(|name| armor_policy::parse("p", &text.replace("NAME", name)).unwrap())
            .chain([host_policy("kubearmor.io/hostname: '*'")])
            .collect();
        let mut containers = ContainerPolicies::new(&policies, Posture::Audit).unwrap();
        let workload = |app: &str| {
            let labels = [("app".to_owned(), app.to_owned())].into();
            Arc::new(Workload { id: app.to_owned(), labels, ..Workload::default() })
        };
        let (web, web_too, db, other) = (workload("web"), workload("web"), workload("db"), workload("other"));
        let web_too = Arc::new(Workload { id: "w2".to_owned(), ..Workload::clone(&web_too) });
        assert_eq!(containers.idle([&*web, &*other].into_iter()), (vec!["db".to_owned()], 1));
        let mut domain = |workload| containers.build(workload).unwrap().map(|built| built.domain);
        let (first, second) = (domain(&web).unwrap(), domain(&web_too).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &domain(&db).unwrap()));
        assert!(domain(&other).is_none());
        drop((first, second));
        containers.keep([&*web].into_iter());
        assert_eq!((containers.compiled.len(), containers.built.len()), (1, 1), "the others are gone");
    }
}
