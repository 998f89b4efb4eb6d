//! Reads a table key by key: strictly typed, all problems noted, unknown keys found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Map, Value, ValueKind};
use jiff::{Span, SpanRelativeTo};

use super::issue::{Issue, Place, Severity};
use super::keys;
use super::surroundings::{Outside, Thing};

/// The problems found so far, and what is still to be looked at.
#[derive(Debug, Default)]
pub(super) struct Issues {
    pub(super) found: Vec<Issue>,
    pub(super) outside: Vec<Outside>,
}

impl Issues {
    pub(super) fn error(&mut self, origin: &str, path: &str, message: impl Into<String>) {
        self.note(Severity::Error, origin, path, message.into());
    }

    pub(super) fn warn(&mut self, origin: &str, path: &str, message: impl Into<String>) {
        self.note(Severity::Warning, origin, path, message.into());
    }

    fn note(&mut self, severity: Severity, origin: &str, path: &str, message: String) {
        self.found.push(Issue { severity, origin: origin.to_owned(), path: path.to_owned(), message });
    }
}

/// A table, with those that it lies over.
#[derive(Clone, Debug)]
pub(super) struct Section<'a> {
    pub(super) path: String,
    pub(super) origin: String,
    own: Option<&'a Map<String, Value>>,
    /// Nearest first.
    below: Vec<Layer<'a>>,
}

/// A table that fills what those above it leave out.
#[derive(Clone, Debug)]
struct Layer<'a> {
    path: String,
    table: &'a Map<String, Value>,
    /// These of its keys are as if they were not there.
    hidden: &'static [&'static str],
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn names_a_secret(path: &str) -> bool {
    let key = path.rsplit('.').next().unwrap_or(path).to_ascii_lowercase();
    ["password", "passwd", "secret", "token", "inline"].iter().any(|name| key.contains(name))
}

/// Which type a value has, in words.
fn kind(path: &str, value: &Value) -> String {
    match &value.kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Boolean(boolean) => format!("boolean {boolean}"),
        ValueKind::I64(number) => format!("integer {number}"),
        ValueKind::Float(number) => format!("float {number}"),
        // Pasted where it does not belong, a secret is still one.
        ValueKind::String(_) if names_a_secret(path) => "a string".to_owned(),
        ValueKind::String(text) => format!("string \"{}\"", crate::text::shortened(text, 60)),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "an array".to_owned(),
        _ => "a number".to_owned(),
    }
}

/// Where a value stands; a table that was merged stands where its first key does.
pub(super) fn origin(value: &Value) -> String {
    match (value.origin(), &value.kind) {
        (Some(origin), _) => origin.to_owned(),
        (None, ValueKind::Table(table)) => table.values().next().map(origin).unwrap_or_default(),
        (None, _) => String::new(),
    }
}

impl<'a> Section<'a> {
    /// The table at `name` of a tree; empty where there is none.
    pub(super) fn of(tree: &'a Map<String, Value>, name: &str, issues: &mut Issues) -> Self {
        match tree.get(name) {
            Some(value) => Self::from_value(name.to_owned(), value, issues),
            None => Self::empty(name.to_owned(), String::new()),
        }
    }

    fn empty(path: String, origin: String) -> Self {
        Self { path, origin, own: None, below: Vec::new() }
    }

    pub(super) fn from_value(path: String, value: &'a Value, issues: &mut Issues) -> Self {
        let origin = origin(value);
        let own = match &value.kind {
            ValueKind::Table(table) => Some(table),
            _ => {
                issues.error(&origin, &path, format!("expected a table, found {}", kind(&path, value)));
                None
            }
        };
        Self { path, origin, own, below: Vec::new() }
    }

    /// Lays it over another, and over what that lies over.
    pub(super) fn over(mut self, below: &Section<'a>) -> Self {
        self.below.extend(below.layers());
        self
    }

