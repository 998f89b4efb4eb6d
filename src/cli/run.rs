//! `idlewatch run`

use clap::{Args, ValueEnum};
use globset::Glob;

use super::{Exit, Globals, tell};
use crate::app::{self, RunOptions};
use crate::config::settings::{OutputFormat, OutputKind};

/// Flags of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Only accounts whose id matches.
    #[arg(short = 'a', long = "account", value_name = "GLOB")]
    accounts: Vec<String>,
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

pub(super) fn execute(args: &RunArgs, globals: &Globals) -> Exit {
    let mut settings = match globals.load() {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    for pattern in &args.accounts {
        if let Err(error) = Glob::new(pattern) {
            tell(&format!("error: --account: {error}"));
            return Exit::Config;
        }
    }
    let matchers: Vec<_> =
        args.accounts.iter().filter_map(|p| Some(Glob::new(p).ok()?.compile_matcher())).collect();
    if !matchers.is_empty() {
        settings.accounts.retain(|account| matchers.iter().any(|glob| glob.is_match(account.id().as_str())));
        if settings.accounts.is_empty() {
            tell("error: no account matches --account");
            return Exit::Config;
        }
    }
    if let Some(format) = args.format {
        let format = match format {
            FormatArg::Auto => OutputFormat::Auto,
            FormatArg::Ecs => OutputFormat::Ecs,
            FormatArg::Pretty => OutputFormat::Pretty,
        };
        let stdout = settings.outputs.iter_mut().filter(|output| output.kind == OutputKind::Stdout);
        stdout.for_each(|output| output.format = format);
    }
    app::run(&settings, &RunOptions { new_state: args.new_state }, Box::pin(std::future::pending()))
}
