//! Reading and listing.

use super::{fails, listed, must, pattern, put, put_many};
use crate::error::{Error, ErrorKind};
use crate::storage::{BlobId, ByteRange, PutOptions, Storage, list_all};

pub(super) fn ranges(store: &dyn Storage) {
    let (id, data) = (BlobId::new("p0123456789abcdef0123456789abcdef"), pattern(1000));
    put(store, id.as_str(), data.clone());
    let get = |range| must(store.get(&id, range), "read a range");
    assert_eq!(get(ByteRange::All), data);
    let (whole, of) = must(store.get_with_metadata(&id), "read a blob and its metadata");
    assert_eq!(whole, data);
    assert_eq!(of, must(store.head(&id), "look at a blob"), "metadata that come with the bytes");
    for (offset, length) in [(0, 1000), (0, 1), (999, 1), (400, 200), (1000, 0), (0, 0), (500, 0)] {
        let wanted = data.slice(offset as usize..(offset + length) as usize);
        assert_eq!(get(ByteRange::Span { offset, length }), wanted, "{length} bytes from {offset}");
    }
    assert_eq!(get(ByteRange::Last(10)), data.slice(990..));
    assert_eq!(get(ByteRange::Last(0)), "");
    assert_eq!(get(ByteRange::Last(1000)), data);
    assert_eq!(get(ByteRange::Last(5000)), data, "more than there is gives the whole blob");
    for (offset, length) in [(990, 11), (0, 1001), (1000, 1), (5000, 1), (1001, 0), (u64::MAX, 2)] {
        let kind = fails(store.get(&id, ByteRange::Span { offset, length }), "read past the end");
        assert_eq!(kind, ErrorKind::Damaged, "{length} bytes from {offset}");
    }
}

pub(super) fn absence(store: &dyn Storage) {
    let id = BlobId::new("q0123456789abcdef0123456789abcdef");
    for range in [ByteRange::All, ByteRange::Span { offset: 3, length: 4 }, ByteRange::Last(8), ByteRange::Last(0)] {
        assert_eq!(fails(store.get(&id, range), "read an absent blob"), ErrorKind::NotFound);
    }
    assert_eq!(fails(store.get(&id, ByteRange::Span { offset: 0, length: 0 }), "read nothing"), ErrorKind::NotFound);
    assert_eq!(fails(store.head(&id), "look at an absent blob"), ErrorKind::NotFound);
    assert_eq!(fails(store.get_with_metadata(&id), "read an absent blob"), ErrorKind::NotFound);
    assert!(listed(store, "").is_empty(), "a new store must be empty");
}

pub(super) fn empty_blob(store: &dyn Storage) {
    let id = BlobId::new("kopia.empty");
    put(store, id.as_str(), "");
    for range in [ByteRange::All, ByteRange::Last(5), ByteRange::Span { offset: 0, length: 0 }] {
        assert_eq!(must(store.get(&id, range), "read an empty blob"), "");
    }
    assert_eq!(
        fails(store.get(&id, ByteRange::Span { offset: 0, length: 1 }), "read past the end"),
        ErrorKind::Damaged
    );
    assert_eq!(must(store.head(&id), "look at an empty blob").length, 0);
    assert_eq!(listed(store, "kopia.e"), ["kopia.empty"]);
}

pub(super) fn large_blob(store: &dyn Storage) {
    let (id, data) = (BlobId::new("pffffffffffffffffffffffffffffffff"), pattern(25 << 20));
    put(store, id.as_str(), data.clone());
    assert!(must(store.get(&id, ByteRange::All), "read a large blob") == data, "25 MiB come back unchanged");
    let (offset, length) = (20_000_001, 3_000_000);
    let part = must(store.get(&id, ByteRange::Span { offset, length }), "read a part of a large blob");
    assert!(part == data.slice(20_000_001..23_000_001), "a part of 25 MiB comes back unchanged");
    assert_eq!(must(store.head(&id), "look at a large blob").length, 25 << 20);
}

