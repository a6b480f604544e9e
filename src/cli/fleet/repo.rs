//! `verger repo`.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use verger_kopia::{Error, ErrorKind, Result};

use super::schedule::{self, ScheduleArgs};
use super::{Coordinator, escaped, text_of};
use crate::cli::Context;
use crate::exit::Exit;
use crate::output::Output;

const EXAMPLES: &str = "Examples:
  verger repo add photos filesystem:///srv/photos --password-env PHOTOS_PASSWORD --take-ownership
  verger repo add velero s3://bucket/velero/kopia/ns/ --password-file /run/secrets/velero --act-as default@default
  verger repo add attic s3://bucket/attic/ --password-env ATTIC        only observed: nothing is changed
  verger repo add music s3://bucket/music/ --password-env MUSIC --take-ownership --full-schedule '0 3 * * sun' \
      --quick-schedule 'every 6h' --time-zone Europe/Berlin --window 'mon-fri 22:00-06:00' --window 'sat,sun 00:00-24:00'
  verger repo set photos --full-schedule @daily --blackout '2026-12-24/2027-01-02 holidays'
  verger repo set photos --window always --blackout none --full-schedule own
  verger repo set attic --take-ownership               it was only observed
  verger repo show photos                              its schedule, and when each lane runs next
  verger repo list --json
  verger repo suspend photos

Keys of its store: those of the workers' environment; a repository with other ones has them in variables that begin with its name
(VERGER_REPO_PHOTOS_AWS_ACCESS_KEY_ID, …), or in a folder of its name below the workers' --secrets, a file for each.";

/// Repositories that are looked after.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Look after a repository from now on
    Add(AddArgs),
    /// All repositories
    List(ListArgs),
    /// One repository
    Show(NameArgs),
    /// Look after it in another way, from now on
    Set(SetArgs),
    /// What its store can do, and who maintains it; reads Kopia's own settings again
    Probe(NameArgs),
    /// Nothing runs by itself any more
    Suspend(NameArgs),
    /// It runs by itself again
    Resume(NameArgs),
    /// Look after it no more; nothing in its store is touched
    Remove(NameArgs),
}

#[derive(Debug, clap::Args)]
struct NameArgs {
    /// Name
    name: String,
    #[command(flatten)]
    coordinator: Coordinator,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    coordinator: Coordinator,
}

/// Where its password is. The password itself never goes to the coordinator.
#[derive(Debug, clap::Args)]
struct PasswordArgs {
    /// Environment variable of the workers that holds its password
    #[arg(long, value_name = "NAME", group = "password")]
    password_env: Option<String>,
    /// File on the workers that holds its password
    #[arg(long, value_name = "FILE", group = "password")]
    password_file: Option<String>,
    /// File of this name in the workers' folder of secrets
    #[arg(long, value_name = "NAME", group = "password")]
    password_secret: Option<String>,
}

impl PasswordArgs {
    fn place(&self) -> Option<Value> {
        match (&self.password_env, &self.password_file, &self.password_secret) {
            (Some(name), ..) => Some(json!({ "env": name })),
            (_, Some(path), _) => Some(json!({ "file": path })),
            (.., Some(name)) => Some(json!({ "mounted": name })),
            (None, None, None) => None,
        }
    }
}

/// In whose name it is maintained.
#[derive(Debug, clap::Args)]
struct ActingArgs {
    /// Become its maintenance owner
    #[arg(long, group = "acting")]
    take_ownership: bool,
    /// Act in the name of its owner (Velero, OADP and VolSync use `default@default`)
    #[arg(long, value_name = "USER@HOST", group = "acting")]
    act_as: Option<String>,
    /// Only look at it
    #[arg(long, group = "acting")]
    observe: bool,
}

