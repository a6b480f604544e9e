//! Who may do what: tokens, their scopes, and one gate that denies by default. Pure: bytes and time come in.

mod action;
mod gate;
pub mod oidc;
mod token;

pub use action::{Action, Reach};
pub use gate::{Actor, Denied, authorize, authorize_token, enter};
pub use token::{Bearer, NAME_BYTES_MAX, OF_PROVIDERS, OWNER, PREFIX, TOKEN_BYTES, Token, TokenError, Tokens};
pub use verger_proto::{Access, BadTenant, Scope, Scopes, TENANT_BYTES_MAX, Tenant};

#[cfg(test)]
mod tests;
