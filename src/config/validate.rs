//! The merged tree -> [`Settings`], or everything that is wrong with it. Pure but for the host's name and directories.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::accounts::AccountReader;
use super::database;
use super::filters;
use super::issue::Severity;
use super::keys;
use super::lists::{self, Files};
use super::outputs::{self, secret};
use super::section::{Issues, Section};
use super::settings::*;
use super::surroundings::Thing;
use super::table;
use crate::event::Action;
use config::{Map, Value, ValueKind};
use globset::{Glob, GlobSetBuilder};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// Checks everything but what lies outside of the configuration and of its lists; settings only where there is no error.
pub(super) fn settings(tree: &Value, files: Files<'_>) -> (Option<Settings>, Issues) {
    let mut issues = Issues::default();
    let empty = Map::new();
    let root = match &tree.kind {
        ValueKind::Table(table) => table,
        _ => &empty,
    };
    Section::from_value(String::new(), tree, &mut Issues::default()).known(keys::TOP, &mut issues);
    let ((accounts, table), events) = (accounts(root, files, &mut issues), events(root, &mut issues));
    let outputs = outputs::outputs(root, &mut issues);
    let named = outputs::names(root);
    // Those that are not read yet may be meant.
    let known = if table.as_ref().is_none_or(TableReading::is_whole) { accounts.as_slice() } else { &[] };
    let around = filters::Around { accounts: known, events: &events, outputs: &outputs, named: &named };
    let monitor = monitor(root, &mut issues);
    let settings = Settings {
        http: http(root, &monitor.state_dir, &mut issues),
        monitor,
        metrics: metrics(root, &mut issues),
        filters: Arc::new(filters::filters(root, &around, &mut issues)),
        connections: connections(root, &mut issues),
        journal: journal(root, &mut issues),
        log: log(root, &mut issues),
        accounts,
        narrowed: false,
        table,
        events,
        outputs,
    };
    let sound = issues.found.iter().all(|issue| issue.severity == Severity::Warning);
    (sound.then_some(settings), issues)
}

pub(super) fn section<'a>(
    root: &'a Map<String, Value>,
    name: &str,
    keys: &[keys::Key],
    issues: &mut Issues,
) -> Section<'a> {
    let section = Section::of(root, name, issues);
    section.known(keys, issues);
    section
}

fn monitor(root: &Map<String, Value>, issues: &mut Issues) -> MonitorSettings {
    let section = section(root, "monitor", keys::MONITOR, issues);
    let instance = section.text("instance", issues).filter(|text| !text.is_empty()).map(str::to_owned);
    let instance = instance.unwrap_or_else(|| gethostname::gethostname().to_string_lossy().into_owned());
    let state_dir = section.path("state_dir", issues).unwrap_or_else(default_state_dir);
    section.names("state_dir", Thing::State(state_dir.clone()), issues);
    MonitorSettings {
        instance: crate::text::line(&instance, 128).into(),
        state_dir,
        shutdown_timeout: section.duration("shutdown_timeout", Duration::from_secs(10), SECOND..=DAY, issues),
        require_state: section.boolean("require_state", false, issues),
        reload_on_change: section.boolean("reload_on_change", false, issues),
    }
}

/// Where the service of `packaging/idlewatch.service` listens, whose directories a shell beside it does not know.
const SERVICE_SOCKET: &str = "/run/idlewatch/idlewatch.sock";

/// Only where a running monitor may be asked, the likeliest first.
pub(super) fn sockets(tree: &Value, issues: &mut Issues) -> Vec<PathBuf> {
    let empty = Map::new();
    let root = match &tree.kind {
        ValueKind::Table(table) => table,
        _ => &empty,
    };
    let monitor = monitor(root, issues);
    let socket = http(root, &monitor.state_dir, issues).socket;
    let is_named = Section::of(root, "http", &mut Issues::default()).has("socket");
    if is_named { vec![socket] } else { vec![socket, SERVICE_SOCKET.into()] }
}

/// The same, where the configuration cannot be read.
pub(super) fn usual_sockets() -> Vec<PathBuf> {
    vec![default_socket(&default_state_dir()), SERVICE_SOCKET.into()]
}

