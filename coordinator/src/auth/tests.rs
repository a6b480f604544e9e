use verger_proto::{Digest, LogTime, TokenGrant};

use super::*;

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

fn bearer(byte: u8) -> Bearer {
    Bearer::from_bytes([byte; TOKEN_BYTES])
}

fn token(name: &str, bearer: &Bearer, access: Access, scopes: &[Scope], expires: Option<LogTime>) -> Token {
    let (scopes, hash) = (Scopes::of(scopes), bearer.hash());
    Token::granted(TokenGrant { name: name.to_owned(), access, scopes, expires, hash }, LogTime(10))
}

fn known(access: Access, scopes: &[Scope]) -> Actor {
    Actor::Known { name: "ann".to_owned(), access, scopes: Scopes::of(scopes) }
}

/// Written out by hand, beside the table in `scope.rs`: for each action whether a token with this one scope may, as
/// read, operate, approve, admin, operate with approve, and work; then whose it is (t: a tenant's, f: the fleet's, o: open).
const TABLE: &[(Action, &str, char)] = &[
    (Action::RepoList, "yyyyy-", 't'),
    (Action::RepoShow, "yyyyy-", 't'),
    (Action::RepoAdd, "---y--", 't'),
    (Action::RepoEdit, "---y--", 't'),
    (Action::RepoRemove, "---y--", 't'),
    (Action::RepoProbe, "-y-yy-", 't'),
    (Action::RepoVerify, "-y-yy-", 't'),
    (Action::CycleStart, "-y-yy-", 't'),
    (Action::CycleStartWithWord, "---yy-", 't'),
    (Action::CycleList, "yyyyy-", 't'),
    (Action::CycleShow, "yyyyy-", 't'),
    (Action::CycleWatch, "yyyyy-", 't'),
    (Action::CyclePause, "-y-yy-", 't'),
    (Action::CycleResume, "-y-yy-", 't'),
    (Action::CycleAbort, "-y-yy-", 't'),
    (Action::CycleApprove, "--yyy-", 't'),
    (Action::Events, "yyyyy-", 't'),
    (Action::LeaseList, "yyyyy-", 't'),
    (Action::LeaseTransfer, "---y--", 't'),
    (Action::LeaseRelease, "---y--", 't'),
    (Action::TokenCreate, "---y--", 't'),
    (Action::TokenList, "---y--", 't'),
    (Action::TokenRevoke, "---y--", 't'),
    (Action::ClusterStatus, "yyyyy-", 'f'),
    (Action::ClusterInit, "---y--", 'f'),
    (Action::ClusterJoin, "---y--", 'f'),
    (Action::ClusterRemove, "---y--", 'f'),
    (Action::ClusterReplace, "---y--", 'f'),
    (Action::WorkerList, "yyyyy-", 'f'),
    (Action::WorkerDrain, "-y-yy-", 'f'),
    (Action::Work, "---y-y", 't'),
    (Action::Metrics, "yyyyy-", 'f'),
    (Action::Health, "yyyyy-", 'o'),
    (Action::Status, "yyyyy-", 't'),
    (Action::Describe, "yyyyy-", 'o'),
];

const ROLES: [&[Scope]; 6] = [
    &[Scope::Read],
    &[Scope::Operate],
    &[Scope::Approve],
    &[Scope::Admin],
    &[Scope::Operate, Scope::Approve],
    &[Scope::Work],
];

#[test]
fn every_cell_of_role_action_and_tenant() {
    let named: Vec<Action> = TABLE.iter().map(|row| row.0).collect();
    assert_eq!(named, Action::ALL, "every action has a row");
    let (own, other) = (tenant("own"), tenant("other"));
    let mut cells = 0;
    for (action, roles, reach) in TABLE {
        let open = *reach == 'o';
        for (role, allowed) in ROLES.iter().zip(roles.chars().map(|c| c == 'y')) {
            // (whose things the token reaches, whose thing it is) -> whether it reaches that.
            let table = [
                (Access::One(own.clone()), Some(&own), *reach == 't'),
                (Access::One(own.clone()), Some(&other), false),
                (Access::One(own.clone()), None, false),
                (Access::All, Some(&own), true),
                (Access::All, Some(&other), true),
                (Access::All, None, true),
            ];
            for (access, whose, reaches) in table {
                let expected = open || (allowed && reaches);
                let found = authorize(&known(access.clone(), role), *action, whose);
                assert_eq!(found.is_ok(), expected, "{action} by {role:?} of {access:?} on {whose:?}: {found:?}");
                if let Err(denied) = found {
                    assert_eq!(denied.status(), 403);
                    assert_eq!(matches!(denied, Denied::Tenant { .. }), !reaches, "{denied:?}");
                }
                cells += 1;
            }
        }
        for whose in [None, Some(&own)] {
            let anonymous = authorize(&Actor::Anonymous, *action, whose);
            assert_eq!(anonymous.is_ok(), open, "{action}");
            assert!(anonymous.err().is_none_or(|denied| denied.status() == 401));
            let without_scope = authorize(&known(Access::All, &[]), *action, whose);
            assert_eq!(without_scope.is_ok(), open, "{action} without any scope");
            cells += 2;
        }
    }
    assert_eq!(cells, TABLE.len() * (6 * 6 + 4));
}

