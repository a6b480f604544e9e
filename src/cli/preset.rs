//! The configuration file's sections that are named after commands, as those commands' defaults: so each flag of a service has its key,
//! and flags and environment come before it.

use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory};
use verger_kopia::{Error, ErrorKind, Result};

use super::Cli;
use crate::config::file::File;

/// The command line, with what the file says in place of defaults.
///
/// # Errors
/// `Usage` for a key that is no flag of the command.
pub(super) fn command(path: Option<&Path>, file: &File) -> Result<Command> {
    let mut command = Cli::command();
    for (name, flags) in file.services() {
        for (flag, values) in flags.values() {
            let section = command.find_subcommand(name);
            let known = section.and_then(|section| section.get_arguments().find(|arg| arg.get_long() == Some(flag)));
            let Some(id) = known.map(|arg| arg.get_id().clone()) else {
                let file = path.unwrap_or(Path::new("")).display();
                let step = format!("read configuration file {file}: {name}: there is no flag --{flag}");
                let fix = format!("See `verger {name} --help`, or take the key out");
                return Err(Error::new(ErrorKind::Usage, step).with_fix(fix));
            };
            command = command.mut_subcommand(name, |section| {
                section.mut_arg(id, |arg: Arg| arg.required(false).default_values(values))
            });
        }
    }
    Ok(command)
}

/// The file that the command line or the environment names, before anything else of them is understood.
pub(super) fn named() -> Option<PathBuf> {
    let only = Cli::command().ignore_errors(true).try_get_matches().ok()?;
    only.get_one::<PathBuf>("config").cloned()
}
