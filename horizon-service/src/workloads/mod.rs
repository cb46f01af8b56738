//! Describes containers and the host, and compiles the policies for each.

pub mod bundled_policies;
pub mod compiled;
pub mod container_policies;
pub mod effect;
pub mod linked_files;
pub mod links;
pub mod node_selector;
pub mod root;
pub mod runtime;
pub mod services;
#[cfg(test)]
pub(crate) mod testing;
pub mod workload;
