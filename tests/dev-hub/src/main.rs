//! `hzn-armor-dev-hub` runs the development hub until SIGINT or SIGTERM.

use anyhow::Context as _;
use armor_dev_hub::{DevHub, DevHubConfig, Hub as _, Role, control};
use clap::Parser;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

/// A CSS and an ESS on this machine, for demos and development. Everything is kept in memory.
#[derive(Parser)]
#[command(name = "hzn-armor-dev-hub", version)]
struct Arguments {
    /// Directory for the ESS's socket (essapi.sock) and for the files that Horizon mounts (ess-auth/auth.json, ess-cert/cert.pem)
    #[arg(long)]
    dir: PathBuf,
    /// Loopback port of the CSS; 0 takes a free one
    #[arg(long, default_value_t = 8580)]
    port: u16,
    /// Loopback port for /control/down, /control/up and /control/restart-ess; 0 takes a free one
    #[arg(long, default_value_t = 8581)]
    control_port: u16,
    /// Org of the node, the service and the users
    #[arg(long, default_value = "myorg")]
    org: String,
    /// Node id
    #[arg(long, default_value = "node1")]
    node: String,
    /// Property of the node, NAME=VALUE where VALUE is JSON or a plain word; repeatable
    #[arg(long = "property", value_name = "NAME=VALUE")]
    properties: Vec<String>,
    /// Service on the node, NAME:VERSION:TOKEN
    #[arg(long, default_value = "hzn-armor:1.0.0:dev-service-token", value_name = "NAME:VERSION:TOKEN")]
    service: String,
    /// User of the org, NAME:PASSWORD; repeatable
    #[arg(long = "user", default_value = "operator:dev-operator-password", value_name = "NAME:PASSWORD")]
    users: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let arguments = Arguments::parse();
    let mut config = DevHubConfig::new(&arguments.dir);
    config.css_port = arguments.port;
    config.org = arguments.org;
    config.node = arguments.node;
    for property in &arguments.properties {
        let (name, value) = property
            .split_once('=')
            .with_context(|| format!("--property {property}: give it as NAME=VALUE"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        config.properties.insert(name.to_owned(), value);
    }
    let hub = Arc::new(DevHub::start(config).await?);
    let [name, version, token] = parts(&arguments.service, "--service", "NAME:VERSION:TOKEN")?;
    let id = hub.add_service(name, version, token)?;
    hub.write_horizon_files(&arguments.dir.join("ess-auth"), &id, token, version)?;
    std::fs::create_dir_all(arguments.dir.join("ess-cert"))?;
    std::fs::rename(arguments.dir.join("ess-auth/cert.pem"), arguments.dir.join("ess-cert/cert.pem"))?;
    for user in &arguments.users {
        let [name, password] = parts(user, "--user", "NAME:PASSWORD")?;
        hub.add_user(name, password, Role::User)?;
    }
    let (_server, control) = control::serve(&hub, arguments.control_port)
        .await
        .with_context(|| format!("control port {}", arguments.control_port))?;
    let mut stdout = std::io::stdout();
    writeln!(
        stdout,
        "ready css={} ess={} control={control} org={} node={}",
        hub.css_url(),
        hub.ess_socket().display(),
        hub.org(),
        hub.node()
    )?;
    stdout.flush()?;
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminated.recv() => {}
    }
    Ok(())
}

fn parts<'a, const N: usize>(text: &'a str, option: &str, form: &str) -> anyhow::Result<[&'a str; N]> {
    let parts: Vec<&str> = text.splitn(N, ':').collect();
    <[&str; N]>::try_from(parts).ok().with_context(|| format!("{option} {text}: give it as {form}"))
}
