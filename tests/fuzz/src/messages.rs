//! What comes from a work queue, and the files and texts around it.

use std::cell::LazyCell;

use verger_proto::TraceParent;
use verger_proto::envelope::Kind;
use verger_proto::work_queue::message::{MESSAGE_BYTES_MAX, Message};
use verger_proto::work_queue::{Keyring, SigningKey};

use super::records::record;
use super::within;

const NODE: u64 = 3;

thread_local! {
    static KEY: LazyCell<(SigningKey, Keyring)> = LazyCell::new(|| {
        let (key, keys) = (SigningKey::from_seed(NODE, [7; 32].into()).unwrap(), Keyring::default());
        assert!(keys.add(NODE, key.public()));
        (key, keys)
    });
}

/// The body of a message, signed as it has to be, for else no change would get any further; the bytes themselves as a message, as the file of
/// a key and as a trace, too.
pub fn work_message(data: &[u8]) {
    KEY.with(|made| {
        let (key, keys) = &**made;
        let mut signed = record(Kind::WorkMessage as u16, data);
        signed.extend_from_slice(&NODE.to_le_bytes());
        signed.extend_from_slice(&key.sign(&signed));
        let opened = within(128 << 10, 64, data.len(), || Message::open(&signed, keys));
        assert!(opened.is_err() || signed.len() <= MESSAGE_BYTES_MAX);
        if let Ok(message) = opened {
            assert_eq!(Message::open(&message.seal(key).unwrap(), keys).unwrap(), message);
        }
        assert!(within(1024, 1, data.len(), || Message::open(data, keys)).is_err(), "nobody signed it");
    });
    if let Ok(key) = SigningKey::from_file(NODE, data) {
        assert_eq!(SigningKey::from_file(NODE, key.to_file().as_bytes()).unwrap().public(), key.public());
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(trace) = text.parse::<TraceParent>() {
        assert_eq!(trace.to_string(), text);
    }
}
