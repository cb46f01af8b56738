//! This crate contains the clients of Open Horizon's Model Management System: [`ess`] for a service on a node,
//! [`css`] for a user at the hub. It knows nothing of what the objects contain.

// The print macros panic if standard output or standard error is closed; libraries do not print.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod css;
mod error;
pub mod ess;
mod http;
mod object;
mod tls;

pub use error::{Credentials, MmsError};
pub use object::{
    ALERTS_TYPE, BUNDLE_TYPE, Destination, DestinationPolicy, HUB_TYPE, MetaData, ObjectStatus,
    PolicyProperty, RECEIPT_TYPE, STATUS_TYPE, ServiceId,
};
