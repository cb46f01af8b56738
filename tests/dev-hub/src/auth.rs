//! Callers and their roles, as the Exchange and anax give them (contract §1.2, §5).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Administrator of the org.
    Admin,
    /// Any user of the org: reads and writes every object of it.
    User,
    /// A service on a policy-registered node, known as `svcOrg/version/name`.
    Service,
    /// A node's ESS.
    Node,
    /// Somebody with a node's credentials at the CSS API: public objects alone.
    NodeUser,
}

impl Role {
    /// Its name in the real hub's file of credentials.
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

/// One caller.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The password.
    pub token: String,
    /// What the caller may do.
    pub role: Role,
    /// The org it belongs to.
    pub org: String,
    /// `svcOrg/version/name` of a service, `type/id` of a node's ESS, else the plain name.
    pub identity: String,
}

/// All callers by the user name of HTTP Basic.
pub type Credentials = BTreeMap<String, Credential>;

/// The user name and token in the value of an `Authorization` header.
pub fn basic(header: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(header.strip_prefix("Basic ")?.trim()).ok()?).ok()?;
    let (name, token) = decoded.split_once(':')?;
    Some((name.to_owned(), token.to_owned()))
}

/// One end's memory of whom it let in: an old token is good until another one is tried (contract §1.2).
#[derive(Default)]
pub struct Remembered(Credentials);

impl Remembered {
    /// The caller with this name and token, if it is known. `None` refuses.
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