pub(super) fn metadata(store: &dyn Storage) {
    let before = must(store.now(), "ask for the time");
    let receipt = put(store, "n0123456789abcdef0123456789abcdef", "some bytes");
    let after = must(store.now(), "ask for the time");
    assert!(before <= after, "the store's clock must not run backwards");
    let head = must(store.head(&BlobId::new("n0123456789abcdef0123456789abcdef")), "look at a blob");
    let found = must(list_all(store, "n"), "list");
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].id, found[0].length, &found[0].etag), (&head.id, head.length, &head.etag));
    // Listings of some S3 stores have milliseconds, their headers have seconds.
    let apart = found[0].timestamp.duration_since(head.timestamp).abs();
    assert!(apart < jiff::SignedDuration::from_secs(1), "listing and looking must agree on the time");
    assert_eq!(head.length, 10);
    // Stores round to seconds, each in its own direction; now() may come from another counter of the same clock.
    let slack = jiff::SignedDuration::from_secs(2);
    assert!(head.timestamp >= before - slack && head.timestamp <= after + slack, "{before} {} {after}", head.timestamp);
    assert_eq!(receipt.etag, head.etag, "the receipt must name the version that is there");
    if let Some(timestamp) = receipt.timestamp {
        assert_eq!(timestamp, head.timestamp, "the receipt must tell the store's timestamp");
    }
    if store.capabilities().conditional_writes {
        assert!(head.etag.is_some(), "conditional writes need identities of versions");
    }
}

pub(super) fn listing(store: &dyn Storage) {
    let mut names: Vec<_> = (0..2500_u64)
        .map(|i| {
            let prefix = ["p", "q", "xn0_", "xn12_", "_log_"][(i % 5) as usize];
            format!("{prefix}{:016x}{i:016x}", i.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        })
        .collect();
    put_many(store, &names);
    names.sort();
    assert_eq!(listed(store, ""), names, "every blob once");
    for prefix in ["p", "xn", "xn1", "xn0_", "_log_", "q0", "q1f", "zz", &names[7], "pq"] {
        let wanted: Vec<_> = names.iter().filter(|name| name.starts_with(prefix)).cloned().collect();
        assert_eq!(listed(store, prefix), wanted, "listing of {prefix}");
    }
    let mut seen = 0;
    let stopped = store.list("", &mut |_| {
        seen += 1;
        if seen == 10 { Err(Error::new(ErrorKind::Interrupted, "enough")) } else { Ok(()) }
    });
    assert_eq!((fails(stopped, "stop a listing"), seen), (ErrorKind::Interrupted, 10));
}

pub(super) fn names(store: &dyn Storage) {
    let names = [
        "kopia.repository",
        "kopia.blobcfg",
        "kopia.repository.backup.somebody@some-host.example",
        "_log_20260102030405_abcd_1767322800_1767322801_1_0123456789abcdef",
        "xn10_0123456789abcdef0123456789abcdef-s0123456789abcdef-c12",
        "s0123456789abcdef0123456789abcdef-s1234567890123456",
        "odd +&=;,'()$!~*#%41:@?<>[]{}|^ name",
        "verger.lease",
        "verger.probe-0123456789abcdef",
    ];
    for name in names {
        put(store, name, name);
    }
    for name in names {
        assert_eq!(must(store.get(&BlobId::new(name), ByteRange::All), "read by name"), name);
    }
    let mut sorted = names.map(str::to_owned);
    sorted.sort();
    assert_eq!(listed(store, ""), sorted);
    assert_eq!(listed(store, "verger."), ["verger.lease", "verger.probe-0123456789abcdef"]);
    for hostile in ["", "..", "../p1", "p/1", "/etc/passwd", "p\0"] {
        let id = BlobId::new(hostile);
        let kind = fails(store.get(&id, ByteRange::All), "read a hostile name");
        assert_ne!(kind, ErrorKind::NotFound, "{hostile:?} is not absent, it is no name");
        fails(store.head(&id), "look at a hostile name");
        fails(store.put(&id, "x".into(), &PutOptions::default()), "write a hostile name");
        assert_eq!(store.delete(&[id], None).failed.len(), 1, "delete a hostile name");
    }
    assert_eq!(listed(store, "").len(), names.len());
}
