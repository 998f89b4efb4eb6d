//! Accounts in a table of the journal's database, for clusters too large for files: what its rows are, and what an import
//! means for them. Pure, but for the connection ([`AccountsTable`]).

pub mod seal;

use std::collections::{HashMap, HashSet};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use tokio::runtime::Builder;

use self::seal::{SealError, Seals};
#[cfg(not(feature = "postgres"))]
use crate::cluster::shard::ShardSet;
use crate::event::AccountId;
#[cfg(feature = "postgres")]
pub use crate::journal::postgres::accounts::AccountsTable;
use crate::secrets::SecretSource;

/// Where rows stand, in messages.
pub const PLACE: &str = "idlewatch.accounts";

/// A moment of the table: what was not committed by then is no older.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(pub(crate) String);

/// Before all.
impl Default for Mark {
    fn default() -> Self {
        Self("0".to_owned())
    }
}

/// Rows of some shards.
#[derive(Debug, Default)]
pub struct Rows {
    /// When they were so.
    pub mark: Mark,
    /// In the order of their ids.
    pub stored: Vec<Stored>,
    /// Accounts that were deleted.
    pub deleted: Vec<AccountId>,
}

/// A row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The account.
    pub id: String,
    /// JSON: the keys of the account, but for its id.
    pub config: String,
    /// The sealed password.
    pub secret: Option<Vec<u8>>,
}

/// A row as a list has it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The account.
    pub id: String,
    /// Its keys, without an inline password.
    pub config: Map<String, Value>,
    /// The inline password.
    pub password: Option<SecretString>,
}

/// A row to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The account.
    pub id: String,
    /// JSON.
    pub config: String,
    /// The sealed password.
    pub secret: Option<Vec<u8>>,
}

/// What an import does.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rows that are new or other than before.
    pub put: Vec<Put>,
    /// How many of them are new.
    pub added: usize,
    /// How many stay as they are.
    pub unchanged: usize,
    /// Accounts that go.
    pub deleted: Vec<String>,
}

impl Plan {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.deleted.is_empty()
    }
}

/// Why the table is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TableError(pub(crate) String);

/// No table without the feature: a value of it cannot be.
#[cfg(not(feature = "postgres"))]
#[derive(Debug)]
pub enum AccountsTable {}

#[cfg(not(feature = "postgres"))]
#[allow(missing_docs, clippy::missing_errors_doc, reason = "as those of the feature")]
impl AccountsTable {
    pub fn new(_: &crate::config::settings::DatabaseSettings) -> Result<Self, TableError> {
        Err(TableError("this build is without the feature postgres".to_owned()))
    }

    pub fn prepare(&mut self) -> Result<(), TableError> {
        match *self {}
    }

    pub fn connection(&mut self) -> Result<u64, TableError> {
        match *self {}
    }

    pub fn all(&mut self) -> Result<Vec<Stored>, TableError> {
        match *self {}
    }

    pub fn read(&mut self, _: &ShardSet, _: &ShardSet, _: &Mark) -> Result<Rows, TableError> {
        match *self {}
    }

    pub fn write(&mut self, _: &[Put], _: &[String]) -> Result<(), TableError> {
        match *self {}
    }
}

/// The keys that seal, from where they are. Not to be called where futures run.
///
/// # Errors
/// Where one cannot be had, or is none.
pub fn seals(sources: &[SecretSource]) -> Result<Seals, SealError> {
    let failed = |error: &dyn std::fmt::Display| SealError::NotThere(error.to_string());
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    let resolve = |source: &SecretSource| runtime.block_on(source.resolve()).map_err(|error| failed(&error));
    let texts: Vec<SecretString> = sources.iter().map(resolve).collect::<Result<_, _>>()?;
    Seals::new(&texts)
}

