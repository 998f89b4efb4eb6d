//! `[[account_lists]] database = true`: accounts from the table in the journal's database.

use std::path::Path;
use std::sync::Arc;

use config::{Map, Value, ValueKind};
use secrecy::SecretString;
use serde_json::Value as Json;

use super::accounts::AccountReader;
use super::issue::{Issue, Severity};
use super::lists::{self, Files};
use super::load;
use super::outputs::secrets;
use super::rows::RowReader;
use super::section::{Issues, Section};
use super::settings::{TableReading, TableSettings};
use super::surroundings::Thing;
use super::validate::{journal, tables};
use crate::accounts_table::seal::SealError;
use crate::accounts_table::{AccountsTable, PLACE, Stored, Wanted};
use crate::cluster::shard::ShardSet;

/// Bytes of a row; the table itself takes more, for it writes them with spaces.
const MOST_CONFIG: usize = 64 << 10;

/// Keys of an account that name files: the table is of several machines, and has no directory of its own.
const FILES: [(&str, &str); 4] = [
    ("password", "file"),
    ("tls_options", "ca_file"),
    ("tls_options", "client_cert"),
    ("tls_options", "client_key"),
];

/// A list that is the table.
pub(super) struct TableList<'l, 'a> {
    list: &'l Section<'a>,
    /// `None` where it is wrong, and told.
    settings: Option<TableSettings>,
}

/// The table, where a list is that.
pub(super) fn of<'l, 'a>(
    list: &'l Section<'a>,
    root: &Map<String, Value>,
    issues: &mut Issues,
) -> Option<TableList<'l, 'a>> {
    if !list.boolean("database", false, issues) {
        if list.has("seal_keys") {
            list.error("seal_keys", "of the database only: there is no `database = true`", issues);
        }
        return None;
    }
    if list.has("path") {
        list.error("path", "`database` and `path`: only one of them", issues);
    }
    let seal_keys = secrets(list, "seal_keys", issues);
    // What is wrong with it is told elsewhere.
    let database = journal(root, &mut Issues::default()).database;
    if database.is_none() && !Section::of(root, "journal", &mut Issues::default()).has("url") {
        list.error("database", "which one? `url` of [journal] is missing", issues);
    }
    let settings = database.map(|database| TableSettings { database: *database, seal_keys });
    Some(TableList { list, settings })
}

/// Where the table is, of a configuration that may have other faults.
pub(super) fn settings(tree: &Value) -> Result<TableSettings, Vec<Issue>> {
    let mut issues = Issues::default();
    let ValueKind::Table(root) = &tree.kind else { return Err(Vec::new()) };
    let lists = tables(root, "account_lists", &mut issues);
    let table = lists.iter().find_map(|list| of(list, root, &mut issues));
    journal(root, &mut issues);
    issues.found.retain(|issue| issue.severity == Severity::Error);
    match table.map(|table| table.settings) {
        None => Err(vec![load::nowhere(
            "there is no [[account_lists]] with `database = true`; docs/cluster.md shows one".to_owned(),
        )]),
        Some(Some(settings)) if issues.found.is_empty() => Ok(settings),
        Some(_) => Err(issues.found),
    }
}

impl TableList<'_, '_> {
    /// Reads its accounts. Rows that are none are told, and keep nobody from anything.
    pub(super) fn accounts<'a>(
        &self,
        root: &Map<String, Value>,
        files: Files<'_>,
        reader: &mut AccountReader<'a>,
        template: Option<&'a str>,
        issues: &mut Issues,
    ) -> TableReading {
        let seal_keys = self.settings.as_ref().map(|settings| settings.seal_keys.clone()).unwrap_or_default();
        let rows = RowReader::new(root, template, reader, seal_keys);
        let first = reader.accounts.len();
        let stored = self.stored(files, reader, template, issues);
        let broken =
            stored.iter().flat_map(|stored| rows.read_with(reader, template, stored, issues)).collect();
        let own = reader.accounts.get(first..).unwrap_or_default();
        let ids = own.iter().map(|account| account.id().clone()).collect();
        rows.keep(std::mem::take(&mut reader.common));
        let shards = if stored.is_some() { ShardSet::ALL } else { ShardSet::NONE };
        TableReading { shards, ids, broken, reader: Arc::new(rows) }
    }

    /// All rows; none where they are not to be had, which is told, or not to be read.
    fn stored<'a>(
        &self,
        files: Files<'_>,
        reader: &mut AccountReader<'a>,
        template: Option<&'a str>,
        issues: &mut Issues,
    ) -> Option<Vec<Stored>> {
        let settings = self.settings.as_ref()?;
        let stored = match files {
            Files::InsteadOfTable(file) => {
                self.read_instead(file, settings, reader, template, issues);
                return None;
            }
            Files::WithoutTable => return None,
            Files::OnDisk => AccountsTable::new(&settings.database).and_then(|mut table| table.all()),
            Files::These(texts) => Ok(played(texts)),
        };
        stored.map_err(|error| self.list.names("database", Thing::Table(error), issues)).ok()
    }

    /// A file that is to become the table: as any other list.
    fn read_instead<'a>(
        &self,
        file: &Path,
        settings: &TableSettings,
        reader: &mut AccountReader<'a>,
        template: Option<&'a str>,
        issues: &mut Issues,
    ) {
        lists::rows_of(file, issues, |row, issues| {
            let section = Section::from_value(String::new(), row, issues);
            if let Some(key) = relative(row) {
                issues.error(&section.origin, key, ABSOLUTE);
            }
            if json(row).to_string().len() > MOST_CONFIG {
                issues.error(&section.origin, "", "it is larger than 64 KiB");
            }
            if inline(row).is_some() && settings.seal_keys.is_empty() {
                let message =
                    format!("an inline password is kept in the database sealed only: {}", SealError::NoKey);
                issues.error(&section.origin, "password", message);
            }
            reader.account(section, template, issues);
        });
    }
}

