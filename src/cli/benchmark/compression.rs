//! `verger benchmark compression`.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;
use verger_kopia::compression::{Decompressor, compress_like, id_of, is_deprecated, names};
use verger_kopia::{Error, ErrorKind, Result};

use super::{buffer, on_threads, print, threads, throughput};
use crate::output::{self, Output};

const EXAMPLES: &str = "Examples:
  verger benchmark compression --data-file /var/log/syslog
  verger benchmark compression --data-file db.dump --by-size --print-options
  verger benchmark compression --data-file db.dump --algorithms zstd,s2 --operations compress --parallel 2
  verger benchmark compression --data-file db.dump --deprecated --json

All names that Kopia has are measured. The compressors are those of Verger's libraries at the nearest level, so sizes differ a little
from Kopia's; pgzip and s2-parallel run on one thread here (--parallel runs several at once). Maintenance itself only ever writes
zstd-fastest and reads them all. Allocations are not counted: --by-alloc is refused.";

/// Most bytes of the file, and of all repetitions by default.
const DATA_MAX: usize = 128 << 20;
const WIDE_RULE: &str =
    "------------------------------------------------------------------------------------------------";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operations {
    Compress,
    Decompress,
    Both,
}

/// How to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// File whose bytes are compressed; its first 128 MiB
    #[arg(long, value_name = "FILE", env = "VERGER_BENCHMARK_DATA_FILE")]
    data_file: PathBuf,
    /// Repetitions on each thread; 0 makes it 128 MiB for each compression
    #[arg(long, value_name = "N", default_value_t = 0, env = "VERGER_BENCHMARK_REPEAT")]
    repeat: u32,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads(), env = "VERGER_BENCHMARK_PARALLEL")]
    parallel: u32,
    /// The smallest first
    #[arg(long)]
    by_size: bool,
    /// As Kopia's flag of this name: refused, since allocations are not counted
    #[arg(long, alias = "by-allocated", hide = true)]
    by_alloc: bool,
    /// What to measure
    #[arg(long, value_enum, default_value = "both", env = "VERGER_BENCHMARK_OPERATIONS")]
    operations: Operations,
    /// Fail if a compression does not give the same bytes each time
    #[arg(long)]
    verify_stable: bool,
    /// Also those that Kopia offers no more
    #[arg(long)]
    deprecated: bool,
    /// Only names that begin with one of these, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', env = "VERGER_BENCHMARK_ALGORITHMS")]
    algorithms: Vec<String>,
    /// Add Kopia's option for each
    #[arg(long)]
    print_options: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    compression: &'static str,
    compressed_size: usize,
    bytes_per_second: u64,
    deprecated: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    data_length: usize,
    repeat: u32,
    parallel: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    compress: Option<&'a [Row]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decompress: Option<&'a [Row]>,
}

/// What each measurement works on.
struct Work {
    data: Vec<u8>,
    repeat: u32,
    parallel: u32,
    verify_stable: bool,
}

pub(super) fn run(output: Output, args: &Args) -> Result<()> {
    let chosen = chosen(args)?;
    let data = read(output, &args.data_file)?;
    let repeat = match args.repeat {
        0 => u32::try_from((DATA_MAX / data.len()).max(1)).unwrap_or(u32::MAX),
        given => given,
    };
    let work = Work { data, repeat, parallel: args.parallel, verify_stable: args.verify_stable };
    output.note(format!(
        "Will repeat each benchmark {repeat} times per compression method (total {}). Override with --repeat=N.",
        output::bytes(work.data.len() as u64 * u64::from(repeat))
    ));
    let measure = |which, verb: &str, how: &dyn Fn(&Work, &'static str) -> Result<Row>| {
        if ![which, Operations::Both].contains(&args.operations) {
            return Ok(None);
        }
        let row = |name: &&'static str| {
            output.note(format!("Benchmarking {verb} '{name}'..."));
            how(&work, name)
        };
        let mut rows = chosen.iter().map(row).collect::<Result<Vec<_>>>()?;
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes_per_second));
        if args.by_size {
            rows.sort_by_key(|row| row.compressed_size);
        }
        Ok::<_, Error>(Some(rows))
    };
    let compress = measure(Operations::Compress, "compressor", &compress)?;
    let decompress = measure(Operations::Decompress, "decompressor", &decompress)?;
    let document = Document {
        data_length: work.data.len(),
        repeat,
        parallel: work.parallel,
        compress: compress.as_deref(),
        decompress: decompress.as_deref(),
    };
    print(output, &document, || {
        for (operation, rows) in [("Compress", &compress), ("Decompress", &decompress)] {
            if let Some(rows) = rows {
                table(output, operation, rows, args.print_options)?;
            }
        }
        Ok(())
    })
}

