//! `idlewatch run`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::selection::AccountSelection;
use super::{Exit, Globals, tell};
use crate::app::{self, RunOptions};
use crate::config::settings::{OutputFormat, OutputKind, Settings};
use crate::config::{self, Issue};
use crate::coordinator::reload::Loader;

/// Flags of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    accounts: AccountSelection,
    /// The form of events on stdout.
    #[arg(long)]
    format: Option<FormatArg>,
    /// Move a damaged journal aside and begin anew: every mailbox with a baseline.
    #[arg(long)]
    new_state: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    Auto,
    Ecs,
    Pretty,
}

pub(super) fn execute(args: RunArgs, globals: &Globals) -> Exit {
    let settings = match globals.load() {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let settings = match args.narrow(settings) {
        Ok(settings) => settings,
        Err(problem) => {
            tell(&format!("error: {problem}"));
            return Exit::Config;
        }
    };
    let new_state = args.new_state;
    let options = RunOptions { new_state, loader: Some(loader(globals.files.clone(), args)) };
    app::run(&settings, &options, Box::pin(std::future::pending()))
}

/// Stricter than a start: whatever is named and not there is an error, since there is something better to go on with.
fn loader(files: Vec<PathBuf>, args: RunArgs) -> Loader {
    Loader::new(move || {
        let (settings, warnings) = config::check(&files)?;
        Ok((args.narrow(settings).map_err(|problem| vec![problem])?, warnings))
    })
}

impl RunArgs {
    /// The settings as the flags have them.
    fn narrow(&self, mut settings: Settings) -> Result<Settings, Issue> {
        self.accounts.narrow(&mut settings)?;
        if let Some(format) = self.format {
            let stdout = settings.outputs.iter_mut().filter(|output| output.kind == OutputKind::Stdout);
            stdout.for_each(|output| output.format = format.into());
        }
        Ok(settings)
    }
}

impl From<FormatArg> for OutputFormat {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Auto => Self::Auto,
            FormatArg::Ecs => Self::Ecs,
            FormatArg::Pretty => Self::Pretty,
        }
    }
}
