//! `verger benchmark splitter`.

use serde::Serialize;
use verger_kopia::Result;
use verger_kopia::splitter::{NAMES, Splitter};

use super::{RULE, buffer, on_threads, print, size, threads, throughput};
use crate::output::{self, Output};

const EXAMPLES: &str = "Examples:
  verger benchmark splitter
  verger benchmark splitter --data-size 8MiB --block-count 4 --print-options
  verger benchmark splitter --rand-seed 7 --json

All names that Kopia has are measured, on data that a seed makes; Kopia's generator makes others, so its pieces have other lengths.";

/// How to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Seed of the data
    #[arg(long, value_name = "N", default_value_t = 42, env = "VERGER_BENCHMARK_RAND_SEED")]
    rand_seed: u64,
    /// Size of a block of data
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = size, env = "VERGER_BENCHMARK_DATA_SIZE")]
    data_size: usize,
    /// Number of blocks
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536),
        env = "VERGER_BENCHMARK_BLOCK_COUNT")]
    block_count: u32,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads(), env = "VERGER_BENCHMARK_PARALLEL")]
    parallel: u32,
    /// Name the fastest splitter that cuts by content, as an option with which Kopia creates a repository
    #[arg(long)]
    print_options: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    splitter: &'static str,
    bytes_per_second: u64,
    segment_count: usize,
    min: usize,
    p10: usize,
    p25: usize,
    p50: usize,
    p75: usize,
    p90: usize,
    max: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    data_size: usize,
    block_count: u32,
    rand_seed: u64,
    parallel: u32,
    results: &'a [Row],
    fastest_dynamic: Option<&'static str>,
}

pub(super) fn run(output: Output, args: &Args) -> Result<()> {
    output.note(format!(
        "splitting {} blocks of {} bytes each, parallelism {}",
        args.block_count, args.data_size, args.parallel
    ));
    let mut state = args.rand_seed;
    let blocks = (0..args.block_count).map(|_| noise(&mut state, args.data_size)).collect::<Result<Vec<_>>>()?;
    let mut rows = NAMES.iter().map(|name| measure(name, &blocks, args.parallel)).collect::<Result<Vec<_>>>()?;
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes_per_second));
    let dynamic = rows.iter().find(|row| !row.splitter.starts_with("FIXED")).map(|row| row.splitter);
    let document = Document {
        data_size: args.data_size,
        block_count: args.block_count,
        rand_seed: args.rand_seed,
        parallel: args.parallel,
        results: &rows,
        fastest_dynamic: dynamic,
    };
    print(output, &document, || {
        output.line(RULE)?;
        for (number, row) in rows.iter().enumerate() {
            output.line(format!("{number:>3}. {}", text(row)))?;
        }
        if let Some(name) = dynamic.filter(|_| args.print_options) {
            output.line(format!("Fastest option for this machine is: --object-splitter={name}"))?;
        }
        Ok(())
    })
}

fn measure(name: &'static str, blocks: &[Vec<u8>], parallel: u32) -> Result<Row> {
    let splitter = Splitter::new(name)?;
    let (mut lengths, elapsed) = on_threads(parallel, || segments(splitter.clone(), blocks));
    let mut lengths = lengths.pop().unwrap_or_default();
    lengths.sort_unstable();
    let share = |percent: usize| lengths.get(lengths.len() * percent / 100).copied().unwrap_or_default();
    let bytes = blocks.iter().map(Vec::len).sum();
    Ok(Row {
        splitter: name,
        bytes_per_second: throughput(bytes, u64::from(parallel), elapsed),
        segment_count: lengths.len(),
        min: share(0),
        p10: share(10),
        p25: share(25),
        p50: share(50),
        p75: share(75),
        p90: share(90),
        max: lengths.last().copied().unwrap_or_default(),
    })
}

fn segments(mut splitter: Splitter, blocks: &[Vec<u8>]) -> Vec<usize> {
    let mut lengths = Vec::new();
    for block in blocks {
        splitter.reset();
        let mut rest = &block[..];
        while let Some(length) = splitter.next_cut(rest) {
            lengths.push(length);
            rest = rest.get(length..).unwrap_or_default();
            // A cut at the very end leaves nothing, which is no segment.
            if rest.is_empty() {
                break;
            }
        }
        if !rest.is_empty() {
            lengths.push(rest.len());
        }
    }
    lengths
}

fn text(row: &Row) -> String {
    let Row { splitter, bytes_per_second, segment_count, min, p10, p25, p50, p75, p90, max } = row;
    format!(
        "{splitter:<25} {:<12}/s count:{segment_count} min:{min} 10th:{p10} 25th:{p25} 50th:{p50} 75th:{p75} 90th:{p90} max:{max}",
        output::bytes(*bytes_per_second)
    )
}

/// Bytes without a pattern (splitmix64), the same for a seed on every machine.
fn noise(state: &mut u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = buffer(length)?;
    while bytes.len() < length {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let word = (z ^ (z >> 31)).to_le_bytes();
        bytes.extend_from_slice(&word[..word.len().min(length - bytes.len())]);
    }
    Ok(bytes)
}
