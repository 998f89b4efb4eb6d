//! `state list|show|forget|export|import|repair`

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::selection::{matchers, matches};
use super::{Done, Exit, lock, not_opened, say, tell};
use crate::config::settings::Settings;
use crate::journal::OpenError;
use crate::journal::sqlite::SqliteJournal;
use crate::journal::sqlite::knowledge::{self, Carried, Import, KnowledgeError, Known};
use crate::journal::sqlite::repair::{self, Repaired};
use crate::status::ago;
use crate::text::{counted, line};

/// Bytes of a name that are shown.
const MOST_NAME: usize = 200;

/// Flags of `state list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// Only accounts whose id matches; may be given several times.
    #[arg(short, long = "account", value_name = "GLOB")]
    accounts: Vec<String>,
    /// One JSON object a line, with everything.
    #[arg(long)]
    json: bool,
}

/// Flags of `state show`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// The account.
    #[arg(short, long)]
    account: String,
    /// Only this mailbox.
    #[arg(short, long)]
    mailbox: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Flags of `state forget`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ForgetArgs {
    /// The account.
    #[arg(short, long)]
    account: String,
    /// Only this mailbox; else all of the account, and its refused logins.
    #[arg(short, long)]
    mailbox: Option<String>,
}

/// Flags of `state export`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// A new file; stdout where none is named, or `-`.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Flags of `state import`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArgs {
    /// What `state export` wrote; `-` is stdin.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Mailboxes that are known here already stand where the file says.
    #[arg(long)]
    replace: bool,
    /// Take in what there is of an export that was cut.
    #[arg(long)]
    cut: bool,
}

fn failed(error: KnowledgeError) -> (Exit, String) {
    match error {
        KnowledgeError::Open(OpenError::NoState { path }) => {
            (Exit::SomeFailed, format!("there is no state in {}", path.display()))
        }
        KnowledgeError::Open(error) => not_opened(error),
        error @ (KnowledgeError::Journal(_) | KnowledgeError::Io(_)) => (Exit::Io, error.to_string()),
        error => (Exit::SomeFailed, error.to_string()),
    }
}

pub(super) fn list(args: &ListArgs, settings: &Settings) -> Done {
    let globs = matchers("--account", &args.accounts).map_err(|issue| (Exit::Usage, issue.to_string()))?;
    let mut all = knowledge::list(&settings.monitor.state_dir).map_err(failed)?;
    all.retain(|known| globs.is_empty() || matches(&globs, known.account.as_str()));
    if args.json {
        return Ok(say(&all.iter().map(|known| described(known).to_string() + "\n").collect::<String>()));
    }
    Ok(say(&table(&all, Timestamp::now())))
}

fn described(Known { account, mailbox, cursor, updated_at, gone_since, sound }: &Known) -> Value {
    json!({
        "account": account,
        "mailbox": mailbox,
        "uid_validity": cursor.uid_validity,
        "uid_next": cursor.uid_next,
        "seen": cursor.seen.to_string(),
        "modseq": cursor.modseq,
        "blind_since": cursor.blind_since,
        "look_back": cursor.look_back,
        "changes": cursor.changes,
        "gone_since": gone_since,
        "updated_at": updated_at,
        "sound": sound,
    })
}

fn table(all: &[Known], now: Timestamp) -> String {
    let shown = |known: &Known| {
        let Known { account, mailbox, cursor, updated_at, gone_since, sound } = known;
        let blind = cursor.blind_since.map(|at| ago(at, now)).unwrap_or_default();
        [
            line(account.as_str(), MOST_NAME),
            line(mailbox.as_str(), MOST_NAME),
            cursor.uid_validity.to_string(),
            cursor.uid_next.to_string(),
            ago(*updated_at, now),
            if *sound { blind } else { "DAMAGED".to_owned() },
            gone_since.map(|at| ago(at, now)).unwrap_or_default(),
        ]
    };
    let head = ["ACCOUNT", "MAILBOX", "UIDVALIDITY", "UIDNEXT", "MOVED", "NOT WATCHED FOR", "GONE FOR"]
        .map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(all.iter().map(shown)).collect();
    let widths: [usize; 7] = std::array::from_fn(|at| {
        rows.iter().filter_map(|row| Some(row.get(at)?.chars().count())).max().unwrap_or(0)
    });
    let text = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    if all.is_empty() { String::new() } else { rows.iter().map(text).collect() }
}

pub(super) fn show(args: &ShowArgs, settings: &Settings) -> Done {
    let dir = &settings.monitor.state_dir;
    let mut all = knowledge::list(dir).map_err(failed)?;
    all.retain(|known| known.account.as_str() == args.account);
    all.retain(|known| args.mailbox.as_deref().is_none_or(|mailbox| known.mailbox.as_str() == mailbox));
    let refusals = knowledge::refusals(dir, &args.account).map_err(failed)?;
    if all.is_empty() && refusals.is_empty() {
        return Err((Exit::SomeFailed, nothing_known(&args.account, args.mailbox.as_deref())));
    }
    let mailboxes: Vec<_> = all.iter().map(described).collect();
    let refused = json!({ "count": refusals.count(), "error": refusals.trouble() });
    let refused = if refusals.is_empty() { Value::Null } else { refused };
    let all = json!({ "account": args.account, "refused_logins": refused, "mailboxes": mailboxes });
    Ok(say(&if args.json { all.to_string() + "\n" } else { outline(&all) }))
}

