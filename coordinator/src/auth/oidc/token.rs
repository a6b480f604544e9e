//! One token (RFC 7515, 7519), from its text to whom it stands for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use verger_proto::LogTime;

use super::Mistrust;
use super::claims::Claims;
use super::keys::{Algorithm, KeySet};
use super::provider::Provider;
use crate::auth::PREFIX;
use crate::auth::gate::{Actor, Denied};

/// Longest token that is looked into, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
/// By how much the clocks of provider and coordinator may differ.
pub const LEEWAY_SECONDS: u64 = 30;
/// Longest subject, in bytes, as the standard has it.
const SUBJECT_BYTES_MAX: usize = 255;
/// Tokens that say what they are must say one of these: one for a logout, say, is signed by the same key.
const TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// Whether this looks like a token of a provider; whatever it is, it is none of Verger's own then.
#[must_use]
pub fn is_presented(text: &str) -> bool {
    !text.starts_with(PREFIX) && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// Keys that a token brings along, and addresses of such, are not looked at.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
}

/// A token that somebody presents. Nothing of it is believed yet.
pub struct Presented<'a> {
    /// What was signed: header and claims, as they were written.
    message: &'a str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    key: Option<String>,
    claims: Claims,
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented").finish_non_exhaustive()
    }
}

fn decoded(part: &str) -> Result<Vec<u8>, Mistrust> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Mistrust::Malformed)
}

impl<'a> Presented<'a> {
    /// Reads what is needed to know whose keys to look for.
    ///
    /// # Errors
    /// [`Mistrust`] if no key could make it believed.
    pub fn read(text: &'a str) -> Result<Self, Mistrust> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Mistrust::TooLong);
        }
        let (message, signature) = text.rsplit_once('.').ok_or(Mistrust::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(Mistrust::Malformed)?;
        let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| Mistrust::Malformed)?;
        let algorithm = Algorithm::named(&header.alg).ok_or(Mistrust::Algorithm)?;
        // What must be understood and is not known here is not understood.
        if header.crit.is_some() {
            return Err(Mistrust::Malformed);
        }
        if header.typ.is_some_and(|typ| !TYPES.contains(&typ.to_ascii_lowercase().as_str())) {
            return Err(Mistrust::Type);
        }
        let claims = Claims(serde_json::from_slice(&decoded(claims)?).map_err(|_| Mistrust::Malformed)?);
        Ok(Self { message, signature: decoded(signature)?, algorithm, key: header.kid, claims })
    }

    /// Who issued it, as it says itself.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.claims.0.get("iss").and_then(Value::as_str).unwrap_or_default()
    }

    /// For whom it stands, if one of these keys signed it.
    ///
    /// # Errors
    /// [`Denied::Mistrusted`], or [`Denied::NoTenant`] for somebody who reaches nothing here.
    pub fn verify(&self, provider: &Provider, keys: &KeySet, now: LogTime) -> Result<Actor, Denied> {
        let fitting = keys.fitting(self.key.as_deref(), self.algorithm);
        if fitting.is_empty() {
            return Err(Mistrust::Key.into());
        }
        if !fitting.iter().any(|key| key.signed(self.algorithm, self.message.as_bytes(), &self.signature)) {
            return Err(Mistrust::Signature.into());
        }
        let claims = &self.claims;
        check(claims, provider, now)?;
        let subject = claims.only(&provider.subject).filter(|text| (1..=SUBJECT_BYTES_MAX).contains(&text.len()));
        let name = provider.actor_name(subject.ok_or(Mistrust::Subject)?);
        match provider.access(claims) {
            Some(access) => Ok(Actor::Known { name, access, scopes: provider.scopes(claims) }),
            None => Err(Denied::NoTenant(name)),
        }
    }
}

/// By whom, for whom, from when and until when.
fn check(claims: &Claims, provider: &Provider, now: LogTime) -> Result<(), Mistrust> {
    if claims.0.get("iss").and_then(Value::as_str) != Some(provider.issuer.as_str()) {
        return Err(Mistrust::Issuer);
    }
    let is_for = |value: &Value| value.as_str() == Some(provider.audience.as_str());
    let audience = claims.0.get("aud").ok_or(Mistrust::Audience)?;
    if !(is_for(audience) || audience.as_array().is_some_and(|all| all.iter().any(is_for))) {
        return Err(Mistrust::Audience);
    }
    let (now, leeway) = (now.0 as f64 / 1_000.0, LEEWAY_SECONDS as f64);
    match claims.seconds("exp") {
        Ok(Some(exp)) if now < exp + leeway => {}
        _ => return Err(Mistrust::Expired),
    }
    match claims.seconds("nbf") {
        Ok(None) => Ok(()),
        Ok(Some(nbf)) if now + leeway >= nbf => Ok(()),
        _ => Err(Mistrust::NotYet),
    }
}
