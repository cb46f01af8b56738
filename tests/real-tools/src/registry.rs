//! This module runs a real image registry, Debian's, on a loopback port, where Docker uses it without TLS.

use std::io;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A `Registry` is the running registry, which ends when this is dropped.
pub struct Registry {
    /// `127.0.0.1:port`, with which the names of its images begin.
    pub address: String,
    /// Killed when this is dropped.
    _child: Child,
}

impl Registry {
    /// Starts an empty registry that keeps its images in `dir`.
    ///
    /// # Errors
    /// Fails if the registry cannot be fetched or does not start.
    pub async fn start(dir: &Path) -> io::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("registry");
        let fetched = Command::new(script).stderr(Stdio::inherit()).output().await?;
        if !fetched.status.success() {
            return Err(io::Error::other("the registry cannot be fetched"));
        }
        // JSON is also YAML.
        let settings = json!({
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": dir.join("images")}},
            "http": {"addr": "127.0.0.1:0"},
        });
        let file = dir.join("registry.yml");
        std::fs::write(&file, settings.to_string())?;
        let mut child = Command::new(String::from_utf8_lossy(&fetched.stdout).trim())
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let log = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut lines = BufReader::new(log).lines();
        while let Some(line) = lines.next_line().await? {
            let Some((_, rest)) = line.split_once("listening on ") else { continue };
            let address = rest.split(['"', ' ']).next().unwrap_or_default().to_owned();
            // Reads the rest of its log, so that it does not block on writing it.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(Self { address, _child: child });
        }
        Err(io::Error::other("the registry ended before it listened"))
    }
}
