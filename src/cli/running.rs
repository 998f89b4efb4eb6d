//! Commands that ask the monitor that runs: `status`, `accounts`, `resume`, `reconnect`, `reload`.

use std::fmt::Write;
use std::io::ErrorKind;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::accounts_table::{ExportArgs, ImportArgs};
use super::monitor::failed;
use super::outputs::standing;
use super::selection::AccountSelection;
use super::{Exit, Globals, not_said, say, tell, write_out};
use crate::admin::client::{AskError, MonitorClient};
use crate::event::AccountState;
use crate::messages::ReloadReport;
use crate::status::{AccountPage, AccountReport, MonitorStatus, Mood, TroubleGroup, WishReport, ago};
use crate::terminal::{self, Paint};
use crate::text::line;

/// Between two looks of `--watch`.
const LOOK: Duration = Duration::from_secs(2);

/// Bytes of an error that are shown.
const MOST_ERROR: usize = 160;

/// Kinds of trouble that `status` shows.
const MOST_TROUBLES: usize = 10;

/// Flags of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Again every two seconds, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// The accounts in this state, too.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// As JSON.
    #[arg(long, conflicts_with = "watch")]
    json: bool,
}

/// `accounts`
#[derive(Debug, Subcommand)]
pub(super) enum AccountsCommand {
    /// The accounts of the running monitor.
    List(ListArgs),
    /// Bring a list of accounts into the table of the journal's database: docs/cluster.md.
    Import(ImportArgs),
    /// The table of the journal's database as a list of JSON lines.
    Export(ExportArgs),
}

/// Flags of `accounts list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    accounts: AccountSelection,
    /// Only those in this state: online, backoff, auth_failed, ...
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Flags of `resume` and `reconnect`.
#[derive(Debug, Args)]
pub(super) struct AccountArgs {
    /// The account.
    #[arg(short, long)]
    account: String,
}

