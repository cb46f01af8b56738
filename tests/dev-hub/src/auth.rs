//! This module has the callers and their roles, as the Exchange and anax give them (contract §1.2, §5).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;

/// A `Role` decides what a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Administrator of the org.
    Admin,
    /// Any user of the org, who reads and writes all objects in it.
    User,
    /// A service on a policy-registered node, known as `svcOrg/version/name`.
    Service,
    /// A node's ESS.
    Node,
    /// A caller with a node's credentials at the CSS API, who reads public objects only.
    NodeUser,
}

impl Role {
    /// Returns the role's name in the real hub's file of credentials.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Service => "service",
            Self::Node => "node",
            Self::NodeUser => "nodeuser",
        }
    }
}

/// A `Credential` describes one caller.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The password.
    pub token: String,
    /// The caller's role.
    pub role: Role,
    /// The caller's org.
    pub org: String,
    /// `svcOrg/version/name` of a service, `type/id` of a node's ESS, otherwise the plain name.
    pub identity: String,
}

/// `Credentials` maps the user name of HTTP Basic to the caller.
pub type Credentials = BTreeMap<String, Credential>;

/// Returns the user name and token in the value of an `Authorization` header.
pub fn basic(header: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(header.strip_prefix("Basic ")?.trim()).ok()?).ok()?;
    let (name, token) = decoded.split_once(':')?;
    Some((name.to_owned(), token.to_owned()))
}

/// A `Remembered` keeps the callers that one end let in: an old token is good until another one is tried
/// (contract §1.2).
#[derive(Default)]
pub struct Remembered(Credentials);

impl Remembered {
    /// Returns the caller with this name and token, or `None` to refuse it.
    pub fn check(&mut self, known: &Credentials, name: &str, token: &str) -> Option<Credential> {
        if let Some(credential) = self.0.get(name).filter(|credential| credential.token == token) {
            return Some(credential.clone());
        }
        self.0.remove(name);
        let credential = known.get(name).filter(|credential| credential.token == token)?;
        self.0.insert(name.to_owned(), credential.clone());
        Some(credential.clone())
    }
}
