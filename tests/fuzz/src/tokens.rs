//! Tokens of identity providers, and the keys that these publish.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use verger_coordinator::auth::oidc::{KeySet, Presented, Provider, TenantOf};
use verger_proto::LogTime;

use super::within;

/// Header, claims and keys, a line each, and a signature that no key ever made; the bytes themselves as a token, too. Whatever they say,
/// nobody is believed.
pub fn tokens(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (header, claims, keys) = (line(), line(), line());
    let keys = within(64 << 10, 512, keys.len(), || KeySet::parse(keys)).unwrap_or_default();
    // As a number it is greater than the order of any group.
    let signature = URL_SAFE_NO_PAD.encode([0xff; 64]);
    let token = format!("{}.{}.{signature}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    for text in [token.as_str(), &String::from_utf8_lossy(data)] {
        let Ok(presented) = within(64 << 10, 512, text.len(), || Presented::read(text)) else { continue };
        let provider = Provider {
            issuer: presented.issuer().to_owned(),
            audience: "verger".to_owned(),
            subject: "sub".to_owned(),
            tenant: TenantOf::Claim("tenant".to_owned()),
            everyone: Vec::new(),
            grants: Vec::new(),
        };
        assert!(presented.verify(&provider, &keys, LogTime(0)).is_err(), "believed without a signature");
    }
}
