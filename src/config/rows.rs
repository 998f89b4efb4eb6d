//! Rows of the database's table `accounts`, read as the configuration has them that they belong to: with its templates and
//! defaults, at any time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use config::{Map, Value, ValueKind};
use secrecy::ExposeSecret;

use super::accounts::{AccountReader, Common};
use super::issue::{Issue, Severity};
use super::section::{Issues, Section};
use super::settings::Account;
use super::surroundings::Look;
use super::table::{ABSOLUTE, relative};
use super::{lists, settled};
use crate::accounts_table::seal::{SealError, Seals};
use crate::accounts_table::{self, PLACE, Stored};
use crate::event::AccountId;
use crate::secrets::SecretSource;
use crate::secrets::backend::Backend;
use crate::text;

/// Bytes of an id that are shown.
const MOST_ID: usize = 128;

/// What rows mean in one configuration.
pub struct RowReader {
    root: Map<String, Value>,
    template: Option<String>,
    /// The accounts that are no rows, and where each of them stands.
    others: HashMap<AccountId, String>,
    seal_keys: Vec<SecretSource>,
    /// Each asks for several secrets at once.
    backends: BTreeMap<String, Arc<Backend>>,
    /// With the accounts that were read before.
    common: Mutex<Common>,
}

/// The sections that accounts are made of.
const SECTIONS: [&str; 6] = ["defaults", "monitor", "oauth", "providers", "secrets", "templates"];

/// What came of rows.
#[derive(Debug, Default)]
pub struct RowsRead {
    /// Those that are accounts.
    pub accounts: Vec<Arc<Account>>,
    /// Those that are none, which is among the issues.
    pub broken: HashSet<AccountId>,
    /// What is worth to be told.
    pub issues: Vec<Issue>,
    /// Some of them are sealed, and the keys are not to be had: it is worth another try.
    pub lacks_keys: bool,
}

impl RowReader {
    /// Of a configuration whose other accounts were read by this reader.
    pub(super) fn new(
        root: &Map<String, Value>,
        template: Option<&str>,
        reader: &AccountReader<'_>,
        seal_keys: Vec<SecretSource>,
    ) -> Self {
        let section = |name: &str| Some((name.to_owned(), root.get(name)?.clone()));
        let backends = reader.backends.iter().map(|(name, backend)| ((*name).to_owned(), backend.clone()));
        Self {
            root: SECTIONS.into_iter().filter_map(section).collect(),
            template: template.map(str::to_owned),
            others: reader.ids.clone(),
            seal_keys,
            backends: backends.collect(),
            common: Mutex::default(),
        }
    }

    /// What passwords of rows are sealed with: the first seals, all of them open.
    pub fn seal_keys(&self) -> &[SecretSource] {
        &self.seal_keys
    }

    /// Reads rows. Not to be called where futures run.
    pub fn read(&self, rows: &[Stored]) -> RowsRead {
        let mut reader = AccountReader::new(&self.root, &mut Issues::default());
        reader.ids.clone_from(&self.others);
        reader.backends =
            self.backends.iter().map(|(name, backend)| (name.as_str(), backend.clone())).collect();
        reader.common = std::mem::take(&mut self.common.lock().unwrap_or_else(PoisonError::into_inner));
        let mut issues = Issues::default();
        let seals = self.seals(rows);
        let broken = read(rows, &seals, &mut reader, self.template.as_deref(), &mut issues);
        reader.common.shrink();
        self.keep(reader.common);
        // A secret that is not there its account tells; here it might hang. And what is wrong elsewhere was told.
        issues.found.retain(|issue| issue.origin == PLACE || issue.severity == Severity::Error);
        let issues = settled(issues, Look::Nowhere);
        RowsRead { accounts: reader.accounts, broken, issues, lacks_keys: seals.is_err() }
    }

    /// The keys, where a row needs them.
    fn seals(&self, rows: &[Stored]) -> Result<Seals, SealError> {
        let is_needed = rows.iter().any(|row| row.secret.is_some());
        accounts_table::seals(if is_needed { &self.seal_keys } else { &[] })
    }