#[test]
fn nobody_gives_more_than_they_have() {
    let (own, other) = (Access::One(tenant("own")), Access::One(tenant("other")));
    let may = |actor: &Actor, access: &Access| authorize_token(actor, Action::TokenCreate, access);
    let admin = known(own.clone(), &[Scope::Admin]);
    assert_eq!(may(&admin, &own), Ok(()));
    assert!(matches!(may(&admin, &other), Err(Denied::Tenant { .. })));
    assert!(matches!(may(&admin, &Access::All), Err(Denied::Tenant { .. })));
    let all = known(Access::All, &[Scope::Admin]);
    assert_eq!((may(&all, &other), may(&all, &Access::All)), (Ok(()), Ok(())));
    let operator = known(own.clone(), &[Scope::Operate, Scope::Approve]);
    assert!(matches!(may(&operator, &own), Err(Denied::Scope { .. })));
    assert!(may(&Actor::Anonymous, &own).is_err());
    assert!(Scope::ALL.iter().all(|scope| Scopes::of(&[Scope::Admin]).contains(*scope)), "an admin has all to give");
}

#[test]
fn a_token_reads_back_and_nothing_else_does() {
    let bearer = Bearer::from_bytes(std::array::from_fn(|i| u8::try_from(i * 7 + 3).unwrap_or(255)));
    let text = bearer.text();
    assert!(text.starts_with("vgr_") && text.len() == 47);
    assert_eq!(Bearer::parse(&text).unwrap().hash(), bearer.hash());
    let last = text.len() - 1;
    // The last character has two bits that must be zero: no second text of the same token.
    let twisted = format!("{}{}", &text[..last], if text.ends_with('A') { 'B' } else { '_' });
    let bad = [
        String::new(),
        "vgr_".to_owned(),
        text[..last].to_owned(),
        format!("{}A", text.as_str()),
        format!("{}=", text.as_str()),
        text.replace("vgr_", "VGR_"),
        text[4..].to_owned(),
        format!(" {}", text.as_str()),
        text.replace("vgr_", "vgr_+/"),
        twisted,
        format!("vgr_{}", "A".repeat(10_000)),
    ];
    for text in bad {
        let error = Bearer::parse(&text).unwrap_err();
        assert!(text.len() < 8 || !error.to_string().contains(&text), "an error repeats no token");
    }
    assert_ne!(bearer.hash(), Digest::of(&[0; 32]));
}

#[test]
fn a_hash_is_for_ever() {
    let expected = "93b72f689c300fd9e353afa9500e164ad567161e350e2cc0528fe3ffeb94263f";
    assert_eq!(bearer(7).hash().to_string(), expected, "tokens that were handed out must stay valid");
}

fn tokens() -> Tokens {
    let mut tokens = Tokens::default();
    for (name, byte) in [("ann", 1), ("bob", 2), ("cron", 3)] {
        let access = if byte == 1 { Access::All } else { Access::One(tenant("own")) };
        let expires = Some(LogTime(1000 * u64::from(byte)));
        tokens.add(token(name, &bearer(byte), access, &[Scope::Operate], expires)).unwrap();
    }
    tokens
}

#[test]
fn a_token_is_found_until_it_expires_or_is_revoked() {
    let mut tokens = tokens();
    for (byte, expected) in [(1, "ann"), (2, "bob"), (3, "cron")] {
        assert_eq!(tokens.actor(&bearer(byte), LogTime(999)).unwrap().name(), expected);
    }
    let bob = tokens.actor(&bearer(2), LogTime(0)).unwrap();
    assert_eq!(authorize(&bob, Action::CyclePause, Some(&tenant("own"))), Ok(()));
    assert!(authorize(&bob, Action::CyclePause, Some(&tenant("other"))).is_err());
    assert_eq!(tokens.actor(&bearer(4), LogTime(0)), Err(Denied::Unknown));
    assert_eq!(tokens.actor(&bearer(0), LogTime(0)), Err(Denied::Unknown));
    assert_eq!(Tokens::default().actor(&bearer(1), LogTime(0)), Err(Denied::Unknown));
    assert!(tokens.actor(&bearer(1), LogTime(999)).is_ok());
    assert_eq!(tokens.actor(&bearer(1), LogTime(1000)), Err(Denied::Expired("ann".to_owned())));
    assert_eq!(tokens.revoke("bob", LogTime(5)).unwrap().revoked, Some(LogTime(5)));
    assert_eq!(tokens.revoke("bob", LogTime(9)).unwrap().revoked, Some(LogTime(5)), "a second time changes nothing");
    assert_eq!(tokens.actor(&bearer(2), LogTime(0)), Err(Denied::Revoked("bob".to_owned())));
    assert_eq!(tokens.revoke("eve", LogTime(9)), Err(TokenError::NoSuchName("eve".to_owned())));
    assert_eq!(tokens.iter().count(), 3, "a revoked token stays listed");
}

