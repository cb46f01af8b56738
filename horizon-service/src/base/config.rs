//! Reads the agent's settings from a TOML file, overridden by variables `HZN_ARMOR_<KEY>` of the same keys.

use std::path::{Path, PathBuf};

use armor_base::file::{self, FileError};
use armor_policy::document::text;
use armor_policy::{Diagnostics, escaped_path};
use config::{Config, ConfigError, Environment, FileFormat, Format as _, Map, Source, Value};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Path of the file if none is named; it need not exist.
pub const DEFAULT_FILE: &str = "/etc/hzn-armor/agent.toml";
/// Maximum size of the file, in bytes.
const MAX_FILE: usize = 64 << 10;
const PREFIX: &str = "HZN_ARMOR";
const KEYS: [&str; 8] = [
    "bundle_dir",
    "log",
    "pin_dir",
    "poll_seconds",
    "runtime_socket",
    "spool_max_bytes",
    "state_dir",
    "trust_dir",
];

/// `Settings` are the agent's settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Settings {
    /// Directory of the host for what must outlive containers and registrations: bundles, node key, spool.
    pub state_dir: PathBuf,
    /// Directory of pinned keys; by default `trust` in the state directory.
    trust_dir: Option<PathBuf>,
    /// Directory of bundles as files, in addition to a hub's; it need not exist.
    pub bundle_dir: PathBuf,
    /// Directory on a BPF file system, in which enforcement outlives the agent.
    pub pin_dir: PathBuf,
    /// Socket of Docker or of Podman's compatible service; containers are protected if it exists.
    pub runtime_socket: PathBuf,
    /// Maximum bytes of alerts on disk.
    pub spool_max_bytes: u64,
    /// Seconds between two checks for bundles and receipts; at least 1.
    pub poll_seconds: u64,
    /// Log filter as in `tracing-subscriber`: `info`, `armor_agent=debug,warn`.
    pub log: String,
    /// A variable with the agent's prefix that is no setting.
    #[serde(skip)]
    pub unknown_variable: Option<String>,
}

/// A `SettingsError` is the reason why settings are not valid.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A value of the wrong kind.
    #[error("settings: {0}")]
    Config(#[from] ConfigError),
    /// The file cannot be read.
    #[error("{}: {error}", escaped_path(path))]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: FileError,
    },
    /// The file is not text.
    #[error(transparent)]
    Text(#[from] Diagnostics),
    /// The file is not TOML.
    #[error("{}: {problem}", escaped_path(path))]
    Toml {
        /// The file.
        path: PathBuf,
        /// The problem and its position.
        problem: String,
    },
    /// A key that is no setting, most often a misspelt one.
    #[error("{file}: no setting is called `{key}`; there are {}", KEYS.join(", "))]
    UnknownKey {
        /// The file.
        file: String,
        /// The key.
        key: String,
    },
    /// A value that is not allowed.
    #[error("{origin}: {key} = {value}: {problem}")]
    Value {
        /// The file or the variable.
        origin: String,
        /// The key.
        key: &'static str,
        /// The key's value.
        value: String,
        /// The allowed values.
        problem: &'static str,
    },
}

impl Settings {
    /// Reads `file`, or [`DEFAULT_FILE`] if that exists, and the process's variables.
    ///
    /// # Errors
    /// Fails with [`SettingsError`] if anything is unreadable or invalid.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingsError> {
        Self::read(file, Environment::with_prefix(PREFIX))
    }

    fn read(file: Option<&Path>, variables: Environment) -> Result<Self, SettingsError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let file = FileValues(values(path, file.is_some())?);
        let by_variables = variables.collect()?;
        // Defaults are always valid, so a bad value comes from one of these two.
        let origin = |key: &str| match by_variables.contains_key(key) {
            true => format!("{PREFIX}_{}", key.to_uppercase()),
            false => escaped_path(path),
        };
        if let Some(key) = unknown(&file.0) {
            return Err(SettingsError::UnknownKey { file: escaped_path(path), key });
        }
        // An unknown variable may belong to another program; `hzn-armor` has some.
        let unknown_variable = unknown(&by_variables).map(|key| format!("{PREFIX}_{}", key.to_uppercase()));
        let settings: Self = Config::builder()
            .set_default("state_dir", "/var/lib/hzn-armor")?
            .set_default("bundle_dir", "/etc/hzn-armor/bundles")?
            .set_default("pin_dir", "/sys/fs/bpf/hzn-armor")?
            .set_default("runtime_socket", "/var/run/docker.sock")?
            .set_default("spool_max_bytes", 64_u64 << 20)?
            .set_default("poll_seconds", 15)?
            .set_default("log", "info")?
            .add_source(file)
            .add_source(variables)
            .build()?
            .try_deserialize()?;
        Self { unknown_variable, ..settings }.check(origin)
    }

    /// Returns the directory of pinned keys.
    pub fn trust_dir(&self) -> PathBuf {
        self.trust_dir.clone().unwrap_or_else(|| self.state_dir.join("trust"))
    }

    fn check(self, origin: impl Fn(&str) -> String) -> Result<Self, SettingsError> {
        let bad = |key, value: String, problem| {
            Err(SettingsError::Value { origin: origin(key), key, value, problem })
        };
        if self.poll_seconds == 0 {
            return bad("poll_seconds", "0".to_owned(), "at least 1");
        }
        if self.spool_max_bytes < 1 << 20 {
            return bad("spool_max_bytes", self.spool_max_bytes.to_string(), "at least 1048576, 1 MiB");
        }
        if !is_log_filter(&self.log) {
            let problem = "off, error, warn, info, debug or trace, or PART=LEVEL for a part, between commas";
            return bad("log", self.log, problem);
        }
        let paths = [
            ("state_dir", Some(&self.state_dir)),
            ("trust_dir", self.trust_dir.as_ref()),
            ("bundle_dir", Some(&self.bundle_dir)),
            ("pin_dir", Some(&self.pin_dir)),
            ("runtime_socket", Some(&self.runtime_socket)),
        ];
        for (key, path) in paths {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                return bad(key, escaped_path(path), "an absolute path");
            }
        }
        if armor_bpf::cannot_be_made(&self.pin_dir) {
            let problem = "a bpf filesystem has no `.` in names: choose another";
            return bad("pin_dir", escaped_path(&self.pin_dir), problem);
        }
        Ok(self)
    }
}

