//! `idlewatch state`: what the monitor keeps.

mod dead_letters;
mod known;

use clap::Subcommand;

use super::selection;
use super::{Exit, Globals, say, tell};
use crate::config::settings::Settings;
use crate::journal::OpenError;
use crate::journal::lock::StateLock;

/// What to look at, and what to do with it.
#[derive(Debug, Subcommand)]
pub(super) enum StateCommand {
    /// List the mailboxes that are known, and where each stands. The monitor may run.
    List(known::ListArgs),
    /// Show all that is known of an account. The monitor may run.
    Show(known::ShowArgs),
    /// Forget an account, or a mailbox of it: it begins anew, with a baseline. The monitor must not run.
    Forget(known::ForgetArgs),
    /// Write what is known of mailboxes, logins and hosts as JSON lines, for another machine. The monitor may run.
    Export(known::ExportArgs),
    /// Take in what `export` wrote. The monitor must not run.
    Import(known::ImportArgs),
    /// Make a damaged journal whole: what can be read is kept, what is lost is told. The monitor must not run.
    Repair,
    /// Events that an output never took.
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
}

impl StateCommand {
    /// Whether it needs no journal, or takes any.
    fn takes_any_journal(&self) -> bool {
        matches!(self, Self::DeadLetters(_))
    }
}

type Done = Result<Exit, (Exit, String)>;

pub(super) fn execute(command: &StateCommand, globals: &Globals) -> Exit {
    let settings = match globals.load() {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    if settings.journal.database.is_some() && !command.takes_any_journal() {
        tell("error: only the state of a journal in a file can be looked at and changed; docs/cluster.md");
        return Exit::CannotStart;
    }
    let done = match command {
        StateCommand::List(args) => known::list(args, &settings),
        StateCommand::Show(args) => known::show(args, &settings),
        StateCommand::Forget(args) => known::forget(args, &settings),
        StateCommand::Export(args) => known::export(args, &settings),
        StateCommand::Import(args) => known::import(args, &settings),
        StateCommand::Repair => known::repair(&settings),
        StateCommand::DeadLetters(command) => dead_letters::execute(command, &settings),
    };
    done.unwrap_or_else(|(exit, problem)| {
        tell(&format!("error: {problem}"));
        exit
    })
}

/// Nobody else writes the state meanwhile.
fn lock(settings: &Settings) -> Result<StateLock, (Exit, String)> {
    StateLock::take(&settings.monitor.state_dir).map_err(not_opened)
}

fn not_opened(error: OpenError) -> (Exit, String) {
    match error {
        OpenError::Locked { .. } | OpenError::Held { .. } => {
            (Exit::Locked, format!("{error}: stop it first"))
        }
        error => (Exit::CannotStart, error.to_string()),
    }
}