    /// Its tables, nearest first.
    fn layers(&self) -> impl Iterator<Item = Layer<'a>> {
        let own = self.own.map(|table| Layer { path: self.path.clone(), table, hidden: &[] });
        own.into_iter().chain(self.below.iter().cloned())
    }

    /// Lays it over a preset. Of the tables that lie below the one that sets `named_by` (below this one, where none
    /// does), the preset hides `keys`.
    pub(super) fn over_preset(
        mut self,
        preset: &Section<'a>,
        named_by: &str,
        keys: &'static [&'static str],
    ) -> Self {
        let naming = self.below.iter().position(|layer| layer.table.contains_key(named_by));
        let first = naming.filter(|_| !self.is_own(named_by)).map_or(0, |naming| naming + 1);
        self.below.iter_mut().skip(first).for_each(|layer| layer.hidden = keys);
        self.over(preset)
    }

    /// Notes the keys that `schema` does not know.
    pub(super) fn known(&self, schema: &[keys::Key], issues: &mut Issues) {
        for (name, value) in self.own.into_iter().flatten() {
            if !schema.iter().any(|key| key.name == name) {
                let message = unknown_key(name, schema.iter().map(|key| key.name));
                issues.error(&origin(value), &join(&self.path, name), message);
            }
        }
    }

    /// The path of a key where it is set; of the nearest table where it is not.
    pub(super) fn key_path(&self, key: &str) -> String {
        let layer = self.below.iter().find(|layer| !self.is_own(key) && layer.get(key).is_some());
        join(layer.map_or(&self.path, |layer| &layer.path), key)
    }

    /// Where `key` stands, or the table if it does not.
    pub(super) fn origin_of(&self, key: &str) -> String {
        self.get(key).map_or_else(|| self.origin.clone(), origin)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        let own = self.own.and_then(|table| table.get(key));
        own.or_else(|| self.below.iter().find_map(|layer| layer.get(key)))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// How many tables lie above the one that sets `key`.
    pub(super) fn depth(&self, key: &str) -> Option<usize> {
        if self.is_own(key) {
            return Some(0);
        }
        self.below.iter().position(|layer| layer.get(key).is_some()).map(|at| at + 1)
    }

    /// Whether it is set here, and not by a table below.
    pub(super) fn is_own(&self, key: &str) -> bool {
        self.own.is_some_and(|table| table.contains_key(key))
    }

    /// The keys that are set here.
    pub(super) fn own_keys(&self) -> impl Iterator<Item = &'a str> {
        self.own.into_iter().flatten().map(|(key, _)| key.as_str())
    }

    /// A value that is set here, by its dotted key.
    pub(super) fn own_value(&self, key: &str) -> Option<&'a Value> {
        let table = self.own?;
        table.get(key).or_else(|| match &table.get(key.split_once('.')?.0)?.kind {
            ValueKind::Table(inner) => inner.get(key.split_once('.')?.1),
            _ => None,
        })
    }

    pub(super) fn error(&self, key: &str, message: impl Into<String>, issues: &mut Issues) {
        issues.error(&self.origin_of(key), &self.key_path(key), message);
    }

    pub(super) fn mismatch(&self, key: &str, expected: &str, value: &Value, issues: &mut Issues) {
        issues.error(
            &origin(value),
            &self.key_path(key),
            format!("expected {expected}, found {}", kind(key, value)),
        );
    }

    pub(super) fn text(&self, key: &str, issues: &mut Issues) -> Option<&'a str> {
        let value = self.get(key)?;
        match &value.kind {
            ValueKind::String(text) => {
                if text.chars().any(char::is_control) {
                    self.error(key, "control characters are not allowed", issues);
                    return None;
                }
                Some(text)
            }
            _ => {
                self.mismatch(key, "a string", value, issues);
                None
            }
        }
    }

    pub(super) fn boolean(&self, key: &str, default: bool, issues: &mut Issues) -> bool {
        match self.get(key) {
            Some(Value { kind: ValueKind::Boolean(boolean), .. }) => *boolean,
            Some(value) => {
                self.mismatch(key, "true or false", value, issues);
                default
            }
            None => default,
        }
    }

    pub(super) fn number(
        &self,
        key: &str,
        default: u64,
        allowed: std::ops::RangeInclusive<u64>,
        issues: &mut Issues,
    ) -> u64 {
        match self.get(key) {
            Some(value) => match &value.kind {
                ValueKind::I64(n) => match u64::try_from(*n).ok().filter(|n| allowed.contains(n)) {
                    Some(n) => n,
                    None => {
                        let message = format!("expected {} to {}, found {n}", allowed.start(), allowed.end());
                        self.error(key, message, issues);
                        default
                    }
                },
                _ => {
                    self.mismatch(key, "an integer", value, issues);
                    default
                }
            },
            None => default,
        }
    }

    /// One of the named values.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        default: T,
        choices: &[(&str, T)],
        issues: &mut Issues,
    ) -> T {
        let Some(text) = self.text(key, issues) else { return default };
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return *choice;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let near = nearest(text, choices.iter().map(|(name, _)| *name));
        let near = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
        let message = format!(
            "unknown value \"{}\" (expected {}){near}",
            crate::text::shortened(text, 60),
            names.join(", ")
        );
        self.error(key, message, issues);
        default
    }

    pub(super) fn duration(
        &self,
        key: &str,
        default: Duration,
        allowed: std::ops::RangeInclusive<Duration>,
        issues: &mut Issues,
    ) -> Duration {
        let Some(text) = self.text(key, issues) else { return default };
        match parse_duration(text) {
            Some(duration) if allowed.contains(&duration) => duration,
            Some(_) => {
                let message =
                    format!("expected {:?} to {:?}, found \"{text}\"", allowed.start(), allowed.end());
                self.error(key, message, issues);
                default
            }
            None => {
                let message = format!(
                    "expected a duration like \"90s\" or \"9m\", found \"{}\"",
                    crate::text::shortened(text, 60)
                );
                self.error(key, message, issues);
                default
            }
        }
    }

    /// `"10/s"`, `"30/min"`, `"100/h"`: the pause between two.
    pub(super) fn rate(&self, key: &str, default: Duration, issues: &mut Issues) -> Duration {
        let Some(text) = self.text(key, issues) else { return default };
        parse_rate(text).unwrap_or_else(|| {
            let message =
                format!("expected a rate like \"10/s\", found \"{}\"", crate::text::shortened(text, 60));
            self.error(key, message, issues);
            default
        })
    }

    pub(super) fn texts(&self, key: &str, issues: &mut Issues) -> Option<Vec<String>> {
        let value = self.get(key)?;
        let ValueKind::Array(items) = &value.kind else {
            self.mismatch(key, "an array of strings", value, issues);
            return None;
        };
        let mut texts = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let path = format!("{}[{i}]", self.key_path(key));
            match &item.kind {
                ValueKind::String(text) if text.chars().any(char::is_control) => {
                    issues.error(&origin(item), &path, "control characters are not allowed");
                }
                ValueKind::String(text) => texts.push(text.clone()),
                _ => issues.error(
                    &origin(item),
                    &path,
                    format!("expected a string, found {}", kind(&path, item)),
                ),
            }
        }
        Some(texts)
    }

    /// A text that nothing is shown of.
    pub(super) fn secret(&self, key: &str, issues: &mut Issues) -> Option<String> {
        match &self.get(key)?.kind {
            ValueKind::String(text) => Some(text.clone()),
            _ => {
                self.error(key, "expected a string", issues);
                None
            }
        }
    }

    pub(super) fn text_table(&self, key: &str, issues: &mut Issues) -> BTreeMap<String, String> {
        let table = self.inner(key, issues);
        let layers = table.own.into_iter().chain(table.below.iter().map(|layer| layer.table));
        let names: BTreeSet<&String> = layers.flat_map(Map::keys).collect();
        names
            .into_iter()
            .filter_map(|name| Some((name.clone(), table.text(name, issues)?.to_owned())))
            .collect()
    }

    /// A table inside, over those of the tables below.
    pub(super) fn inner(&self, key: &str, issues: &mut Issues) -> Section<'a> {
        let path = join(&self.path, key);
        let own = self.own.and_then(|table| table.get(key));
        let mut inner = match own {
            Some(value) => Self::from_value(path, value, issues),
            None => Self::empty(path, self.origin.clone()),
        };
        inner.below = self.below.iter().filter_map(|layer| layer.inner(key)).collect();
        inner
    }

    /// A table inside that is replaced as a whole: the nearest.
    pub(super) fn nearest(&self, key: &str, issues: &mut Issues) -> Option<Section<'a>> {
        Some(Self::from_value(self.key_path(key), self.get(key)?, issues))
    }

    /// The tables inside, by name.
    pub(super) fn tables(&self, issues: &mut Issues) -> Vec<(&'a str, Section<'a>)> {
        let table = self.own.into_iter().flatten();
        table
            .map(|(name, value)| (name.as_str(), Section::from_value(join(&self.path, name), value, issues)))
            .collect()
    }

    /// The tables of the array at `key`.
    pub(super) fn array(&self, key: &str, issues: &mut Issues) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let ValueKind::Array(items) = &value.kind else {
            self.mismatch(key, "an array of tables", value, issues);
            return Vec::new();
        };
        let path = self.key_path(key);
        let items = items.iter().enumerate();
        items.map(|(at, item)| Section::from_value(format!("{path}[{at}]"), item, issues)).collect()
    }

    /// A path, relative to the file that names it.
    pub(super) fn path(&self, key: &str, issues: &mut Issues) -> Option<PathBuf> {
        let text = self.text(key, issues)?;
        if text.is_empty() {
            self.error(key, "a path is missing", issues);
            return None;
        }
        Some(self.dir_of(key).join(text))
    }

    /// Notes what `key` names, to be looked at.
    pub(super) fn names(&self, key: &str, thing: Thing, issues: &mut Issues) {
        issues.outside.push(Outside { thing, origin: self.origin_of(key), path: self.key_path(key) });
    }

    /// The directory of the file that sets `key`; empty where no file does.
    pub(super) fn dir_of(&self, key: &str) -> PathBuf {
        let origin = self.origin_of(key);
        let file = Place::of(&origin).file;
        let named = !origin.starts_with("environment variable ");
        Path::new(file).parent().filter(|_| named).map(Path::to_owned).unwrap_or_default()
    }
}

