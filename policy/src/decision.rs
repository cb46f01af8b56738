//! Defines decisions on accesses, and the descriptions of the rules that make them.

use crate::model::Action;
use serde::{Deserialize, Serialize};

/// A `Verdict` says what happens to an access. The order, from mildest to strictest, defines "more
/// restrictive".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// The access is permitted silently.
    Allow = 0,
    /// The access is permitted, with an alert.
    Audit = 1,
    /// The access is refused with `EACCES`, with an alert.
    Block = 2,
}

/// A `Posture` says what happens to accesses that no rule of an allow-list matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Posture {
    /// The access is permitted silently: the allow-list says what is permitted, and refuses nothing.
    Allow,
    /// The access is permitted, with an alert. This is KubeArmor's default.
    #[default]
    Audit,
    /// The access is refused, with an alert.
    Block,
}

/// A `PostureClass` is what a posture is for, as KubeArmor divides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostureClass {
    /// The sections `process` and `file`.
    File,
    /// The section `network`.
    Network,
    /// The section `capabilities`.
    Capabilities,
    /// The section `device`.
    Device,
}

/// A `PerClass` has a value for each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerClass<T> {
    /// That of files and programs.
    pub file: T,
    /// That of networks.
    pub network: T,
    /// That of capabilities.
    pub capabilities: T,
    /// That of devices.
    pub device: T,
}

impl<T: Copy> PerClass<T> {
    /// Returns the same value for all classes.
    #[must_use]
    pub const fn all(value: T) -> Self {
        Self { file: value, network: value, capabilities: value, device: value }
    }

    /// Returns the value of a class.
    #[must_use]
    pub const fn of(&self, class: PostureClass) -> T {
        match class {
            PostureClass::File => self.file,
            PostureClass::Network => self.network,
            PostureClass::Capabilities => self.capabilities,
            PostureClass::Device => self.device,
        }
    }

    /// Returns the value of a class, to be changed.
    pub(crate) const fn of_mut(&mut self, class: PostureClass) -> &mut T {
        match class {
            PostureClass::File => &mut self.file,
            PostureClass::Network => &mut self.network,
            PostureClass::Capabilities => &mut self.capabilities,
            PostureClass::Device => &mut self.device,
        }
    }
}

/// The postures of the classes.
pub type Postures = PerClass<Posture>;

impl From<Action> for Verdict {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Audit => Self::Audit,
            Action::Block => Self::Block,
        }
    }
}

impl From<Posture> for Verdict {
    fn from(posture: Posture) -> Self {
        match posture {
            Posture::Allow => Self::Allow,
            Posture::Audit => Self::Audit,
            Posture::Block => Self::Block,
        }
    }
}

/// A `Decision` holds a verdict in bits 30..=31 and, in the bits below, the index in
/// [`Domain::rules`](crate::Domain::rules) of the rule that decided.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision(pub u32);

impl Decision {
    /// Largest rule index that a decision can hold.
    pub const MAX_RULE: u32 = (1 << 30) - 1;
    /// Rule index of a decision that the posture made, and no rule. Of several bundles it is the first one's
    /// posture; those of the others follow the last rule.
    pub const RULE_DEFAULT: u32 = 0;
    /// Rule index of a refusal because the object has no path.
    pub const RULE_UNRESOLVED: u32 = 1;
    /// Rule index of the first rule that comes from a policy.
    pub(crate) const FIRST_RULE: u32 = 2;
    /// Permits silently. All silent permissions are equal, because which rule permits an access makes no
    /// difference, and must not make classes differ.
    pub(crate) const ALLOW: Self = Self::new(Verdict::Allow, Self::RULE_DEFAULT);

    /// Packs a verdict and a rule index, which is at most [`Self::MAX_RULE`].
    pub const fn new(verdict: Verdict, rule: u32) -> Self {
        Self((verdict as u32) << 30 | (rule & Self::MAX_RULE))
    }

    /// Returns the decision with this verdict of a rule or the posture, or [`Self::ALLOW`].
    pub(crate) fn of(verdict: Verdict, rule: u32) -> Self {
        if verdict == Verdict::Allow { Self::ALLOW } else { Self::new(verdict, rule) }
    }

    /// Returns the verdict.
    pub const fn verdict(self) -> Verdict {
        match self.0 >> 30 {
            0 => Verdict::Allow,
            1 => Verdict::Audit,
            _ => Verdict::Block,
        }
    }

    /// Returns the index in [`Domain::rules`](crate::Domain::rules) of the rule that decided.
    pub const fn rule(self) -> u32 {
        self.0 & Self::MAX_RULE
    }
}

impl std::fmt::Debug for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}#{}", self.verdict(), self.rule())
    }
}

/// A `RuleInfo` describes, for an alert, the rule that decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleInfo {
    /// The name of the policy's bundle; empty if it is in none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bundle: String,
    /// The policy's `metadata.name`; `DefaultPosture` for a bundle's posture, or `UnresolvedPath`.
    pub policy: String,
    /// The rule's place as `file:line`; empty for those two.
    pub location: String,
    /// The severity from 1 to 10, or 0 if the policy gives none.
    pub severity: u8,
    /// The tags as written.
    pub tags: Vec<String>,
    /// The message as written; empty if the policy gives none.
    pub message: String,
}
