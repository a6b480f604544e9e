//! A provider's keys, made anew for each test, and what they sign.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Grant, Holds, Provider, TenantOf};
use crate::auth::Scope;

pub(crate) const ISSUER: &str = "https://id.example/realms/attic";
pub(crate) const AUDIENCE: &str = "verger";

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

pub(crate) struct Signer {
    pub(crate) id: &'static str,
    pair: Pair,
}

pub(crate) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(crate) fn rsa(id: &'static str) -> Self {
        Self { id, pair: Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    pub(crate) fn p256(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { id, pair: Pair::P256(pair) }
    }

    pub(crate) fn p384(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self { id, pair: Pair::P384(pair) }
    }

    pub(crate) fn ed25519(id: &'static str) -> Self {
        Self { id, pair: Pair::Ed25519(Ed25519KeyPair::generate().unwrap()) }
    }

    /// Bytes of the public key, as this kind of key is written.
    pub(crate) fn public(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::P256(pair) | Pair::P384(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        let public = self.public();
        let curve = |name: &str, width: usize| {
            let (x, y) = public[1..].split_at(width);
            json!({ "kty": "EC", "crv": name, "kid": self.id, "use": "sig", "x": encoded(x), "y": encoded(y) })
        };
        match &self.pair {
            Pair::Rsa(_) => {
                // PKCS #1: a sequence of modulus (257 bytes with the zero before it) and exponent.
                let (n, e) = (&public[9..9 + 256], &public[public.len() - 3..]);
                json!({ "kty": "RSA", "kid": self.id, "use": "sig", "n": encoded(n), "e": encoded(e) })
            }
            Pair::P256(_) => curve("P-256", 32),
            Pair::P384(_) => curve("P-384", 48),
            Pair::Ed25519(_) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.id, "use": "sig", "x": encoded(public) })
            }
        }
    }

    /// Signed as the key's own algorithm, or the one that is said.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let algorithm = match &self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::P384(_) => "ES384",
            Pair::Ed25519(_) => "EdDSA",
        };
        self.sign_as(&json!({ "alg": algorithm, "typ": "JWT", "kid": self.id }), claims)
    }

    pub(crate) fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let encoding: &dyn signature::RsaEncoding = match header["alg"].as_str() {
                    Some("RS384") => &signature::RSA_PKCS1_SHA384,
                    Some("RS512") => &signature::RSA_PKCS1_SHA512,
                    Some("PS256") => &signature::RSA_PSS_SHA256,
                    Some("PS384") => &signature::RSA_PSS_SHA384,
                    Some("PS512") => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut bytes = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message.as_bytes(), &mut bytes).unwrap();
                bytes
            }
            Pair::P256(pair) | Pair::P384(pair) => pair.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", encoded(signature))
    }
}

pub(crate) fn published(signers: &[&Signer]) -> Vec<u8> {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string().into_bytes()
}

/// Groups named after scopes give them; `tenant` holds the tenant, and the group `everyone` reaches all.
pub(crate) fn provider() -> Provider {
    let holds = |value: &str| Holds { claim: "groups".to_owned(), value: value.to_owned() };
    Provider {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        subject: "sub".to_owned(),
        tenant: TenantOf::Claim("tenant".to_owned()),
        everyone: vec![holds("everyone")],
        grants: Scope::ALL.map(|scope| Grant { scope, to: holds(scope.name()) }).into(),
    }
}

/// What a good token says at `now`, in seconds.
pub(crate) fn claims(now: u64) -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "nbf": now, "exp": now + 300,
        "tenant": "attic", "groups": ["read"],
    })
}
