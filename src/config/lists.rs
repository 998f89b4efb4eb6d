//! `[[account_lists]]`: a CSV row or a JSON line is an account, and knows its line.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::issue::Place;
use super::keys::{self, Kind};
use super::load;
use super::section::{Issues, Section, unknown_key};

/// What lies outside of the configuration's own files.
#[derive(Clone, Copy, Debug)]
pub(super) enum Files<'t> {
    /// The file system.
    OnDisk,
    /// The file system, with this list in place of the database's table.
    InsteadOfTable(&'t Path),
    /// The file system, and nothing of the database.
    WithoutTable,
    /// These (name, text) and no others, for tests.
    These(&'t [(&'t str, &'t str)]),
}

/// The forms of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Csv,
    JsonLines,
}

impl Form {
    fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "jsonl" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

/// Takes every row of a list: of one file, or of those that its glob matches.
pub(super) fn rows(
    list: &Section<'_>,
    files: Files<'_>,
    issues: &mut Issues,
    mut take: impl FnMut(&Value, &mut Issues),
) {
    let Some(form) = form(list, issues) else { return };
    for path in paths(list, files, issues) {
        if let Err(message) = rows_of_file(&path, form, files, issues, &mut take) {
            list.error("path", format!("{}: {message}", path.display()), issues);
        }
    }
}

/// Takes every row of a file that no configuration names.
pub(super) fn rows_of(file: &Path, issues: &mut Issues, mut take: impl FnMut(&Value, &mut Issues)) {
    let name = file.display().to_string();
    let Some(form) = Form::of(&name) else {
        return issues.error(&name, "", "expected a file that ends in .csv or .jsonl");
    };
    if let Err(message) = rows_of_file(file, form, Files::OnDisk, issues, &mut take) {
        issues.error(&name, "", message);
    }
}

/// Takes every row of a file, or says why it cannot be read. What is wrong inside of it is told with its line.
fn rows_of_file(
    path: &Path,
    form: Form,
    files: Files<'_>,
    issues: &mut Issues,
    take: &mut dyn FnMut(&Value, &mut Issues),
) -> Result<(), String> {
    let name = path.display().to_string();
    let text = match read(path, files) {
        Ok(text) => text,
        Err(issue) if Place::of(&issue.origin).line == 0 => return Err(issue.message),
        Err(issue) => {
            issues.found.push(issue);
            return Ok(());
        }
    };
    let text = text.trim_start_matches('\u{feff}');
    let mut count = 0;
    let mut take = |row: &Value, issues: &mut Issues| {
        count += 1;
        take(row, issues);
    };
    let before = issues.found.len();
    match form {
        Form::Csv => csv(&name, text, issues, &mut take),
        Form::JsonLines => json_lines(&name, text, issues, &mut take),
    }
    if count == 0 && issues.found.len() == before {
        issues.warn(&name, "", "there is no account in this list");
    }
    Ok(())
}

fn form(list: &Section<'_>, issues: &mut Issues) -> Option<Form> {
    if !list.has("path") {
        issues.error(&list.origin, &list.path, "missing required key `path`, or `database`");
        return None;
    }
    let form = Form::of(list.text("path", issues)?);
    if form.is_none() {
        list.error("path", "expected a file, or a glob of files, that ends in .csv or .jsonl", issues);
    }
    form
}

/// One file, or the matches of a glob in byte order.
pub(super) fn paths(list: &Section<'_>, files: Files<'_>, issues: &mut Issues) -> Vec<PathBuf> {
    let Some(text) = list.text("path", &mut Issues::default()) else { return Vec::new() };
    let dir = list.dir_of("path");
    if !text.contains(['*', '?', '[']) {
        return vec![dir.join(text)];
    }
    // The directory of the file that names it is no pattern.
    let pattern = Path::new(&glob::Pattern::escape(&dir.to_string_lossy())).join(text);
    let pattern = pattern.to_string_lossy();
    let mut found: Vec<PathBuf> = match files {
        // As in a shell: no hidden files, which editors leave behind.
        Files::OnDisk | Files::InsteadOfTable(_) | Files::WithoutTable => match glob::glob_with(
            &pattern,
            glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() },
        ) {
            Ok(paths) => paths.filter_map(Result::ok).collect(),
            Err(error) => {
                list.error("path", format!("no glob: {}", error.msg), issues);
                return Vec::new();
            }
        },
        Files::These(texts) => {
            let pattern = glob::Pattern::new(&pattern).ok();
            let matches = |name: &str| pattern.as_ref().is_some_and(|pattern| pattern.matches(name));
            texts.iter().filter(|(name, _)| matches(name)).map(|(name, _)| PathBuf::from(name)).collect()
        }
    };
    found.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    if found.is_empty() {
        issues.warn(&list.origin_of("path"), &list.key_path("path"), "no file matches");
    }
    found
}

