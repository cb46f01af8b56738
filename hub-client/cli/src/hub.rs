//! This module connects to the hub, with the variables that `hzn` reads; each is also an option.

use std::ffi::OsString;

use armor_mms::css::{CssClient, CssConfig, DEFAULT_TIMEOUT};

/// A `HubArgs` contains the hub's address and the user's credentials.
#[derive(Debug, clap::Args)]
pub struct HubArgs {
    /// Org
    #[arg(long, short, env = "HZN_ORG_ID")]
    pub org: String,
    /// `user:password` or `org/user:password`
    #[arg(long = "user-pw", short, env = "HZN_EXCHANGE_USER_AUTH", hide_env_values = true)]
    pub user: String,
    /// URL of the hub's sync service (CSS)
    #[arg(long, env = "HZN_FSS_CSSURL", hide_env_values = true)]
    pub css_url: String,
    /// PEM of the hub's certificate, if the system does not trust it; empty means none, as for hzn
    #[arg(long, env = "HZN_MGMT_HUB_CERT_PATH", value_name = "FILE", value_parser = clap::builder::OsStringValueParser::new())]
    pub hub_cert: Option<OsString>,
}

impl HubArgs {
    /// Returns a client of the hub.
    pub fn client(&self) -> anyhow::Result<CssClient> {
        Ok(CssClient::new(&CssConfig {
            url: self.css_url.clone(),
            org: self.org.clone(),
            user: self.user.clone(),
            ca_file: self.hub_cert.as_ref().filter(|path| !path.is_empty()).map(Into::into),
            timeout: DEFAULT_TIMEOUT,
        })?)
    }
}
