//! `verger login`.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use serde_json::json;
use verger_coordinator::auth::Bearer;
use verger_coordinator::auth::oidc::{TOKEN_BYTES_MAX, is_presented};
use verger_kopia::{Error, ErrorKind, Result};

use super::Trust;
use crate::cli::Context;
use crate::client::{self, Client};
use crate::config::token;
use crate::exit::Exit;

/// More than any token, and little enough to read whatever it is.
const TEXT_BYTES_MAX: u64 = TOKEN_BYTES_MAX as u64 + 2;

const EXAMPLES: &str = "Examples:
  verger login https://verger.example:7420                         asks for the token
  verger login https://verger.example:7420 < token
  verger login https://verger.example:7420 --token-file token --ca-file ca.pem
  VERGER_ADDR=https://verger.example:7420 verger repo list
  verger login https://verger.example:7420 < jwt                   a token of an identity provider that is believed there

The token is never an argument: those are seen by others and remembered by shells. It is tried, and kept for this user alone.";

/// Keep a token for an address.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Address of a coordinator
    #[arg(value_name = "URL", env = "VERGER_ADDR")]
    addr: String,
    /// File with the token [default: standard input]
    #[arg(long, value_name = "FILE", env = "VERGER_TOKEN_FILE", help_heading = "Coordinator")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let url = client::address(&args.addr)?;
    let path = token::path(&url).ok_or_else(|| {
        Error::new(ErrorKind::Usage, "there is no home directory to keep the token in")
            .with_fix("Set HOME or XDG_CONFIG_HOME")
    })?;
    let text = zeroize::Zeroizing::new(read(args)?);
    let text = text.trim();
    if !is_presented(text) {
        Bearer::parse(text).map_err(|error| Error::new(ErrorKind::Usage, error.to_string()))?;
    }
    // One that does not come through is not kept in the place of one that does.
    Client::new(&args.addr, Some(text.to_owned()), &args.trust)?.get("/v1/status")?;
    token::keep(&path, text)?;
    if context.output.json {
        context.output.document(&json!({ "address": args.addr, "kept": path.display().to_string() }))?;
    } else {
        context.output.note(format!("The token for {} is kept in {}", args.addr, path.display()));
    }
    Ok(Exit::Done)
}

fn read(args: &Args) -> Result<String> {
    let failed = |what: String| move |error: std::io::Error| Error::new(ErrorKind::Usage, what).with_source(error);
    let mut text = String::new();
    match &args.token_file {
        Some(path) => {
            let what = format!("read the token in {}", path.display());
            let file = std::fs::File::open(path).map_err(failed(what.clone()))?;
            file.take(TEXT_BYTES_MAX).read_to_string(&mut text).map_err(failed(what))?;
        }
        None if std::io::stdin().is_terminal() => {
            text = rpassword::prompt_password(format!("Token for {}: ", args.addr))
                .map_err(failed("read the token from the terminal".to_owned()))?;
        }
        None => {
            let what = "read the token from standard input".to_owned();
            std::io::stdin().take(TEXT_BYTES_MAX).read_to_string(&mut text).map_err(failed(what))?;
        }
    }
    Ok(text)
}
