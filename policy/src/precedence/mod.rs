//! Says which rule decides, for rules of all kinds.
//!
//! Rules of every kind have the following meaning. Each kind says which objects a rule matches, which
//! permissions its sections decide, and what its own fields mean: for paths, [`crate::path`] does.
//!
//! - **Sections.** In each section of a spec, the first matching rule in the order below decides all of the
//!   section's permissions of an object.
//! - **Order** ([`order::Precedence`]). Rules that are about some programs alone, those whose `fromSource` names them or those that
//!   a terminal controls (`pts: false`), come before rules for all. Then come
//!   those with the more specific target. At equal specificity, Block comes before Allow and Allow before
//!   Audit, then the rule that its kind's fields make stricter. Last, the name of the policy and the place of
//!   the rule decide, so that the order of documents never matters. Between policies of one name, the bundle's
//!   name comes before the place.
//! - **Outcome.** Block refuses, Audit permits with an alert, Allow permits.
//! - **Allow-list.** An Allow rule without `fromSource` makes its section an allow-list for every program, a
//!   rule with `fromSource` for these programs, unless it is an exception ([`Policy::is_exception`]).
//!   Accesses that no rule matches then get the posture of the bundle whose rule makes the allow-list, of
//!   several the strictest.
//!
//! [`Policy::is_exception`]: crate::model::Policy::is_exception

pub(crate) mod error;
pub(crate) mod links;
pub(crate) mod order;
pub(crate) mod postures;
pub(crate) mod rules;
pub(crate) mod sets;
pub(crate) mod subjects;
