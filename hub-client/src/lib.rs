//! What the hub's side and the node's side share: MMS clients, signed bundles and the keys behind them, alerts and receipts.

// These panic where nobody takes what they print; `console` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod alert;
pub mod batch;
pub mod bundle;
pub mod collector;
pub mod console;
pub mod css;
pub mod ess;
pub mod file;
mod http;
pub mod keys;
pub mod mms;
pub mod receipt;
pub mod signed;
pub mod status;
pub mod steps;
pub mod tls;
pub mod trust;
