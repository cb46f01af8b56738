//! This module says why a request to the ESS or the CSS failed.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use armor_base::name::BadName;
use armor_policy::escaped_path;

/// A `Credentials` says where credentials that a server refused come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The agent's file, which the agent rewrites while a service runs.
    File(PathBuf),
    /// A user of the hub.
    User(String),
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => {
                write!(f, "{} (the agent writes it; is it mounted from this agreement?)", escaped_path(path))
            }
            Self::User(user) => {
                write!(f, "HZN_EXCHANGE_USER_AUTH (user {user}); check user, password and HZN_ORG_ID")
            }
        }
    }
}

/// An `MmsError` says why a request to the ESS or the CSS failed.
#[derive(Debug, thiserror::Error)]
pub enum MmsError {
    /// The connection or its TLS handshake failed, or the connection broke.
    #[error("{server} cannot be reached: {reason}")]
    Unreachable {
        /// Socket or URL.
        server: String,
        /// The chain of causes.
        reason: String,
    },
    /// No complete answer came in time. A PUT may still have been done.
    #[error("{server} gave no complete answer in {} ms", after.as_millis())]
    Timeout {
        /// Socket or URL.
        server: String,
        /// Time waited.
        after: Duration,
    },
    /// The server refuses the credentials, even after they were read again.
    #[error("{server} refuses the credentials of {credentials}")]
    Unauthorized {
        /// Socket or URL.
        server: String,
        /// Source of the credentials.
        credentials: Credentials,
    },
    /// These credentials see no object of that type and id.
    #[error("no object {object_type}/{id} for these credentials")]
    UnknownObject {
        /// The type asked for.
        object_type: String,
        /// The id asked for.
        id: String,
    },
    /// The server is not a hub's sync service: the address is wrong.
    #[error(
        "{server} is no sync service of a hub, it answers {answer}: HZN_FSS_CSSURL must name the hub's CSS, with the path before \
         /api where it has one"
    )]
    NoSyncService {
        /// The URL.
        server: String,
        /// The server's answer.
        answer: String,
    },
    /// The server refused for any other reason.
    #[error("{server} answers {status}: {text}")]
    Rejected {
        /// Socket or URL.
        server: String,
        /// HTTP status.
        status: u16,
        /// The first kilobyte of the server's text, on one line.
        text: String,
    },
    /// The hub stored the data and found that the signature in the metadata does not match it.
    #[error(
        "the hub says that the signature of {object_type}/{id} does not fit its data: sign these bytes again"
    )]
    VerificationFailed {
        /// The object's type.
        object_type: String,
        /// The object's id.
        id: String,
    },
    /// There are more bytes to read or send than the caller allows.
    #[error("more than the {limit} bytes allowed")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The answer cannot be read.
    #[error("what {server} answers cannot be read: {reason}")]
    BadAnswer {
        /// Socket or URL.
        server: String,
        /// Description of the error.
        reason: String,
    },
    /// The name cannot travel from hub to node.
    #[error(transparent)]
    BadName(#[from] BadName),
    /// Settings are missing or unusable.
    #[error("{0}")]
    Config(String),
    /// The credentials or certificate file cannot be used; the agent may be rewriting it.
    #[error("{}: {reason}", escaped_path(path))]
    File {
        /// The file.
        path: PathBuf,
        /// Description of the error.
        reason: String,
    },
}

impl MmsError {
    /// Returns whether the same request may succeed later without a change on this side.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::File { .. } => true,
            Self::Unauthorized { credentials, .. } => matches!(credentials, Credentials::File(_)),
            Self::Rejected { status, .. } => matches!(status, 424 | 429 | 500..),
            _ => false,
        }
    }
}
