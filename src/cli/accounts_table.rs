//! `idlewatch accounts import|export`: the table of accounts in the journal's database.

use std::path::PathBuf;

use clap::Args;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{Exit, Globals, say, tell};
use crate::accounts_table::seal::{SealError, Seals};
use crate::accounts_table::{AccountsTable, Plan, Stored, TableError, plan, seals};
use crate::config::{self, Import, Issue};
use crate::private_file;
use crate::text::{self, counted};

/// Flags of `accounts import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// A list of accounts, as `[[account_lists]]` has them: *.csv or *.jsonl.
    file: PathBuf,
    /// Accounts of the table that are not in the list go.
    #[arg(long)]
    delete_missing: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// Flags of `accounts export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Written there, for its owner alone; it must not be there yet. Default: stdout.
    file: Option<PathBuf>,
    /// Sealed passwords too, opened; else they are left out.
    #[arg(long, requires = "file")]
    with_secrets: bool,
}

/// Why nothing was done.
enum Refusal {
    Invalid(Vec<Issue>),
    Failed(Exit, String),
}

impl From<TableError> for Refusal {
    fn from(error: TableError) -> Self {
        Self::Failed(Exit::CannotStart, error.to_string())
    }
}

impl From<SealError> for Refusal {
    fn from(error: SealError) -> Self {
        Self::Failed(Exit::Config, error.to_string())
    }
}

impl From<Vec<Issue>> for Refusal {
    fn from(issues: Vec<Issue>) -> Self {
        Self::Invalid(issues)
    }
}

/// All or nothing.
pub(super) fn import(args: &ImportArgs, globals: &Globals) -> Exit {
    globals.ended(imported(args, globals))
}

pub(super) fn export(args: &ExportArgs, globals: &Globals) -> Exit {
    globals.ended(exported(args, globals))
}

impl Globals {
    fn ended(&self, done: Result<Exit, Refusal>) -> Exit {
        match done {
            Ok(exit) => exit,
            Err(Refusal::Invalid(issues)) => {
                self.tell_issues(&issues);
                Exit::Config
            }
            Err(Refusal::Failed(exit, words)) => {
                tell(&format!("error: {words}"));
                exit
            }
        }
    }
}

fn imported(args: &ImportArgs, globals: &Globals) -> Result<Exit, Refusal> {
    let Import { table: settings, rows, warnings } = config::import(&globals.files, &args.file)?;
    globals.tell_warnings(&warnings);
    let seals = seals(&settings.seal_keys)?;
    let mut table = AccountsTable::new(&settings.database)?;
    let stored = table.all()?;
    let plan = plan(&stored, &rows, &seals, args.delete_missing)?;
    if !args.dry_run {
        table.prepare()?;
        if !plan.is_empty() {
            table.write(&plan.put, &plan.deleted)?;
        }
    }
    tell(&summary(&plan, args.dry_run));
    Ok(Exit::Ok)
}

fn summary(plan: &Plan, dry_run: bool) -> String {
    let Plan { put, added, unchanged, deleted } = plan;
    let changed = put.len() - added;
    let added = counted(*added, "account");
    let would = if dry_run { " (nothing is written: --dry-run)" } else { "" };
    format!("{added} added, {changed} changed, {unchanged} unchanged, {} deleted{would}", deleted.len())
}

fn exported(args: &ExportArgs, globals: &Globals) -> Result<Exit, Refusal> {
    let settings = config::accounts_table(&globals.files)?;
    let seals = if args.with_secrets { Some(seals(&settings.seal_keys)?) } else { None };
    let stored = AccountsTable::new(&settings.database)?.all()?;
    let mut lines = Zeroizing::new(String::new());
    let mut left_out = 0;
    for row in &stored {
        let Line { text, lacks_password } = line(row, seals.as_ref()).map_err(|why| of_row(row, &why))?;
        lines.push_str(&text);
        lines.push('\n');
        left_out += usize::from(lacks_password);
    }
    if left_out > 0 {
        let passwords = counted(left_out, "password");
        tell(&format!(
            "{passwords} left out; `--with-secrets FILE` writes them into a file for its owner alone"
        ));
    }
    let Some(path) = &args.file else { return Ok(say(&lines)) };
    private_file::write(path, lines.as_bytes(), false)
        .map_err(|error| Refusal::Failed(Exit::Io, format!("{}: {error}", path.display())))?;
    tell(&format!("{} written", counted(stored.len(), "account")));
    Ok(Exit::Ok)
}

fn of_row(row: &Stored, why: &str) -> Refusal {
    Refusal::Failed(Exit::Config, format!("account {}: {why}", text::line(&row.id, 128)))
}

/// A row as a list has it.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    text: String,
    /// It has one, which is not shown.
    lacks_password: bool,
}

/// With its password where there are keys to open it. One that somebody wrote into the table in clear is a secret, too.
fn line(row: &Stored, seals: Option<&Seals>) -> Result<Line, String> {
    let config: Map<String, Value> =
        serde_json::from_str(&row.config).map_err(|_| "its row holds no JSON object".to_owned())?;
    let mut keys = Map::from_iter([("id".to_owned(), json!(row.id))]);
    keys.extend(config);
    let mut lacks_password = false;
    match (&row.secret, seals) {
        (Some(sealed), Some(seals)) => {
            let opened = seals.open(&row.id, sealed).map_err(|error| error.to_string())?;
            keys.insert("password".to_owned(), json!({"inline": opened.secret.expose_secret()}));
        }
        (None, Some(_)) => {}
        (sealed, None) => {
            let is_dotted = keys.remove("password.inline").is_some();
            let is_clear = keys
                .get("password")
                .is_some_and(|password| !password.is_object() || password.get("inline").is_some());
            lacks_password = sealed.is_some() || is_clear || is_dotted;
            if is_clear {
                keys.remove("password");
            }
        }
    }
    Ok(Line { text: Value::Object(keys).to_string(), lacks_password })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seals() -> Seals {
        Seals::new(&[data_encoding::BASE64.encode(&[1; 32]).into()]).unwrap()
    }

    #[test]
    fn a_password_is_written_only_where_that_is_meant() {
        let sealed = || Some(seals().seal("ann", &"canary".into()).unwrap());
        for (config, secret, lacks_password) in [
            (r#"{"port":1}"#, None, false),
            (r#"{"password":{"file":"/x"}}"#, None, false),
            ("{}", sealed(), true),
            (r#"{"password":{"inline":"canary"}}"#, None, true),
            (r#"{"password":"canary"}"#, None, true),
            (r#"{"password.inline":"canary"}"#, None, true),
        ] {
            let row = Stored { id: "ann".to_owned(), config: config.to_owned(), secret };
            let shown = line(&row, None).unwrap();
            assert_eq!(
                (shown.lacks_password, shown.text.contains("canary")),
                (lacks_password, false),
                "{config}"
            );
            let whole = line(&row, Some(&seals())).unwrap();
            assert_eq!(
                (whole.lacks_password, whole.text.contains("canary")),
                (false, lacks_password),
                "{config}"
            );
        }
        let other = Stored { id: "bob".to_owned(), config: "{}".to_owned(), secret: sealed() };
        assert_eq!(line(&other, Some(&seals())), Err(SealError::Closed.to_string()));
    }
}
