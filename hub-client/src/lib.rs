//! What the hub's side and the node's side share: MMS clients, signed bundles and the keys behind them, alerts and receipts.

pub mod alert;
pub mod batch;
pub mod bundle;
pub mod collector;
pub mod css;
pub mod ess;
mod http;
pub mod keys;
pub mod mms;
pub mod receipt;
pub mod signed;
pub mod status;
pub mod steps;
pub mod tls;
pub mod trust;