fn nothing_known(account: &str, mailbox: Option<&str>) -> String {
    let place = mailbox.map_or_else(|| account.to_owned(), |mailbox| format!("{account}/{mailbox}"));
    format!("nothing is known of {}; `idlewatch state list` shows what is", line(&place, MOST_NAME))
}

/// One key a line.
fn outline(all: &Value) -> String {
    let mut text = String::new();
    let refused = all.get("refused_logins").filter(|refused| !refused.is_null());
    if let Some(refused) = refused {
        let count = refused.get("count").cloned().unwrap_or_default();
        let message = refused.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
        text += &format!("refused logins: {count}: {}\n", line(message, MOST_NAME));
    }
    for mailbox in all.get("mailboxes").and_then(Value::as_array).into_iter().flatten() {
        for (key, value) in mailbox.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match key.as_str() {
                "account" => {}
                "mailbox" => text += &format!("{}\n", line(&value, MOST_NAME)),
                key => text += &format!("  {key}: {}\n", line(&value, 4096)),
            }
        }
    }
    text
}

pub(super) fn forget(args: &ForgetArgs, settings: &Settings) -> Done {
    let _lock = lock(settings)?;
    let (mut journal, _) = SqliteJournal::open(&settings.monitor.state_dir, true, false)
        .map_err(|error| failed(error.into()))?;
    let (account, mailbox) = (&args.account, args.mailbox.as_deref());
    let gone = knowledge::forget(&mut journal, account, mailbox).map_err(failed)?;
    if gone == 0 {
        return Err((Exit::SomeFailed, nothing_known(account, mailbox)));
    }
    tell(&format!("forgotten: {}; the next start begins there with a baseline", counted(gone, "mailbox")));
    Ok(Exit::Ok)
}

pub(super) fn export(args: &ExportArgs, settings: &Settings) -> Done {
    let dir = &settings.monitor.state_dir;
    let carried = match args.file.as_ref().filter(|file| file.as_os_str() != "-") {
        Some(path) => {
            let there = |error: io::Error| (Exit::Io, format!("{}: {error}", path.display()));
            let file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(there)?;
            let mut out = io::BufWriter::new(file);
            let carried = knowledge::export(dir, &mut out).map_err(failed)?;
            out.into_inner().map_err(|error| there(error.into_error()))?.sync_all().map_err(there)?;
            carried
        }
        None => match knowledge::export(dir, &mut io::BufWriter::new(io::stdout().lock())) {
            Err(KnowledgeError::Io(error)) if error.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Ok),
            carried => carried.map_err(failed)?,
        },
    };
    tell(&told(carried, "written"));
    Ok(Exit::Ok)
}

fn told(Carried { mailboxes, rows }: Carried, done: &str) -> String {
    format!("{}, {} in all, {done}", counted(mailboxes, "mailbox"), counted(rows, "row"))
}

pub(super) fn import(args: &ImportArgs, settings: &Settings) -> Done {
    let _lock = lock(settings)?;
    let (mut journal, _) =
        SqliteJournal::open(&settings.monitor.state_dir, false, false).map_err(not_opened)?;
    let how = Import { replace: args.replace, cut: args.cut };
    let carried = if args.file.as_os_str() == "-" {
        knowledge::import(&mut journal, &mut io::stdin().lock(), how)
    } else {
        let file = File::open(&args.file)
            .map_err(|error| (Exit::Io, format!("{}: {error}", args.file.display())))?;
        knowledge::import(&mut journal, &mut BufReader::new(file), how)
    };
    let place = line(&args.file.display().to_string(), MOST_NAME);
    let carried = carried.map_err(failed).map_err(|(exit, error)| (exit, format!("{place}: {error}")))?;
    tell(&told(carried, "taken in"));
    Ok(Exit::Ok)
}

pub(super) fn repair(settings: &Settings) -> Done {
    let _lock = lock(settings)?;
    match repair::repair(&settings.monitor.state_dir).map_err(|error| failed(error.into()))? {
        Repaired::Sound => tell("the journal is whole: there is nothing to repair"),
        Repaired::Whole { mailboxes, events, lost, aside } => {
            let (mailboxes, events) = (counted(mailboxes, "mailbox"), counted(events, "event"));
            tell(&format!("kept: {mailboxes}, and {events} that an output may still lack"));
            lost.iter().for_each(|what| tell(&format!("lost: {what}")));
            tell(&format!("the damaged journal is at {}", aside.display()));
        }
    }
    Ok(Exit::Ok)
}