pub(super) const ABSOLUTE: &str = "in the database, the path of a file has to be absolute";

/// `id<TAB>JSON`, one a line: for tests.
fn played(texts: &[(&str, &str)]) -> Vec<Stored> {
    let text = texts.iter().find(|(name, _)| *name == PLACE).map(|(_, text)| *text).unwrap_or_default();
    let row = |line: &str| {
        let (id, config) = line.split_once('\t')?;
        Some(Stored { id: id.to_owned(), config: config.to_owned(), secret: None })
    };
    text.lines().filter_map(row).collect()
}

/// The key of a file that begins anywhere.
pub(super) fn relative(row: &Value) -> Option<&'static str> {
    let (outer, _) = FILES.iter().find(|(outer, inner)| {
        inside(row, outer, inner).is_some_and(|path| !Path::new(path).is_absolute())
    })?;
    Some(outer)
}

pub(super) fn inline(row: &Value) -> Option<&str> {
    inside(row, "password", "inline")
}

fn inside<'r>(row: &'r Value, outer: &str, inner: &str) -> Option<&'r str> {
    let ValueKind::Table(row) = &row.kind else { return None };
    let ValueKind::Table(table) = &row.get(outer)?.kind else { return None };
    match &table.get(inner)?.kind {
        ValueKind::String(text) => Some(text),
        _ => None,
    }
}

/// The rows of a file that was found right.
pub(super) fn wanted(file: &Path) -> Result<Vec<Wanted>, Vec<Issue>> {
    let (mut issues, mut rows) = (Issues::default(), Vec::new());
    lists::rows_of(file, &mut issues, |row, _| rows.push(wanted_row(row)));
    // It was right a moment ago.
    issues.found.retain(|issue| issue.severity == Severity::Error);
    if issues.found.is_empty() { Ok(rows) } else { Err(issues.found) }
}

fn wanted_row(row: &Value) -> Wanted {
    let password = inline(row).map(SecretString::from);
    let Json::Object(mut config) = json(row) else {
        return Wanted { id: String::new(), config: Default::default(), password };
    };
    let id = match config.remove("id") {
        Some(Json::String(id)) => id,
        _ => String::new(),
    };
    if password.is_some() {
        config.remove("password");
    }
    Wanted { id, config, password }
}

