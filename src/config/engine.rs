//! Limits and state of a cycle, parsed.

use std::path::PathBuf;

use verger_kopia::storage::throttle::Throttle;
use verger_kopia::{Error, ErrorKind, Result};

use super::raw::EngineArgs;

const MEMORY_LIMIT_DEFAULT: u64 = 512 << 20;
const MEMORY_LIMIT_MIN: u64 = verger_worker::limit::LIMIT_MIN;
const PARALLEL_REMOTE: usize = 16;
const PARALLEL_LOCAL: usize = 4;
const PARALLEL_MAX: u32 = 1024;

/// How much of the machine and the network may be used, and where the ledger lies.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    /// Most bytes of memory.
    pub memory_limit: u64,
    /// Parallel requests, if somebody said.
    pub parallel: Option<usize>,
    /// Limits by the second.
    pub throttle: Throttle,
    /// Folder of ledgers and locks. Not created here.
    pub state_dir: PathBuf,
}

impl Engine {
    /// Parses what flag, environment and file gave, in this order.
    ///
    /// # Errors
    /// `Usage` for a malformed or impossible value, or where there is no home directory to keep state in.
    pub(crate) fn resolve(args: EngineArgs, file: EngineArgs) -> Result<Self> {
        let given = args.or(file);
        let memory_limit = size("memory-limit", given.memory_limit.as_deref())?.unwrap_or(MEMORY_LIMIT_DEFAULT);
        if memory_limit < MEMORY_LIMIT_MIN {
            return Err(usage(
                format!("--memory-limit is {memory_limit} bytes"),
                "give 96MiB or more: deriving a key takes 64 MiB alone",
            ));
        }
        let parallel = match given.parallel {
            Some(n) if n == 0 || n > PARALLEL_MAX => {
                return Err(usage(format!("--parallel is {n}"), "give a number from 1 to 1024"));
            }
            other => other.map(|n| n as usize),
        };
        if given.requests_per_second == Some(0) {
            return Err(usage("--requests-per-second is 0".to_owned(), "leave it out for no limit"));
        }
        let requests = given.requests_per_second.map(f64::from);
        let throttle = Throttle {
            download_bytes_per_second: rate("download-bytes-per-second", given.download_bytes_per_second.as_deref())?,
            upload_bytes_per_second: rate("upload-bytes-per-second", given.upload_bytes_per_second.as_deref())?,
            reads_per_second: requests,
            writes_per_second: requests,
            lists_per_second: requests,
        };
        let state_dir = match given.state_dir {
            Some(folder) => folder,
            None => default_state_dir()?,
        };
        Ok(Self { memory_limit, parallel, throttle, state_dir })
    }

    /// Parallel requests to a store: what was said, else what suits its kind.
    #[must_use]
    pub(crate) fn threads(&self, local: bool) -> usize {
        self.parallel.unwrap_or(if local { PARALLEL_LOCAL } else { PARALLEL_REMOTE })
    }
}

fn usage(step: String, fix: &str) -> Error {
    Error::new(ErrorKind::Usage, step).with_fix(fix)
}

fn default_state_dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    folder.map(|folder| folder.join("verger")).ok_or_else(|| {
        usage("there is no home directory to keep the ledger in".to_owned(), "give --state-dir, or set XDG_STATE_HOME")
    })
}

fn rate(name: &str, text: Option<&str>) -> Result<Option<f64>> {
    let bytes = size(name, text)?;
    if bytes == Some(0) {
        return Err(usage(format!("--{name} is 0"), "leave it out for no limit"));
    }
    #[allow(clippy::cast_precision_loss, reason = "a limit by the second")]
    Ok(bytes.map(|bytes| bytes as f64))
}

pub(super) fn size(name: &str, text: Option<&str>) -> Result<Option<u64>> {
    let Some(text) = text else { return Ok(None) };
    let bad = || usage(format!("--{name} {text:?} is not a size"), "give bytes, or such as 512MiB or 2GB");
    parse_size(text).map(Some).ok_or_else(bad)
}

/// A size: bytes, or a number with a decimal (`KB`, `MB`, …, `K`) or binary (`KiB`, `Mi`, …) unit.
#[must_use]
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (text.get(..split)?, text.get(split..)?.trim().to_ascii_lowercase());
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (letter, base) = match unit.strip_suffix('i') {
        Some(letter) if !letter.is_empty() => (letter, 1024u64),
        Some(_) => return None,
        None => (unit, 1000),
    };
    let power = if letter.is_empty() { 0 } else { ["k", "m", "g", "t", "p"].iter().position(|l| *l == letter)? + 1 };
    let scale = base.checked_pow(u32::try_from(power).ok()?)?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale);
    }
    let value = number.parse::<f64>().ok()?;
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    {
        let bytes = value * scale as f64;
        (power > 0 && bytes.is_finite() && bytes < u64::MAX as f64).then_some(bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("123", 123),
            ("7B", 7),
            ("512MiB", 512 << 20),
            ("512Mi", 512 << 20),
            ("2GB", 2_000_000_000),
            ("2 gb", 2_000_000_000),
            ("1.5KiB", 1536),
            ("10k", 10_000),
            ("1T", 1_000_000_000_000),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5", "1.2.3K", "12XB", "1iB", "99999999999999999999", "20000P", "1e9"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn flags_come_before_the_file_and_nonsense_is_refused() {
        let state = || Some(PathBuf::from("/state"));
        let file = EngineArgs { memory_limit: Some("1GiB".into()), parallel: Some(9), ..EngineArgs::default() };
        let flags = EngineArgs { memory_limit: Some("256MiB".into()), state_dir: state(), ..EngineArgs::default() };
        let engine = Engine::resolve(flags, file).unwrap();
        assert_eq!((engine.memory_limit, engine.threads(true)), (256 << 20, 9));
        assert!(engine.throttle.is_unlimited());
        for args in [
            EngineArgs { memory_limit: Some("1MiB".into()), ..EngineArgs::default() },
            EngineArgs { memory_limit: Some("lots".into()), ..EngineArgs::default() },
            EngineArgs { parallel: Some(0), ..EngineArgs::default() },
            EngineArgs { requests_per_second: Some(0), ..EngineArgs::default() },
            EngineArgs { upload_bytes_per_second: Some("0".into()), ..EngineArgs::default() },
        ] {
            let args = EngineArgs { state_dir: state(), ..args };
            assert_eq!(Engine::resolve(args, EngineArgs::default()).unwrap_err().kind(), ErrorKind::Usage);
        }
    }
}
