//! `verger benchmark encryption`.

use std::hint::black_box;

use verger_kopia::Result;
use verger_kopia::crypto::encryption::{Cipher, NAMES};

use super::{Blocks, Kind};
use crate::output::Output;

const EXAMPLES: &str = "Examples:
  verger benchmark encryption
  verger benchmark encryption --parallel 2 --repeat 200 --print-options
  verger benchmark encryption --json

All names that Kopia has are measured. Ciphers that Kopia removed (AES-CTR, SALSA20) are not known to Verger either.";

const KIND: Kind = Kind { noun: "encryption", title: "Encryption", width: 30, key: "encryption", flag: "encryption" };

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
    KIND.measure(output, (&args.blocks, args.repeat), &NAMES, |name| {
        let cipher = Cipher::new(name, &[0; 32], None)?;
        Ok(move |data: &[u8]| cipher.seal(&[0; 16], data).map(|sealed| drop(black_box(sealed))))
    })
}
