//! `verger benchmark hashing`.

use std::hint::black_box;

use verger_kopia::Result;
use verger_kopia::crypto::hashing::{Hasher, NAMES};

use super::{Blocks, Kind};
use crate::output::Output;

const EXAMPLES: &str = "Examples:
  verger benchmark hashing
  verger benchmark hashing --block-size 64KiB --repeat 1000 --print-options
  verger benchmark hashing --json

All names that Kopia has are measured.";

const KIND: Kind = Kind { noun: "hash", title: "Hash", width: 20, key: "hash", flag: "block-hash" };

/// How to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    blocks: Blocks,
    /// Blocks that each thread hashes
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..),
        env = "VERGER_BENCHMARK_REPEAT")]
    repeat: u32,
}

pub(super) fn run(output: Output, args: &Args) -> Result<()> {
    KIND.measure(output, (&args.blocks, args.repeat), &NAMES, |name| {
        let hasher = Hasher::new(name, &[0; 32])?;
        Ok(move |data: &[u8]| {
            black_box(hasher.hash(data));
            Ok(())
        })
    })
}