    /// What accounts have in common that were read.
    pub(super) fn keep(&self, common: Common) {
        *self.common.lock().unwrap_or_else(PoisonError::into_inner) = common;
    }

    /// Those that are no accounts; they are told, and keep nobody from anything.
    pub(super) fn read_with<'a>(
        &self,
        reader: &mut AccountReader<'a>,
        template: Option<&'a str>,
        rows: &[Stored],
        issues: &mut Issues,
    ) -> HashSet<AccountId> {
        read(rows, &self.seals(rows), reader, template, issues)
    }
}

fn read<'a>(
    rows: &[Stored],
    seals: &Result<Seals, SealError>,
    reader: &mut AccountReader<'a>,
    template: Option<&'a str>,
    issues: &mut Issues,
) -> HashSet<AccountId> {
    let broken = rows.iter().filter(|row| !is_read(row, seals, reader, template, issues));
    broken.map(|row| AccountId::from(row.id.as_str())).collect()
}

impl fmt::Debug for RowReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowReader")
    }
}

/// Whether a row is an account; else it is told, as a warning.
fn is_read<'a>(
    row: &Stored,
    seals: &Result<Seals, SealError>,
    reader: &mut AccountReader<'a>,
    template: Option<&'a str>,
    issues: &mut Issues,
) -> bool {
    let (accounts, found, outside) = (reader.accounts.len(), issues.found.len(), issues.outside.len());
    let id = text::shortened(&row.id, MOST_ID);
    match value(row, seals) {
        Ok(value) => reader.account(Section::from_value(id, &value, issues), template, issues),
        Err(message) => issues.error(PLACE, &id, message),
    }
    let mut is_read = reader.accounts.len() > accounts;
    // What is wrong with a template is an error all the same: it stands elsewhere.
    let own = issues.found.iter_mut().skip(found).filter(|issue| issue.origin == PLACE);
    for issue in own.filter(|issue| issue.severity == Severity::Error) {
        issue.severity = Severity::Warning;
        issue.message.push_str("; what is watched by this name stays as it is");
        is_read = false;
    }
    if !is_read {
        reader.accounts.truncate(accounts);
        issues.outside.truncate(outside);
    }
    is_read
}

