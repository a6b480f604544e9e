//! The one gate that every call goes through: deny by default.

use subtle::ConstantTimeEq;
use verger_proto::Digest;

/// Who calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    /// The name that goes with the token; it is kept with everything that is ordered.
    pub name: String,
    /// Whose repositories it sees; `None`: everybody's, and what belongs to nobody.
    pub tenant: Option<String>,
}

/// Why a call does not come through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// No token, or none that is known (401).
    #[error("this needs a token that is known here")]
    Unknown,
    /// The token is known, and this is not for it (403).
    #[error("this token is not for that")]
    Forbidden,
}

/// Decides who may do what. Must be quick: it is asked before anything of a request is read.
pub trait Gate: Send + Sync {
    /// Whether the holder of `bearer` may do `action` at all (`tenant` is `None`), or to what belongs to `tenant`.
    ///
    /// # Errors
    /// [`Denied`].
    fn check(&self, bearer: Option<&str>, action: &'static str, tenant: Option<&str>) -> Result<Actor, Denied>;
}

/// One token may do everything. Only its digest is held.
pub struct OwnerGate(Digest);

impl std::fmt::Debug for OwnerGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnerGate")
    }
}

impl OwnerGate {
    /// A gate for the token with this BLAKE3 digest.
    #[must_use]
    pub fn new(digest: Digest) -> Self {
        Self(digest)
    }
}

impl Gate for OwnerGate {
    fn check(&self, bearer: Option<&str>, _: &'static str, _: Option<&str>) -> Result<Actor, Denied> {
        let bearer = bearer.filter(|bearer| !bearer.is_empty()).ok_or(Denied::Unknown)?;
        // Digests are compared, and in constant time: how long it takes says nothing of how much of a guess was right.
        let given = Digest::of(bearer.as_bytes());
        if bool::from(given.as_bytes().ct_eq(self.0.as_bytes())) {
            Ok(Actor { name: "owner".to_owned(), tenant: None })
        } else {
            Err(Denied::Unknown)
        }
    }
}
