//! `verger benchmark hashing`.

use std::hint::black_box;

use verger_kopia::Result;
use verger_kopia::crypto::hashing::{Hasher, NAMES};

use super::{Blocks, Speed, on_threads, speeds_document, speeds_table, throughput, zeros};
use crate::output::Output;

const EXAMPLES: &str = "Examples:
  verger benchmark hashing
  verger benchmark hashing --block-size 64KiB --repeat 1000 --print-options
  verger benchmark hashing --json

All names that Kopia has are measured.";

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
    let Args { blocks, repeat } = args;
    let data = zeros(blocks.block_size)?;
    let mut speeds = Vec::new();
    for name in NAMES {
        let hasher = Hasher::new(name, &[0; 32])?;
        output.note(format!(
            "Benchmarking hash '{name}' ({repeat} x {} bytes, parallelism {})",
            data.len(),
            blocks.parallel
        ));
        let (_, elapsed) = on_threads(blocks.parallel, || {
            for _ in 0..*repeat {
                black_box(hasher.hash(black_box(&data)));
            }
        });
        let times = u64::from(*repeat) * u64::from(blocks.parallel);
        speeds.push(Speed { name, bytes_per_second: throughput(data.len(), times, elapsed) });
    }
    speeds.sort_by_key(|speed| std::cmp::Reverse(speed.bytes_per_second));
    if output.json {
        return speeds_document(output, "hash", blocks, *repeat, &speeds);
    }
    speeds_table(output, "Hash", 20, "block-hash", blocks.print_options, &speeds)
}