/// What is to be done so that the table has what is wanted; `complete`: and nothing else. A password that an older key has
/// sealed is sealed anew.
///
/// # Errors
/// Where a password is to be sealed, and there is no key.
pub fn plan(stored: &[Stored], wanted: &[Wanted], seals: &Seals, complete: bool) -> Result<Plan, SealError> {
    let known: HashMap<&str, &Stored> = stored.iter().map(|row| (row.id.as_str(), row)).collect();
    let mut plan = Plan::default();
    for row in wanted {
        match known.get(row.id.as_str()) {
            Some(known) if is_same(known, row, seals) => plan.unchanged += 1,
            known => {
                plan.added += usize::from(known.is_none());
                let secret =
                    row.password.as_ref().map(|password| seals.seal(&row.id, password)).transpose()?;
                let config = Value::Object(row.config.clone()).to_string();
                plan.put.push(Put { id: row.id.clone(), config, secret });
            }
        }
    }
    if complete {
        let wanted: HashSet<&str> = wanted.iter().map(|row| row.id.as_str()).collect();
        let gone = stored.iter().filter(|row| !wanted.contains(row.id.as_str()));
        plan.deleted = gone.map(|row| row.id.clone()).collect();
    }
    Ok(plan)
}

fn is_same(stored: &Stored, wanted: &Wanted, seals: &Seals) -> bool {
    let config: Option<Map<String, Value>> = serde_json::from_str(&stored.config).ok();
    let is_same_secret = match (&stored.secret, &wanted.password) {
        (None, None) => true,
        (Some(sealed), Some(password)) => seals
            .open(&stored.id, sealed)
            .is_ok_and(|opened| opened.by_first && opened.secret.expose_secret() == password.expose_secret()),
        _ => false,
    };
    is_same_secret && config.as_ref() == Some(&wanted.config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(texts: &[u8]) -> Seals {
        let text = |&key: &u8| SecretString::from(data_encoding::BASE64.encode(&[key; 32]));
        Seals::new(&texts.iter().map(text).collect::<Vec<_>>()).unwrap()
    }

    fn wanted(id: &str, config: &str, password: Option<&str>) -> Wanted {
        let config = serde_json::from_str(config).unwrap();
        Wanted { id: id.to_owned(), config, password: password.map(SecretString::from) }
    }

    /// Added, changed, unchanged, deleted.
    fn counts(plan: &Plan) -> [usize; 4] {
        [plan.added, plan.put.len() - plan.added, plan.unchanged, plan.deleted.len()]
    }

    fn stored(plan: Plan) -> Vec<Stored> {
        let row = |Put { id, config, secret }| Stored { id, config, secret };
        plan.put.into_iter().map(row).collect()
    }

    #[test]
    fn only_what_is_new_or_other_is_written() {
        let old = keys(&[1]);
        let a = || wanted("a", r#"{"port": 1, "labels": {"x": "y"}}"#, None);
        let b = |password| wanted("b", "{}", Some(password));
        let first = plan(&[], &[a(), b("one")], &old, false).unwrap();
        assert_eq!(counts(&first), [2, 0, 0, 0]);
        let table = stored(first);
        for (rows, seals, complete, expected) in [
            (vec![a(), b("one")], &old, true, [0, 0, 2, 0]),
            (vec![wanted("a", r#"{"labels":{"x":"y"},"port":1}"#, None)], &old, false, [0, 0, 1, 0]),
            (vec![wanted("a", r#"{"port": 2}"#, None)], &old, true, [0, 1, 0, 1]),
            (vec![b("two")], &old, false, [0, 1, 0, 0]),
            (vec![wanted("b", "{}", None)], &old, false, [0, 1, 0, 0]),
            (vec![b("one")], &keys(&[2, 1]), false, [0, 1, 0, 0]),
            (vec![b("one")], &keys(&[2]), false, [0, 1, 0, 0]),
            (vec![a(), b("one"), wanted("c", "{}", None)], &old, true, [1, 0, 2, 0]),
        ] {
            let made = plan(&table, &rows, seals, complete).unwrap();
            assert_eq!(counts(&made), expected, "{rows:?}");
        }
        let gone = plan(&table, &[a()], &old, true).unwrap().deleted;
        assert_eq!(gone, ["b"]);
    }

    #[test]
    fn no_password_is_written_without_a_key() {
        let rows = [wanted("a", "{}", None), wanted("b", "{}", Some("canary"))];
        assert_eq!(plan(&[], &rows, &keys(&[]), false), Err(SealError::NoKey));
        let put = plan(&[], &rows, &keys(&[1]), false).unwrap().put;
        assert!(put[0].secret.is_none() && put[1].secret.is_some() && !format!("{put:?}").contains("canary"));
    }
}