impl<'a> Layer<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.table.get(key).filter(|_| !self.hidden.contains(&key))
    }

    fn inner(&self, key: &str) -> Option<Self> {
        match &self.get(key)?.kind {
            ValueKind::Table(table) => Some(Self { path: join(&self.path, key), table, hidden: &[] }),
            _ => None,
        }
    }
}

fn parse_rate(text: &str) -> Option<Duration> {
    let (count, unit) = text.split_once('/')?;
    let seconds = match unit.trim() {
        "s" => 1,
        "min" | "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let count: u32 = count.trim().parse().ok().filter(|count| (1..=1_000_000).contains(count))?;
    Some(Duration::from_secs(seconds) / count)
}

/// "9m", "1h 30m", "10s".
/// `90s`, `9m`, `1d`: a day has 24 hours.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    Duration::try_from(span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?).ok()
}

pub(super) fn unknown_key<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    if keys::LATER.contains(&name) {
        return "not supported in this version".to_owned();
    }
    let known: Vec<_> = known.collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("unknown key; did you mean \"{near}\"?"),
        None => format!("unknown key (known keys: {})", known.join(", ")),
    }
}

/// What people write for something else.
const ALIASES: [(&str, &str); 8] = [
    ("ssl", "implicit"),
    ("tls", "implicit"),
    ("imaps", "implicit"),
    ("plain", "none"),
    ("username", "user"),
    ("server", "host"),
    ("folders", "mailboxes"),
    ("mailbox", "mailboxes"),
];

pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let known: Vec<_> = known.collect();
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, meant)| *meant);
    if let Some(meant) = known.iter().find(|known| alias == Some(**known)) {
        return Some(meant);
    }
    let scored = known.into_iter().map(|known| (strsim::jaro_winkler(name, known), known));
    scored.filter(|(score, _)| *score > 0.84).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}
