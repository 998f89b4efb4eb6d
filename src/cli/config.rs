//! `idlewatch config`

use clap::{Args, Subcommand};

use super::{Exit, Globals, say};
use crate::config::starter::Starter;
use crate::config::{self, keys};

/// What to show.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// All layers merged, each account with its place, secrets masked.
    Print(PrintArgs),
    /// A configuration to begin with, on stdout: commented, to be edited.
    Init(ConfigInitArgs),
    /// The JSON schema of the configuration.
    Schema,
    /// The files that are read, in this order: configurations, then lists of accounts.
    Path,
}

/// Flags of `config print`.
#[derive(Debug, Args)]
pub(super) struct PrintArgs {
    /// Every key there is, with its default, instead.
    #[arg(long)]
    reference: bool,
}

/// Flags of `config init`.
#[derive(Debug, Args)]
pub(super) struct ConfigInitArgs {
    /// For an account of this provider, like `gmail`.
    #[arg(long)]
    provider: Option<String>,
}

pub(super) fn execute(command: &ConfigCommand, globals: &Globals) -> Exit {
    match command {
        ConfigCommand::Init(args) => init(args.provider.as_deref(), globals),
        ConfigCommand::Schema => say(&format!("{:#}\n", keys::schema())),
        ConfigCommand::Print(PrintArgs { reference: true }) => say(&keys::reference()),
        ConfigCommand::Print(PrintArgs { reference: false }) if globals.has_no_file() => Exit::Config,
        ConfigCommand::Print(PrintArgs { reference: false }) => match config::merged(&globals.files) {
            Ok(text) => say(&text),
            Err(issues) => {
                globals.tell_issues(&issues);
                Exit::Config
            }
        },
        ConfigCommand::Path => {
            if globals.has_no_file() {
                return Exit::Config;
            }
            let files = config::files(&globals.files);
            say(&files.iter().map(|file| format!("{}\n", file.display())).collect::<String>())
        }
    }
}

fn init(provider: Option<&str>, globals: &Globals) -> Exit {
    let text = Starter::example(provider).text();
    match config::from_text("--provider", &text) {
        Ok(_) => say(&text),
        Err(issues) => {
            globals.tell_issues(&issues);
            Exit::Usage
        }
    }
}
