//! How the commands reach the hub: the variables that `hzn` reads, each also as an option.

use std::path::PathBuf;

use armor_hub_client::css::{CssClient, CssConfig, DEFAULT_TIMEOUT};

/// The hub and who asks.
#[derive(Debug, clap::Args)]
pub struct HubArgs {
    /// Org
    #[arg(long, short, env = "HZN_ORG_ID")]
    pub org: String,
    /// `user:password` or `org/user:password`
    #[arg(long = "user-pw", short, env = "HZN_EXCHANGE_USER_AUTH", hide_env_values = true)]
    pub user: String,
    /// URL of the hub's sync service (CSS)
    #[arg(long, env = "HZN_FSS_CSSURL")]
    pub css_url: String,
    /// PEM of the hub's certificate, where the system does not know it
    #[arg(long, env = "HZN_MGMT_HUB_CERT_PATH")]
    pub hub_cert: Option<PathBuf>,
}

impl HubArgs {
    /// A client for that hub.
    pub fn client(&self) -> anyhow::Result<CssClient> {
        Ok(CssClient::new(&CssConfig {
            url: self.css_url.clone(),
            org: self.org.clone(),
            user: self.user.clone(),
            ca_file: self.hub_cert.clone().filter(|path| !path.as_os_str().is_empty()),
            timeout: DEFAULT_TIMEOUT,
        })?)
    }
}
