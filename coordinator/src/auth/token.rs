//! Bearer tokens: 256 bits that only their holder has. What is kept is a hash, a name, and what the token may.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use verger_proto::{Access, Digest, LogTime, Scopes, TokenGrant};
use zeroize::{Zeroize, Zeroizing};

use super::gate::{Actor, Denied};

/// What a token's text begins with, so that scanners for secrets know it.
pub const PREFIX: &str = "vgr_";
/// Bytes of a token.
pub const TOKEN_BYTES: usize = 32;
/// Longest name of a token, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Whoever holds the token that a coordinator made for its own user is called so, and no other.
pub const OWNER: &str = "owner";
/// Names of those for whom an identity provider vouches begin so.
pub const OF_PROVIDERS: &str = "oidc:";
/// Names that stand for somebody in the ledger already.
const RESERVED: [&str; 2] = [OWNER, "anonymous"];
/// Tokens that are kept.
const TOKENS_MAX: usize = 4096;

/// Separates these hashes from all others. Fast hashing is right here: 256 random bits cannot be guessed.
const CONTEXT: &str = "verger 2026 hash of a bearer token, version 1";

/// A token as its holder has it. Shown once, never kept, never printed by `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct Bearer(Zeroizing<[u8; TOKEN_BYTES]>);

impl Bearer {
    /// From random bytes, which the caller has to draw from the system.
    #[must_use]
    pub fn from_bytes(bytes: [u8; TOKEN_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads a token's text.
    ///
    /// # Errors
    /// [`TokenError::Text`], which does not repeat it.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let digits = text.strip_prefix(PREFIX).ok_or(TokenError::Text)?;
        let mut buffer = Zeroizing::new([0; TOKEN_BYTES + 1]);
        let length = URL_SAFE_NO_PAD.decode_slice(digits, buffer.as_mut_slice()).map_err(|_| TokenError::Text)?;
        let bytes = buffer.get(..length).and_then(|bytes| <[u8; TOKEN_BYTES]>::try_from(bytes).ok());
        bytes.map(Self::from_bytes).ok_or(TokenError::Text)
    }

    /// The text to hand out: `vgr_` and 43 characters.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let mut digits = URL_SAFE_NO_PAD.encode(self.0.as_slice());
        let text = Zeroizing::new(format!("{PREFIX}{digits}"));
        digits.zeroize();
        text
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest(blake3::derive_key(CONTEXT, self.0.as_slice()))
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(..)")
    }
}

/// A token that cannot be made, read or revoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not the text of a token.
    #[error("this is not a token; a token is `vgr_` and 43 characters, and must be given whole")]
    Text,
    /// Not a name.
    #[error("the name of a token has 1 to {NAME_BYTES_MAX} printable characters without spaces")]
    Name,
    /// The name is taken, be it by a revoked token: events name who acted.
    #[error("a token named {0:?} exists or existed; choose another name")]
    NameTaken(String),
    /// No token of that name.
    #[error("there is no token named {0:?}; `verger token list` shows all")]
    NoSuchName(String),
    /// No scopes.
    #[error("a token needs at least one scope: read, operate, approve or admin")]
    NoScope,
    /// As many as may be are valid.
    #[error("{TOKENS_MAX} tokens are valid already; revoke those that nobody needs")]
    TooMany,
}

/// What is kept of a token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its name, in every event of what is done with it.
    pub name: String,
    /// Whose things.
    pub access: Access,
    /// What for.
    pub scopes: Scopes,
    /// Made.
    pub created: LogTime,
    /// Not valid from then on; `None`: does not expire.
    pub expires: Option<LogTime>,
    /// Taken back.
    pub revoked: Option<LogTime>,
    hash: Digest,
}

impl Token {
    /// What is kept of a token that is valid from `created` on.
    #[must_use]
    pub fn granted(grant: TokenGrant, created: LogTime) -> Self {
        let TokenGrant { name, access, scopes, expires, hash } = grant;
        Self { name, access, scopes, created, expires, revoked: None, hash }
    }

    /// Whether it is of no use any more.
    #[must_use]
    pub fn is_over(&self, now: LogTime) -> bool {
        self.refusal(now).is_some()
    }

    /// Why it is not valid at this time, if so.
    fn refusal(&self, now: LogTime) -> Option<Denied> {
        if self.revoked.is_some() {
            Some(Denied::Revoked(self.name.clone()))
        } else if self.expires.is_some_and(|expires| now >= expires) {
            Some(Denied::Expired(self.name.clone()))
        } else {
            None
        }
    }
}

/// Without the hash: whoever has it still cannot act, but it has no business in a log.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("name", &self.name)
            .field("access", &self.access)
            .field("scopes", &self.scopes)
            .field("expires", &self.expires)
            .field("revoked", &self.revoked)
            .finish_non_exhaustive()
    }
}

/// All tokens of a fleet, in the order in which they were made. One that is over is forgotten when there are too many.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// Keeps a token.
    ///
    /// # Errors
    /// [`TokenError`]: its name is bad or taken, it has no scope, or too many are valid.
    pub fn add(&mut self, token: Token) -> Result<(), TokenError> {
        let is_name =
            (1..=NAME_BYTES_MAX).contains(&token.name.len()) && token.name.bytes().all(|b| b.is_ascii_graphic());
        if !is_name {
            return Err(TokenError::Name);
        }
        if token.scopes.is_empty() {
            return Err(TokenError::NoScope);
        }
        let is_reserved = RESERVED.contains(&token.name.as_str()) || token.name.starts_with(OF_PROVIDERS);
        if is_reserved || self.0.iter().any(|other| other.name == token.name) {
            return Err(TokenError::NameTaken(token.name));
        }
        if self.0.len() >= TOKENS_MAX {
            let over = self.0.iter().position(|other| other.is_over(token.created)).ok_or(TokenError::TooMany)?;
            self.0.remove(over);
        }
        self.0.push(token);
        Ok(())
    }

    /// Takes a token back; a second time changes nothing.
    ///
    /// # Errors
    /// [`TokenError::NoSuchName`].
    pub fn revoke(&mut self, name: &str, now: LogTime) -> Result<&Token, TokenError> {
        let token = self.0.iter_mut().find(|token| token.name == name);
        let token = token.ok_or_else(|| TokenError::NoSuchName(name.to_owned()))?;
        token.revoked.get_or_insert(now);
        Ok(token)
    }

    /// The token of this name, valid or not.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Token> {
        self.0.iter().find(|token| token.name == name)
    }

    /// All, revoked and expired ones too.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.0.iter()
    }

    /// Who holds this token. All hashes are compared, each in constant time, so that the time tells nothing about them.
    ///
    /// # Errors
    /// [`Denied`]: no such token, revoked, or expired at `now`.
    pub fn actor(&self, bearer: &Bearer, now: LogTime) -> Result<Actor, Denied> {
        let hash = bearer.hash();
        let (mut found, mut position) = (Choice::from(0), 0u64);
        for (index, token) in (0u64..).zip(&self.0) {
            let is_equal = token.hash.as_bytes().ct_eq(hash.as_bytes());
            position.conditional_assign(&index, is_equal);
            found |= is_equal;
        }
        let token = usize::try_from(position).ok().filter(|_| bool::from(found)).and_then(|index| self.0.get(index));
        let token = token.ok_or(Denied::Unknown)?;
        match token.refusal(now) {
            Some(denied) => Err(denied),
            None => Ok(Actor::Known { name: token.name.clone(), access: token.access.clone(), scopes: token.scopes }),
        }
    }
}
