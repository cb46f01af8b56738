//! Keeps policies together with the settings of their bundles. A workload may be under policies of several
//! bundles: the compiler gets all of them, and [`domain_settings`] merges the settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use armor_bpf::DomainSettings;
use armor_policy::{Policy, PolicySet, Postures};

/// A `BundledPolicy` is a policy with the settings of its bundle.
#[derive(Debug, Clone)]
pub struct BundledPolicy {
    /// The policy.
    pub policy: Arc<Policy>,
    /// The settings.
    pub settings: Arc<BundleSettings>,
}

/// `BundleSettings` are a bundle's name and those of its settings that its policies are compiled with.
#[derive(Debug, Clone, Default)]
pub struct BundleSettings {
    /// The bundle's name; empty for policies that are in none.
    pub bundle: String,
    /// The postures of allow-lists.
    pub postures: Postures,
    /// The settings of workloads under the policies.
    pub domain: DomainSettings,
}

/// Returns the policies themselves.
pub fn policies_of(bundled: &[BundledPolicy]) -> Vec<&Policy> {
    bundled.iter().map(|bundled| &*bundled.policy).collect()
}

/// Returns the policies by bundle, for the compiler.
pub fn policy_sets(bundled: &[BundledPolicy]) -> Vec<PolicySet<'_>> {
    let mut sets: BTreeMap<&str, PolicySet<'_>> = BTreeMap::new();
    for BundledPolicy { policy, settings } in bundled {
        let BundleSettings { bundle, postures, .. } = &**settings;
        let empty = PolicySet { bundle, postures: Some(*postures), policies: Vec::new() };
        sets.entry(bundle).or_insert(empty).policies.push(policy);
    }
    sets.into_values().collect()
}

/// Returns the settings of a workload under these policies. One bundle that asks for secure sources is enough
/// for them. The highest limit of alerts counts, so that no bundle keeps back what another one wants to see.
pub fn domain_settings(bundled: &[BundledPolicy]) -> DomainSettings {
    let all = || bundled.iter().map(|bundled| bundled.settings.domain);
    let limits = || all().map(|settings| settings.alerts_per_second);
    let is_unlimited = limits().any(|limit| limit == 0);
    DomainSettings {
        alerts_per_second: if is_unlimited { 0 } else { limits().max().unwrap_or(0) },
        secure_sources: all().any(|settings| settings.secure_sources),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::testing::host_policy;
    use armor_policy::Posture;

    #[test]
    fn the_settings_of_several_bundles_are_merged() {
        let policy = Arc::new(host_policy("kubearmor.io/hostname: '*'"));
        let of = |bundle: &str, alerts_per_second, secure_sources| BundledPolicy {
            policy: Arc::clone(&policy),
            settings: Arc::new(BundleSettings {
                bundle: bundle.to_owned(),
                postures: Postures::all(Posture::Block),
                domain: DomainSettings { alerts_per_second, secure_sources },
            }),
        };
        let (low, high, unlimited) = (of("low", 1, true), of("high", 50, false), of("unlimited", 0, false));
        let merged = |bundled: &[&BundledPolicy]| {
            let bundled: Vec<BundledPolicy> = bundled.iter().map(|bundled| (*bundled).clone()).collect();
            let settings = domain_settings(&bundled);
            (settings.alerts_per_second, settings.secure_sources)
        };
        assert_eq!(merged(&[&low, &high]), (50, true));
        assert_eq!(merged(&[&high, &unlimited]), (0, false));
        let all = [low.clone(), high, low];
        let sets = policy_sets(&all);
        let sizes: Vec<_> = sets.iter().map(|set| (set.bundle, set.policies.len())).collect();
        assert_eq!(sizes, [("high", 1), ("low", 2)]);
        assert!(sets.iter().all(|set| set.postures == Some(Postures::all(Posture::Block))));
    }
}
