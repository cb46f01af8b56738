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

/// Finds the caller behind the value of an `Authorization` header. `None` refuses.
pub fn authenticate(credentials: &Credentials, header: Option<&str>) -> Option<Credential> {
    let encoded = header?.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, token) = decoded.split_once(':')?;
    credentials.get(name).filter(|credential| credential.token == token).cloned()
}