fn http(root: &Map<String, Value>, state_dir: &Path, issues: &mut Issues) -> HttpSettings {
    let section = section(root, "http", keys::HTTP, issues);
    let token = secret(&section, "token", issues);
    if let Some(source) = &token {
        section.names("token", Thing::Token(source.clone()), issues);
    }
    if section.has("token") && !section.has("listen") {
        let message = "nobody is asked for it without http.listen: the Unix socket is its owner's alone";
        issues.warn(&section.origin_of("token"), &section.key_path("token"), message);
    }
    let listen = section.text("listen", issues).and_then(|text| match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() || section.has("token") => Some(address),
        Ok(_) => {
            let message = "without http.token only loopback is served: 127.0.0.1 or [::1]";
            section.error("listen", message, issues);
            None
        }
        Err(_) => {
            section.error(
                "listen",
                format!("expected an address and a port like \"127.0.0.1:9464\", found \"{text}\""),
                issues,
            );
            None
        }
    });
    HttpSettings {
        listen,
        token,
        socket: section.path("socket", issues).unwrap_or_else(|| default_socket(state_dir)),
    }
}

fn metrics(root: &Map<String, Value>, issues: &mut Issues) -> MetricSettings {
    let section = section(root, "metrics", keys::METRICS, issues);
    let mut globs = GlobSetBuilder::new();
    for text in section.texts("per_account", issues).unwrap_or_default() {
        match Glob::new(&text) {
            Ok(glob) => drop(globs.add(glob)),
            Err(error) => section.error("per_account", format!("\"{text}\": {}", error.kind()), issues),
        }
    }
    MetricSettings { per_account: globs.build().unwrap_or_default() }
}

/// systemd may name more than one directory.
fn default_socket(state_dir: &Path) -> PathBuf {
    let runtime = std::env::var_os("RUNTIME_DIRECTORY");
    let runtime = runtime.as_deref().and_then(|dirs| std::env::split_paths(dirs).next());
    runtime.filter(|dir| !dir.as_os_str().is_empty()).as_deref().unwrap_or(state_dir).join("idlewatch.sock")
}

pub(super) fn default_state_dir() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    var("STATE_DIRECTORY")
        .or_else(|| {
            Some(var("XDG_STATE_HOME").or_else(|| Some(var("HOME")?.join(".local/state")))?.join("idlewatch"))
        })
        .unwrap_or_else(|| PathBuf::from("/var/lib/idlewatch"))
}

fn connections(root: &Map<String, Value>, issues: &mut Issues) -> ConnectionSettings {
    let section = section(root, "connections", keys::CONNECTIONS, issues);
    let per_host = section.inner("per_host", issues);
    per_host.known(keys::PER_HOST, issues);
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let max_total = section.has("max_total").then(|| section.number("max_total", 1, 1..=1_000_000, issues));
    ConnectionSettings {
        max_total: max_total.map(number),
        max_connecting: number(section.number("max_connecting", 200, 1..=100_000, issues)),
        period: section.rate("rate", Duration::ZERO, issues),
        per_host_period: per_host.rate("rate", Duration::from_millis(100), issues),
        per_host_max_connecting: number(per_host.number("max_connecting", 10, 1..=100_000, issues)),
    }
}

pub(super) fn journal(root: &Map<String, Value>, issues: &mut Issues) -> JournalSettings {
    let section = section(root, "journal", keys::JOURNAL, issues);
    let text = section.text("max_bytes", issues).unwrap_or("1GiB");
    let max_bytes = match text.parse::<bytesize::ByteSize>() {
        Ok(size) if size.0 >= 1 << 20 => size.0,
        _ => {
            section.error(
                "max_bytes",
                format!("expected a size of at least \"1MiB\", found \"{text}\""),
                issues,
            );
            1 << 30
        }
    };
    JournalSettings { max_bytes, database: database::database(&section, issues) }
}

pub(super) fn actions(section: &Section<'_>, issues: &mut Issues) -> Option<Vec<Action>> {
    let mut actions = Vec::new();
    for name in section.texts("include", issues)? {
        match Action::ALL.into_iter().find(|action| action.as_str() == name) {
            Some(action) => actions.push(action),
            None => {
                let known = keys::ACTIONS.join(", ");
                section.error("include", format!("unknown action \"{name}\" (known: {known})"), issues);
            }
        }
    }
    Some(actions)
}

