//! Index blobs: parsing and merging, building, and looking contents up.

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput};
use verger_kopia::content::ContentId;
use verger_kopia::index::write::{BuildOptions, build as build_index};
use verger_kopia::index::{Index, Table, TableBuilder};

use crate::data::{HASH_LENGTH, Numbers, entries};

const BLOBS: u32 = 8;
const OPTIONS: BuildOptions = BuildOptions { version: 2, hash_length: HASH_LENGTH, random_tail: false };

/// Index blobs with as many entries together.
fn blobs(count: u32) -> Vec<Vec<u8>> {
    let mut numbers = Numbers(6);
    (0..BLOBS).flat_map(|_| build_index(entries(&mut numbers, count / BLOBS), &OPTIONS).unwrap()).collect()
}

fn merged(blobs: Vec<Vec<u8>>) -> Table {
    let mut builder = TableBuilder::new(HASH_LENGTH, None);
    for blob in blobs {
        builder.add(Arc::new(Index::parse(blob, HASH_LENGTH).unwrap())).unwrap();
    }
    builder.build(1).unwrap()
}

pub(crate) fn merge(criterion: &mut Criterion) {
    const COUNT: u32 = 600_000;
    let blobs = blobs(COUNT);
    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Elements(u64::from(COUNT))).sample_size(10);
    group.bench_function("parse and merge 8 blobs, 0.6 M entries", |b| {
        b.iter_batched(|| blobs.clone(), merged, BatchSize::PerIteration);
    });
}

pub(crate) fn build(criterion: &mut Criterion) {
    const COUNT: u32 = 100_000;
    let entries = entries(&mut Numbers(8), COUNT);
    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Elements(u64::from(COUNT))).sample_size(10);
    group.bench_function("build of 0.1 M entries", |b| {
        b.iter_batched(|| entries.clone(), |entries| build_index(entries, &OPTIONS).unwrap(), BatchSize::PerIteration);
    });
}

/// References of one directory after another, among three million contents.
pub(crate) fn look_up(criterion: &mut Criterion) {
    const COUNT: u32 = 3_000_000;
    const ASKED: usize = 102_400;
    let table = merged(blobs(COUNT));
    let mut numbers = Numbers(9);
    let rows = u64::from(table.rows().end);
    let ids: Vec<ContentId> = (0..ASKED).map(|_| table.id(u32::try_from(numbers.next() % rows).unwrap())).collect();
    let mut group = criterion.benchmark_group("look up among 3 M");
    group.throughput(Throughput::Elements(ASKED as u64)).sample_size(20);
    group.bench_function("one by one", |b| b.iter(|| ids.iter().filter_map(|id| table.find(id)).count()));
    let mut found = Vec::new();
    group.bench_function("a hundred at a time", |b| {
        b.iter(|| {
            for ids in ids.chunks(100) {
                found.clear();
                table.find_many(ids.iter(), &mut found);
                assert!(found.iter().all(Option::is_some));
            }
        });
    });
}
