//! Layers: main files, `conf.d/*.toml`, environment; every value remembers where it stands.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use config::{ConfigError, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::issue::{Issue, Severity};

/// A file larger than this is no configuration.
const MOST_BYTES: u64 = 64 << 20;

/// Arrays that grow from file to file; all others are replaced.
const APPENDED: [&str; 2] = ["accounts", "account_lists"];

/// Where the files are, where none is named.
pub fn default_files() -> Vec<PathBuf> {
    let home = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let mut places = vec![PathBuf::from("/etc/idlewatch/idlewatch.toml")];
    places.extend(home.map(|home| home.join("idlewatch/idlewatch.toml")));
    places
}

/// The files to read: those that are named, else the first that is there; `conf.d` beside the first of them.
pub fn files(named: &[PathBuf]) -> Vec<PathBuf> {
    let main = if !named.is_empty() {
        named.to_vec()
    } else if let Some(file) = std::env::var_os("IDLEWATCH_CONFIG") {
        vec![PathBuf::from(file)]
    } else {
        default_files().into_iter().find(|path| path.exists()).into_iter().collect()
    };
    let beside = main.first().map(|first| first.with_file_name("conf.d"));
    let mut more: Vec<PathBuf> = beside
        .and_then(|dir| std::fs::read_dir(dir).ok())
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    more.sort();
    main.into_iter().chain(more).collect()
}

/// All layers in one tree.
pub(super) fn merge(
    files: &[PathBuf],
    env: impl Iterator<Item = (String, String)>,
) -> Result<Value, Vec<Issue>> {
    let mut layers = Layers::default();
    for source in parse_all(files) {
        match source {
            Ok(source) => layers.add(source),
            Err(issue) => layers.issues.push(issue),
        }
    }
    layers.builder = layers.builder.add_source(LocatedEnv::new(env));
    layers.merged()
}

/// All files, in their order: thousands of them on all cores.
fn parse_all(files: &[PathBuf]) -> Vec<Result<LocatedToml, Issue>> {
    let parse =
        |path: &PathBuf| read(path).and_then(|text| LocatedToml::parse(&path.display().to_string(), &text));
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let share = files.len().div_ceil(cores).max(100);
    std::thread::scope(|scope| {
        let shares = files.chunks(share);
        let threads: Vec<_> =
            shares.map(|share| scope.spawn(move || share.iter().map(parse).collect::<Vec<_>>())).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}

/// One text in place of files.
pub(super) fn merge_text(name: &str, text: &str) -> Result<Value, Vec<Issue>> {
    let mut layers = Layers::default();
    layers.add(LocatedToml::parse(name, text).map_err(|issue| vec![issue])?);
    layers.merged()
}

/// What was read so far. Arrays that grow are kept aside, as they are: `config` would copy them, or replace them.
#[derive(Default)]
struct Layers {
    builder: config::ConfigBuilder<config::builder::DefaultState>,
    grown: Map<&'static str, Vec<Value>>,
    issues: Vec<Issue>,
}

impl Layers {
    fn add(&mut self, mut source: LocatedToml) {
        for name in APPENDED {
            match source.values.shift_remove(name) {
                Some(Value { kind: ValueKind::Array(items), .. }) => {
                    self.grown.entry(name).or_default().extend(items)
                }
                Some(other) => drop(source.values.insert(name.to_owned(), other)),
                None => {}
            }
        }
        self.builder = std::mem::take(&mut self.builder).add_source(source);
    }

    fn merged(mut self) -> Result<Value, Vec<Issue>> {
        let mut tree = match self.builder.build() {
            Ok(config) => config.cache,
            Err(error) => {
                self.issues.push(nowhere(error.to_string()));
                return Err(self.issues);
            }
        };
        if !self.issues.is_empty() {
            return Err(self.issues);
        }
        if let ValueKind::Table(root) = &mut tree.kind {
            for (name, items) in self.grown {
                root.entry(name.to_owned()).or_insert_with(|| Value::new(None, ValueKind::Array(items)));
            }
        }
        Ok(tree)
    }
}

pub(super) fn nowhere(message: String) -> Issue {
    Issue { severity: Severity::Error, origin: String::new(), path: String::new(), message }
}

/// A file as text.
pub(super) fn read(path: &Path) -> Result<String, Issue> {
    let failed = |message: String| Issue { origin: path.display().to_string(), ..nowhere(message) };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(failed("it is larger than 64 MiB".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        Issue { origin: format!("{}:{line}:1", path.display()), ..nowhere("not UTF-8".to_owned()) }
    })
}

/// A TOML text whose values know their `file:line:col`.
#[derive(Clone, Debug)]
struct LocatedToml {
    values: Map<String, Value>,
}

impl LocatedToml {
    fn parse(name: &str, text: &str) -> Result<Self, Issue> {
        let locator = Locator::new(name, text);
        let table = DeTable::parse(text).map_err(|error| Issue {
            origin: locator.at(&error.span().unwrap_or(0..0)),
            ..nowhere(format!("{}{}", error.message(), meant_otherwise(name)))
        })?;
        Ok(Self { values: locator.table(table.get_ref()) })
    }
}

/// Other monitors have other languages.
fn meant_otherwise(name: &str) -> &'static str {
    match Path::new(name).extension().and_then(OsStr::to_str) {
        Some("json" | "yaml" | "yml") => " (a configuration is TOML: `idlewatch config init` prints one)",
        _ => "",
    }
}

impl Source for LocatedToml {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone())
    }

    fn collect_to(&self, cache: &mut Value) -> Result<(), ConfigError> {
        if !matches!(cache.kind, ValueKind::Table(_)) {
            cache.kind = ValueKind::Table(Map::new());
        }
        if let ValueKind::Table(merged) = &mut cache.kind {
            for (key, value) in &self.values {
                merge_value(merged, key, value);
            }
        }
        Ok(())
    }
}

