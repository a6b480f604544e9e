use std::collections::BTreeMap;

use verger_kopia::clock::{SetClock, Timestamp};

use super::*;
use crate::auth::oidc::testing::{ISSUER, Signer, claims, provider, published};

const NOW: u64 = 1_700_000_000;
const DISCOVERY: &str = "https://id.example/realms/attic/.well-known/openid-configuration";
const KEYS: &str = "https://id.example/keys";

type Documents = BTreeMap<&'static str, Vec<u8>>;

/// Documents of a provider by their address, and how often they were asked for. Whatever is missing does not answer.
#[derive(Clone, Default)]
struct Web(Arc<Mutex<(Documents, usize)>>);

impl Fetch for Web {
    fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let mut inner = self.0.lock().unwrap();
        inner.1 += 1;
        inner.0.get(url).cloned().ok_or_else(|| "it does not answer".to_owned())
    }
}

impl Web {
    fn put(&self, url: &'static str, bytes: Vec<u8>) {
        self.0.lock().unwrap().0.insert(url, bytes);
    }

    fn discovers(&self, issuer: &str, keys: &str) {
        self.put(DISCOVERY, serde_json::json!({ "issuer": issuer, "jwks_uri": keys }).to_string().into_bytes());
    }

    fn go(&self) {
        self.0.lock().unwrap().0.clear();
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

struct Rig {
    web: Web,
    clock: Arc<SetClock>,
    providers: Providers,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    fn new(web: Web, pace: Pace) -> Self {
        let clock = Arc::new(SetClock::new(Timestamp::from_second(1_700_000_000).unwrap()));
        let source = Source { provider: provider(), keys_url: None, fetch: Box::new(web.clone()) };
        let providers = Providers::start(vec![source], clock.clone(), pace).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { web, clock, providers, runtime }
    }

    /// As a call does: once more when the keys are there.
    fn ask(&self, token: &str) -> Result<Actor, Denied> {
        match self.providers.actor(token, LogTime(NOW * 1_000)) {
            Err(Denied::Mistrusted(why)) if why.may_pass() => {
                self.runtime.block_on(self.providers.settled(token));
                self.providers.actor(token, LogTime(NOW * 1_000))
            }
            found => found,
        }
    }

    fn refused(&self, token: &str) -> Mistrust {
        match self.ask(token) {
            Err(Denied::Mistrusted(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}

/// Nothing happens by itself within a test.
fn pace() -> Pace {
    let hour = Duration::from_secs(3600);
    Pace { refresh: hour, retry: hour, wait: Duration::from_secs(30), ..Pace::default() }
}

fn good(signer: &Signer) -> (Web, String) {
    let web = Web::default();
    web.discovers(ISSUER, KEYS);
    web.put(KEYS, published(&[signer]));
    (web, signer.sign(&claims(NOW)))
}

#[test]
fn a_token_that_comes_before_the_keys_waits_for_them() {
    let signer = Signer::p256("first");
    let (web, token) = good(&signer);
    let rig = Rig::new(web, pace());
    assert!(rig.ask(&token).is_ok());
    assert_eq!(rig.web.asked(), 2, "where the keys are, and the keys");
    for _ in 0..20 {
        assert!(rig.ask(&token).is_ok());
    }
    assert_eq!(rig.web.asked(), 2, "known keys need nobody");
}

#[test]
fn a_new_key_is_fetched_when_a_token_names_it_and_strange_names_do_not_make_that_often() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let (web, before) = good(&old);
    let rig = Rig::new(web, pace());
    assert!(rig.ask(&before).is_ok());
    rig.web.put(KEYS, published(&[&new]));
    let after = new.sign(&claims(NOW));
    assert_eq!(rig.refused(&after), Mistrust::Key, "the provider was asked a moment ago");
    assert_eq!(rig.web.asked(), 2);
    assert!(rig.ask(&before).is_ok(), "nobody knows yet that it is gone");
    rig.clock.advance(pace().ask);
    assert!(rig.ask(&after).is_ok(), "the key was exchanged");
    assert_eq!(rig.refused(&before), Mistrust::Key, "its key is not published any more");
    assert_eq!(rig.web.asked(), 4);
    for _ in 0..50 {
        assert_eq!(rig.refused(&Signer::p256("strange").sign(&claims(NOW))), Mistrust::Key);
    }
    assert_eq!(rig.web.asked(), 4, "not once for each");
    rig.clock.advance(pace().ask);
    for _ in 0..50 {
        assert_eq!(rig.refused(&before), Mistrust::Key);
    }
    assert_eq!(rig.web.asked(), 6, "once for all");
}

#[test]
fn keys_are_fetched_again_before_somebody_asks() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let (web, before) = good(&old);
    let rig = Rig::new(web, Pace { refresh: Duration::from_millis(20), ..pace() });
    assert!(rig.ask(&before).is_ok());
    rig.web.put(KEYS, published(&[&new]));
    let after = new.sign(&claims(NOW));
    let began = std::time::Instant::now();
    while rig.providers.actor(&after, LogTime(NOW * 1_000)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "the new key never came");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(rig.refused(&before), Mistrust::Key);
}

#[test]
fn a_provider_that_is_gone_is_believed_for_a_while_and_no_longer() {
    let signer = Signer::p256("first");
    let (web, token) = good(&signer);
    let rig = Rig::new(web, pace());
    assert!(rig.ask(&token).is_ok());
    rig.web.go();
    rig.clock.advance(pace().keep - Duration::from_secs(1));
    assert!(rig.ask(&token).is_ok());
    assert_eq!(rig.refused(&Signer::p256("new").sign(&claims(NOW))), Mistrust::Key);
    assert!(rig.ask(&token).is_ok(), "asking in vain takes nothing away");
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(rig.refused(&token), Mistrust::NoKeys);
    rig.clock.advance(pace().ask);
    rig.web.discovers(ISSUER, KEYS);
    rig.web.put(KEYS, published(&[&signer]));
    assert!(rig.ask(&token).is_ok(), "it is back");
}

#[test]
fn what_another_than_the_provider_says_is_not_taken() {
    let signer = Signer::p256("first");
    let (web, token) = good(&signer);
    let rig = Rig::new(web, pace());
    assert!(rig.ask(&token).is_ok());
    let stranger = Signer::p256("first");
    let theirs = stranger.sign(&claims(NOW));
    let asked = || {
        rig.clock.advance(pace().ask);
        rig.refused(&Signer::p256("strange").sign(&claims(NOW)))
    };
    rig.web.put(KEYS, published(&[&stranger]));
    for (issuer, keys) in [
        ("https://id.example/realms/attic/", KEYS),
        ("https://other.example", KEYS),
        (ISSUER, "http://id.example/keys"),
        (ISSUER, "file:///keys"),
    ] {
        rig.web.discovers(issuer, keys);
        assert_eq!(asked(), Mistrust::Key);
        assert!(rig.ask(&token).is_ok(), "{issuer} {keys}: what was known stays");
        assert_eq!(rig.refused(&theirs), Mistrust::Signature);
    }
    rig.web.discovers(ISSUER, KEYS);
    for strange in ["", "{}", "{\"keys\":[]}", "<html>"] {
        rig.web.put(KEYS, strange.into());
        assert_eq!(asked(), Mistrust::Key);
        assert!(rig.ask(&token).is_ok(), "{strange:?}: what was known stays");
    }
    let foreign = "https://id.example/realms/cellar";
    let mut others = claims(NOW);
    others["iss"] = foreign.into();
    let before = rig.web.asked();
    assert_eq!(rig.refused(&signer.sign(&others)), Mistrust::Issuer, "its provider is not believed");
    assert_eq!(rig.web.asked(), before, "and is not asked");
}

#[test]
fn a_provider_that_never_answers_holds_up_nobody_for_long() {
    let rig = Rig::new(Web::default(), Pace { wait: Duration::from_millis(50), ..pace() });
    let token = Signer::p256("first").sign(&claims(NOW));
    let began = std::time::Instant::now();
    assert_eq!(rig.refused(&token), Mistrust::NoKeys);
    assert!(began.elapsed() < Duration::from_secs(10));
}
