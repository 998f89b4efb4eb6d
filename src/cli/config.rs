//! `idlewatch config`

use clap::{Args, Subcommand};

use super::{Exit, Globals, say, tell_issues};
use crate::config::{keys, load};

/// What to show.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// All layers merged, secrets masked.
    Print(PrintArgs),
    /// The JSON schema of the configuration.
    Schema,
    /// The files that are read, in this order.
    Path,
}

/// Flags of `config print`.
#[derive(Debug, Args)]
pub(super) struct PrintArgs {
    /// Every key there is, with its default, instead.
    #[arg(long)]
    reference: bool,
}

pub(super) fn execute(command: &ConfigCommand, globals: &Globals) -> Exit {
    match command {
        ConfigCommand::Schema => say(&format!("{:#}\n", keys::schema())),
        ConfigCommand::Print(PrintArgs { reference: true }) => say(&keys::reference()),
        ConfigCommand::Print(PrintArgs { reference: false }) => match crate::config::merged(&globals.files) {
            Ok(text) => say(&text),
            Err(issues) => {
                tell_issues(&issues);
                Exit::Config
            }
        },
        ConfigCommand::Path => {
            if globals.has_no_file() {
                return Exit::Config;
            }
            let files = load::files(&globals.files);
            say(&files.iter().map(|file| format!("{}\n", file.display())).collect::<String>())
        }
    }
}
