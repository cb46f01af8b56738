//! Knows names of DNS: the rules of the list `matchDNSQueries`, and the table that decides on questions for names.
//!
//! Of what [`crate::precedence`] leaves to each kind of rule, names have this:
//!
//! - **Sections.** `matchDNSQueries` decides sending questions for names to port 53. It is a section of its own beside the
//!   other lists of `network`: an allow-list of names refuses no socket, and one of sockets no name.
//! - **Matching.** A rule is about its name and every name below it.
//! - **Specificity.** First come the names with most labels.
//! - **What asks for no certain name.** The strictest decision on any name counts.

pub(crate) mod compile;
mod model;
pub(crate) mod parse;
mod table;

pub use model::{BadName, DnsName};
pub use table::NameTable;
