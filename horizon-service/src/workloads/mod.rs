//! Describes containers and the host, and compiles the policies for each.

pub mod domains;
pub mod effect;
pub mod links;
pub mod root;
pub mod runtime;
pub mod services;
pub mod workload;