impl ActingArgs {
    fn acting(&self) -> Option<Value> {
        match (&self.act_as, self.take_ownership, self.observe) {
            (Some(name), ..) => Some(json!({ "actAs": name })),
            (None, true, _) => Some(json!("take-ownership")),
            (None, false, true) => Some(json!("observe")),
            (None, false, false) => None,
        }
    }
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// What to call it
    name: String,
    /// Address: `filesystem:///path`, `s3://bucket/prefix`, `gcs://bucket/prefix` or `azure://container/prefix`
    url: String,
    #[command(flatten)]
    password: PasswordArgs,
    #[command(flatten)]
    acting: ActingArgs,
    /// Nobody else maintains it: needed where the store has no conditional writes, and for cycles without margins
    #[arg(long)]
    exclusive: bool,
    /// Whose it is: tokens of other tenants neither see nor touch it [default: your token's tenant, else `default`]
    #[arg(long, value_name = "NAME", env = "VERGER_TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    schedule: ScheduleArgs,
    #[command(flatten)]
    coordinator: Coordinator,
}

#[derive(Debug, clap::Args)]
struct SetArgs {
    /// Name
    name: String,
    #[command(flatten)]
    password: PasswordArgs,
    #[command(flatten)]
    acting: ActingArgs,
    #[command(flatten)]
    schedule: ScheduleArgs,
    #[command(flatten)]
    coordinator: Coordinator,
}

pub(crate) fn run(context: &Context, args: Args) -> Result<Exit> {
    let output = context.output;
    match args.what {
        What::Add(args) => add(output, &args),
        What::List(args) => list(output, &args.coordinator),
        What::Show(args) => show(output, &args),
        What::Set(args) => set(output, &args),
        What::Probe(args) => one(output, &args, Method::POST, "/probe", &json!({})),
        What::Suspend(args) => one(output, &args, Method::PATCH, "", &json!({ "suspended": true })),
        What::Resume(args) => one(output, &args, Method::PATCH, "", &json!({ "suspended": false })),
        What::Remove(args) => {
            let path = format!("/v1/repositories/{}", escaped(&args.name));
            args.coordinator.client()?.send_document(&Method::DELETE, &path, &Value::Null, None)?;
            output.note(format!("{} is not looked after any more; nothing in its store was touched", args.name));
            Ok(())
        }
    }
    .map(|()| Exit::Done)
}

fn add(output: Output, args: &AddArgs) -> Result<()> {
    let password = args.password.place().ok_or_else(|| {
        Error::new(ErrorKind::Usage, "it is not said where the repository's password is").with_fix(
            "Give --password-env NAME, --password-file FILE or --password-secret NAME; the password itself never \
             goes to the coordinator",
        )
    })?;
    let acting = args.acting.acting();
    let is_unsaid = acting.is_none();
    let acting = acting.unwrap_or_else(|| json!("observe"));
    let mut wanted = json!({
        "name": args.name, "address": args.url, "password": password, "acting": acting, "exclusive": args.exclusive,
    });
    args.schedule.add_to(&mut wanted)?;
    if let Some(tenant) = &args.tenant {
        wanted["tenant"] = json!(tenant);
    }
    let added = args.coordinator.client()?.send_document(&Method::POST, "/v1/repositories", &wanted, None)?;
    warn(output, &added["probe"]);
    if is_unsaid {
        let owner = text_of(&added["probe"], "owner");
        output.note(format!(
            "{} is only observed: nothing changes it. To maintain it: verger repo set {} with",
            args.name, args.name
        ));
        output.note(format!("  --take-ownership        this fleet becomes the owner in place of {owner}"));
        output.note(format!("  --act-as {owner}    it works in the owner's name"));
    }
    if output.json { output.document(&added) } else { output.lines(lines(&added)) }
}

fn list(output: Output, coordinator: &Coordinator) -> Result<()> {
    let all = coordinator.client()?.get("/v1/repositories")?;
    if output.json {
        return output.document(&all);
    }
    let rows = all.as_array().into_iter().flatten();
    output.lines(rows.map(|one| {
        let state =
            if one["suspended"].as_bool() == Some(true) { "suspended".to_owned() } else { schedule::soonest(one) };
        format!("{:<24} {} {state}", text_of(one, "name"), text_of(one, "address")).trim_end().to_owned()
    }))
}

