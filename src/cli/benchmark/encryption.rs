//! `verger benchmark encryption`.

use std::hint::black_box;

use verger_kopia::Result;
use verger_kopia::crypto::encryption::{Cipher, NAMES};

use super::{Blocks, Speed, on_threads, speeds_document, speeds_table, throughput, zeros};
use crate::output::Output;

const EXAMPLES: &str = "Examples:
  verger benchmark encryption
  verger benchmark encryption --parallel 2 --repeat 200 --print-options
  verger benchmark encryption --json

All names that Kopia has are measured. Ciphers that Kopia removed (AES-CTR, SALSA20) are not known to Verger either.";

/// How to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    blocks: Blocks,
    /// Blocks that each thread encrypts
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..),
        env = "VERGER_BENCHMARK_REPEAT")]
    repeat: u32,
}

pub(super) fn run(output: Output, args: &Args) -> Result<()> {
    let Args { blocks, repeat } = args;
    let data = zeros(blocks.block_size)?;
    let mut speeds = Vec::new();
    for name in NAMES {
        let cipher = Cipher::new(name, &[0; 32], None)?;
        output.note(format!(
            "Benchmarking encryption '{name}'... ({repeat} x {} bytes, parallelism {})",
            data.len(),
            blocks.parallel
        ));
        let (outcomes, elapsed) = on_threads(blocks.parallel, || {
            (0..*repeat).try_for_each(|_| cipher.seal(&[0; 16], black_box(&data)).map(|sealed| drop(black_box(sealed))))
        });
        outcomes.into_iter().collect::<Result<()>>()?;
        let times = u64::from(*repeat) * u64::from(blocks.parallel);
        speeds.push(Speed { name, bytes_per_second: throughput(data.len(), times, elapsed) });
    }
    speeds.sort_by_key(|speed| std::cmp::Reverse(speed.bytes_per_second));
    if output.json {
        return speeds_document(output, "encryption", blocks, *repeat, &speeds);
    }
    speeds_table(output, "Encryption", 30, "encryption", blocks.print_options, &speeds)
}
