//! Knows destinations: the rules of the list `matchDestinations` of the section `network` and of network policies, and the
//! tables that decide with whom sockets communicate.
//!
//! Of what [`crate::precedence`] leaves to each kind of rule, destinations have this:
//!
//! - **Sections.** Egress decides connecting and sending without a connection, by the peer's address and port. Ingress
//!   decides which connections and datagrams come in, by the peer's address and the own port, and on which ports a socket
//!   may take any. Both are lists of their own beside `matchProtocols`: what one of them refuses is refused.
//! - **Specificity.** First comes the longest prefix, then the narrowest range of ports, then a rule that names a
//!   protocol.
//! - **What is not judged.** Sockets without addresses of IPv4 or IPv6. IPv4 addresses within IPv6 (`::ffff:0:0/96`)
//!   are IPv4's.

pub(crate) mod compile;
mod model;
pub(crate) mod network_policy;
pub(crate) mod parse;
mod table;
mod trie;

pub use model::{DestinationRule, Direction, Ports, Transport};
pub use table::DestinationTable;
pub use trie::{ENTRIES, Entry};
