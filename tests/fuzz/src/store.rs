//! Encrypted blobs in a store. The input is the plaintext: a change of the ciphertext itself ends at the tag.

use verger_kopia::clock::Timestamp;
use verger_kopia::content::Entry;
use verger_kopia::index::Index;
use verger_kopia::index_set::epoch::EpochState;
use verger_kopia::index_set::legacy::{LegacyState, load_cleanups};
use verger_kopia::index_set::load_view;
use verger_kopia::pack::{Postamble, fetch_local_index, recover_local_index};
use verger_kopia::session::active_sessions;
use verger_kopia::storage::BlobId;

use super::bytes::Bytes;
use super::golden::{Golden, empty};
use super::within;

const REPOSITORIES: [&str; 3] = ["default", "format1", "ecc"];

/// First three bytes: repository, and what is wrong with offset and length; then the plaintext of a pack's own index.
pub fn pack_index(data: &[u8]) {
    let mut rest = Bytes(data);
    let golden = empty(REPOSITORIES[usize::from(rest.byte()) % REPOSITORIES.len()]);
    let repository = &golden.repository;
    let (offset_error, length_error) = (rest.byte(), rest.byte());
    let plain = rest.0;
    let iv = repository.hasher().hash(plain);
    let mut pack = b"contents".to_vec();
    let sealed = repository.cipher().seal(iv.as_bytes(), plain).unwrap();
    let offset = u32::try_from(pack.len()).unwrap().wrapping_sub(u32::from(offset_error));
    let length = u32::try_from(sealed.len()).unwrap().wrapping_add(u32::from(length_error) << 24);
    let postamble = Postamble { iv, offset, length };
    pack.extend_from_slice(&sealed);
    pack.extend_from_slice(&postamble.encode());
    assert_eq!(Postamble::find(&pack).unwrap().0, postamble);

    let recovered = within(1 << 16, 16, data.len(), || recover_local_index(repository, &pack));
    let parsed = Index::parse(plain.to_vec(), repository.hasher().length());
    let parsed: Option<Vec<Entry>> = parsed.ok().map(|index| index.entries().map(Result::unwrap).collect());
    let is_right = offset_error == 0 && length_error == 0;
    assert_eq!(recovered.as_ref().ok(), parsed.as_ref().filter(|_| is_right));
    let id = BlobId::from("p00");
    golden.store.put_at(&id, pack.into(), Timestamp::UNIX_EPOCH);
    let fetched = fetch_local_index(repository, &id);
    // From the end the index is found although its offset is wrong.
    assert!(fetched.is_err() || fetched.ok() == parsed);
    // A pack is anything at all.
    let _ = within(4096, 0, data.len(), || Postamble::find(data));
    let _ = recover_local_index(repository, data);
}

/// Blobs of a repository: a byte for repository and sealing, then for each blob a byte for its kind, its length and its plaintext. Whatever
/// lies there, reading it ends with a view or an error.
pub fn store_blobs(data: &[u8]) {
    let mut rest = Bytes(data);
    let options = rest.byte();
    let golden = empty(REPOSITORIES[usize::from(options & 3) % 2]);
    let mut count = 0;
    while !rest.is_empty() && count < 16 {
        put(&golden, rest.byte(), count, rest.part(), options & 4 != 0);
        count += 1;
    }
    let repository = &golden.repository;
    let view = load_view(repository, 1);
    if let Ok(view) = &view {
        let again = load_view(repository, 2).unwrap();
        assert_eq!((again.digest(), again.table.len()), (view.digest(), view.table.len()));
        let rows = |table: &verger_kopia::index::Table| table.rows().map(|row| table.entry(row)).collect::<Vec<_>>();
        assert_eq!(rows(&again.table), rows(&view.table));
        assert!(view.newer(repository, 1).unwrap().is_none_or(|delta| delta.gone.is_empty() && delta.blobs.is_empty()));
    }
    if let Ok(sessions) = active_sessions(repository) {
        let expiry = std::time::Duration::from_secs(96 * 3600);
        for (id, session) in &sessions.active {
            let pack = BlobId::new(format!("p1-{id}"));
            for cutoff in [Timestamp::MIN, Timestamp::MAX, session.checkpoint] {
                let _ = sessions.protects(&pack, cutoff, expiry);
            }
        }
    }
    let _ = (LegacyState::load(repository), load_cleanups(repository), EpochState::load(repository));
}

fn put(golden: &Golden, kind: u8, number: usize, plain: &[u8], raw: bool) {
    let repository = &golden.repository;
    let suffix = if kind & 0x40 == 0 { "" } else { "s1-c1" };
    let epoch = kind >> 3 & 3;
    let prefix = match kind & 7 {
        0 => "n".to_owned(),
        1 => "m".to_owned(),
        2 => "l".to_owned(),
        3 => "s".to_owned(),
        4 => format!("xn{epoch}_"),
        5 => format!("xs{epoch}_"),
        6 => format!("xr0_{epoch}_"),
        _ => format!("xe{epoch}"),
    };
    let suffix = if prefix == "s" { "s12ab" } else { suffix };
    let (id, sealed) = repository.cipher().seal_blob(repository.hasher(), &prefix, suffix, plain).unwrap();
    let bytes = if raw { plain.to_vec().into() } else { sealed };
    let id = if kind & 7 == 7 { BlobId::new(prefix) } else { id };
    let second = i64::try_from(number).unwrap() * 1000 + i64::from(kind >> 7) * 1_000_000;
    golden.store.put_at(&id, bytes, Timestamp::from_second(second).unwrap());
}
