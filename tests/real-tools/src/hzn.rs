//! This module runs `hzn`, and the scripts that run it, without any settings of this machine.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{self, Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::process::Command;

/// An `Hzn` runs the `hzn` that `HZN` names or that is on `PATH`, for one operator of the org `myorg`.
#[derive(Debug, Clone)]
pub struct Hzn {
    program: PathBuf,
    /// Home directory, without settings or keys of the user who runs the tests.
    home: PathBuf,
    variables: Vec<(String, OsString)>,
}

/// A `Said` is a command's output and its success.
#[derive(Debug, Clone)]
pub struct Said {
    /// True if the command ended with status 0.
    pub success: bool,
    /// Standard output of the command.
    pub out: String,
    /// Standard error of the command.
    pub err: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.out, self.err)
    }
}

/// Returns the root directory of the project.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Hzn {
    /// Returns the path of the program, if there is one.
    pub fn find() -> Option<PathBuf> {
        if let Some(named) = env::var_os("HZN").filter(|named| !named.is_empty()) {
            return Some(path::absolute(&named).unwrap_or_else(|_| named.into()));
        }
        env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join("hzn")).find(|path| path.is_file())
    }

    /// Returns an `Hzn` with its Exchange, CSS and agent at these URLs and its home in `home`.
    pub fn new(program: PathBuf, home: &Path, exchange: &str, css: &str, agent: &str, user: &str) -> Self {
        let variables = [
            ("HZN_ORG_ID", "myorg"),
            ("HZN_EXCHANGE_URL", exchange),
            ("HZN_FSS_CSSURL", css),
            ("HORIZON_URL", agent),
            ("HZN_EXCHANGE_USER_AUTH", user),
            ("HZN_EXCHANGE_NODE_AUTH", "node1:node-token"),
            ("ARCH", "amd64"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.into())).to_vec();
        Self { program, home: home.to_owned(), variables }
    }

    /// Sets a variable for all later commands.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// Returns the path of the operator's signing key, which [`Hzn::make_key`] makes.
    pub fn key(&self) -> PathBuf {
        self.home.join("service.private.key")
    }

    /// Makes the operator's key as operators do, with `hzn key create`.
    ///
    /// # Errors
    /// Fails if the program cannot be run.
    pub async fn make_key(&self) -> io::Result<Said> {
        let (private, public) = (self.key(), self.home.join("service.public.pem"));
        let (private, public) = (private.to_string_lossy(), public.to_string_lossy());
        // 2048 bits are quick to make, and what hzn uses for keys that it makes itself.
        self.run(&["key", "create", "-l", "2048", "-k", &private, "-K", &public, "myorg", "me@example.com"])
            .await
    }

    /// Runs `hzn` in `service-definition/`, the directory of its `hzn.json`.
    ///
    /// # Errors
    /// Fails if the program cannot be run.
    pub async fn run(&self, arguments: &[&str]) -> io::Result<Said> {
        self.finish(Command::new(&self.program), arguments).await
    }

    /// Runs `scripts/publish` with this `hzn`.
    ///
    /// # Errors
    /// Fails if the program cannot be run.
    pub async fn publish(&self, arguments: &[&str]) -> io::Result<Said> {
        self.finish(Command::new(root().join("scripts/publish")), arguments).await
    }

    async fn finish(&self, mut command: Command, arguments: &[&str]) -> io::Result<Said> {
        command.env_clear();
        // The image is built with the tools and proxies of the user who runs the tests.
        for name in ["CARGO_TARGET_DIR", "DOCKER_HOST", "http_proxy", "https_proxy", "no_proxy"] {
            command.envs(env::var_os(name).map(|value| (name, value)));
        }
        for (name, default) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let at_home = || env::home_dir().map(|home| home.join(default).into_os_string());
            if let Some(place) = env::var_os(name).or_else(at_home) {
                command.env(name, place);
            }
        }
        let output: Output = command
            .args(arguments)
            .current_dir(root().join("service-definition"))
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .env("HZN", &self.program)
            .env("HZN_PRIVATE_KEY_FILE", self.key())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Said { success: output.status.success(), out: text(output.stdout), err: text(output.stderr) })
    }
}
