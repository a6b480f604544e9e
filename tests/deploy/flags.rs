//! What the program takes: its own help says so.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::{run, verger};

/// What is shipped for parts that the program does not have yet: (command, flags). [`nothing_is_announced_that_is_there`] fails as soon as it
/// has them, and then this is empty and nothing else changes.
const ANNOUNCED: &[(&str, &[&str])] = &[];

/// Variables of other programs' making that the program takes.
const FOREIGN: &[&str] = &[
    "AWS_REGION",
    "AWS_S3_ENDPOINT",
    "AWS_SHARED_CREDENTIALS_FILE",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "POD_NAME",
    "XDG_CONFIG_HOME",
];
/// Variables of `deploy/docker/member.sh` alone.
const MEMBER: &[&str] = &["MEMBER_BEGIN"];

fn help(command: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let output = verger(home.path()).args(command).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn own(command: &str) -> BTreeSet<String> {
    // A command that is not there is none of the help's, and has no flags.
    if !help(&[]).lines().any(|line| line.trim_start().split(' ').next() == Some(command)) {
        return BTreeSet::new();
    }
    let text = help(&[command]);
    let flags = text.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let long = flags.filter_map(|line| line.split([' ', '=', '[']).find_map(|word| word.strip_prefix("--")));
    long.map(str::to_owned).collect()
}

/// The long flags of a command.
pub(crate) fn of(command: &str) -> BTreeSet<String> {
    let announced = ANNOUNCED.iter().filter(|(name, _)| *name == command).flat_map(|(_, flags)| flags.iter());
    let mut all = own(command);
    all.extend(announced.map(|flag| (*flag).to_owned()));
    assert!(!all.is_empty(), "there is no `verger {command}`");
    all
}

/// Every flag of a command line, `COMMAND --flag=value …`, is one of the command's.
pub(crate) fn assert_known(line: &[String], place: &str) {
    let known = of(&line[0]);
    for word in &line[1..] {
        let flag = word.strip_prefix("--").unwrap_or_else(|| panic!("{place}: {word} is no flag"));
        let flag = flag.split('=').next().unwrap();
        assert!(known.contains(flag), "{place}: `verger {}` has no flag --{flag}", line[0]);
    }
}

/// The value of a flag in such a command line.
pub(crate) fn value<'a>(line: &'a [String], flag: &str) -> Option<&'a str> {
    line.iter().find_map(|word| word.strip_prefix("--")?.strip_prefix(flag)?.strip_prefix('='))
}

/// Every variable is one that somebody takes, and none holds a secret: those that could hold the name of a file.
pub(crate) fn assert_variable(name: &str, literal: Option<&str>, place: &str) {
    static TAKEN: OnceLock<String> = OnceLock::new();
    let taken = TAKEN.get_or_init(|| help(&["coordinator"]) + &help(&["cluster", "join"]));
    let is_known = FOREIGN.contains(&name) || MEMBER.contains(&name) || taken.contains(&format!("[env: {name}="));
    assert!(is_known, "{place}: nobody takes {name}");
    let is_secret = ["TOKEN", "SECRET", "PASSWORD", "KEY", "CREDENTIALS"].iter().any(|word| name.contains(word));
    if let Some(text) = literal.filter(|_| is_secret) {
        assert!(text.starts_with('/'), "{place}: {name} holds what should be a reference");
    }
}

#[test]
fn nothing_is_announced_that_is_there() {
    for (command, flags) in ANNOUNCED {
        let own = own(command);
        let there: Vec<_> = flags.iter().filter(|flag| own.contains(**flag)).collect();
        assert!(there.is_empty(), "`verger {command}` has {there:?}: take them out of ANNOUNCED");
    }
}

#[test]
fn flags_are_read_from_the_help() {
    let coordinator = own("coordinator");
    for flag in ["data-dir", "peer-cert", "workers", "secrets", "ledger-archive", "memory-limit", "listen"] {
        assert!(coordinator.contains(flag), "{flag}: {coordinator:?}");
    }
    assert!(!coordinator.contains("full"));
}

/// The YAML documents of a text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---").map(|part| serde_saphyr::from_str::<Value>(part).unwrap());
    parts.filter(|document| !document.is_null()).collect()
}

/// Strings of a list.
pub(crate) fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|one| one.as_str().unwrap().to_owned()).collect()
}

/// A program that is on PATH; a loud word if it is not.
pub(crate) fn is_there(program: &str, arguments: &[&str], what: &str) -> bool {
    let output = std::process::Command::new(program).args(arguments).output();
    let there = output.is_ok_and(|output| output.status.success());
    if !there {
        crate::support::skipped(&format!("no {program} on PATH: {what}"));
    }
    there
}

/// What a program prints that must end well.
pub(crate) fn printed(program: &str, arguments: &[&str]) -> String {
    String::from_utf8(run(std::process::Command::new(program).args(arguments)).stdout).unwrap()
}
