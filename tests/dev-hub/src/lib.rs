//! This library is a development hub: Open Horizon's CSS and ESS in one process, for demos and tests.
//!
//! It behaves like the real services wherever clients must cope with that, awkward parts included; the
//! contract tests compare both. It listens only on loopback and on a unix socket, keeps everything in memory,
//! and knows one org and one node. It lacks webhooks, manifests, ACLs, ranges and chunked transfer, expiry,
//! SHA-1 signatures, and the moment after a delivery in which the real ESS may lose an acknowledgement.

mod api;
mod auth;
pub mod control;
mod hub;
mod link;
mod meta;
mod policy;
mod server;
mod signature;
mod state;
mod store;
mod tls;

pub use auth::{Credential, Role};
pub use hub::{DevHub, DevHubConfig, Hub, StartError, reserve};
pub use server::Server;
