//! Compiles policies for one root: resolves their paths there, and finds the files with hard links.
//!
//! Nothing here changes anything; all of it may be repeated at any time.

use std::sync::Arc;

use armor_bpf::{DomainSettings, LinkedFile};
use armor_policy::path::path_rules;
use armor_policy::{CompileError, Domain, Links, Policy, compile};

use crate::kernel::requirements::FLAGS_UNSEEN;
use crate::workloads::bundled_policies::{BundledPolicy, domain_settings, policies_of, policy_sets};
use crate::workloads::effect::without_effect;
use crate::workloads::linked_files::linked_files;
use crate::workloads::links::{SharedLinks, links};
use crate::workloads::root::Root;

/// Maximum number of host directory entries searched for files with hard links.
const MAX_ENTRIES: usize = 100_000;

/// `CompiledPolicies` are policies compiled for a root.
#[derive(Clone)]
pub struct CompiledPolicies {
    /// The tables.
    pub domain: Arc<Domain>,
    /// Files and devices under rules that can be reached by other paths.
    pub linked: Vec<LinkedFile>,
    /// The targets of the rules' paths.
    pub links: SharedLinks,
    /// Notes on rules without effect in that root, and what to write instead.
    pub notes: Vec<String>,
    /// The settings that the policies' bundles ask for.
    pub settings: DomainSettings,
}

/// Compiles policies for the tree below `root`. If the links there keep them from compiling, which users may make,
/// the rules hold under their paths as written, and a note says so.
///
/// # Errors
/// Fails with [`CompileError`] if the policies cannot be compiled.
pub fn build(bundled: &[BundledPolicy], root: &Root) -> Result<CompiledPolicies, CompileError> {
    let policies = policies_of(bundled);
    let links = links(std::slice::from_ref(root), &policies);
    let sets = policy_sets(bundled);
    let mut notes = without_effect(root, &policies);
    let domain = match compile(&sets, &links) {
        Ok(domain) => domain,
        Err(error) => {
            let domain = compile(&sets, &Links::new())?;
            notes.push(format!("no link on the way of a rule's path is followed: with them, {error}"));
            domain
        }
    };
    warn_of_flags(&policies);
    Ok(CompiledPolicies {
        linked: linked_files(root, &policies, &domain, MAX_ENTRIES),
        domain: Arc::new(domain),
        links: Arc::new(links),
        notes,
        settings: domain_settings(bundled),
    })
}

/// Warns if `readOnly` cannot protect a file's flags and project id on this kernel.
pub(super) fn warn_of_flags(policies: &[&Policy]) {
    if path_rules(policies).any(|rule| rule.read_only) && !armor_bpf::sees_file_attributes() {
        tracing::warn!("flags and project ids of files are {}", FLAGS_UNSEEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::bundled_policies::BundleSettings;
    use crate::workloads::testing::parse;

    #[test]
    fn links_that_keep_rules_from_compiling_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("y")).unwrap();
        std::os::unix::fs::symlink("y", dir.path().join("x")).unwrap();
        let pattern = |of: &str| format!("{{pattern: '/{of}{}'}}", "?".repeat(13));
        let spec = format!("  file: {{matchPatterns: [{}, {}]}}\n", pattern("x/**a"), pattern("y/**b"));
        let settings = Arc::new(BundleSettings::default());
        let bundled = |policy| BundledPolicy { policy: Arc::new(policy), settings: Arc::clone(&settings) };
        let policies: Vec<BundledPolicy> = parse(&spec).into_iter().map(bundled).collect();
        let built = build(&policies, &Root::at(dir.path().to_owned())).unwrap();
        assert!(built.notes[0].starts_with("no link on the way"), "{:?}", built.notes);
        assert!(!built.links.is_empty(), "so that only a change of links compiles them again");
    }
}
