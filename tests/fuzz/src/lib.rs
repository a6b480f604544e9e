//! Fuzz targets for every parser of bytes that come from a store, a wire or a disk. Each is a function of bytes that panics if a promise is
//! broken: no panic, no allocation beyond what the input's length allows (`within`), and what is written reads back.
//!
//! Two drivers call them: `cargo fuzz` (one program a target, `fuzz_targets/`) and `tests/parsers.rs`, which includes this file.
//! A target may use the public interface only, so that what it proves holds for everybody.

pub mod bytes;
pub mod codecs;
pub mod directories;
pub mod files;
pub mod formats;
pub mod golden;
pub mod indexes;
pub mod manifests;
pub mod messages;
pub mod names;
pub mod objects;
pub mod parts;
pub mod records;
pub mod store;
pub mod tokens;

/// One parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name of the fuzz program and of the folder of its corpus.
    pub name: &'static str,
    /// Parses, and checks what must hold.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "index", run: indexes::index },
    Target { name: "index_merge", run: indexes::index_merge },
    Target { name: "index_names", run: names::index_names },
    Target { name: "legacy_log", run: names::legacy_log },
    Target { name: "ids", run: names::ids },
    Target { name: "pack_index", run: store::pack_index },
    Target { name: "store_blobs", run: store::store_blobs },
    Target { name: "manifests", run: manifests::manifests },
    Target { name: "snapshots", run: manifests::snapshots },
    Target { name: "params", run: manifests::params },
    Target { name: "schedule", run: manifests::schedule },
    Target { name: "directory", run: directories::directory },
    Target { name: "seek_table", run: objects::seek_table },
    Target { name: "object", run: objects::object },
    Target { name: "format_blob", run: formats::format_blob },
    Target { name: "format_config", run: formats::format_config },
    Target { name: "decompress", run: codecs::decompress },
    Target { name: "ecc", run: codecs::ecc },
    Target { name: "cipher", run: codecs::cipher },
    Target { name: "splitter", run: codecs::splitter },
    Target { name: "envelope", run: records::envelope },
    Target { name: "ledger", run: records::ledger },
    Target { name: "lease", run: records::lease },
    Target { name: "shards", run: files::shards },
    Target { name: "work_message", run: messages::work_message },
    Target { name: "part", run: parts::part },
    Target { name: "tokens", run: tokens::tokens },
];

/// Runs `parse` and holds its peak of allocated bytes to `fixed` and `factor` bytes for each of the input's `length`. What C libraries
/// allocate is not seen (zstd's context of a fixed size).
pub fn within<T>(fixed: usize, factor: usize, length: usize, parse: impl FnOnce() -> T) -> T {
    let mut parsed = None;
    let peak = allocation_counter::measure(|| parsed = Some(parse())).bytes_max;
    let limit = u64::try_from(fixed + factor * length).unwrap();
    assert!(
        peak <= limit,
        "{peak} bytes allocated for an input of {length}, allowed are {fixed} + {factor} x {length}"
    );
    parsed.unwrap()
}
