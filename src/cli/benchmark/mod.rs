//! `verger benchmark`: how fast hashes, ciphers, compressions and splitters are on this machine, as Kopia's own commands measure
//! and print it, over the same names.

mod compression;
mod encryption;
mod hashing;
mod splitter;

use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde::Serialize;
use verger_kopia::{Error, ErrorKind, Result};

use super::Context;
use crate::config::engine::parse_size;
use crate::exit::Exit;
use crate::output::{self, Output};

const EXAMPLES: &str = "Examples:
  verger benchmark hashing                                   which --block-hash is fastest here
  verger benchmark encryption --parallel 2 --repeat 200      both ciphers, two threads
  verger benchmark compression --data-file /var/log/syslog   speed and size of each compression on your data
  verger benchmark splitter --data-size 8MiB --json          how each splitter cuts random data; one document

The names, the measure and the tables are those of `kopia benchmark`; the code is Verger's, so the figures say how fast Verger is.
Reads no repository. Choose what fits your clients: they are what hashes, encrypts and compresses your data.";

/// Line around a table, as Kopia prints it.
const RULE: &str = "-----------------------------------------------------------------";

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Keyed hashes, which name contents
    #[command(alias = "hash")]
    Hashing(hashing::Args),
    /// Ciphers, a new key for each block
    Encryption(encryption::Args),
    /// Compressions, and what they make of your data
    Compression(compression::Args),
    /// Splitters, and how long the pieces are
    Splitter(splitter::Args),
}

/// Measures and prints.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let output = context.output;
    match &args.what {
        What::Hashing(args) => hashing::run(output, args),
        What::Encryption(args) => encryption::run(output, args),
        What::Compression(args) => compression::run(output, args),
        What::Splitter(args) => splitter::run(output, args),
    }
    .map(|()| Exit::Done)
}

/// Blocks of one length, worked on again and again by several threads.
#[derive(Debug, clap::Args)]
struct Blocks {
    /// Size of a block
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size, env = "VERGER_BENCHMARK_BLOCK_SIZE")]
    block_size: usize,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads(), env = "VERGER_BENCHMARK_PARALLEL")]
    parallel: u32,
    /// Add the option with which Kopia creates such a repository
    #[arg(long)]
    print_options: bool,
}

/// One line of a table of speeds.
struct Speed {
    name: &'static str,
    bytes_per_second: u64,
}

/// A kind of thing that works on blocks, and how Kopia speaks of it.
struct Kind {
    /// What is being benchmarked, in a note.
    noun: &'static str,
    /// Head of the table's first column, and its width.
    title: &'static str,
    width: usize,
    /// Key of the name in each result of the document.
    key: &'static str,
    /// Option of `kopia repository create`.
    flag: &'static str,
}

impl Kind {
    /// Measures each name with `repeat` blocks on each thread, and prints the fastest first. `prepare` makes of a name what `work`
    /// does to one block.
    fn measure<W>(
        &self,
        output: Output,
        (blocks, repeat): (&Blocks, u32),
        names: &'static [&'static str],
        prepare: impl Fn(&str) -> Result<W>,
    ) -> Result<()>
    where
        W: Fn(&[u8]) -> Result<()> + Sync,
    {
        let data = zeros(blocks.block_size)?;
        let mut speeds = Vec::new();
        for name in names {
            let work = prepare(name)?;
            let (noun, length, parallel) = (self.noun, data.len(), blocks.parallel);
            output.note(format!("Benchmarking {noun} '{name}'... ({repeat} x {length} bytes, parallelism {parallel})"));
            let (outcomes, elapsed) = on_threads(parallel, || (0..repeat).try_for_each(|_| work(black_box(&data))));
            outcomes.into_iter().collect::<Result<()>>()?;
            let times = u64::from(repeat) * u64::from(parallel);
            speeds.push(Speed { name, bytes_per_second: throughput(length, times, elapsed) });
        }
        speeds.sort_by_key(|speed| std::cmp::Reverse(speed.bytes_per_second));
        if output.json { self.document(output, blocks, repeat, &speeds) } else { self.table(output, blocks, &speeds) }
    }

    fn document(&self, output: Output, blocks: &Blocks, repeat: u32, speeds: &[Speed]) -> Result<()> {
        let row = |speed: &Speed| serde_json::json!({ self.key: speed.name, "bytesPerSecond": speed.bytes_per_second });
        output.document(&serde_json::json!({
            "blockSize": blocks.block_size,
            "repeat": repeat,
            "parallel": blocks.parallel,
            "results": speeds.iter().map(row).collect::<Vec<_>>(),
            "fastest": speeds.first().map(|speed| speed.name),
        }))
    }

    fn table(&self, output: Output, blocks: &Blocks, speeds: &[Speed]) -> Result<()> {
        let Self { title, width, flag, .. } = self;
        output.line(format!("     {title:<width$} Throughput\n{RULE}"))?;
        for (number, speed) in speeds.iter().enumerate() {
            let throughput = output::bytes(speed.bytes_per_second);
            let mut line = format!("{number:>3}. {:<width$} {throughput} / second", speed.name);
            if blocks.print_options {
                line.push_str(&format!(",   --{flag}={}", speed.name));
            }
            output.line(line)?;
        }
        let fastest = speeds.first().map_or("", |speed| speed.name);
        output.line(format!("{RULE}\nFastest option for this machine is: --{flag}={fastest}"))
    }
}

/// Runs `work` on each of the threads at once: what each gave, and how long it took.
fn on_threads<T: Send>(threads: u32, work: impl Fn() -> T + Sync) -> (Vec<T>, Duration) {
    let started = Instant::now();
    let results = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    (results, started.elapsed())
}

/// Bytes a second.
fn throughput(bytes: usize, times: u64, elapsed: Duration) -> u64 {
    let total = bytes as u128 * u128::from(times) * 1_000_000_000;
    u64::try_from(total / elapsed.as_nanos().max(1)).unwrap_or(u64::MAX)
}

fn threads() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1024)
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text).and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "give bytes, or such as 512KiB or 2MB".to_owned())
}

/// Memory for what is measured; refused rather than aborted where there is none.
fn buffer(length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|error| {
        Error::new(ErrorKind::MemoryLimit, format!("hold {length} bytes of test data"))
            .with_fix("give a smaller size")
            .with_source(error)
    })?;
    Ok(bytes)
}

/// As [`buffer`], full of zeros.
fn zeros(length: usize) -> Result<Vec<u8>> {
    let mut bytes = buffer(length)?;
    bytes.resize(length, 0);
    Ok(bytes)
}

/// Prints a document or a text.
fn print<T: Serialize>(output: Output, document: &T, text: impl FnOnce() -> Result<()>) -> Result<()> {
    if output.json { output.document(document) } else { text() }
}
