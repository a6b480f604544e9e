//! `docs/safety.md` against the sources: every rule has its row, and what a row names is there.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use verger_kopia::mutant::Mutant;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where a path of the page may begin.
const BEGINNINGS: [&str; 3] = ["", "worker/src/", "kopia/src/maintenance/"];

struct Row {
    rule: String,
    kept_in: Vec<String>,
    tests: Vec<String>,
    mutants: String,
}

fn page() -> String {
    fs::read_to_string(Path::new(ROOT).join("docs/safety.md")).unwrap()
}

/// What stands between backticks, `{a,b}` spread out.
fn quoted(cell: &str) -> Vec<String> {
    let words = cell.split('`').skip(1).step_by(2);
    let spread = |word: &str| match word.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?))) {
        Some((head, (inner, tail))) => inner.split(',').map(|part| format!("{head}{part}{tail}")).collect(),
        None => vec![word.to_owned()],
    };
    words.flat_map(spread).collect()
}

fn is_rule(word: &str) -> bool {
    word.starts_with(['R', 'I', 'S', 'P']) && word.len() > 1 && word[1..].bytes().all(|byte| byte.is_ascii_digit())
}

fn rows() -> Vec<Row> {
    let cells =
        |line: &str| -> Vec<String> { line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect() };
    let page = page();
    let lines = page.lines().filter(|line| line.starts_with('|')).map(cells);
    let rows = lines.filter(|cells| cells[0].split(' ').next().is_some_and(is_rule)).map(|cells| {
        assert_eq!(cells.len(), 5, "{cells:?}");
        let rule = cells[0].split(' ').next().unwrap().to_owned();
        Row { rule, kept_in: quoted(&cells[2]), tests: quoted(&cells[3]), mutants: cells[4].clone() }
    });
    rows.collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|x| x == "rs") {
            files.push(path);
        }
    }
}

/// Names of all tests, with the files that have them.
fn tests() -> BTreeMap<String, Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in ["src", "tests", "kopia", "proto", "coordinator", "worker"] {
        collect(&Path::new(ROOT).join(folder), &mut files);
    }
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        // Those of `proptest!` bear the attribute too.
        for after in text.split("#[test]").skip(1) {
            let name = after.split_once("fn ").and_then(|(_, rest)| rest.split_once('(')).unwrap().0;
            found.entry(name.to_owned()).or_default().push(file.clone());
        }
    }
    assert!(found.len() > 300, "the tests were not found");
    found
}

fn is_path(word: &str) -> bool {
    word.ends_with(".rs") || word.contains('/')
}

fn exists(word: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| Path::new(ROOT).join(beginning).join(word).exists())
}

/// Tests of the page by this name, or by its beginning if it ends in an ellipsis.
fn matching<'a>(tests: &'a BTreeMap<String, Vec<PathBuf>>, word: &str) -> Vec<&'a str> {
    let names = tests.keys().map(String::as_str);
    match word.strip_suffix('…') {
        Some(start) => names.filter(|name| name.starts_with(start)).collect(),
        None => names.filter(|name| *name == word).collect(),
    }
}

fn is_test_name(word: &str) -> bool {
    let rule = word.split('_').next().unwrap_or_default();
    word.contains('_') && rule.len() > 1 && is_rule(&rule.to_uppercase())
}

/// Mutant, test program and test, as `tests/mutants.txt` has them.
fn table() -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(ROOT).join("tests/mutants.txt")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.len(), 3, "{line}");
        (words[0].to_owned(), words[2].rsplit("::").next().unwrap().to_owned())
    };
    lines.map(row).collect()
}

#[test]
fn every_rule_has_one_row_and_a_test_with_its_number() {
    let wanted = (1..=27).map(|n| format!("R{n}")).chain((1..=14).map(|n| format!("I{n}")));
    let wanted = wanted.chain((1..=9).map(|n| format!("S{n}"))).chain((2..=6).map(|n| format!("P{n}")));
    let wanted: BTreeSet<String> = wanted.collect();
    let rules: Vec<String> = rows().into_iter().map(|row| row.rule).collect();
    assert_eq!(rules.len(), wanted.len(), "a rule has no row, or two");
    assert_eq!(rules.into_iter().collect::<BTreeSet<_>>(), wanted);
    let numbers = |name: &str| -> Vec<String> {
        name.split('_').map(str::to_uppercase).take_while(|word| is_rule(word)).collect()
    };
    let carried: BTreeSet<String> = tests().keys().flat_map(|name| numbers(name)).collect();
    let without: Vec<&String> = wanted.difference(&carried).collect();
    assert!(without.is_empty(), "no test carries the number of {without:?}");
}

#[test]
fn what_a_row_names_is_there() {
    let tests = tests();
    for Row { rule, kept_in, tests: words, .. } in rows() {
        for path in kept_in.iter().chain(&words).filter(|word| is_path(word)) {
            assert!(exists(path), "{rule}: there is no {path}");
        }
        let names: Vec<&String> = words.iter().filter(|word| is_test_name(word)).collect();
        assert!(!names.is_empty(), "{rule}: no test");
        for name in &names {
            assert!(!matching(&tests, name).is_empty(), "{rule}: no test {name}");
        }
        let own = format!("{}_", rule.to_lowercase());
        let carries = |name: &str| name.starts_with(&own) || name.contains(&format!("_{own}"));
        let found = names.iter().flat_map(|name| matching(&tests, name)).any(carries);
        assert!(found, "{rule}: no test of its row carries its number");
    }
}

#[test]
fn every_mutant_has_a_row_and_a_test_that_the_row_names() {
    let tests = tests();
    let names: BTreeSet<String> = Mutant::ALL.iter().map(|mutant| format!("{mutant:?}")).collect();
    assert_eq!(names.len(), Mutant::ALL.len());
    let table = table();
    let caught: BTreeMap<&str, &str> = table.iter().map(|(mutant, test)| (mutant.as_str(), test.as_str())).collect();
    assert_eq!(caught.len(), table.len(), "a mutant is there twice");
    let listed: BTreeSet<String> = caught.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(listed, names, "tests/mutants.txt and kopia/src/mutant.rs");
    let mut shown = BTreeSet::new();
    for row in rows() {
        let mutants = quoted(&row.mutants);
        let argument = row.mutants.starts_with("none: ") || row.mutants.starts_with("those ");
        assert!(argument == mutants.is_empty(), "{}: mutants, or why there are none", row.rule);
        for mutant in mutants {
            assert!(names.contains(&mutant), "{}: no mutant {mutant}", row.rule);
            let test = caught[mutant.as_str()];
            let is_named = row.tests.iter().any(|word| matching(&tests, word).contains(&test));
            assert!(is_named, "{}: {test} catches {mutant}, and its row does not name it", row.rule);
            shown.insert(mutant);
        }
    }
    let hidden: Vec<&String> = names.difference(&shown).collect();
    assert!(hidden.is_empty(), "in no row: {hidden:?}");
}

#[test]
fn each_mutant_is_at_work_somewhere() {
    let mut files = Vec::new();
    for folder in ["src", "kopia/src", "coordinator/src", "worker/src"] {
        collect(&Path::new(ROOT).join(folder), &mut files);
    }
    let sources: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let is_idle = |mutant: &&Mutant| !sources.contains(&format!("mutant::on(Mutant::{mutant:?})"));
    let idle: Vec<&Mutant> = Mutant::ALL.iter().filter(is_idle).collect();
    assert!(idle.is_empty(), "{idle:?} take nothing out");
}
