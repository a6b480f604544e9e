//! Keys that a provider publishes (RFC 7517), and what they signed. One that cannot be used here is left out; the others count.

use std::fmt;

use aws_lc_rs::signature::{self, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

/// Keys that are kept of one provider.
pub const KEYS_MAX: usize = 64;

/// Signatures that are taken. Nothing else is: least of all none, or a secret that both sides know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// By its name in a header or a key (RFC 7518, 8037, 9864).
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// What a signature is checked with. Each kind takes its own algorithms: none can be mistaken for a key of another.
enum Public {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Public {
    fn takes(&self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Es256 => matches!(self, Self::P256(_)),
            Algorithm::Es384 => matches!(self, Self::P384(_)),
            Algorithm::EdDsa => matches!(self, Self::Ed25519(_)),
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => matches!(self, Self::Rsa { .. }),
        }
    }

    fn signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let rsa = match algorithm {
            Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => {
                return self.signed_on_a_curve(message, signature);
            }
        };
        match self {
            Self::Rsa { modulus, exponent } => {
                let key = signature::RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(rsa, message, signature).is_ok()
            }
            Self::P256(_) | Self::P384(_) | Self::Ed25519(_) => false,
        }
    }

    fn signed_on_a_curve(&self, message: &[u8], signature: &[u8]) -> bool {
        let signed = match self {
            Self::Rsa { .. } => return false,
            Self::P256(point) => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point),
            Self::P384(point) => UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point),
            Self::Ed25519(point) => {
                return UnparsedPublicKey::new(&signature::ED25519, point).verify(message, signature).is_ok();
            }
        };
        signed.verify(message, signature).is_ok()
    }
}

pub(super) struct Key {
    id: Option<String>,
    /// The only algorithm that it is for, if it says so.
    only: Option<Algorithm>,
    public: Public,
}

/// The keys of a provider, as it publishes them.
#[derive(Default)]
pub struct KeySet(Vec<Key>);

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads what a provider publishes.
    ///
    /// # Errors
    /// It is no set of keys, or has none that could be used: then what was known before is better.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let published: Published =
            serde_json::from_slice(bytes).map_err(|error| format!("these are no keys: {error}"))?;
        let keys: Vec<Key> = published.keys.into_iter().filter_map(Key::of).take(KEYS_MAX).collect();
        if keys.is_empty() {
            return Err("there is no key among them that a signature could be checked with".to_owned());
        }
        Ok(Self(keys))
    }

    /// Names of keys, for people.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.id.as_deref().unwrap_or("(without a name)"))
    }

    /// Keys that may have signed so. A token that names no key is taken only if a single one can be meant.
    pub(super) fn fitting(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<&Key> {
        let fits = |key: &&Key| {
            let is_for = key.only.is_none_or(|only| only == algorithm) && key.public.takes(algorithm);
            is_for && (id.is_none() || key.id.as_deref() == id)
        };
        let found: Vec<_> = self.0.iter().filter(fits).collect();
        if id.is_none() && found.len() > 1 { Vec::new() } else { found }
    }
}

impl Key {
    fn of(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let is_for_signatures = jwk.purpose.as_ref().is_none_or(|purpose| purpose == "sig");
        let verifies = jwk.key_ops.as_ref().is_none_or(|all| all.iter().any(|one| one == "verify"));
        if !is_for_signatures || !verifies {
            return None;
        }
        let public = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Public::Rsa { modulus: number(&jwk.n)?, exponent: number(&jwk.e)? },
            ("EC", Some("P-256")) => Public::P256(point(&jwk, 32)?),
            ("EC", Some("P-384")) => Public::P384(point(&jwk, 48)?),
            ("OKP", Some("Ed25519")) => Public::Ed25519(bytes(&jwk.x)?),
            _ => return None,
        };
        let only = match &jwk.alg {
            Some(name) => Some(Algorithm::named(name)?),
            None => None,
        };
        Some(Self { id: jwk.kid, only, public })
    }

    /// Whether this key signed it.
    pub(super) fn signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.public.signed(algorithm, message, signature)
    }
}

fn bytes(text: &Option<String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.as_ref()?).ok()
}

/// Without the zeros that some put before it.
fn number(text: &Option<String>) -> Option<Vec<u8>> {
    let bytes = bytes(text)?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes.split_at(first).1.to_vec())
}

/// A point of a curve as SEC 1 writes it, not compressed.
fn point(jwk: &Jwk, width: usize) -> Option<Vec<u8>> {
    let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
    (x.len() == width && y.len() == width).then(|| [&[4], x.as_slice(), &y].concat())
}
