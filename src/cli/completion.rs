//! `verger completion SHELL`.

use clap::CommandFactory;

use crate::exit::Exit;
use verger_kopia::Result;

const EXAMPLES: &str = "Examples:
  verger completion bash > /etc/bash_completion.d/verger
  verger completion zsh  > \"${fpath[1]}/_verger\"";

/// Which shell.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Shell
    shell: clap_complete::Shell,
}

/// Prints the script.
pub(crate) fn run(args: &Args) -> Result<Exit> {
    clap_complete::generate(args.shell, &mut super::Cli::command(), "verger", &mut std::io::stdout());
    Ok(Exit::Done)
}
