//! The kernels that a cycle spends its time in, one core each: `cargo bench -p verger-kopia`.
//!
//! The data are made here, of the shape and size that Kopia gives them: directories of 100 entries, packs of 20 MB, an index of
//! several blobs. Throughput is in bytes of plaintext, or in references and entries where that is what counts.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench has nobody to hand an error to")]

mod crypto;
mod data;
mod directories;
mod index;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    kernels,
    crypto::seal_and_open_a_pack,
    crypto::open_a_directory,
    crypto::hash,
    crypto::split,
    directories::zstd,
    directories::scan,
    index::merge,
    index::look_up,
    index::build
);
criterion_main!(kernels);
