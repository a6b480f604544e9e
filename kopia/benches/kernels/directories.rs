//! Directories: decompression and the parser.

use criterion::{BatchSize, Criterion, Throughput};
use verger_kopia::compression::{Decompressor, ZSTD_FASTEST, compress_zstd_fastest};
use verger_kopia::directory::{Parser, parse_slice};

use crate::data::{ENTRIES, Numbers, directory};

/// Directories, more than the nearest cache holds.
fn many() -> Vec<Vec<u8>> {
    let mut numbers = Numbers(5);
    (0..64).map(|_| directory(&mut numbers)).collect()
}

pub(crate) fn zstd(criterion: &mut Criterion) {
    let plain = many();
    let packed: Vec<_> = plain.iter().map(|plain| compress_zstd_fastest(plain).unwrap()).collect();
    let mut group = criterion.benchmark_group("zstd of directories");
    group.throughput(Throughput::Bytes(plain.iter().map(|plain| plain.len() as u64).sum()));
    let (mut decompressor, mut out) = (Decompressor::new(), Vec::new());
    group.bench_function("decompress 64", |b| {
        b.iter(|| {
            for (plain, packed) in plain.iter().zip(&packed) {
                decompressor.decompress(ZSTD_FASTEST, packed, plain.len(), &mut out).unwrap();
            }
        });
    });
}

pub(crate) fn scan(criterion: &mut Criterion) {
    let plain = many();
    let bytes: u64 = plain.iter().map(|plain| plain.len() as u64).sum();
    let count = |parse: &dyn Fn(&[u8], &mut u64)| {
        let mut references = 0;
        plain.iter().for_each(|plain| parse(plain, &mut references));
        assert_eq!(references, (plain.len() * ENTRIES) as u64);
        references
    };
    let whole = |plain: &[u8], references: &mut u64| parse_slice(plain, |_| *references += 1).unwrap();
    let pieces = |plain: &[u8], references: &mut u64| {
        let mut parser = Parser::new();
        plain.chunks(4096).for_each(|piece| parser.push(piece, |_| *references += 1).unwrap());
        parser.finish(|_| *references += 1).unwrap();
    };
    for (unit, throughput) in
        [("bytes", Throughput::Bytes(bytes)), ("references", Throughput::Elements((plain.len() * ENTRIES) as u64))]
    {
        let mut group = criterion.benchmark_group(format!("directory scan, {unit}"));
        group.throughput(throughput);
        group.bench_function("whole", |b| b.iter_batched(|| (), |()| count(&whole), BatchSize::SmallInput));
        group.bench_function("in pieces", |b| b.iter_batched(|| (), |()| count(&pieces), BatchSize::SmallInput));
    }
}