fn read(path: &Path, files: Files<'_>) -> Result<String, super::Issue> {
    match files {
        Files::OnDisk | Files::InsteadOfTable(_) | Files::WithoutTable => load::read(path),
        Files::These(texts) => {
            let found = texts.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| load::nowhere("no such file".to_owned()))
        }
    }
}

/// A value in a row; `labels.dept` stands in the table `labels`.
fn put(row: &mut Map<String, Value>, key: &str, value: Value, origin: &String) -> Result<(), Twice> {
    let Some((outer, inner)) = key.split_once('.') else {
        return match (row.get_mut(key).map(|known| &mut known.kind), value.kind) {
            // `labels` beside `labels.dept`.
            (Some(ValueKind::Table(known)), ValueKind::Table(more)) => {
                more.into_iter().try_for_each(|(key, value)| put_once(known, &key, value))
            }
            (Some(_), _) => Err(Twice),
            (None, kind) => put_once(row, key, Value::new(Some(origin), kind)),
        };
    };
    let table = || Value::new(Some(origin), ValueKind::Table(Map::new()));
    match &mut row.entry(outer.to_owned()).or_insert_with(table).kind {
        ValueKind::Table(table) => put_once(table, inner, value),
        _ => Err(Twice),
    }
}

/// A key is set twice.
#[derive(Debug)]
struct Twice;

fn put_once(table: &mut Map<String, Value>, key: &str, value: Value) -> Result<(), Twice> {
    table.insert(key.to_owned(), value).map_or(Ok(()), |_| Err(Twice))
}

struct Column<'t> {
    name: &'t str,
    /// `None` for one that is not known, and told already.
    kind: Option<Kind>,
}

fn csv(name: &str, text: &str, issues: &mut Issues, take: &mut dyn FnMut(&Value, &mut Issues)) {
    let lines = load::Lines::new(text);
    let mut reader =
        ::csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut header = ::csv::StringRecord::new();
    if !reader.read_record(&mut header).unwrap_or_default() {
        return;
    }
    let Some(columns) = columns(&header, &place(name, text, &lines, &header), issues) else { return };
    let mut record = ::csv::StringRecord::new();
    while reader.read_record(&mut record).unwrap_or_default() {
        let origin = place(name, text, &lines, &record);
        match row(&columns, &record, &origin) {
            Ok(row) => take(&Value::new(Some(&origin), ValueKind::Table(row)), issues),
            Err(problem) => issues.error(&origin, problem.column, problem.message),
        }
    }
}

/// `file:line` of a record. The reader's own count takes blank lines and line ends before it as a part of it.
fn place(name: &str, text: &str, lines: &load::Lines, record: &::csv::StringRecord) -> String {
    let start = record.position().and_then(|at| usize::try_from(at.byte()).ok()).unwrap_or_default();
    let rest = text.get(start..).unwrap_or_default();
    let start = start + rest.len() - rest.trim_start_matches(['\r', '\n']).len();
    format!("{name}:{}", lines.line(start))
}

