//! What the hub's side and the node's side share: MMS clients, signed bundles and the keys behind them, alerts and receipts.

pub mod css;
pub mod ess;
mod http;
pub mod keys;
pub mod mms;
pub mod tls;
