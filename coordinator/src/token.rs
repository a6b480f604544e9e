//! Tokens of the interface. The machine keeps their hashes; who may make one is asked before, at the gate.

use verger_proto::{Event, Refusal, TokenGrant};

use crate::auth::{Token, TokenError};
use crate::machine::Turn;

pub(crate) fn create(turn: &mut Turn<'_>, grant: TokenGrant) -> Result<(), Refusal> {
    let token = Token::granted(grant, turn.at);
    let (name, access, scopes, expires) = (token.name.clone(), token.access.clone(), token.scopes, token.expires);
    turn.state.tokens.add(token).map_err(refusal)?;
    turn.events.push(Event::TokenCreated { name, access, scopes, expires });
    Ok(())
}

/// A second time nothing happens, and that is not kept either.
pub(crate) fn revoke(turn: &mut Turn<'_>, name: &str) -> Result<(), Refusal> {
    let before = turn.state.tokens.named(name).is_some_and(|token| token.revoked.is_some());
    let token = turn.state.tokens.revoke(name, turn.at).map_err(refusal)?;
    if !before {
        turn.events.push(Event::TokenRevoked { name: name.to_owned(), access: token.access.clone() });
    }
    Ok(())
}

fn refusal(error: TokenError) -> Refusal {
    match error {
        TokenError::NameTaken(name) => Refusal::TokenNameTaken(name),
        TokenError::NoSuchName(name) => Refusal::UnknownToken(name),
        TokenError::Text | TokenError::Name | TokenError::NoScope | TokenError::TooMany => {
            Refusal::Token(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use verger_proto::{Access, Command, Digest, LogTime, Scope, Scopes};

    use super::*;
    use crate::machine::{State, apply};

    fn grant(name: &str, scopes: &[Scope]) -> Command {
        let (scopes, hash) = (Scopes::of(scopes), Digest::of(name.as_bytes()));
        let grant = TokenGrant { name: name.to_owned(), access: Access::All, scopes, expires: None, hash };
        Command::CreateToken { grant: Box::new(grant) }
    }

    fn revoke(name: &str) -> Command {
        Command::RevokeToken { name: name.to_owned() }
    }

    #[test]
    fn a_token_is_made_once_and_taken_back_once() {
        let mut state = State::default();
        let (events, effects) = apply(&mut state, grant("cron", &[Scope::Operate]), LogTime(5));
        assert!(matches!(&events[..], [Event::TokenCreated { name, .. }] if name == "cron") && effects.is_empty());
        let kept = state.tokens.named("cron").unwrap().clone();
        assert_eq!((kept.created, kept.revoked), (LogTime(5), None));
        for (command, expected) in [
            (grant("cron", &[Scope::Admin]), Refusal::TokenNameTaken("cron".to_owned())),
            (grant("two words", &[Scope::Admin]), Refusal::Token(TokenError::Name.to_string())),
            (grant("nothing", &[]), Refusal::Token(TokenError::NoScope.to_string())),
            (revoke("eve"), Refusal::UnknownToken("eve".to_owned())),
        ] {
            let before = state.tokens.clone();
            let (events, _) = apply(&mut state, command, LogTime(6));
            assert!(matches!(&events[..], [Event::CommandRefused { reason, .. }] if *reason == expected), "{events:?}");
            assert_eq!(state.tokens, before, "a refusal changes nothing");
        }
        let (events, _) = apply(&mut state, revoke("cron"), LogTime(7));
        assert!(matches!(&events[..], [Event::TokenRevoked { .. }]));
        assert_eq!(state.tokens.named("cron").unwrap().revoked, Some(LogTime(7)));
        let (events, _) = apply(&mut state, revoke("cron"), LogTime(8));
        assert!(events.is_empty(), "{events:?}");
        assert_eq!(state.tokens.named("cron").unwrap().revoked, Some(LogTime(7)));
    }
}
