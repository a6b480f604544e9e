//! Who may do what: tokens, their scopes, and one gate that denies by default. Pure: bytes and time come in.

mod gate;
mod scope;
mod token;

pub use gate::{Actor, Denied, authorize, authorize_token};
pub use scope::{Access, Action, BadTenant, Reach, Scope, Scopes, TENANT_BYTES_MAX, Tenant};
pub use token::{Bearer, NAME_BYTES_MAX, PREFIX, TOKEN_BYTES, Token, TokenError, Tokens};

#[cfg(test)]
mod tests;
