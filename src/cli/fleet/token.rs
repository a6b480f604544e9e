//! `verger token`.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::Scope;

use super::{Coordinator, escaped, text_of};
use crate::cli::Context;
use crate::exit::Exit;
use crate::output::Output;

const EXAMPLES: &str = "Examples:
  verger token create prometheus --scope read --all-tenants > token       shown once, here
  verger token create nightly --scope operate --tenant photos --expires 30d
  verger token list
  verger token revoke nightly
  verger login https://verger.example:7420 < token                        on the machine that is to use it

Scopes: read (see), operate (start, pause, stop cycles), approve (give a person's word for what a plan removes), admin (all of these,
and repositories, tokens, leases and nodes), work (do the work of cycles, as workers do).
operate and approve let one read. docs/security.md has the whole table.";

/// Rights to speak to the coordinator.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make one; it is printed once and kept nowhere
    Create(CreateArgs),
    /// All that you may revoke, those that are over too
    List {
        #[command(flatten)]
        coordinator: Coordinator,
    },
    /// Take one back, at once and for ever
    Revoke {
        /// Its name
        name: String,
        #[command(flatten)]
        coordinator: Coordinator,
    },
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// What to call it: the name is in every event of what is done with it, and is never given again
    name: String,
    /// What it is for
    #[arg(long, value_name = "SCOPE", required = true, env = "VERGER_TOKEN_SCOPE", value_delimiter = ',', value_parser = scope)]
    scope: Vec<Scope>,
    /// Reaches what is this tenant's [default: your own token's tenant]
    #[arg(long, value_name = "NAME", env = "VERGER_TENANT", conflicts_with = "all_tenants")]
    tenant: Option<String>,
    /// Reaches what is anybody's
    #[arg(long)]
    all_tenants: bool,
    /// Not valid after this long, such as 12h, 30d or 1y [default: until it is revoked]
    #[arg(long, value_name = "TIME", env = "VERGER_TOKEN_EXPIRES", value_parser = seconds)]
    expires: Option<u64>,
    #[command(flatten)]
    coordinator: Coordinator,
}

fn scope(text: &str) -> Result<Scope, String> {
    text.parse()
}

/// A whole number and a unit, as seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no length of time; give a whole number and s, m, h, d, w or y, such as 30d");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "y" => 365 * 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(seconds).filter(|seconds| *seconds > 0).ok_or_else(bad)
}

pub(crate) fn run(context: &Context, args: Args) -> Result<Exit> {
    let output = context.output;
    match args.what {
        What::Create(args) => create(output, &args),
        What::List { coordinator } => list(output, &coordinator),
        What::Revoke { name, coordinator } => {
            let path = format!("/v1/tokens/{}", escaped(&name));
            let revoked = coordinator.client()?.send_document(&Method::DELETE, &path, &Value::Null, None)?;
            if output.json {
                output.document(&revoked)
            } else {
                output.note(format!("{name} is not valid any more"));
                Ok(())
            }
        }
    }
    .map(|()| Exit::Done)
}

fn create(output: Output, args: &CreateArgs) -> Result<()> {
    let scopes: Vec<&str> = args.scope.iter().map(|scope| scope.name()).collect();
    let mut wanted = json!({ "name": args.name, "scopes": scopes, "allTenants": args.all_tenants });
    if let Some(tenant) = &args.tenant {
        wanted["tenant"] = json!(tenant);
    }
    if let Some(seconds) = args.expires {
        wanted["expiresInSeconds"] = json!(seconds);
    }
    let made = args.coordinator.client()?.send_document(&Method::POST, "/v1/tokens", &wanted, None)?;
    if output.json {
        return output.document(&made);
    }
    let token = made["token"].as_str();
    let token =
        token.ok_or_else(|| Error::new(ErrorKind::Internal, "the coordinator made a token and did not say it"))?;
    output.note("It is shown this once; keep it where only its user reads it.");
    output.line(token)
}

fn list(output: Output, coordinator: &Coordinator) -> Result<()> {
    let all = coordinator.client()?.get("/v1/tokens")?;
    if output.json {
        return output.document(&all);
    }
    let rows = all.as_array().into_iter().flatten();
    output.lines(rows.map(|one| {
        let whose = if one["allTenants"] == true { "all tenants".to_owned() } else { text_of(one, "tenant") };
        let scopes: Vec<&str> = one["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let until = one["expiresAt"].as_str().map(|at| format!(" until {at}")).unwrap_or_default();
        format!("{:<24} {:<8} {whose:<16} {}{until}", text_of(one, "name"), text_of(one, "state"), scopes.join(","))
    }))
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn lengths_of_time_have_a_unit() {
        for (text, expected) in [("90s", 90), ("5m", 300), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for text in ["", "d", "30", "0d", "-1d", "1.5h", "30 d", "99999999999999999999d", "18446744073709551615y", "٣d"]
        {
            assert!(seconds(text).is_err(), "{text:?}");
        }
    }
}
