//! Ciphers, hashes, splitters.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use verger_kopia::compression::compress_zstd_fastest;
use verger_kopia::crypto::{Cipher, Hasher};
use verger_kopia::splitter::Splitter;

use crate::data::{Numbers, PACK, directory};

const CIPHERS: [&str; 2] = ["AES256-GCM-HMAC-SHA256", "CHACHA20-POLY1305-HMAC-SHA256"];
const HASHES: [&str; 4] = ["BLAKE2B-256-128", "BLAKE3-256", "BLAKE2S-256", "HMAC-SHA256"];
const SPLITTERS: [&str; 3] = ["DYNAMIC-4M-BUZHASH", "DYNAMIC-4M-RABINKARP", "FIXED-4M"];

pub(crate) fn seal_and_open_a_pack(criterion: &mut Criterion) {
    let plain = Numbers(1).bytes(PACK);
    let mut group = criterion.benchmark_group("20 MB");
    group.throughput(Throughput::Bytes(PACK as u64)).sample_size(10);
    for name in CIPHERS {
        let cipher = Cipher::new(name, &[7; 32], None).unwrap();
        let (iv, mut out) = ([3; 16], Vec::new());
        group.bench_function(format!("seal {name}"), |b| b.iter(|| cipher.seal(&iv, &plain).unwrap()));
        let stored = cipher.seal(&iv, &plain).unwrap();
        group.bench_function(format!("open {name}"), |b| b.iter(|| cipher.open_into(&iv, &stored, &mut out).unwrap()));
    }
}

/// The key of a content and its decryption, as a scan does for each directory.
pub(crate) fn open_a_directory(criterion: &mut Criterion) {
    let packed = compress_zstd_fastest(&directory(&mut Numbers(2))).unwrap();
    let mut group = criterion.benchmark_group("directory content");
    group.throughput(Throughput::Bytes(packed.len() as u64));
    for name in CIPHERS {
        let cipher = Cipher::new(name, &[7; 32], None).unwrap();
        let (iv, mut out) = ([3; 16], Vec::new());
        let stored = cipher.seal(&iv, &packed).unwrap();
        group.bench_function(format!("key and open {name}"), |b| {
            b.iter(|| cipher.open_into(black_box(&iv), &stored, &mut out).unwrap());
        });
    }
}

pub(crate) fn hash(criterion: &mut Criterion) {
    let plain = Numbers(3).bytes(1 << 20);
    let mut group = criterion.benchmark_group("keyed hash of 1 MiB");
    group.throughput(Throughput::Bytes(plain.len() as u64));
    for name in HASHES {
        let hasher = Hasher::new(name, &[7; 32]).unwrap();
        group.bench_function(name, |b| b.iter(|| hasher.hash(&plain)));
    }
}

pub(crate) fn split(criterion: &mut Criterion) {
    let plain = Numbers(4).bytes(32 << 20);
    let mut group = criterion.benchmark_group("split 32 MiB");
    group.throughput(Throughput::Bytes(plain.len() as u64)).sample_size(10);
    for name in SPLITTERS {
        let mut splitter = Splitter::new(name).unwrap();
        group.bench_function(name, |b| {
            b.iter(|| {
                splitter.reset();
                let (mut rest, mut cuts) = (&plain[..], 0);
                while let Some(length) = splitter.next_cut(rest) {
                    (rest, cuts) = (&rest[length..], cuts + 1);
                }
                cuts
            });
        });
    }
}
