//! Keeps the policies for containers, and compiles those that select a container for its root.
//!
//! Nothing here changes anything but what is kept of it; all of it may be repeated at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use armor_bpf::DomainSettings;
use armor_policy::model::Kind;
use armor_policy::{CompileError, Domain, Links, compile};

use crate::workloads::bundled_policies::{BundledPolicy, domain_settings, policies_of, policy_sets};
use crate::workloads::compiled::{CompiledPolicies, warn_of_flags};
use crate::workloads::effect::without_effect;
use crate::workloads::linked_files::linked_files;
use crate::workloads::links::{SharedLinks, Watched, Whose, links};
use crate::workloads::root::Root;
use crate::workloads::workload::{Selector, Workload};

/// Maximum number of entries searched for files with hard links in a container; lower than for the host,
/// because other containers wait meanwhile.
const MAX_ENTRIES: usize = 10_000;

/// `ContainerPolicies` holds the policies for containers and the tables compiled from them.
pub struct ContainerPolicies {
    policies: Vec<(BundledPolicy, Selector)>,
    /// The result of [`Self::unidentified`].
    unidentified: Option<(Arc<Domain>, DomainSettings)>,
    /// By container id, the container at the last call of [`Self::build`] and its tables.
    built: BTreeMap<String, (Arc<Workload>, Option<CompiledPolicies>)>,
    compiled: Vec<Compiled>,
}

/// `Compiled` is a set of policies, compiled for all roots in which their paths have the same targets.
struct Compiled {
    policies: Vec<usize>,
    links: SharedLinks,
    domain: Arc<Domain>,
}

impl ContainerPolicies {
    /// Takes the container policies among `bundled`, which may be for hosts too.
    ///
    /// # Errors
    /// Fails with [`CompileError`] if they cannot be compiled together, as for a container that all of them
    /// select. If they can, any subset can.
    pub fn new(bundled: &[BundledPolicy]) -> Result<Self, CompileError> {
        let ours: Vec<BundledPolicy> =
            bundled.iter().filter(|bundled| bundled.policy.kind == Kind::Container).cloned().collect();
        let mut unidentified = None;
        if !ours.is_empty() {
            let policies = policies_of(&ours);
            let links = links(&[Root::of_layers(&[])], &policies);
            let mut sets = policy_sets(&ours);
            compile(&sets, &links)?;
            sets.iter_mut().for_each(|set| set.postures = None);
            unidentified = Some((Arc::new(compile(&sets, &links)?), domain_settings(&ours)));
            warn_of_flags(&policies);
        }
        // The selector of a parsed policy is always valid.
        let selectable = |bundled: BundledPolicy| {
            let selector = Selector::new(&bundled.policy).ok()?;
            Some((bundled, selector))
        };
        let policies = ours.into_iter().filter_map(selectable).collect();
        Ok(Self { policies, unidentified, built: BTreeMap::new(), compiled: Vec::new() })
    }

    /// Returns the tables for unidentified containers, with their settings. Any policy may apply to these, so
    /// the tables hold all of them, but permit what an allow-list leaves out.
    pub fn unidentified(&self) -> Option<&(Arc<Domain>, DomainSettings)> {
        self.unidentified.as_ref()
    }

    /// Returns every policy with the number of `workloads` that it selects.
    pub fn counts<'a>(
        &self,
        workloads: impl Iterator<Item = &'a Workload> + Clone,
    ) -> impl Iterator<Item = (&BundledPolicy, usize)> {
        self.policies.iter().map(move |(bundled, selector)| {
            (bundled, workloads.clone().filter(|workload| selector.selects(workload)).count())
        })
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
        let bundled: Vec<BundledPolicy> = selected.iter().map(|at| self.policies[*at].0.clone()).collect();
        let policies = policies_of(&bundled);
        let root = workload.root();
        let links = Arc::new(links(&workload.roots(), &policies));
        let known = self.compiled.iter().find(|known| known.policies == selected && known.links == links);
        let domain = match known {
            Some(known) => Arc::clone(&known.domain),
            None => {
                let domain = Arc::new(compile(&policy_sets(&bundled), &links)?);
                let (policies, links, domain_too) =
                    (selected.clone(), Arc::clone(&links), Arc::clone(&domain));
                self.compiled.push(Compiled { policies, links, domain: domain_too });
                domain
            }
        };
        let linked = linked_files(&root, &policies, &domain, MAX_ENTRIES);
        let notes = without_effect(&root, &policies);
        Ok(Some(CompiledPolicies { domain, linked, links, notes, settings: domain_settings(&bundled) }))
    }

    /// Returns the tables for a container as if no path in it were a link. They exist even where those of
    /// [`Self::build`] cannot be compiled; `None` if no policy selects the container.
    pub fn build_without_links(&self, workload: &Workload) -> Option<CompiledPolicies> {
        let bundled: Vec<BundledPolicy> = self.selecting(workload).cloned().collect();
        let domain = compile(&policy_sets(&bundled), &Links::new()).ok().filter(|_| !bundled.is_empty())?;
        Some(CompiledPolicies {
            domain: Arc::new(domain),
            linked: Vec::new(),
            links: SharedLinks::default(),
            notes: Vec::new(),
            settings: domain_settings(&bundled),
        })
    }

    /// Returns the policies that select a container.
    pub fn selecting<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = &'a BundledPolicy> {
        self.policies.iter().filter(|(_, selector)| selector.selects(workload)).map(|(bundled, _)| bundled)
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
            let policies = self.selecting(workload).map(|bundled| Arc::clone(&bundled.policy)).collect();
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
    use crate::workloads::bundled_policies::BundleSettings;
    use crate::workloads::testing::host_policy;

    #[test]
    fn containers_with_the_same_policies_and_links_share_tables() {
        let text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: NAME}\nspec:\n  selector: \
                    {matchLabels: {app: NAME}}\n  process: {matchPaths: [{path: /bin/x}]}\n";
        let settings = Arc::new(BundleSettings::default());
        let policies: Vec<BundledPolicy> = ["web", "db"]
            .iter()
            .flat_map(|name| armor_policy::parse("p", &text.replace("NAME", name)).unwrap())
            .chain([host_policy("kubearmor.io/hostname: '*'")])
            .map(|policy| BundledPolicy { policy: Arc::new(policy), settings: Arc::clone(&settings) })
            .collect();
        let mut containers = ContainerPolicies::new(&policies).unwrap();
        let workload = |app: &str| {
            let labels = [("app".to_owned(), app.to_owned())].into();
            Arc::new(Workload { id: app.to_owned(), labels, ..Workload::default() })
        };
        let (web, web_too, db, other) = (workload("web"), workload("web"), workload("db"), workload("other"));
        let web_too = Arc::new(Workload { id: "w2".to_owned(), ..Workload::clone(&web_too) });
        let counts = containers.counts([&*web, &*other].into_iter());
        let counts: Vec<_> = counts.map(|(bundled, count)| (bundled.policy.name.as_str(), count)).collect();
        assert_eq!(counts, [("web", 1), ("db", 0)]);
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
