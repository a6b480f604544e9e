//! Tokens of identity providers (OpenID Connect). One is believed if a key of its provider signed it, for this fleet, and for now; what it
//! is worth here, the fleet's owner says, not the token. Pure: keys and time come in.

mod claims;
mod keys;
mod provider;
mod token;

pub use keys::{KEYS_MAX, KeySet};
pub use provider::{Grant, Holds, Provider, TenantOf, is_safe};
pub use token::{LEEWAY_SECONDS, Presented, TOKEN_BYTES_MAX, is_presented};

/// Why a provider's token is not believed. Never with a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mistrust {
    /// Longer than any that is read.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes; have the provider put less into it")]
    TooLong,
    /// Not a signed token.
    #[error("this is not a signed token of an identity provider; give it whole, as the provider issued it")]
    Malformed,
    /// Signed in a way that is not taken, or not at all.
    #[error("the token is not signed in a way that is taken here; have the provider sign with RS, PS, ES or EdDSA")]
    Algorithm,
    /// Made for something else.
    #[error("the token is of a kind that gives no access; give an access token or an ID token")]
    Type,
    /// Nobody that is believed issued it.
    #[error("the token's issuer is not believed here; ask an administrator which provider is")]
    Issuer,
    /// Its provider did not answer for so long that none of its keys is believed any more, or has not answered yet.
    #[error("the keys of the token's provider are not known now; try again when the provider answers")]
    NoKeys,
    /// No key of its provider has its name and kind.
    #[error("no key of its provider fits the token; get a new one from the provider")]
    Key,
    /// The key did not sign this.
    #[error("the token's signature does not hold; get a new one from the provider")]
    Signature,
    /// For another.
    #[error("the token is for another audience; get one that is for this coordinator")]
    Audience,
    /// No end, or one that has come.
    #[error("the token has expired, or does not say when it does; get a new one from the provider")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet; compare the clocks of the provider and of this coordinator")]
    NotYet,
    /// For nobody.
    #[error(
        "the token does not say whose it is in the claim that is asked for; ask an administrator which claim that is"
    )]
    Subject,
}

impl Mistrust {
    /// Whether the provider's keys of today could make it another.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(self, Mistrust::NoKeys | Mistrust::Key)
    }
}

#[cfg(test)]
#[path = "tests/testing.rs"]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
