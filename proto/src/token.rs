//! Whose a token is, what it is for, and what is kept of it: never the token.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::time::LogTime;

/// Longest name of a tenant, in bytes.
pub const TENANT_BYTES_MAX: usize = 64;

/// Text that is not a tenant's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tenant's name has 1 to {TENANT_BYTES_MAX} of a-z, 0-9 and -, and begins and ends with a letter or digit")]
pub struct BadTenant;

/// A tenant: repositories and tokens that others neither see nor touch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tenant(String);

impl Tenant {
    /// Takes the text if it has the right shape.
    ///
    /// # Errors
    /// [`BadTenant`] otherwise.
    pub fn new(name: impl Into<String>) -> Result<Self, BadTenant> {
        let name = name.into();
        let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let edges = name.bytes().next().is_some_and(is_letter) && name.bytes().last().is_some_and(is_letter);
        let all = name.bytes().all(|b| is_letter(b) || b == b'-');
        if edges && all && name.len() <= TENANT_BYTES_MAX { Ok(Self(name)) } else { Err(BadTenant) }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Tenant {
    type Error = BadTenant;

    fn try_from(name: String) -> Result<Self, BadTenant> {
        Self::new(name)
    }
}

impl From<Tenant> for String {
    fn from(tenant: Tenant) -> Self {
        tenant.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose things an actor may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Those of one tenant.
    One(Tenant),
    /// Everyone's, and the fleet's own.
    All,
}

/// What a token is for. `operate` and `approve` let one read; `admin` is all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// See.
    Read,
    /// Start, pause, stop cycles.
    Operate,
    /// Give a person's word for what a cycle may remove.
    Approve,
    /// Add and remove repositories, tokens and nodes.
    Admin,
    /// Do the work of cycles: what a worker's token is for, and nothing else.
    Work,
}

impl Scope {
    /// All.
    pub const ALL: [Scope; 5] = [Scope::Read, Scope::Operate, Scope::Approve, Scope::Admin, Scope::Work];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Operate => "operate",
            Scope::Approve => "approve",
            Scope::Admin => "admin",
            Scope::Work => "work",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Scope::Read => 1,
            Scope::Operate => 2,
            Scope::Approve => 4,
            Scope::Admin => 8,
            Scope::Work => 16,
        }
    }

    fn with_implied(self) -> u8 {
        match self {
            Scope::Read => 1,
            Scope::Operate => 1 | 2,
            Scope::Approve => 1 | 4,
            // That an administrator may work, too, follows from `contains`: tokens from before workers had scopes read as they were.
            Scope::Admin => 1 | 2 | 4 | 8,
            Scope::Work => 16,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Scope::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or_else(|| format!("{text:?} is not a scope; the scopes are read, operate, approve, admin, work"))
    }
}

/// A set of scopes, with all that they imply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Scope>", into = "Vec<Scope>")]
pub struct Scopes(u8);

impl Scopes {
    /// These, and what they imply.
    #[must_use]
    pub fn of(scopes: &[Scope]) -> Self {
        Self(scopes.iter().fold(0, |bits, scope| bits | scope.with_implied()))
    }

    /// Whether a scope is among them.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.has(scope) || scope == Scope::Work && self.has(Scope::Admin)
    }

    fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl From<Vec<Scope>> for Scopes {
    fn from(scopes: Vec<Scope>) -> Self {
        Self::of(&scopes)
    }
}

impl From<Scopes> for Vec<Scope> {
    fn from(scopes: Scopes) -> Self {
        Scope::ALL.into_iter().filter(|scope| scopes.has(*scope)).collect()
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Vec::from(*self)).finish()
    }
}

/// A token that is to be kept: everything but the token itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenGrant {
    /// Its name, in every event of what is done with it.
    pub name: String,
    /// Whose things.
    pub access: Access,
    /// What for.
    pub scopes: Scopes,
    /// Not valid from then on; `None`: does not expire.
    pub expires: Option<LogTime>,
    /// Its hash. Whoever has it cannot act with it.
    pub hash: Digest,
}

/// Without the hash: it has no business in a log.
impl fmt::Debug for TokenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenGrant")
            .field("name", &self.name)
            .field("access", &self.access)
            .field("scopes", &self.scopes)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