fn events(root: &Map<String, Value>, issues: &mut Issues) -> EventSettings {
    let section = section(root, "events", keys::EVENTS, issues);
    let headers = section.texts("headers", issues).unwrap_or_default();
    for name in &headers {
        if !is_header_name(name) {
            section.error("headers", format!("\"{name}\" is no header name"), issues);
        }
    }
    EventSettings {
        include: actions(&section, issues).unwrap_or_else(|| Action::ON.to_vec()),
        max_bytes: usize::try_from(section.number("max_bytes", 8000, 2000..=1 << 20, issues)).unwrap_or(8000),
        max_addresses: usize::try_from(section.number("max_addresses", 20, 1..=1000, issues)).unwrap_or(20),
        attachments: section.boolean("attachments", true, issues),
        headers: headers.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
    }
}

/// As RFC 5322 has them, and no longer than a line.
pub(super) fn is_header_name(name: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !name.is_empty() && name.len() <= 76 && name.bytes().all(is_allowed)
}

/// Only the form of diagnostics.
pub(super) fn log_format(tree: &Value) -> LogFormat {
    match &tree.kind {
        ValueKind::Table(root) => log(root, &mut Issues::default()).format,
        _ => LogFormat::Auto,
    }
}

fn log(root: &Map<String, Value>, issues: &mut Issues) -> LogSettings {
    let section = section(root, "log", keys::LOG, issues);
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    for directive in section.text("level", issues).unwrap_or_default().split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level).trim();
        if !level.is_empty() && level.parse::<log::LevelFilter>().is_err() {
            let message = format!(
                "\"{}\" is no level: off, error, warn, info, debug or trace; or for one part, as in \"info,idlewatch::wire=debug\"",
                crate::text::shortened(level, 60)
            );
            section.error("level", message, issues);
        }
    }
    LogSettings {
        level: section.text("level", issues).unwrap_or("info").to_owned(),
        format: section.choice("format", LogFormat::Auto, &formats, issues),
        wire: section.text("wire", issues).and_then(|text| match Glob::new(text) {
            Ok(glob) => Some(glob),
            Err(error) => {
                let text = crate::text::shortened(text, 60);
                section.error("wire", format!("\"{text}\": {}", error.kind()), issues);
                None
            }
        }),
    }
}

/// All of them, and what was read of the database's table.
fn accounts(
    root: &Map<String, Value>,
    files: Files<'_>,
    issues: &mut Issues,
) -> (Vec<Arc<Account>>, Option<TableReading>) {
    let mut reader = AccountReader::new(root, issues);
    let (tables, mut lists) = (tables(root, "accounts", issues), tables(root, "account_lists", issues));
    if tables.is_empty() && lists.is_empty() && issues.found.is_empty() {
        issues.error("", "accounts", "there is no [[accounts]] to watch");
    }
    for table in tables {
        reader.account(table, None, issues);
    }
    let mut reading = None;
    // The table last: a row of it that has the id of another account keeps nobody from anything.
    lists.sort_by_key(|list| list.has("database"));
    for list in lists {
        list.known(keys::ACCOUNT_LIST, issues);
        let Ok(template) = reader.template(&list, issues) else { continue };
        match table::of(&list, root, issues) {
            Some(_) if reading.is_some() => {
                list.error("database", "the table is another list already", issues)
            }
            Some(table) => reading = Some(table.accounts(root, files, &mut reader, template, issues)),
            None => lists::rows(&list, files, issues, |row, issues| {
                reader.account(Section::from_value(String::new(), row, issues), template, issues);
            }),
        }
    }
    reader.check_layers(issues);
    if !reader.accounts.is_empty() && reader.accounts.iter().all(|account| !account.enabled) {
        issues.warn("", "accounts", "none is enabled: nothing is watched");
    }
    (reader.accounts, reading)
}

/// The tables of an array like `[[accounts]]`.
pub(super) fn tables<'a>(root: &'a Map<String, Value>, name: &str, issues: &mut Issues) -> Vec<Section<'a>> {
    let items = match root.get(name) {
        Some(Value { kind: ValueKind::Array(items), .. }) => items.as_slice(),
        Some(other) => {
            issues.error(other.origin().unwrap_or_default(), name, format!("expected [[{name}]] tables"));
            &[]
        }
        None => &[],
    };
    let items = items.iter().enumerate();
    items.map(|(index, value)| Section::from_value(format!("{name}[{index}]"), value, issues)).collect()
}