fn show(output: Output, args: &NameArgs) -> Result<()> {
    let found = args.coordinator.client()?.get(&format!("/v1/repositories/{}", escaped(&args.name)))?;
    if output.json { output.document(&found) } else { output.lines(lines(&found)) }
}

fn set(output: Output, args: &SetArgs) -> Result<()> {
    let mut change = json!({});
    args.schedule.add_to(&mut change)?;
    for (name, value) in [("password", args.password.place()), ("acting", args.acting.acting())] {
        if let Some(value) = value {
            change[name] = value;
        }
    }
    if change.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(Error::new(ErrorKind::Usage, "it is not said what to set")
            .with_fix("Give one of the flags of verger repo set --help, such as --full-schedule @daily"));
    }
    let path = format!("/v1/repositories/{}", escaped(&args.name));
    let changed = args.coordinator.client()?.send_document(&Method::PATCH, &path, &change, None)?;
    if output.json { output.document(&changed) } else { output.lines(lines(&changed)) }
}

fn one(output: Output, args: &NameArgs, method: Method, suffix: &str, body: &Value) -> Result<()> {
    let path = format!("/v1/repositories/{}{suffix}", escaped(&args.name));
    let client = args.coordinator.client()?;
    let found =
        if method == Method::GET { client.get(&path)? } else { client.send_document(&method, &path, body, None)? };
    warn(output, &found);
    if output.json { output.document(&found) } else { output.lines(lines(&found)) }
}

/// What a probe warns of.
fn warn(output: Output, probe: &Value) {
    for warning in probe["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output.note(format!("warning: {warning}"));
    }
}

/// What its store was seen to do, a line each.
fn store_lines(value: &Value) -> Vec<String> {
    let named = |name: &str, value: &Value| format!("{:<14} {name}: {value}", "store");
    let fields = value["capabilities"].as_object().into_iter().flatten();
    fields
        .map(|(name, value)| match value.as_array() {
            Some(names) => named(name, &json!(names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "))),
            None => named(name, value),
        })
        .collect()
}

/// What is known of others: who holds its lease, and workers that cannot open it.
fn others_lines(value: &Value) -> Vec<String> {
    let named = |name: &str, text: String| format!("{name:<14} {text}");
    let lease = &value["otherLease"];
    let held = lease.is_object().then(|| {
        let text = |name: &str| text_of(lease, name);
        let (holder, term, expires, seen) = (text("holder"), text("term"), text("expires"), text("seen"));
        named("other lease", format!("{holder}, term {term}, expires {expires} unless renewed (seen {seen})"))
    });
    let unable = value["unable"].as_array().into_iter().flatten();
    let unable = unable.map(|one| named("unable", format!("{}: {}", text_of(one, "worker"), text_of(one, "reason"))));
    let verified = &value["verification"];
    let verified = verified.is_object().then(|| {
        let text = |name: &str| text_of(verified, name);
        let found = match verified["problems"].as_u64() {
            Some(0) => "nothing wrong".to_owned(),
            _ => format!("{} problems (sound at {})", text("problems"), text("soundAt")),
        };
        named("verified", format!("{}, {} % of the files' contents read: {found}", text("at"), text("percent")))
    });
    held.into_iter().chain(unable).chain(verified).collect()
}

/// Fields of a document, a line each.
fn lines(value: &Value) -> Vec<String> {
    let fields = value.as_object().into_iter().flatten();
    let plain = fields
        .filter(|(name, value)| {
            !value.is_null()
                && !matches!(
                    name.as_str(),
                    "schedule"
                        | "next"
                        | "ownSettings"
                        | "capabilities"
                        | "probe"
                        | "warnings"
                        | "otherLease"
                        | "unable"
                        | "verification"
                )
        })
        .map(|(name, _)| format!("{name:<14} {}", text_of(value, name)));
    plain.chain(others_lines(value)).chain(store_lines(value)).chain(schedule::lines(value)).collect()
}