#[test]
fn names_are_taken_once_and_scopes_are_never_empty() {
    let mut tokens = tokens();
    tokens.revoke("ann", LogTime(0)).unwrap();
    let new = |name: &str, scopes: &[Scope]| token(name, &bearer(9), Access::All, scopes, None);
    let taken = tokens.add(new("ann", &[Scope::Read]));
    assert_eq!(taken, Err(TokenError::NameTaken("ann".to_owned())), "also by a revoked token");
    for name in ["", "two words", "line\nbreak", &"x".repeat(65)] {
        assert_eq!(tokens.add(new(name, &[Scope::Read])), Err(TokenError::Name));
    }
    assert_eq!(tokens.add(new("owner", &[Scope::Read])), Err(TokenError::NameTaken("owner".to_owned())));
    assert_eq!(tokens.add(new("eve", &[])), Err(TokenError::NoScope));
    assert_eq!(tokens.add(new("eve", &[Scope::Read])), Ok(()));
    for name in ["", "-a", "a-", "A", "a b", "a/b", &"a".repeat(65)] {
        assert!(Tenant::new(name).is_err(), "{name:?}");
    }
    assert!("own".parse::<Scope>().unwrap_err().contains("read, operate, approve, admin"));
}

#[test]
fn debug_shows_neither_token_nor_hash() {
    let bearer = Bearer::from_bytes(std::array::from_fn(|i| 200 - u8::try_from(i).unwrap_or(0)));
    let token = token("ann", &bearer, Access::All, &[Scope::Admin], None);
    let mut tokens = Tokens::default();
    tokens.add(token.clone()).unwrap();
    let actor = tokens.actor(&bearer, LogTime(0)).unwrap();
    let shown = format!("{bearer:?} {bearer:#?} {token:?} {tokens:#?} {actor:?}");
    let hash = bearer.hash().to_string();
    for secret in [&bearer.text()[4..20], &bearer.text()[30..], &hash[..16], "200, 199", "c8c7"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    assert!(shown.contains("ann") && shown.contains("Admin"));
}

#[test]
fn stored_tokens_read_back_and_hold_the_hash_alone() {
    use verger_proto::envelope::{self, Kind};
    let tokens = tokens();
    let bytes = envelope::encode(Kind::State, &tokens).unwrap();
    assert_eq!(envelope::decode::<Tokens>(Kind::State, &bytes).unwrap(), tokens);
    let json = serde_json::to_string(&tokens).unwrap();
    assert_eq!(serde_json::from_str::<Tokens>(&json).unwrap(), tokens);
    let raw = [1u8; TOKEN_BYTES];
    assert!(!bytes.windows(TOKEN_BYTES).any(|window| window == raw));
    assert!(!json.contains(&bearer(1).text()[4..]));
}

#[test]
fn a_token_that_is_over_makes_room_and_a_valid_one_does_not() {
    let mut tokens = Tokens::default();
    for number in 0..4096 {
        tokens.add(token(&format!("t{number}"), &bearer(1), Access::All, &[Scope::Read], None)).unwrap();
    }
    let one_more = || token("more", &bearer(2), Access::All, &[Scope::Read], None);
    assert_eq!(tokens.add(one_more()), Err(TokenError::TooMany));
    tokens.revoke("t7", LogTime(11)).unwrap();
    assert_eq!(tokens.add(one_more()), Ok(()));
    assert_eq!((tokens.named("t7"), tokens.iter().count()), (None, 4096));
}

#[test]
fn whoever_may_do_it_to_nothing_does_not_come_in() {
    let (own, all) = (known(Access::One(tenant("own")), &[Scope::Read]), known(Access::All, &[Scope::Read]));
    for (action, by_own, by_all) in [
        (Action::RepoList, true, true),
        (Action::ClusterStatus, false, true),
        (Action::RepoAdd, false, false),
        (Action::Health, true, true),
    ] {
        assert_eq!((enter(&own, action).is_ok(), enter(&all, action).is_ok()), (by_own, by_all), "{action}");
        assert_eq!(enter(&Actor::Anonymous, action).is_ok(), action == Action::Health);
    }
}
