//! Reads a table key by key: strictly typed, all problems noted, unknown keys found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Map, Value, ValueKind};
use jiff::{Span, SpanRelativeTo};

use super::issue::{Issue, Severity};
use super::keys;
use crate::secrets::SecretSource;

/// The problems found so far, and the secrets whose sources are still to be looked at.
#[derive(Debug, Default)]
pub(super) struct Issues {
    pub(super) found: Vec<Issue>,
    pub(super) secrets: Vec<SecretPlace>,
}

/// A secret of the configuration, and where it is named.
#[derive(Debug)]
pub(super) struct SecretPlace {
    pub(super) source: SecretSource,
    pub(super) origin: String,
    pub(super) path: String,
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

/// A table, with the table of defaults below it.
#[derive(Clone, Debug)]
pub(super) struct Section<'a> {
    pub(super) path: String,
    pub(super) origin: String,
    table: Option<&'a Map<String, Value>>,
    below: Option<&'a Map<String, Value>>,
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
fn origin(value: &Value) -> String {
    match (value.origin(), &value.kind) {
        (Some(origin), _) => origin.to_owned(),
        (None, ValueKind::Table(table)) => table.values().next().map(origin).unwrap_or_default(),
        (None, _) => String::new(),
    }
}

impl<'a> Section<'a> {
    /// The table at `name` of a tree; empty where there is none.
    pub(super) fn of(tree: &'a Map<String, Value>, name: &str, issues: &mut Issues) -> Self {
        let mut section = Self { path: name.to_owned(), origin: String::new(), table: None, below: None };
        if let Some(value) = tree.get(name) {
            section = Self::from_value(name.to_owned(), value, issues);
        }
        section
    }

    pub(super) fn from_value(path: String, value: &'a Value, issues: &mut Issues) -> Self {
        let origin = origin(value);
        let table = match &value.kind {
            ValueKind::Table(table) => Some(table),
            _ => {
                issues.error(&origin, &path, format!("expected a table, found {}", kind(&path, value)));
                None
            }
        };
        Self { path, origin, table, below: None }
    }

    pub(super) fn over(mut self, below: &Section<'a>) -> Self {
        self.below = below.table;
        self
    }

    /// Notes the keys that `schema` does not know.
    pub(super) fn known(&self, schema: &[keys::Key], issues: &mut Issues) {
        for (name, value) in self.table.into_iter().flatten() {
            if !schema.iter().any(|key| key.name == name) {
                let path = self.key_path(name);
                issues.error(&origin(value), &path, unknown_key(name, schema));
            }
        }
    }

    pub(super) fn key_path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where `key` stands, or the table if it does not.
    pub(super) fn origin_of(&self, key: &str) -> String {
        self.get(key).map_or_else(|| self.origin.clone(), origin)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.table.and_then(|table| table.get(key)).or_else(|| self.below.and_then(|below| below.get(key)))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn error(&self, key: &str, message: impl Into<String>, issues: &mut Issues) {
        issues.error(&self.origin_of(key), &self.key_path(key), message);
    }

    fn mismatch(&self, key: &str, expected: &str, value: &Value, issues: &mut Issues) {
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
        default: &str,
        allowed: std::ops::RangeInclusive<Duration>,
        issues: &mut Issues,
    ) -> Duration {
        let fallback = parse_duration(default).unwrap_or_default();
        let Some(text) = self.text(key, issues) else { return fallback };
        match parse_duration(text) {
            Some(duration) if allowed.contains(&duration) => duration,
            Some(_) => {
                let message =
                    format!("expected {:?} to {:?}, found \"{text}\"", allowed.start(), allowed.end());
                self.error(key, message, issues);
                fallback
            }
            None => {
                let message = format!(
                    "expected a duration like \"{default}\", found \"{}\"",
                    crate::text::shortened(text, 60)
                );
                self.error(key, message, issues);
                fallback
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

    pub(super) fn text_table(&self, key: &str, issues: &mut Issues) -> BTreeMap<String, String> {
        let Some(value) = self.get(key) else { return BTreeMap::new() };
        let table = Section::from_value(self.key_path(key), value, issues);
        let keys: Vec<_> = table.table.into_iter().flatten().map(|(key, _)| key.clone()).collect();
        keys.into_iter().filter_map(|key| Some((key.clone(), table.text(&key, issues)?.to_owned()))).collect()
    }

    /// A table inside; of the defaults where the account has none.
    pub(super) fn inner(&self, key: &str, issues: &mut Issues) -> Section<'a> {
        match self.get(key) {
            Some(value) => Section::from_value(self.key_path(key), value, issues),
            None => {
                Section { path: self.key_path(key), origin: self.origin.clone(), table: None, below: None }
            }
        }
    }

    /// The tables inside, by name.
    pub(super) fn tables(&self, issues: &mut Issues) -> Vec<(String, Section<'a>)> {
        let table = self.table.into_iter().flatten();
        table
            .map(|(name, value)| (name.clone(), Section::from_value(self.key_path(name), value, issues)))
            .collect()
    }

    /// A path, relative to the file that names it.
    pub(super) fn path(&self, key: &str, issues: &mut Issues) -> Option<PathBuf> {
        let text = self.text(key, issues)?;
        if text.is_empty() {
            self.error(key, "a path is missing", issues);
            return None;
        }
        let path = PathBuf::from(text);
        let origin = self.origin_of(key);
        let file = origin.rsplitn(3, ':').nth(2).filter(|_| !origin.starts_with("environment"));
        match file.and_then(|file| Path::new(file).parent()) {
            Some(dir) if path.is_relative() => Some(dir.join(path)),
            _ => Some(path),
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
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    Duration::try_from(span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?).ok()
}

fn unknown_key(name: &str, schema: &[keys::Key]) -> String {
    if keys::LATER.contains(&name) {
        return "not supported in this version".to_owned();
    }
    match nearest(name, schema.iter().map(|key| key.name)) {
        Some(near) => format!("unknown key; did you mean \"{near}\"?"),
        None => {
            let known: Vec<_> = schema.iter().map(|key| key.name).collect();
            format!("unknown key (known keys: {})", known.join(", "))
        }
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

fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let known: Vec<_> = known.collect();
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, meant)| *meant);
    if let Some(meant) = known.iter().find(|known| alias == Some(**known)) {
        return Some(meant);
    }
    let scored = known.into_iter().map(|known| (strsim::jaro_winkler(name, known), known));
    scored.filter(|(score, _)| *score > 0.84).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}
