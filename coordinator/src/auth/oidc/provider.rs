//! A provider that is believed, and what its tokens are worth here.

use http::Uri;
use verger_proto::{Access, Scope, Scopes, Tenant};

use super::claims::Claims;
use crate::auth::OF_PROVIDERS;

/// A provider that is believed. What is not granted here is not allowed, whatever its tokens say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// As its tokens name it, to the letter.
    pub issuer: String,
    /// For whom its tokens must be.
    pub audience: String,
    /// The claim that says whose a token is.
    pub subject: String,
    /// Whose things its users reach.
    pub tenant: TenantOf,
    /// Who reaches everyone's things, and the fleet's own.
    pub everyone: Vec<Holds>,
    /// What its users may do.
    pub grants: Vec<Grant>,
}

/// Whose things the users of a provider reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantOf {
    /// Nobody's, but for those who reach everyone's.
    Nobody,
    /// Those of the tenant in this claim.
    Claim(String),
    /// Those of this one.
    Fixed(Tenant),
}

/// A claim that has this value, or has it among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holds {
    /// Its name; or the way to it, with dots between the names.
    pub claim: String,
    /// What it holds.
    pub value: String,
}

/// Whoever holds this may do that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What.
    pub scope: Scope,
    /// Who.
    pub to: Holds,
}

impl Provider {
    /// Whether tokens could be believed, and be worth something.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn check(&self) -> Result<(), String> {
        let issuer = &self.issuer;
        if !is_safe(issuer) {
            return Err(format!("the issuer {issuer:?} is neither an https:// address nor one of this machine"));
        }
        if issuer.contains(['?', '#']) {
            return Err(format!("the issuer {issuer:?} must have neither ? nor #"));
        }
        if self.audience.is_empty() {
            return Err(format!("it is not said for whom tokens of {issuer} must be"));
        }
        if self.grants.is_empty() {
            return Err(format!("nobody whom {issuer} vouches for may do anything"));
        }
        if self.tenant == TenantOf::Nobody && self.everyone.is_empty() {
            return Err(format!("nobody whom {issuer} vouches for reaches anything"));
        }
        Ok(())
    }

    /// `oidc:<issuer>/<subject>`. The subject is escaped, so that no two pairs have one name.
    pub(super) fn actor_name(&self, subject: &str) -> String {
        let place = self.issuer.split_once("://").map_or(self.issuer.as_str(), |(_, place)| place);
        let mut name = format!("{OF_PROVIDERS}{}/", place.trim_end_matches('/'));
        for byte in subject.bytes() {
            let is_plain = byte.is_ascii_alphanumeric() || b"-._~@+|:=".contains(&byte);
            if is_plain { name.push(char::from(byte)) } else { name.push_str(&format!("%{byte:02X}")) }
        }
        name
    }

    pub(super) fn scopes(&self, claims: &Claims) -> Scopes {
        let granted = self.grants.iter().filter(|grant| claims.hold(&grant.to));
        Scopes::of(&granted.map(|grant| grant.scope).collect::<Vec<_>>())
    }

    /// None: nobody's.
    pub(super) fn access(&self, claims: &Claims) -> Option<Access> {
        if self.everyone.iter().any(|holds| claims.hold(holds)) {
            return Some(Access::All);
        }
        match &self.tenant {
            TenantOf::Nobody => None,
            TenantOf::Fixed(tenant) => Some(Access::One(tenant.clone())),
            TenantOf::Claim(claim) => Tenant::new(claims.only(claim)?).ok().map(Access::One),
        }
    }
}

/// Whether what comes from this address can be believed: nobody between here and there writes it.
#[must_use]
pub fn is_safe(address: &str) -> bool {
    let Ok(uri) = address.parse::<Uri>() else { return false };
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else { return false };
    if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return false;
    }
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback()),
        _ => false,
    }
}
