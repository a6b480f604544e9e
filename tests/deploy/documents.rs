//! Commands that the documents show are commands of the program, with flags that these have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::verger;

/// What the program says of its commands, asked for once each.
#[derive(Default)]
struct Helps(BTreeMap<String, String>);

impl Helps {
    fn of(&mut self, path: &[&str]) -> &str {
        self.0.entry(path.join(" ")).or_insert_with(|| {
            let home = tempfile::tempdir().unwrap();
            let output = verger(home.path()).args(path).arg("--help").output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        })
    }

    fn has_command(&mut self, path: &[&str], word: &str) -> bool {
        let lines = self.of(path).lines().skip_while(|line| *line != "Commands:").skip(1);
        let mut commands = lines.take_while(|line| !line.is_empty());
        commands.any(|line| line.strip_prefix("  ").and_then(|line| line.split(' ').next()) == Some(word))
    }

    fn has_flag(&mut self, path: &[&str], flag: &str) -> bool {
        let mut found = self.of(path).match_indices(flag).map(|(at, _)| at + flag.len()).collect::<Vec<_>>();
        let text = self.of(path);
        found.retain(|end| !text[*end..].starts_with(is_of_a_flag));
        !found.is_empty()
    }

    /// What is wrong with the words after `verger`.
    fn check(&mut self, words: &[&str], wrong: &mut Vec<String>) {
        let mut path: Vec<&str> = Vec::new();
        let mut rest = words.iter().copied();
        let mut ahead = rest.clone();
        while let Some(word) = ahead.next() {
            if word.contains('|') && word.split('|').all(|one| self.has_command(&path, one)) {
                let after: Vec<&str> = ahead.collect();
                return word.split('|').for_each(|one| self.check(&[&path[..], &[one], &after].concat(), wrong));
            }
            if !self.has_command(&path, word) {
                break;
            }
            path.push(word);
            rest = ahead.clone();
        }
        if path.is_empty() && words.first().is_none_or(|word| !word.starts_with('-')) {
            return wrong.push(format!("there is no `verger {}`", words.join(" ")));
        }
        let next = rest.clone().next().filter(|word| !word.starts_with(['-', '[', '…']));
        if let Some(next) = next.filter(|_| !path.is_empty() && self.of(&path).contains("\nCommands:\n")) {
            wrong.push(format!("there is no `verger {} {next}`", path.join(" ")));
        }
        for word in rest.map(|word| word.trim_start_matches(['[', '(', '`'])).filter(|word| word.starts_with("--")) {
            let flag = word.trim_end_matches(|c| !is_of_a_flag(c));
            let flag = flag.split(|c| !is_of_a_flag(c)).next().unwrap();
            if flag.len() > 2 && !self.has_flag(&path, flag) {
                wrong.push(format!("`verger {}` has no {flag}", path.join(" ")));
            }
        }
    }
}

fn is_of_a_flag(c: char) -> bool {
    c == '-' || c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Command lines of a document: those of indented blocks, and those between backticks.
fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let block = |line: &str| {
        let line = line.strip_prefix("    ")?;
        let is_setting = |word: &&str| {
            word.split_once('=').is_some_and(|(name, _)| name.bytes().all(|b| b == b'_' || b.is_ascii_uppercase()))
        };
        let words: Vec<&str> = line.split(' ').skip_while(is_setting).collect();
        (words.first() == Some(&"verger")).then(|| words.join(" "))
    };
    let inline = |line: &str| {
        let quoted = line.split('`').skip(1).step_by(2).filter(|text| text.starts_with("verger "));
        quoted.map(str::to_owned).collect::<Vec<_>>()
    };
    joined.lines().flat_map(|line| block(line).into_iter().chain(inline(line)).collect::<Vec<_>>()).collect()
}

/// Without what the shell does with it, and what is said beside it.
fn bare(command: &str) -> Vec<&str> {
    let ends = [" | ", " > ", " #", ";", " && "].map(|end| command.find(end).unwrap_or(command.len()));
    // A word beside a command stands after more than one space.
    let beside =
        command.find("  ").filter(|at| !command[*at..].trim_start().starts_with(['-', '/'])).unwrap_or(command.len());
    let end = ends.into_iter().min().unwrap_or(command.len()).min(beside);
    command[..end].split_whitespace().skip(1).collect()
}

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Decisions tell of their day.
        if path.is_dir() && !path.ends_with("decisions") {
            documents(&path, found);
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(path);
        }
    }
}

#[test]
fn commands_in_the_documents_are_commands_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    documents(&root.join("docs"), &mut all);
    let (mut helps, mut wrong, mut count) = (Helps::default(), Vec::new(), 0);
    for path in &all {
        for command in commands(&std::fs::read_to_string(path).unwrap()) {
            let words = bare(&command);
            if words.is_empty() {
                continue;
            }
            count += 1;
            let before = wrong.len();
            helps.check(&words, &mut wrong);
            wrong[before..].iter_mut().for_each(|one| *one = format!("{}: {one}: {command}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "only {count} commands were found");
}

#[test]
fn what_is_no_command_or_no_flag_is_found() {
    let mut helps = Helps::default();
    let mut wrong = Vec::new();
    for command in
        commands("    verger cycle list|show 3 --json\n    A=b verger repo ad x\n`verger cycle start x --ful`")
    {
        helps.check(&bare(&command), &mut wrong);
    }
    assert!(wrong.len() == 2 && wrong[0].contains("repo ad") && wrong[1].contains("--ful"), "{wrong:?}");
    helps.check(&["cycel", "list"], &mut wrong);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
}
