//! `idlewatch run`: for ever, or once, with the state or without a trace.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use log::warn;

use super::selection::{AccountSelection, MailboxSelection, problem};
use super::{Exit, Globals};
use crate::app::{self, RunOptions};
use crate::config::settings::{Account, Initial, OutputFormat, OutputKind, OutputSettings, Policy, Settings};
use crate::config::{self, Issue};
use crate::coordinator::reload::Loader;
use crate::imap::conversation::ToldFrom;
use crate::mailbox_choice::MailboxChoice;
use crate::once::{self, Pass};
use crate::since::Since;
use crate::sink::StateUse;

/// Flags of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// One look at every account: what is new since the last time is told, and that was it.
    #[arg(long)]
    once: bool,
    /// Connect and print, and leave no trace: no state is written, and no other output is told anything.
    #[arg(long, conflicts_with = "new_state")]
    dry_run: bool,
    /// Tell messages from then on, whatever was told before: `24h`, `2026-11-24T08:00:00Z`, or a UID. The state is neither read nor written.
    #[arg(long, value_name = "AGE|RFC3339|UID")]
    since: Option<Since>,
    /// With `--once --since`: the state goes on from there.
    #[arg(long, requires_all = ["once", "since"], conflicts_with = "dry_run")]
    save: bool,
    #[command(flatten)]
    accounts: AccountSelection,
    #[command(flatten)]
    mailboxes: MailboxSelection,
    /// Only these outputs (`stdout` is known even where it is not configured); events wait in the journal for the others. May be given several times.
    #[arg(long = "output", value_name = "NAME")]
    outputs: Vec<String>,
    /// The form of events on stdout.
    #[arg(long)]
    format: Option<FormatArg>,
    /// Move a damaged journal aside and begin anew: every mailbox with a baseline.
    #[arg(long)]
    new_state: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FormatArg {
    Auto,
    Ecs,
    Flat,
    #[value(name = "cloudevents")]
    CloudEvents,
    Pretty,
}

pub(super) fn execute(args: RunArgs, globals: &Globals) -> Exit {
    let is_monitor = args.state() == StateUse::Kept && !args.once;
    let load = if is_monitor { config::start } else { config::load };
    let settings = match globals.load_by(load) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let settings = match args.narrow(settings) {
        Ok(settings) => settings,
        Err(problem) => return globals.refuse(&problem),
    };
    if is_monitor && settings.narrowed && settings.journal.database.is_some() {
        warn!("--account and --mailbox narrow this monitor alone: what else is of its shards nobody watches");
    }
    let options = RunOptions {
        new_state: args.new_state,
        once: args.once.then(|| Pass {
            anew: args.since.filter(|_| args.save).map(|Since(from)| from),
            ..Pass::default()
        }),
        state: args.state(),
        at_rest: args.at_rest(&settings),
        loader: is_monitor.then(|| loader(globals.files.clone(), args)),
    };
    app::run(&settings, &options, Box::pin(std::future::pending()))
}

/// Stricter than a start: whatever is named and not there is an error, since there is something better to go on with.
fn loader(files: Vec<PathBuf>, args: RunArgs) -> Loader {
    let (accounts, mailboxes) = (args.accounts.clone(), args.mailboxes.clone());
    let load = {
        let files = files.clone();
        move || {
            let (settings, warnings) = config::reload(&files)?;
            Ok((args.narrow(settings).map_err(|problem| vec![problem])?, warnings))
        }
    };
    Loader::new(files, load).narrowing(move |mut all| {
        // What is wrong with the flags was told at the start.
        let narrowed = accounts.narrow_these(&mut all).and_then(|()| mailboxes.narrow_these(&mut all));
        narrowed.map(|()| all).unwrap_or_default()
    })
}

impl RunArgs {
    fn state(&self) -> StateUse {
        match (self.since, self.dry_run) {
            (Some(_), _) if !self.save => StateUse::Apart,
            (_, true) => StateUse::Read,
            _ => StateUse::Kept,
        }
    }