/// What the header says; `None` where it is none.
fn columns<'t>(
    header: &'t ::csv::StringRecord,
    origin: &str,
    issues: &mut Issues,
) -> Option<Vec<Column<'t>>> {
    // Without it, the first row may be an account, and hold a password: nothing of it is shown.
    if !header.iter().any(|name| name.trim() == "id") {
        issues.error(origin, "", "the first row must name the columns, `id` among them");
        return None;
    }
    let mut taken = HashSet::new();
    let columns = header.iter().map(str::trim).enumerate().map(|(index, name)| {
        let kind = keys::column(name);
        if name.is_empty() {
            issues.error(origin, "", format!("column {} has no name", index + 1));
        } else if kind.is_none() {
            issues.error(origin, name, unknown_key(name, keys::columns()));
        } else if !taken.insert(name) {
            issues.error(origin, name, "this column is there twice");
        }
        Column { name, kind }
    });
    Some(columns.collect())
}

/// Why a row is none.
struct Problem<'t> {
    column: &'t str,
    message: String,
}

fn row<'t>(
    columns: &[Column<'t>],
    record: &::csv::StringRecord,
    origin: &String,
) -> Result<Map<String, Value>, Problem<'t>> {
    if record.len() != columns.len() {
        let message = format!("expected {} cells, one per column, found {}", columns.len(), record.len());
        return Err(Problem { column: "", message });
    }
    let mut row = Map::new();
    for (column, cell) in columns.iter().zip(record) {
        if cell.chars().any(char::is_control) {
            let message =
                "control characters and line breaks are not allowed (is a quote missing?)".to_owned();
            return Err(Problem { column: column.name, message });
        }
        if let (Some(kind), false) = (column.kind, cell.is_empty()) {
            let value = Value::new(Some(origin), typed(kind, cell, origin));
            // Twice, the column was told already.
            let _ = put(&mut row, column.name, value, origin);
        }
    }
    Ok(row)
}

/// A cell as its column's type. One that does not read as such stays a text, for the reader of accounts to complain.
fn typed(kind: Kind, cell: &str, origin: &String) -> ValueKind {
    let text = || ValueKind::String(cell.to_owned());
    match (kind, cell) {
        (Kind::Number, _) => cell.parse().map_or_else(|_| text(), ValueKind::I64),
        (Kind::Boolean, "true") => ValueKind::Boolean(true),
        (Kind::Boolean, "false") => ValueKind::Boolean(false),
        (Kind::Texts, _) => {
            let item = |item: &str| Value::new(Some(origin), ValueKind::String(item.to_owned()));
            ValueKind::Array(cell.split('|').map(item).collect())
        }
        _ => text(),
    }
}

fn json_lines(name: &str, text: &str, issues: &mut Issues, take: &mut dyn FnMut(&Value, &mut Issues)) {
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let origin = format!("{name}:{}", index + 1);
        match json_line(line, &origin) {
            Ok(row) => take(&row, issues),
            Err(message) => issues.error(&origin, "", message),
        }
    }
}

/// One JSON object, whose values all stand at `origin`.
pub(super) fn json_line(line: &str, origin: &String) -> Result<Value, String> {
    let mut json = serde_json::Deserializer::from_str(line);
    let value = Json { origin }.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    let value = value.map_err(|error| {
        let column = error.column();
        let message = error.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
        format!("no JSON object: {} at column {column}", crate::text::shortened(message, 120))
    })?;
    let ValueKind::Table(keys) = value.kind else {
        return Err("expected a JSON object, one a line".to_owned());
    };
    let mut row = Map::new();
    for (key, value) in keys {
        let twice = |Twice| format!("\"{}\" is set twice", crate::text::shortened(&key, 60));
        put(&mut row, &key, value, origin).map_err(twice)?;
    }
    Ok(Value::new(Some(origin), ValueKind::Table(row)))
}

/// JSON as a located value. `null` is not set; a key that is there twice is an error.
#[derive(Clone, Copy)]
struct Json<'o> {
    origin: &'o String,
}

impl Json<'_> {
    fn value<E>(self, kind: ValueKind) -> Result<Value, E> {
        Ok(Value::new(Some(self.origin), kind))
    }
}

