//! Groups the policies of a domain by bundle.

use crate::decision::Postures;
use crate::model::Policy;

/// A `PolicySet` holds the policies of one bundle that a domain is under, with the bundle's postures.
#[derive(Clone, Debug)]
pub struct PolicySet<'a> {
    /// The bundle's name, for alerts; no two sets of a domain have the same one.
    pub bundle: &'a str,
    /// The postures of the allow-lists that these policies make, unless a policy has its own; `None`: what an allow-list
    /// leaves out is permitted silently, whatever the policies say.
    pub postures: Option<Postures>,
    /// The policies.
    pub policies: Vec<&'a Policy>,
}

impl<'a> PolicySet<'a> {
    /// Returns a set of policies that are in no bundle, with the default postures.
    pub fn of(policies: impl IntoIterator<Item = &'a Policy>) -> Self {
        Self { bundle: "", postures: Some(Postures::default()), policies: policies.into_iter().collect() }
    }
}