    /// The settings as the flags have them.
    fn narrow(&self, mut settings: Settings) -> Result<Settings, Issue> {
        self.accounts.narrow(&mut settings)?;
        self.mailboxes.narrow(&mut settings)?;
        if let Some(Since(from)) = self.since {
            begin_with(&mut settings, from)?;
        }
        self.choose_outputs(&mut settings)?;
        if self.once {
            once::narrow_gate(&mut settings);
        }
        if let Some(format) = self.format {
            let stdout = settings.outputs.iter_mut().filter(|output| output.kind == OutputKind::Stdout);
            stdout.for_each(|output| output.format = format.into());
        }
        Ok(settings)
    }

    /// Where the state is kept, the others stay: events wait for them.
    fn choose_outputs(&self, settings: &mut Settings) -> Result<(), Issue> {
        let kept = self.state() == StateUse::Kept;
        if kept && self.outputs.is_empty() {
            return Ok(());
        }
        let wanted =
            |name: &str| self.outputs.is_empty() && name == STDOUT || self.outputs.iter().any(|o| o == name);
        let is_stdout = |output: &OutputSettings| output.kind == OutputKind::Stdout;
        if wanted(STDOUT) && !settings.outputs.iter().any(|output| output.name == STDOUT) {
            match settings.outputs.iter_mut().find(|output| is_stdout(output)) {
                // By whatever name it goes.
                Some(stdout) if !kept => stdout.name = STDOUT.to_owned(),
                Some(_) => {}
                None => settings.outputs.push(config::stdout_output()),
            }
        }
        for name in &self.outputs {
            let Some(output) = settings.outputs.iter().find(|output| output.name == *name) else {
                let names: Vec<_> = settings.outputs.iter().map(|output| output.name.as_str()).collect();
                let message = format!("there is no [outputs.{name}]; there are: {}", names.join(", "));
                return Err(problem("--output", message));
            };
            if self.dry_run && !is_stdout(output) {
                return Err(problem("--output", "a dry run prints, and tells no other output"));
            }
            if !kept && matches!(output.kind, OutputKind::File { .. }) {
                let message = format!(
                    "the file of [outputs.{name}] is written together with the state; print, and redirect that"
                );
                return Err(problem("--output", message));
            }
        }
        if !kept {
            settings.outputs.retain(|output| wanted(&output.name));
        }
        Ok(())
    }

    /// The outputs that are not named.
    fn at_rest(&self, settings: &Settings) -> Vec<String> {
        let others = settings.outputs.iter().filter(|output| !self.outputs.contains(&output.name));
        if self.outputs.is_empty() { Vec::new() } else { others.map(|output| output.name.clone()).collect() }
    }
}

const STDOUT: &str = "stdout";

/// Every first contact tells from there.
fn begin_with(settings: &mut Settings, from: ToldFrom) -> Result<(), Issue> {
    // Nobody knows how many a pattern finds.
    let most =
        |mailboxes: &MailboxChoice| mailboxes.names().len() + 2 * usize::from(mailboxes.needs_listing());
    let mailboxes: usize = settings.accounts.iter().map(|account| most(&account.mailboxes)).sum();
    if matches!(from, ToldFrom::Uid(_)) && mailboxes > 1 {
        return Err(problem("--since", "a UID is of one mailbox: name it with --account and --mailbox"));
    }
    // Policies stay shared.
    let mut begun: HashMap<*const Policy, Arc<Policy>> = HashMap::new();
    for account in &mut settings.accounts {
        let policy = begun.entry(Arc::as_ptr(&account.policy)).or_insert_with(|| {
            Arc::new(Policy { initial: Initial::From(from), ..(*account.policy).clone() })
        });
        *account = Arc::new(Account { policy: policy.clone(), ..(**account).clone() });
    }
    Ok(())
}

impl From<FormatArg> for OutputFormat {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Auto => Self::Auto,
            FormatArg::Ecs => Self::Ecs,
            FormatArg::Flat => Self::Flat,
            FormatArg::CloudEvents => Self::CloudEvents,
            FormatArg::Pretty => Self::Pretty,
        }
    }
}