/// 0 ready, 1 degraded, 3 not running.
pub(super) fn status(args: &StatusArgs, globals: &Globals) -> Exit {
    let state = match args.state.as_deref().map(state).transpose() {
        Ok(state) => state,
        Err(exit) => return exit,
    };
    let paint = Paint::of_stdout();
    let looked = globals.ask(|client| async move {
        loop {
            let status: MonitorStatus = client.get("/api/v1/status").await?;
            let listed = match state {
                Some(state) => accounts(&client, Some(state)).await?,
                None => Vec::new(),
            };
            let exit = if status.ready { Exit::Ok } else { Exit::Degraded };
            if globals.quiet {
                return Ok(exit);
            }
            let text = match args.json {
                true => serde_json::to_string_pretty(&status).unwrap_or_default() + "\n",
                false => {
                    overview(&status, Timestamp::now(), paint) + &table(&listed, Timestamp::now(), paint)
                }
            };
            let screen = terminal::size().filter(|_| args.watch);
            let text = screen.map_or(text.clone(), |(columns, rows)| terminal::screen(&text, columns, rows));
            match write_out(&text) {
                Ok(()) if args.watch => {}
                // Nobody looks any more.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(exit),
                Err(error) => return Ok(not_said(&error)),
                Ok(()) => return Ok(exit),
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    looked.unwrap_or_else(|error| match error {
        AskError::NotRunning(_) if globals.quiet => Exit::NotRunning,
        AskError::NotRunning(_) => {
            tell(&format!("error: {error}"));
            Exit::NotRunning
        }
        error => failed(&error),
    })
}

pub(super) fn list(args: &ListArgs, globals: &Globals) -> Exit {
    let state = match args.state.as_deref().map(state).transpose() {
        Ok(state) => state,
        Err(exit) => return exit,
    };
    let is_wanted = match args.accounts.matcher() {
        Ok(is_wanted) => is_wanted,
        Err(issue) => {
            tell(&format!("error: {issue}"));
            return Exit::Usage;
        }
    };
    let asked = globals.ask(|client| async move { accounts(&client, state).await });
    let wanted = asked.map(|mut accounts| {
        accounts.retain(|account| is_wanted(account.identity.id.as_str()));
        accounts
    });
    match wanted {
        Ok(accounts) if args.json => {
            let lines = accounts.iter().filter_map(|account| serde_json::to_string(account).ok());
            say(&lines.map(|line| line + "\n").collect::<String>())
        }
        Ok(accounts) => say(&table(&accounts, Timestamp::now(), Paint::of_stdout())),
        Err(error) => failed(&error),
    }
}

/// 1 where it was tried, and is not well.
pub(super) fn resume(args: &AccountArgs, globals: &Globals) -> Exit {
    urge(args, "resume", globals, |report| {
        let said = say(&(became(report, Timestamp::now()) + "\n"));
        let well = !report.settled || report.state == AccountState::Online;
        if well || said != Exit::Ok { said } else { Exit::SomeFailed }
    })
}

pub(super) fn reconnect(args: &AccountArgs, globals: &Globals) -> Exit {
    urge(args, "reconnect", globals, |report| {
        say(&format!("{} makes its connections anew\n", line(report.account.as_str(), MOST_ERROR)))
    })
}

fn urge(
    AccountArgs { account }: &AccountArgs,
    wish: &str,
    globals: &Globals,
    told: impl FnOnce(&WishReport) -> Exit,
) -> Exit {
    let path = format!("/api/v1/accounts/{account}/{wish}");
    match globals.ask(|client| async move { client.post(&path).await }) {
        Ok(report) => told(&report),
        Err(error) => failed(&error),
    }
}

/// What became of the wish to have an account tried.
fn became(report: &WishReport, now: Timestamp) -> String {
    let WishReport { account, settled, state, error, next_try_at } = report;
    let account = line(account.as_str(), MOST_ERROR);
    if !settled {
        return format!(
            "{account} is being tried, and that goes on; `idlewatch accounts list` shows what comes of it"
        );
    }
    let error = error.as_ref().map(|error| format!(": {}", line(&error.message, MOST_ERROR)));
    let next = next_try_at.map(|at| format!(", next try in {}", ago(now, at)));
    format!("{account} is {state}{}{}", next.unwrap_or_default(), error.unwrap_or_default())
}

pub(super) fn reload(globals: &Globals) -> Exit {
    match globals.ask(|client| async move { client.post::<ReloadReport>("/-/reload").await }) {
        Ok(report) => say(&format!("{report}\n")),
        Err(error) => failed(&error),
    }
}

fn state(name: &str) -> Result<AccountState, Exit> {
    AccountState::ALL.into_iter().find(|state| state.as_str() == name).ok_or_else(|| {
        let known: Vec<_> = AccountState::ALL.iter().map(|state| state.as_str()).collect();
        tell(&format!("error: --state: \"{}\" is none of {}", line(name, MOST_ERROR), known.join(", ")));
        Exit::Usage
    })
}

/// All of them, page by page.
async fn accounts(
    client: &MonitorClient,
    state: Option<AccountState>,
) -> Result<Vec<AccountReport>, AskError> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let state = state.map(|state| format!("&state={state}")).unwrap_or_default();
        let page: AccountPage = client.get(&format!("/api/v1/accounts?limit=1000{state}{after}")).await?;
        all.extend(page.accounts);
        match page.next {
            Some(next) => after = format!("&after={}", escaped(next.as_str())),
            None => return Ok(all),
        }
    }
}

/// Of all that an id may hold, `+` means something else in a query.
fn escaped(id: &str) -> String {
    id.replace('+', "%2B")
}

fn overview(status: &MonitorStatus, now: Timestamp, paint: Paint) -> String {
    let MonitorStatus { instance, version, started_at, not_ready, config, .. } = status;
    let mut text = format!("idlewatch {version} · {} · up {}\n", line(instance, 128), ago(*started_at, now));
    let states: Vec<_> = status
        .accounts
        .iter()
        .map(|(state, count)| paint.mood(Mood::of(state), &format!("{state} {count}")))
        .collect();
    let _ = writeln!(
        text,
        "accounts  {}",
        if states.is_empty() { "none".to_owned() } else { states.join(" · ") }
    );
    for why in not_ready {
        let _ = writeln!(text, "{} {}", paint.bad("not ready"), line(why, MOST_ERROR));
    }
    for TroubleGroup { accounts, example, mailbox, state, error } in
        status.troubles.iter().take(MOST_TROUBLES)
    {
        let message = line(&error.message, MOST_ERROR);
        let (what, whose) = match mailbox {
            None => (paint.mood(Mood::of(state.as_str()), state.as_str()), example.as_str().to_owned()),
            Some(mailbox) => (paint.warn("mailbox"), format!("{example}/{}", line(mailbox.as_str(), 128))),
        };
        let _ = writeln!(text, "trouble   {accounts} × {what}: {message} ({whose}, for one)");
    }
    for output in &status.outputs {
        let _ = writeln!(text, "output    {}", standing(output, now, paint));
    }
    if !config.last_reload_successful {
        let since = ago(config.loaded_at, now);
        let _ = writeln!(
            text,
            "config    {}; what is in force was read {since} ago",
            paint.bad("the last reload was refused")
        );
    }
    text
}

/// What is wrong with an account, or else with the first of its mailboxes.
fn fault(account: &AccountReport) -> Option<String> {
    let of_mailbox = || {
        let mut faults =
            account.mailboxes.iter().filter_map(|mailbox| Some((mailbox, mailbox.error.as_ref()?)));
        let (mailbox, error) = faults.next()?;
        Some(line(&format!("{}: {}", mailbox.name.as_str(), error.message), MOST_ERROR))
    };
    account.error.as_ref().map(|error| line(&error.message, MOST_ERROR)).or_else(of_mailbox)
}

fn table(accounts: &[AccountReport], now: Timestamp, paint: Paint) -> String {
    let widths = accounts.iter().map(|account| account.identity.id.as_str().len());
    let width = widths.max().unwrap_or(0).max("ACCOUNT".len());
    let columns = |id: &str, state: &str, since: &str, next: &str, error: &str| {
        format!("{id:<width$}  {state}  {since:>8}  {next:>8}  {error}").trim_end().to_owned() + "\n"
    };
    let row = |account: &AccountReport| {
        let error = fault(account).unwrap_or_default();
        let next = account.next_try_at.map(|at| ago(now, at)).unwrap_or_default();
        let state = account.state.as_str();
        let state = paint.mood(Mood::of(state), &format!("{state:<11}"));
        columns(account.identity.id.as_str(), &state, &ago(account.since, now), &next, &error)
    };
    let head =
        (!accounts.is_empty()).then(|| columns("ACCOUNT", "STATE      ", "SINCE", "NEXT TRY", "ERROR"));
    head.into_iter().chain(accounts.iter().map(row)).collect()
}