fn chosen(args: &Args) -> Result<Vec<&'static str>> {
    if args.by_alloc {
        return Err(Error::unsupported("--by-alloc: Verger does not count allocations").with_fix("use --by-size"));
    }
    let named = |name: &&str| args.algorithms.iter().any(|start| name.starts_with(start.as_str()));
    let chosen: Vec<_> = if args.algorithms.is_empty() {
        names().filter(|name| args.deprecated || !is_deprecated(name)).collect()
    } else {
        names().filter(named).collect()
    };
    if chosen.is_empty() {
        let known: Vec<_> = names().collect();
        let step = format!("--algorithms {}: no compression has such a name", args.algorithms.join(","));
        return Err(Error::new(ErrorKind::Usage, step).with_fix(format!("give some of {}", known.join(", "))));
    }
    Ok(chosen)
}

fn read(output: Output, path: &Path) -> Result<Vec<u8>> {
    let failed = |error| Error::new(ErrorKind::Usage, format!("read {}", path.display())).with_source(error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > DATA_MAX as u64 {
        output.note("NOTICE: The provided input file is too big, using first 128 MiB.");
    }
    let mut data = buffer(usize::try_from(length).unwrap_or(usize::MAX).min(DATA_MAX))?;
    file.take(DATA_MAX as u64).read_to_end(&mut data).map_err(failed)?;
    if data.is_empty() {
        return Err(Error::new(ErrorKind::Usage, format!("{} is empty", path.display())).with_fix("give another file"));
    }
    Ok(data)
}

fn row(work: &Work, name: &'static str, compressed_size: usize, elapsed: std::time::Duration) -> Row {
    let times = u64::from(work.repeat) * u64::from(work.parallel);
    let bytes_per_second = throughput(work.data.len(), times, elapsed);
    Row { compression: name, compressed_size, bytes_per_second, deprecated: is_deprecated(name) }
}

fn compress(work: &Work, name: &'static str) -> Result<Row> {
    let expected = if work.verify_stable { compress_like(name, &work.data)? } else { Vec::new() };
    let (outcomes, elapsed) = on_threads(work.parallel, || {
        (0..work.repeat).try_fold(0, |_, _| {
            let stored = compress_like(name, &work.data)?;
            if work.verify_stable && stored != expected {
                return Err(Error::new(ErrorKind::Internal, format!("compression {name} is not stable")));
            }
            Ok(stored.len())
        })
    });
    let sizes = outcomes.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(row(work, name, sizes.first().copied().unwrap_or_default(), elapsed))
}

fn decompress(work: &Work, name: &'static str) -> Result<Row> {
    let stored = compress_like(name, &work.data)?;
    let id = id_of(name).ok_or_else(|| Error::unsupported(format!("compression {name} is not known")))?;
    let (outcomes, elapsed) = on_threads(work.parallel, || {
        let (mut decompressor, mut out) = (Decompressor::new(), buffer(work.data.len() + 1)?);
        (0..work.repeat).try_for_each(|_| decompressor.decompress(id, &stored, work.data.len(), &mut out))
    });
    outcomes.into_iter().collect::<Result<()>>()?;
    Ok(row(work, name, stored.len(), elapsed))
}

fn table(output: Output, operation: &str, rows: &[Row], options: bool) -> Result<()> {
    output.line(format!("{operation}:\n     {:<26} {:<12} Throughput\n{WIDE_RULE}", "Compression", "Compressed"))?;
    for (number, row) in rows.iter().enumerate() {
        let size = output::bytes(row.compressed_size as u64);
        let speed = output::bytes(row.bytes_per_second);
        let mut line = format!("{number:>3}. {:<26} {size:<12} {speed:>8}/s", row.compression);
        if row.deprecated {
            line.push_str(" (deprecated)");
        }
        if options {
            line.push_str(&format!(", --compression={}", row.compression));
        }
        output.line(line)?;
    }
    Ok(())
}
