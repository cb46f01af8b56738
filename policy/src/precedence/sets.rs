//! Groups the policies of a domain by bundle.

use crate::decision::Posture;
use crate::model::Policy;

/// A `PolicySet` holds the policies of one bundle that a domain is under, with the bundle's posture.
#[derive(Clone, Debug, Default)]
pub struct PolicySet<'a> {
    /// The bundle's name, for alerts; no two sets of a domain have the same one.
    pub bundle: &'a str,
    /// The posture of the allow-lists that these policies make.
    pub posture: Posture,
    /// The policies.
    pub policies: Vec<&'a Policy>,
}

impl<'a> PolicySet<'a> {
    /// Returns a set of policies that are in no bundle, with the default posture.
    pub fn of(policies: impl IntoIterator<Item = &'a Policy>) -> Self {
        Self { policies: policies.into_iter().collect(), ..Self::default() }
    }
}