impl<'de> DeserializeSeed<'de> for Json<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.value(ValueKind::Nil)
    }

    fn visit_bool<E: Error>(self, boolean: bool) -> Result<Value, E> {
        self.value(ValueKind::Boolean(boolean))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        self.value(ValueKind::I64(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        self.value(i64::try_from(number).map_or(ValueKind::U64(number), ValueKind::I64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        self.value(ValueKind::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.value(ValueKind::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self)? {
            values.push(value);
        }
        self.value(ValueKind::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut table = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self)?;
            if table.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key \"{key}\" is there twice")));
            }
            if !matches!(value.kind, ValueKind::Nil) {
                table.insert(key, value);
            }
        }
        self.value(ValueKind::Table(table))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::config::settings::{Account, LoginMeans, Settings};
    use crate::config::{from_texts, shown};
    use crate::secrets::SecretSource;

    const TEMPLATE: &str = "[templates.corp]\nhost = \"imap.x.example\"\nuser = \"{id}@x.example\"\npassword = { file = \"/s/{id}\" }\n";
    const LIST: &str = "[[account_lists]]\npath = \"a.csv\"\ntemplate = \"corp\"\n";
    const LINES: &str = "[[account_lists]]\npath = \"a.jsonl\"\ntemplate = \"corp\"\n";

    fn load(text: &str, lists: &[(&str, &str)]) -> (Option<Settings>, Vec<String>) {
        let (settings, issues) = match from_texts("t.toml", text, lists) {
            Ok((settings, warnings)) => (Some(settings), warnings),
            Err(issues) => (None, issues),
        };
        (settings, issues.iter().map(ToString::to_string).collect())
    }

    fn issues(text: &str, name: &str, list: &str) -> Vec<String> {
        load(text, &[(name, list)]).1
    }

    fn of_csv(list: &str) -> Vec<String> {
        issues(&format!("{TEMPLATE}{LIST}"), "a.csv", list)
    }

    fn of_lines(list: &str) -> Vec<String> {
        issues(&format!("{TEMPLATE}{LINES}"), "a.jsonl", list)
    }

    fn accounts(text: &str, name: &str, list: &str) -> Vec<std::sync::Arc<Account>> {
        let (settings, issues) = load(text, &[(name, list)]);
        settings.unwrap_or_else(|| panic!("{issues:?}")).accounts
    }

    fn source(account: &Account) -> String {
        match &account.login {
            LoginMeans::OAuth(grant) => grant.name.clone(),
            LoginMeans::Password(source) | LoginMeans::Certificate(source) => match source {
                SecretSource::File(path) => path.display().to_string(),
                SecretSource::Env(name) | SecretSource::Credential(name) => name.clone(),
                SecretSource::Backend(backend, name) => format!("{} {name}", backend.argv().join(" ")),
                SecretSource::Command(argv) => argv.join(" "),
                SecretSource::Inline(_) => "inline".to_owned(),
            },
        }
    }

    #[test]
    fn a_row_lies_over_its_template_and_that_over_the_defaults() {
        let text = format!(
            "[defaults]\nport = 1993\nidle_refresh = \"5m\"\nlabels = {{ env = \"prod\", dept = \"none\" }}\n{TEMPLATE}idle_refresh = \"6m\"\n[templates.other]\nuser = \"{{local}} of {{domain}}\"\n{LIST}"
        );
        let csv = "\u{feff}id,template,host,port,enabled,mailboxes,labels.dept,idle_refresh,password.env\r\n\
                   ann,,,,,,sales,,\r\n\
                   bob@y.example,other,h.example,2993,false,INBOX|Sent,,7m,PW_{id}\r\n";
        let accounts = accounts(&text, "a.csv", csv);
        let [ann, bob] = accounts.as_slice() else { panic!("{accounts:?}") };
        assert_eq!((&*ann.identity.host, ann.identity.user.as_str()), ("imap.x.example", "ann@x.example"));
        assert_eq!((ann.identity.port, ann.enabled, source(ann).as_str()), (1993, true, "/s/ann"));
        assert_eq!((ann.idle_refresh.as_secs(), ann.mailboxes.names().len()), (360, 1));
        assert_eq!(format!("{:?}", ann.identity.labels), "{\"dept\": \"sales\", \"env\": \"prod\"}");
        assert_eq!((&*bob.identity.host, bob.identity.user.as_str()), ("h.example", "bob of y.example"));
        assert_eq!((bob.identity.port, bob.enabled, source(bob).as_str()), (2993, false, "PW_{id}"));
        assert_eq!((bob.idle_refresh.as_secs(), bob.mailboxes.names().len()), (420, 2));
        assert_eq!(format!("{:?}", bob.identity.labels), "{\"dept\": \"none\", \"env\": \"prod\"}");
    }

    #[test]
    fn json_lines_nest_or_are_dotted() {
        let lines = "{\"id\":\"a\",\"labels\":{\"x\":\"1\"},\"labels.y\":\"2\",\"port\":1,\"mailboxes\":[\"A\",\"B\"],\"host\":null}\n\n \
                     {\"id\":\"b\",\"password\":{\"credential\":\"c\"},\"keepalive.count\":7,\"enabled\":false}\r\n";
        let accounts = accounts(&format!("{TEMPLATE}{LINES}"), "a.jsonl", lines);
        let [a, b] = accounts.as_slice() else { panic!("{accounts:?}") };
        assert_eq!((a.identity.labels.len(), a.identity.port, a.mailboxes.names().len()), (2, 1, 2));
        assert_eq!((source(b).as_str(), b.keepalive.count, b.enabled), ("c", 7, false));
    }

    #[test]
    fn accounts_of_a_template_share_what_they_have_in_common() {
        let text = format!("{TEMPLATE}mailboxes = [\"INBOX\", \"Sent\"]\nlabels = {{ a = \"b\" }}\n{LIST}");
        let accounts = accounts(&text, "a.csv", "id,port,mailboxes\nann,,\nbob,1,\ncid,,INBOX|Sent\n");
        let [ann, bob, cid] = accounts.as_slice() else { panic!("{accounts:?}") };
        for other in [bob, cid] {
            assert!(std::sync::Arc::ptr_eq(&ann.policy, &other.policy));
            assert!(std::sync::Arc::ptr_eq(&ann.identity.host, &other.identity.host));
            assert!(std::sync::Arc::ptr_eq(&ann.identity.labels, &other.identity.labels));
        }
    }

    #[test]
    fn each_template_has_its_own_policy() {
        let slow = TEMPLATE.replace("corp", "slow");
        let text = format!("{TEMPLATE}{slow}idle_refresh = \"2m\"\n{LIST}");
        let accounts = accounts(&text, "a.csv", "id,template\nann,\nbob,slow\ncid,\ndan,slow\n");
        let times: Vec<_> = accounts.iter().map(|account| account.idle_refresh.as_secs()).collect();
        assert_eq!(times, [540, 120, 540, 120]);
    }

    #[test]
    fn accounts_in_toml_have_templates_too() {
        let text = format!("{TEMPLATE}[[accounts]]\nid = \"a\"\ntemplate = \"corp\"\nuser = \"{{id}}\"\n");
        let (settings, issues) = load(&text, &[]);
        assert_eq!(
            settings.unwrap().accounts[0].identity.user,
            "{id}",
            "its own words are no template: {issues:?}"
        );
        let (_, issues) = load(&text.replace("\"corp\"\nuser", "\"corpp\"\nuser"), &[]);
        assert_eq!(
            issues,
            ["t.toml:7:1: accounts[0].template: there is no [templates.corpp]; did you mean \"corp\"?"]
        );
    }

    #[test]
    fn every_mistake_of_a_csv_is_told_with_its_line() {
        for (csv, told) in [
            (
                "id,port\na,x\nb,70000\n",
                &[
                    "a.csv:2: port: expected an integer, found string \"x\"",
                    "a.csv:3: port: expected 1 to 65535, found 70000",
                ][..],
            ),
            ("id,enabled\na,yes\n", &["a.csv:2: enabled: expected true or false, found string \"yes\""]),
            (
                "id,idle_refresh\r\n\r\na,1x\r\n",
                &["a.csv:3: idle_refresh: expected a duration like \"90s\" or \"9m\", found \"1x\""],
            ),
            (
                "id,tls\na,startls\n",
                &[
                    "a.csv:2: tls: unknown value \"startls\" (expected \"implicit\", \"starttls\", \"none\"); did you mean \"starttls\"?",
                ],
            ),
            ("id,hots\na,x\n", &["a.csv:1: hots: unknown key; did you mean \"host\"?"]),
            ("id,oauth\na,x\n", &["a.csv:2: oauth: there is no [oauth.x]"]),
            ("id,port,port\na,1,2\n", &["a.csv:1: port: this column is there twice"]),
            ("id,\na,\n", &["a.csv:1: column 2 has no name"]),
            (
                "id,port\na\nb,1,2\n",
                &[
                    "a.csv:2: expected 2 cells, one per column, found 1",
                    "a.csv:3: expected 2 cells, one per column, found 3",
                ],
            ),
            ("id\na\nb\na\n", &["a.csv:4: id: \"a\" is the id of another account already, at a.csv:2"]),
            (
                "id,user\n\"a\",\"x, y\"\nA,\n",
                &["a.csv:3: id: \"A\" is no id: [a-z0-9][a-z0-9._@+-]*, at most 128 bytes"],
            ),
            (
                "id,user\na,\"x\ny\"\nB,\n",
                &[
                    "a.csv:2: user: control characters and line breaks are not allowed (is a quote missing?)",
                    "a.csv:4: id: \"B\" is no id: [a-z0-9][a-z0-9._@+-]*, at most 128 bytes",
                ],
            ),
            (
                "id,user\r\na,\"x\r\ny\"\r\nB,\r\n",
                &[
                    "a.csv:2: user: control characters and line breaks are not allowed (is a quote missing?)",
                    "a.csv:4: id: \"B\" is no id: [a-z0-9][a-z0-9._@+-]*, at most 128 bytes",
                ],
            ),
            (
                "id,template\na,cort\n",
                &["a.csv:2: template: there is no [templates.cort]; did you mean \"corp\"?"],
            ),
            ("id,host\n,x\n", &["a.csv:2: missing required key `id`"]),
            ("a,CANARY\nb,CANARY\n", &["a.csv:1: the first row must name the columns, `id` among them"]),
            (
                "id,password.env,password.file\na,X,y\n",
                &[
                    "a.csv:2: password: expected a table with one of \"env\", \"file\", \"command\", \"credential\", \"secret\", \"inline\"",
                ],
            ),
            ("", &["a.csv: warning: there is no account in this list"]),
            ("id\n", &["a.csv: warning: there is no account in this list"]),
        ] {
            assert_eq!(of_csv(csv), told, "{csv:?}");
        }
    }

    #[test]
    fn every_mistake_of_json_lines_is_told_with_its_line() {
        for (lines, told) in [
            (
                "{\"id\":\"a\"}\n{\"id\":\"b\",}\n",
                &["a.jsonl:2: no JSON object: trailing comma at column 11"][..],
            ),
            ("\"CANARY\"\n", &["a.jsonl:1: expected a JSON object, one a line"]),
            (
                "{\"id\":\"a\",\"id\":\"b\"}",
                &["a.jsonl:1: no JSON object: the key \"id\" is there twice at column 19"],
            ),
            (
                "{\"id\":\"a\",\"labels.x\":\"1\",\"labels\":{\"x\":\"2\"}}",
                &["a.jsonl:1: \"labels\" is set twice"],
            ),
            (
                "{\"id\":\"a\",\"port\":\"993\"}",
                &["a.jsonl:1: port: expected an integer, found string \"993\""],
            ),
            ("{\"id\":\"a\",\"hots\":1}", &["a.jsonl:1: hots: unknown key; did you mean \"host\"?"]),
            (
                "{\"id\":\"a\",\"tls_options\":{\"min_verson\":1}}",
                &["a.jsonl:1: tls_options.min_verson: unknown key; did you mean \"min_version\"?"],
            ),
            (
                "{\"id\":\"a\",\"password\":\"CANARY\"}",
                &[
                    "a.jsonl:1: password: expected a table with one of \"env\", \"file\", \"command\", \"credential\", \"secret\", \"inline\"",
                ],
            ),
            (
                "{\"id\":\"a\",\"password\":{\"inline\":7}}",
                &["a.jsonl:1: password.inline: expected a string"],
            ),
            ("\u{feff}\n\n", &["a.jsonl: warning: there is no account in this list"]),
        ] {
            assert_eq!(of_lines(lines), told, "{lines:?}");
        }
    }

    #[test]
    fn ids_are_unique_over_all_lists() {
        let text = format!("{TEMPLATE}{LIST}{LINES}[[accounts]]\nid = \"a\"\ntemplate = \"corp\"\n");
        let (_, issues) = load(&text, &[("a.csv", "id\na\nb\n"), ("a.jsonl", "{\"id\":\"b\"}")]);
        assert_eq!(
            issues,
            [
                "a.csv:2: id: \"a\" is the id of another account already, at t.toml:12:1",
                "a.jsonl:1: id: \"b\" is the id of another account already, at a.csv:3"
            ]
        );
    }

    #[test]
    fn a_glob_takes_files_in_byte_order_and_may_match_none() {
        let text = format!("{TEMPLATE}[[account_lists]]\npath = \"d/*.jsonl\"\ntemplate = \"corp\"\n");
        let (settings, _) =
            load(&text, &[("d/b.jsonl", "{\"id\":\"b\"}"), ("d/B.jsonl", "{\"id\":\"a\"}"), ("d/c.csv", "")]);
        let ids: Vec<_> = settings.unwrap().accounts.iter().map(|account| account.id().to_string()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert_eq!(load(&text, &[]).1, ["t.toml:6:1: account_lists[0].path: warning: no file matches"]);
        for (path, told) in [
            ("a.csv", "a.csv: no such file"),
            ("a.txt", "expected a file, or a glob of files, that ends in .csv or .jsonl"),
        ] {
            let text = text.replace("d/*.jsonl", path);
            assert_eq!(load(&text, &[]).1, [format!("t.toml:6:1: account_lists[0].path: {told}")]);
        }
    }

    #[test]
    fn a_placeholder_that_nobody_can_fill_is_told_once_where_it_stands() {
        let of = |user: &str| {
            let template = TEMPLATE.replace("{id}@x.example", user);
            issues(&format!("{template}{LIST}"), "a.csv", "id,labels.dept\nann,sales\nbob,\n")
        };
        let at = "t.toml:3:1: templates.corp.user: ";
        let first = "(account \"ann\" at a.csv:2 is the first)";
        assert_eq!(
            of("{labels.dept}"),
            ["a.csv:3: user: templates.corp.user (t.toml:3:1): \"{labels.dept}\" is not set here"]
        );
        assert_eq!(
            of("{loca}@x"),
            [format!("{at}unknown placeholder \"{{loca}}\"; did you mean \"{{local}}\"? {first}")]
        );
        assert_eq!(
            of("{password.inline}"),
            [format!("{at}unknown placeholder \"{{password.inline}}\" {first}")]
        );
        assert_eq!(of("{user}"), [format!("{at}a user is not made of itself {first}")]);
        assert!(of("{id").first().unwrap().starts_with(at));
        assert_eq!(of("{{x}}"), [""; 0]);
        let unused = TEMPLATE.replace("{id}", "{idd}");
        assert_eq!(
            load(
                &format!("{unused}[[accounts]]\nid=\"a\"\nhost=\"h\"\nuser=\"u\"\npassword={{env=\"X\"}}"),
                &[]
            )
            .1
            .len(),
            2
        );
    }

    #[test]
    fn a_value_of_a_list_never_names_the_secret_of_another() {
        for kind in ["file", "credential", "env"] {
            let template =
                TEMPLATE.replace("file = \"/s/{id}\"", &format!("{kind} = \"s-{{user}}-{{labels.x}}\""));
            let of = |csv: &str| issues(&format!("{template}{LIST}"), "a.csv", csv);
            assert!(of("id,user,labels.x\na,bob,y.z\n").is_empty(), "{kind}");
            for value in ["../root", "a/b", "..", "/etc/passwd"] {
                for csv in
                    [format!("id,user,labels.x\na,{value},x\n"), format!("id,user,labels.x\na,x,{value}\n")]
                {
                    let told = of(&csv);
                    assert!(
                        told.len() == 1 && told[0].starts_with("a.csv:2: password: "),
                        "{kind} {csv}: {told:?}"
                    );
                }
            }
        }
        let template = TEMPLATE.replace("file = \"/s/{id}\"", "command = [\"pass\", \"{labels.x}\"]");
        let told = issues(&format!("{template}{LIST}"), "a.csv", "id,labels.x\na,--help\n");
        assert!(told[0].contains("option"), "{told:?}");
    }

    #[test]
    fn what_is_wrong_with_a_template_is_told_once_used_or_not() {
        let text = format!(
            "[defaults]\nport = \"x\"\n{TEMPLATE}idle_refresh = \"1h\"\n[templates.unused]\ntls = \"ssl\"\npassword = \"CANARY\"\n{LIST}"
        );
        assert_eq!(
            issues(&text, "a.csv", "id,port\na,1\nb,2\n"),
            [
                "t.toml:2:1: defaults.port: expected an integer, found string \"x\"",
                "t.toml:7:1: templates.corp.idle_refresh: expected 1s to 1740s, found \"1h\"",
                "t.toml:9:1: templates.unused.tls: unknown value \"ssl\" (expected \"implicit\", \"starttls\", \"none\"); did you mean \"implicit\"?",
                "t.toml:10:1: templates.unused.password: expected a table with one of \"env\", \"file\", \"command\", \"credential\", \"secret\", \"inline\"",
            ]
        );
    }

    #[test]
    fn a_password_in_a_list_is_never_shown() {
        let csv = "id,port,password.inline\na,1,CANARY-1\nb,x,CANARY-2\nc,2,\"CANARY\n3\"\nd,4,5,CANARY-4\n";
        let told = of_csv(csv);
        assert_eq!(told.len(), 5, "{told:?}");
        assert!(!format!("{told:?}").contains("CANARY"), "{told:?}");
        let lines = "{\"id\":\"a\",\"password\":{\"inline\":\"CANARY\"}\n{\"id\":\"b\",\"password\":{\"inline\":[\"CANARY\"]}}\n{\"id\":\"c\",\"password\":{\"inlin\":\"CANARY\"}}\n";
        let told = of_lines(lines);
        assert!(told.len() == 3 && !format!("{told:?}").contains("CANARY"), "{told:?}");
    }

    #[test]
    fn thousands_of_bad_rows_are_a_page() {
        let csv: String =
            std::iter::once("id,port\n".to_owned()).chain((0..5000).map(|n| format!("a{n},x\n"))).collect();
        let text = format!("[log]\nlevel = \"loud\"\n{TEMPLATE}{LIST}");
        let issues = from_texts("t.toml", &text, &[("a.csv", &csv)]).unwrap_err();
        let lines = shown(&issues);
        assert_eq!((issues.len(), lines.len()), (5001, 22));
        assert_eq!(lines[20], "a.csv: and 4980 more errors");
        assert!(lines[21].starts_with("t.toml:2:1"), "{lines:?}");
    }

    proptest! {
        #[test]
        fn no_list_panics(csv in "(id|port|labels.x|[a-z\",]{0,4}){0,4}\n([a-z0-9\",|\r\n]{0,12}\n){0,6}", lines in "[-{}\\[\\]\":,a-z0-9 \n]{0,40}") {
            let text = format!("{TEMPLATE}{LIST}{LINES}");
            let _ = from_texts("t.toml", &text, &[("a.csv", &csv), ("a.jsonl", &lines)]);
        }

        /// A row says what was written into it, at its line.
        #[test]
        fn cells_arrive_as_they_were_written(cells in prop::collection::vec("[ -~ä€]{1,8}", 1..8)) {
            let mut writer = ::csv::Writer::from_writer(Vec::new());
            writer.write_record(["id", "labels.x"]).unwrap();
            for (n, cell) in cells.iter().enumerate() {
                writer.write_record([&format!("a{n}"), cell]).unwrap();
            }
            let csv = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let found = accounts(&format!("{TEMPLATE}{LIST}"), "a.csv", &csv);
            let told: Vec<_> = found.iter().map(|account| account.identity.labels["x"].clone()).collect();
            prop_assert_eq!(told, cells);
        }
    }
}
