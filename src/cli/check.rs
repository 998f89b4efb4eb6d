//! `idlewatch check`: the configuration, then every account once.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use log::error;
use serde_json::{Value, json};

use super::selection::AccountSelection;
use super::{Exit, Globals, say};
use crate::account::session::Wires;
use crate::config::settings::Settings;
use crate::config::{Issue, Severity};
use crate::imap::changes::WantedChanges;
use crate::journal::sqlite::peek;
use crate::once::MOST_AT_ONCE;
use crate::process;
use crate::survey::report::AccountReport;
use crate::survey::runner::survey_all;
use crate::survey::summary::{Summary, exit};
use crate::survey::table;
use crate::terminal::has_colors;
use crate::text::counted;

/// Flags of `check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The configuration only: nothing is connected to.
    #[arg(long)]
    no_network: bool,
    #[command(flatten)]
    accounts: AccountSelection,
    /// Warnings are errors.
    #[arg(long)]
    deny_warnings: bool,
    /// All that was found as one JSON object on stdout: docs/check.md.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &CheckArgs, globals: &Globals) -> Exit {
    if globals.has_no_file() {
        return Exit::Config;
    }
    let (mut settings, warnings) = match crate::config::check(&globals.files) {
        Ok(loaded) => loaded,
        Err(issues) => return args.invalid(&issues, globals),
    };
    if let Err(problem) = args.accounts.narrow(&mut settings) {
        return globals.refuse(&problem);
    }
    if !args.json {
        globals.tell_warnings(&warnings);
    }
    let denied = args.denies(&warnings);
    match (args.no_network, denied) {
        (false, false) => args.online(&settings, &warnings, globals),
        (_, true) => args.offline(&settings, &warnings).and(Exit::Config),
        (true, false) => args.offline(&settings, &warnings),
    }
}

impl CheckArgs {
    fn denies(&self, warnings: &[Issue]) -> bool {
        self.deny_warnings && !warnings.is_empty()
    }

    fn invalid(&self, issues: &[Issue], globals: &Globals) -> Exit {
        if self.json {
            let _ = say(&format!("{}\n", json!({"ok": false, "issues": rows(issues)})));
        } else {
            globals.tell_issues(issues);
        }
        Exit::Config
    }

    fn offline(&self, settings: &Settings, warnings: &[Issue]) -> Exit {
        if self.json {
            return say(&format!("{}\n", json!({"ok": !self.denies(warnings), "issues": rows(warnings)})));
        }
        let word = if self.denies(warnings) { "refused for its warnings" } else { "ok" };
        say(&format!("{}{word}: {}\n", guesses(settings), overview(settings)))
    }

    fn online(&self, settings: &Settings, warnings: &[Issue], globals: &Globals) -> Exit {
        globals.log(&settings.log);
        let reports = match survey(settings, globals.quiet || self.json) {
            Ok(reports) => reports,
            Err(exit) => return exit,
        };
        let summary = Summary::new(&reports, &settings.connections);
        let said = if self.json {
            let ok = summary.failed == 0;
            let all = json!({"ok": ok, "issues": rows(warnings), "summary": summary, "accounts": reports});
            say(&format!("{all}\n"))
        } else {
            let text = table::text(&reports, &summary, has_colors(io::stdout().is_terminal()));
            say(&format!("{text}{}configuration: {}\n", guesses(settings), overview(settings)))
        };
        match exit(&reports) {
            Exit::Ok if self.deny_warnings && summary.has_warnings() => said.and(Exit::SomeFailed),
            exit => said.and(exit),
        }
    }
}

/// Looks at every account that is enabled.
fn survey(settings: &Settings, quiet: bool) -> Result<Vec<AccountReport>, Exit> {
    let accounts: Vec<_> = settings.accounts.iter().filter(|account| account.enabled).cloned().collect();
    let at_once = accounts.len().min(MOST_AT_ONCE);
    if let Err(error) = process::reserve_descriptors(at_once as u64) {
        error!("{error}");
        return Err(Exit::CannotStart);
    }
    let order: HashMap<_, _> =
        accounts.iter().enumerate().map(|(i, account)| (account.id().to_string(), i)).collect();
    let refusals = peek::refusals(&settings.monitor.state_dir);
    let (wires, _prober) = Wires::new(settings);
    let told: Vec<_> = settings.events.told_by(&settings.outputs).collect();
    let changes = WantedChanges::of(&told);
    let progress = progress(accounts.len(), quiet);
    let mut reports = Vec::with_capacity(accounts.len());
    let mut failed = 0;
    actix::System::new().block_on(survey_all(accounts, refusals, &wires, MOST_AT_ONCE, |finding| {
        let report = AccountReport::new(&finding, changes, Timestamp::now());
        failed += usize::from(!report.ok);
        progress.inc(1);
        progress.set_message(format!("ok {} · failed {failed}", reports.len() + 1 - failed));
        reports.push(report);
    }));
    progress.finish_and_clear();
    reports.sort_by_key(|report| order.get(&report.account).copied());
    Ok(reports)
}

/// A line on stderr where that is a terminal.
fn progress(accounts: usize, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("checking {human_pos}/{human_len} · {msg} · {per_sec} · ETA {eta}");
    let bar = ProgressBar::new(accounts as u64);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message("connecting");
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// How many are named; how many patterns find, only the server knows.
fn mailboxes(settings: &Settings) -> String {
    let named: usize = settings.accounts.iter().map(|account| account.mailboxes.names().len()).sum();
    let mailboxes = counted(named, "mailbox");
    match settings.accounts.iter().filter(|account| account.mailboxes.needs_listing()).count() {
        0 => mailboxes,
        patterned => {
            format!("{mailboxes} by name, more by the patterns of {}", counted(patterned, "account"))
        }
    }
}

/// The providers that nobody named, with the first of their accounts.
fn guesses(settings: &Settings) -> String {
    let mut guessed: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for account in &settings.accounts {
        if let Some(chosen) = account.provider.as_ref().filter(|chosen| chosen.guessed) {
            guessed.entry(chosen.to_string()).or_default().push(account.id().as_str());
        }
    }
    let lines = guessed.iter().map(|(guess, ids)| match ids.as_slice() {
        [id] => format!("{guess}: {id}\n"),
        [first, others @ ..] => format!("{guess}: {first} and {} more\n", others.len()),
        [] => String::new(),
    });
    lines.collect()
}

fn overview(settings: &Settings) -> String {
    let mailboxes = mailboxes(settings);
    let outputs: Vec<_> = settings.outputs.iter().map(|output| output.name.clone()).collect();
    format!(
        "{}, {mailboxes}, outputs: {}, state: {}",
        counted(settings.accounts.len(), "account"),
        outputs.join(", "),
        settings.monitor.state_dir.display()
    )
}

fn rows(issues: &[Issue]) -> Vec<Value> {
    let row = |issue: &Issue| {
        let severity = if issue.severity == Severity::Error { "error" } else { "warning" };
        json!({"severity": severity, "origin": issue.origin, "path": issue.path, "message": issue.message})
    };
    issues.iter().map(row).collect()
}