/// The keys of an account.
fn value(row: &Stored, seals: &Result<Seals, SealError>) -> Result<Value, String> {
    let origin = PLACE.to_owned();
    let mut value = lists::json_line(&row.config, &origin)?;
    if let Some(key) = relative(&value) {
        return Err(format!("{key}: {ABSOLUTE}"));
    }
    let ValueKind::Table(keys) = &mut value.kind else { return Err("expected a JSON object".to_owned()) };
    let text = |text: &str| Value::new(Some(&origin), ValueKind::String(text.to_owned()));
    if let Some(sealed) = &row.secret {
        let seals = seals.as_ref().map_err(ToString::to_string)?;
        let opened = seals.open(&row.id, sealed).map_err(|error| error.to_string())?;
        let inline = Map::from_iter([("inline".to_owned(), text(opened.secret.expose_secret()))]);
        let password = Value::new(Some(&origin), ValueKind::Table(inline));
        if keys.insert("password".to_owned(), password).is_some() {
            return Err("`password`, beside a sealed one".to_owned());
        }
    }
    if keys.insert("id".to_owned(), text(&row.id)).is_some() {
        return Err("`id` is a column of its own".to_owned());
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::super::table::inline;
    use super::*;

    #[test]
    fn a_sealed_password_is_opened_for_its_row_alone() {
        let seals = Seals::new(&[data_encoding::BASE64.encode(&[1; 32]).into()]).unwrap();
        let row = |id: &str, config: &str, sealed_for: &str| Stored {
            id: id.to_owned(),
            config: config.to_owned(),
            secret: Some(seals.seal(sealed_for, &"canary".into()).unwrap()),
        };
        let keys = Ok(Seals::new(&[data_encoding::BASE64.encode(&[1; 32]).into()]).unwrap());
        let read = value(&row("ann", "{}", "ann"), &keys).unwrap();
        assert_eq!(inline(&read), Some("canary"));
        for (row, keys, expected) in [
            (row("ann", "{}", "bob"), &keys, SealError::Closed.to_string()),
            (row("ann", "{}", "ann"), &Err(SealError::NoSuchKey(1)), SealError::NoSuchKey(1).to_string()),
            (row("ann", "{}", "ann"), &Seals::new(&[]), SealError::NoKey.to_string()),
            (
                row("ann", "{\"password\":{\"env\":\"X\"}}", "ann"),
                &keys,
                "`password`, beside a sealed one".to_owned(),
            ),
        ] {
            assert_eq!(value(&row, keys).unwrap_err(), expected);
        }
    }
}

#[cfg(test)]
#[cfg(feature = "postgres")]
mod read_later {
    use super::*;
    use crate::config::from_texts;
    use crate::config::settings::{LoginMeans, TableReading};

    const TEXT: &str = "[defaults]\nhost = \"h.example\"\nuser = \"{id}\"\npassword = { credential = \"{id}\" }\n\
        [[accounts]]\nid = \"filed\"\n[[account_lists]]\ndatabase = true\n\
        [journal]\nurl = \"postgres://iw@localhost/mail?sslmode=disable\"\n";

    /// As if these rows had been read.
    fn read(rows: &str) -> (TableReading, Vec<Arc<Account>>) {
        let settings = from_texts("t.toml", TEXT, &[(PLACE, rows)]).unwrap().0;
        (settings.table.unwrap(), settings.accounts)
    }

    /// What accounts have in common is one, whenever they were read; and a row cannot take the name of an account in a file.
    #[test]
    fn rows_that_come_later_are_read_as_the_first() {
        let (table, accounts) = read("u1\t{}\n");
        let row = |id: &str| Stored { id: id.to_owned(), config: "{}".to_owned(), secret: None };
        let later = table.reader.read(&[row("u2"), row("filed")]);
        assert!(Arc::ptr_eq(&accounts[1].policy, &later.accounts[0].policy));
        assert!(Arc::ptr_eq(&accounts[1].identity.host, &later.accounts[0].identity.host));
        assert_eq!(later.broken, HashSet::from([AccountId::from("filed")]));
        let told = later.issues.iter().map(ToString::to_string).collect::<String>();
        assert!(told.contains("\"filed\" is the id of another account already, at t.toml:6:1"), "{told}");
    }

    /// It runs its program for as many of them as ask at the same time.
    #[test]
    fn rows_that_come_later_ask_the_same_store_for_their_secrets() {
        let text = format!("{TEXT}[secrets.store]\nexec = [\"/bin/store\"]\n");
        let row = |id: &str| format!("{id}\t{{\"password\": {{\"secret\": \"store:{id}\"}}}}\n");
        let settings = from_texts("t.toml", &text, &[(PLACE, &row("u1"))]).unwrap().0;
        let config = row("u2").split_once('\t').unwrap().1.to_owned();
        let later = Stored { id: "u2".to_owned(), config, secret: None };
        let later = settings.table.unwrap().reader.read(&[later]).accounts;
        let stores: Vec<_> = settings
            .accounts
            .iter()
            .chain(&later)
            .filter_map(|account| match &account.login {
                LoginMeans::Password(SecretSource::Backend(store, _)) => Some(store),
                _ => None,
            })
            .collect();
        assert!(matches!(stores.as_slice(), [one, other] if Arc::ptr_eq(one, other)));
    }

    /// They all stand at one place.
    #[test]
    fn each_row_has_its_own_proxy() {
        let rows =
            "u1\t{\"proxy\": \"http://a.example:1\"}\nu2\t{\"proxy\": \"http://b.example:2\"}\nu3\t{}\n";
        let (_, accounts) = read(rows);
        let proxies: Vec<_> =
            accounts.iter().map(|account| account.proxy.as_ref().map(|proxy| proxy.port)).collect();
        assert_eq!(proxies, [None, Some(1), Some(2), None]);
    }
}