/// Returns whether a filter is valid and means what it says: `tracing-subscriber` takes a misspelt level for
/// the name of a target.
fn is_log_filter(filter: &str) -> bool {
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_directive = |directive: &str| is_level(directive.rsplit('=').next().unwrap_or_default().trim());
    // Brackets may contain commas and equals signs.
    (filter.contains('[') || filter.split(',').all(is_directive))
        && EnvFilter::builder().parse(filter).is_ok()
}

/// Returns the values in the settings file; none if it is missing and not `required`.
fn values(path: &Path, required: bool) -> Result<Map<String, Value>, SettingsError> {
    let name = escaped_path(path);
    let bytes = match file::read(path, MAX_FILE) {
        Err(error) if error.is_missing() && !required => return Ok(Map::new()),
        read => read.map_err(|error| SettingsError::File { path: path.to_owned(), error })?,
    };
    let text = text::decode(&name, bytes)?;
    FileFormat::Toml
        .parse(Some(&name), &text)
        .map_err(|error| SettingsError::Toml { path: path.to_owned(), problem: error.to_string() })
}

/// `FileValues` are the values of the settings file.
#[derive(Debug, Clone)]
struct FileValues(Map<String, Value>);

impl Source for FileValues {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

fn unknown(values: &Map<String, Value>) -> Option<String> {
    values.keys().find(|key| !KEYS.contains(&key.as_str())).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str, variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, toml).unwrap();
        let variables =
            variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Settings::read(Some(&path), Environment::with_prefix(PREFIX).source(Some(variables)))
    }

    #[test]
    fn variables_come_over_the_file_and_the_file_over_the_defaults() {
        let settings = read(
            "state_dir = '/s'\npoll_seconds = 3\n",
            &[("HZN_ARMOR_POLL_SECONDS", "7"), ("HZN_ARMOR_RECEIPT_KEY", "x"), ("OTHER", "y")],
        )
        .unwrap();
        assert_eq!((settings.state_dir.as_path(), settings.poll_seconds), (Path::new("/s"), 7));
        assert_eq!(settings.trust_dir(), Path::new("/s/trust"));
        assert_eq!(settings.log, "info");
        assert_eq!(settings.unknown_variable.as_deref(), Some("HZN_ARMOR_RECEIPT_KEY"));
        assert_eq!(read("trust_dir = '/t'", &[]).unwrap().trust_dir(), Path::new("/t"));
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (toml, part) in [
            ("stat_dir = '/s'", "`stat_dir`"),
            ("poll_seconds = 0", "poll_seconds = 0"),
            ("poll_seconds = 'often'", "poll_seconds"),
            ("spool_max_bytes = 5", "spool_max_bytes = 5"),
            ("state_dir = 'here'", "agent.toml: state_dir = here: an absolute path"),
            ("trust_dir = 'here'", "trust_dir = here: an absolute path"),
            (
                "pin_dir = '/sys/fs/bpf/no.such/pins'",
                "pin_dir = /sys/fs/bpf/no.such/pins: a bpf filesystem has no",
            ),
            ("bundle_dir = ''", "bundle_dir = : an absolute path"),
            ("runtime_socket = 'docker.sock'", "runtime_socket = docker.sock"),
            ("log = 'loud'", "log = loud: off, error,"),
            ("log = 'info,loud'", "log = info,loud"),
            ("log = 'armor_agent=loud'", "log = armor_agent=loud"),
            ("log = 'armor_agent'", "log = armor_agent:"),
            ("log = ''", "log = :"),
            ("log = '[a'", "log = [a"),
            ("= 3", "agent.toml"),
        ] {
            let error = read(toml, &[]).unwrap_err().to_string();
            assert!(error.contains(part), "{toml}: {error}");
        }
        let error = read("", &[("HZN_ARMOR_LOG", "verbose")]).unwrap_err().to_string();
        assert!(error.starts_with("HZN_ARMOR_LOG: log = verbose: off, "), "{error}");
        for filter in
            ["info", "WARN", "off", "2", "armor_agent=debug, warn", "[bundle{name=edge}]=trace,error"]
        {
            assert_eq!(read(&format!("log = '{filter}'"), &[]).unwrap().log, filter);
        }
        let read_at = |path: &Path| {
            let read = Settings::read(Some(path), Environment::with_prefix(PREFIX));
            read.unwrap_err().to_string()
        };
        assert!(read_at(Path::new("/dev/zero")).starts_with("/dev/zero: a device"));
        let dir = tempfile::tempdir().unwrap();
        let wide = dir.path().join("agent.toml");
        std::fs::write(&wide, "log = 'info'".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>())
            .unwrap();
        assert!(read_at(&wide).contains("agent.toml:1:1: the file is UTF-16LE"), "{}", read_at(&wide));
        let missing = Settings::read(Some(Path::new("/no/such.toml")), Environment::with_prefix(PREFIX));
        assert!(missing.unwrap_err().to_string().contains("/no/such.toml"));
    }
}