/// A value of a list, which has no others.
fn json(value: &Value) -> Json {
    match &value.kind {
        ValueKind::Boolean(boolean) => Json::Bool(*boolean),
        ValueKind::I64(number) => Json::from(*number),
        ValueKind::U64(number) => Json::from(*number),
        ValueKind::Float(number) => Json::from(*number),
        ValueKind::String(text) => Json::String(text.clone()),
        ValueKind::Array(items) => Json::Array(items.iter().map(json).collect()),
        ValueKind::Table(table) => {
            let set = table.iter().filter(|(_, value)| !matches!(value.kind, ValueKind::Nil));
            Json::Object(set.map(|(key, value)| (key.clone(), json(value))).collect())
        }
        _ => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "postgres")]
    use std::collections::HashSet;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::config::from_texts;
    #[cfg(feature = "postgres")]
    use crate::config::settings::Settings;
    #[cfg(feature = "postgres")]
    use crate::event::AccountId;

    const LIST: &str = "[defaults]\nhost = \"h.example\"\nuser = \"{id}\"\npassword = { credential = \"{id}\" }\n[[account_lists]]\ndatabase = true\n";
    const URL: &str = "[journal]\nurl = \"postgres://iw@localhost/mail?sslmode=disable\"\n";

    #[cfg(feature = "postgres")]
    fn load(rows: &str) -> (Settings, Vec<String>) {
        let loaded = from_texts("t.toml", &format!("{LIST}{URL}"), &[(PLACE, rows)]);
        let (settings, issues) = loaded.unwrap_or_else(|issues| panic!("{issues:?}"));
        (settings, issues.iter().map(ToString::to_string).collect())
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn a_broken_row_is_told_and_the_others_are_read() {
        let rows = "ann\t{\"port\": 1993, \"labels\": {\"x\": \"y\"}}\nbob\t{\"prot\": 1}\ncid\t{\"port\": \"canary\"}\ndan\t[]\n\
                    eve\t{\"id\": \"x\"}\nfay\t{\"password\": {\"file\": \"pw\"}}\ngil\t{\"password\": {\"file\": \"/pw\"}}\nHal\t{}\n";
        let (settings, issues) = load(rows);
        let ids: Vec<_> = settings.accounts.iter().map(|account| account.id().as_str()).collect();
        assert_eq!((ids, settings.accounts[0].identity.port), (vec!["ann", "gil"], 1993));
        let reading = settings.table.unwrap();
        let broken = ["bob", "cid", "dan", "eve", "fay", "Hal"].map(AccountId::from);
        assert_eq!((reading.broken, reading.shards), (HashSet::from(broken), ShardSet::ALL));
        assert_eq!(reading.ids, HashSet::from(["ann", "gil"].map(AccountId::from)));
        for (id, what) in [
            ("bob.prot", "unknown key; did you mean \"port\"?"),
            ("cid.port", "expected an integer"),
            ("dan", "expected a JSON object"),
            ("eve", "`id` is a column of its own"),
            ("fay", "password: in the database, the path of a file has to be absolute"),
            ("Hal.id", "is no id"),
        ] {
            let start = format!("{PLACE}: {id}: warning: ");
            let told =
                issues.iter().find(|issue| issue.starts_with(&start)).unwrap_or_else(|| panic!("{issues:?}"));
            assert!(told.contains(what) && told.ends_with("stays as it is"), "{told}");
        }
        assert!(load("ann\t{}").0.table.unwrap().broken.is_empty());
    }

    /// Wherever the table stands among the lists.
    #[cfg(feature = "postgres")]
    #[test]
    fn a_row_with_the_id_of_another_account_gives_way() {
        let text = format!("{LIST}[[account_lists]]\npath = \"a.csv\"\n{URL}");
        let (settings, issues) =
            from_texts("t.toml", &text, &[("a.csv", "id,port\nann,7\n"), (PLACE, "ann\t{}")]).unwrap();
        let ports: Vec<_> = settings.accounts.iter().map(|account| account.identity.port).collect();
        assert_eq!(ports, [7]);
        assert!(issues.iter().any(|issue| issue.to_string().contains("ann.id: warning: ")), "{issues:?}");
    }

    #[test]
    fn a_table_needs_a_database_and_is_one_list() {
        let key = data_encoding::BASE64.encode(&[1; 32]);
        for (text, expected) in [
            (LIST.to_owned(), "account_lists[0].database: which one? `url` of [journal] is missing"),
            (
                format!("{LIST}path = \"a.csv\"\n{URL}"),
                "account_lists[0].path: `database` and `path`: only one of them",
            ),
            (
                format!("{LIST}[[account_lists]]\ndatabase = true\n{URL}"),
                "account_lists[1].database: the table is another list already",
            ),
            (
                format!("{LIST}seal_keys = \"{key}\"\n{URL}"),
                "account_lists[0].seal_keys: expected one or more tables",
            ),
            (
                format!("{LIST}seal_keys = [\"{key}\"]\n{URL}"),
                "account_lists[0].seal_keys[0]: expected a table with one of",
            ),
            (
                format!("{LIST}[[account_lists]]\npath = \"a.csv\"\nseal_keys = []\n{URL}"),
                "account_lists[1].seal_keys: of the database only",
            ),
        ] {
            let issues = from_texts("t.toml", &text, &[("a.csv", "id\nx\n")]).unwrap_err();
            let issues: Vec<_> = issues.iter().map(ToString::to_string).collect();
            assert!(issues.iter().any(|issue| issue.contains(expected)), "{expected}: {issues:?}");
            assert!(!issues.iter().any(|issue| issue.contains(&key)));
        }
    }

    #[test]
    fn a_row_of_a_file_becomes_one_of_the_table() {
        let origin = "a.jsonl:1".to_owned();
        let row = lists::json_line(
            r#"{"id":"ann","port":1,"labels.x":"y","mailboxes":["A"],"enabled":false,"host":null,"password":{"inline":"canary"}}"#,
            &origin,
        );
        let Wanted { id, config, password } = wanted_row(&row.unwrap());
        assert_eq!(
            (id.as_str(), Json::Object(config).to_string().as_str()),
            ("ann", r#"{"enabled":false,"labels":{"x":"y"},"mailboxes":["A"],"port":1}"#)
        );
        assert_eq!(password.unwrap().expose_secret(), "canary");
    }
}