/// Tables merge by key, the rest is replaced.
fn merge_value(merged: &mut Map<String, Value>, key: &str, value: &Value) {
    match (merged.get_mut(key).map(|known| &mut known.kind), &value.kind) {
        (Some(ValueKind::Table(known)), ValueKind::Table(new)) => {
            new.iter().for_each(|(key, value)| merge_value(known, key, value));
        }
        _ => {
            merged.insert(key.to_owned(), value.clone());
        }
    }
}

/// Where the lines of a text begin.
#[derive(Debug)]
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        let ends = memchr::memchr_iter(b'\n', text.as_bytes()).map(|end| end + 1);
        Self(std::iter::once(0).chain(ends).collect())
    }

    /// The number of the line that a byte stands in.
    pub(super) fn line(&self, byte: usize) -> usize {
        self.0.partition_point(|&start| start <= byte).max(1)
    }

    fn start(&self, line: usize) -> usize {
        self.0.get(line - 1).copied().unwrap_or(0)
    }
}

/// Byte offsets -> `file:line:col`.
struct Locator<'a> {
    name: &'a str,
    text: &'a str,
    lines: Lines,
}

impl<'a> Locator<'a> {
    fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text, lines: Lines::new(text) }
    }

    fn at(&self, span: &Range<usize>) -> String {
        let line = self.lines.line(span.start);
        let before = self.text.get(self.lines.start(line)..span.start).unwrap_or_default();
        let column = before.chars().count() + 1;
        format!("{}:{line}:{column}", self.name)
    }

    fn table(&self, table: &DeTable<'_>) -> Map<String, Value> {
        table.iter().map(|(key, value)| (key.get_ref().to_string(), self.value(&key.span(), value))).collect()
    }

    /// A value stands where its key does.
    fn value(&self, at: &Range<usize>, value: &Spanned<DeValue<'_>>) -> Value {
        let kind = match value.get_ref() {
            DeValue::String(text) => ValueKind::String(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| ValueKind::String(number.to_string()), ValueKind::I64),
            DeValue::Float(number) => ValueKind::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(boolean) => ValueKind::Boolean(*boolean),
            DeValue::Datetime(at) => ValueKind::String(at.to_string()),
            DeValue::Array(items) => {
                ValueKind::Array(items.iter().map(|item| self.value(&item.span(), item)).collect())
            }
            DeValue::Table(table) => ValueKind::Table(self.table(table)),
        };
        Value::new(Some(&self.at(at)), kind)
    }
}

/// `IDLEWATCH_SECTION__KEY`: scalar keys of named tables.
#[derive(Clone, Debug)]
struct LocatedEnv {
    values: Map<String, Value>,
}

impl LocatedEnv {
    fn new(env: impl Iterator<Item = (String, String)>) -> Self {
        let mut values = Map::new();
        for (name, text) in env {
            let Some(path) = name.strip_prefix("IDLEWATCH_").filter(|path| path.contains("__")) else {
                continue;
            };
            let keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
            let origin = format!("environment variable {name}");
            insert(&mut values, &keys, Value::new(Some(&origin), scalar(&text)), &origin);
        }
        Self { values }
    }
}

/// An environment variable has no type: what reads as a TOML number or boolean is one.
fn scalar(text: &str) -> ValueKind {
    match text {
        "true" => ValueKind::Boolean(true),
        "false" => ValueKind::Boolean(false),
        _ => text.parse().map_or_else(|_| ValueKind::String(text.to_owned()), ValueKind::I64),
    }
}

fn insert(values: &mut Map<String, Value>, keys: &[String], value: Value, origin: &String) {
    match keys {
        [] => {}
        [last] => drop(values.insert(last.clone(), value)),
        [first, rest @ ..] => {
            let table = || Value::new(Some(origin), ValueKind::Table(Map::new()));
            if let ValueKind::Table(inner) = &mut values.entry(first.clone()).or_insert_with(table).kind {
                insert(inner, rest, value, origin);
            }
        }
    }
}

impl Source for LocatedEnv {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone())
    }

    fn collect_to(&self, cache: &mut Value) -> Result<(), ConfigError> {
        LocatedToml { values: self.values.clone() }.collect_to(cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_writes_another_language_is_told_which_is_meant() {
        for (name, text, told) in [
            ("a.json", "{\"accounts\": []}", true),
            ("a.yaml", "accounts:\n  - id: x\n", true),
            ("a.toml", "accounts:\n", false),
        ] {
            let issues = merge_text(name, text).unwrap_err();
            assert_eq!(issues[0].message.contains("a configuration is TOML"), told, "{issues:?}");
        }
    }
}
