//! The merged tree -> [`Settings`], or everything that is wrong with it. Pure but for the host's name and directories.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::{Map, Value, ValueKind};
use secrecy::SecretString;

use super::issue::Severity;
use super::keys;
use super::section::{Issues, SecretPlace, Section, parse_duration};
use super::settings::*;
use crate::event::{AccountId, AccountIdentity, Action, MailboxName};
use crate::secrets::SecretSource;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Checks everything but what lies outside of the configuration; settings only where there is no error.
pub(super) fn settings(tree: &Value) -> (Option<Settings>, Issues) {
    let mut issues = Issues::default();
    let empty = Map::new();
    let root = match &tree.kind {
        ValueKind::Table(table) => table,
        _ => &empty,
    };
    Section::from_value(String::new(), tree, &mut Issues::default()).known(keys::TOP, &mut issues);
    let settings = Settings {
        monitor: monitor(root, &mut issues),
        accounts: accounts(root, &mut issues),
        connections: connections(root, &mut issues),
        journal: journal(root, &mut issues),
        events: events(root, &mut issues),
        outputs: outputs(root, &mut issues),
        log: log(root, &mut issues),
    };
    let sound = issues.found.iter().all(|issue| issue.severity == Severity::Warning);
    (sound.then_some(settings), issues)
}

fn section<'a>(
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
    MonitorSettings {
        instance: crate::text::line(&instance, 128).into(),
        state_dir: section.path("state_dir", issues).unwrap_or_else(default_state_dir),
        shutdown_timeout: section.duration("shutdown_timeout", "10s", SECOND..=DAY, issues),
        require_state: section.boolean("require_state", false, issues),
    }
}

fn default_state_dir() -> PathBuf {
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

fn journal(root: &Map<String, Value>, issues: &mut Issues) -> JournalSettings {
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
    JournalSettings { max_bytes }
}

fn actions(section: &Section<'_>, issues: &mut Issues) -> Option<Vec<Action>> {
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
        if name.is_empty()
            || name.len() > 76
            || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            section.error("headers", format!("\"{name}\" is no header name"), issues);
        }
    }
    EventSettings {
        include: actions(&section, issues).unwrap_or_else(|| Action::ALL.to_vec()),
        max_bytes: usize::try_from(section.number("max_bytes", 8000, 2000..=1 << 20, issues)).unwrap_or(8000),
        max_addresses: usize::try_from(section.number("max_addresses", 20, 1..=1000, issues)).unwrap_or(20),
        attachments: section.boolean("attachments", true, issues),
        headers: headers.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
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
    }
}

fn outputs(root: &Map<String, Value>, issues: &mut Issues) -> Vec<OutputSettings> {
    let tables = Section::of(root, "outputs", issues).tables(issues);
    if tables.is_empty() {
        return vec![stdout_output()];
    }
    let mut taken = HashMap::new();
    let outputs = tables.into_iter().filter_map(|(name, section)| {
        section.known(keys::OUTPUT, issues);
        let output = output(&name, &section, issues)?;
        let place = match &output.kind {
            OutputKind::Stdout => "stdout".to_owned(),
            OutputKind::File { path } => path.display().to_string(),
        };
        if let Some(other) = taken.insert(place.clone(), name.clone()) {
            section.error("type", format!("{place} is taken by outputs.{other} already"), issues);
        }
        Some(output)
    });
    outputs.collect()
}

/// The output where none is configured.
pub fn stdout_output() -> OutputSettings {
    OutputSettings {
        name: "stdout".to_owned(),
        kind: OutputKind::Stdout,
        required: true,
        queue_max_events: 10_000,
        include: Action::ALL.to_vec(),
        format: OutputFormat::Auto,
        batch_max_events: 100,
    }
}

fn output(name: &str, section: &Section<'_>, issues: &mut Issues) -> Option<OutputSettings> {
    if !section.has("type") {
        issues.error(&section.origin, &section.path, "missing required key `type`");
        return None;
    }
    let file = section.choice("type", false, &[("stdout", false), ("file", true)], issues);
    let kind = if file {
        if !section.has("path") {
            issues.error(&section.origin, &section.path, "missing required key `path`");
            return None;
        }
        OutputKind::File { path: section.path("path", issues)? }
    } else {
        OutputKind::Stdout
    };
    let default = if file { OutputFormat::Ecs } else { OutputFormat::Auto };
    let formats =
        [("auto", OutputFormat::Auto), ("ecs", OutputFormat::Ecs), ("pretty", OutputFormat::Pretty)];
    let (batch, queue) = (section.inner("batch", issues), section.inner("queue", issues));
    batch.known(keys::BATCH, issues);
    queue.known(keys::QUEUE, issues);
    Some(OutputSettings {
        name: name.to_owned(),
        kind,
        required: section.boolean("required", true, issues),
        queue_max_events: queue.number("max_events", 10_000, 1..=u64::from(u32::MAX), issues),
        include: actions(section, issues).unwrap_or_else(|| Action::ALL.to_vec()),
        format: section.choice("format", default, &formats, issues),
        batch_max_events: usize::try_from(batch.number("max_events", 100, 1..=1000, issues)).unwrap_or(100),
    })
}

fn accounts(root: &Map<String, Value>, issues: &mut Issues) -> Vec<Arc<Account>> {
    let defaults = section(root, "defaults", keys::DEFAULTS, issues);
    let list = match root.get("accounts") {
        Some(Value { kind: ValueKind::Array(list), .. }) => list.as_slice(),
        Some(other) => {
            let origin = other.origin().unwrap_or_default();
            issues.error(origin, "accounts", "expected [[accounts]] tables");
            &[]
        }
        None => &[],
    };
    if list.is_empty() && issues.found.is_empty() {
        issues.error("", "accounts", "there is no [[accounts]] to watch");
    }
    let known = keys::account();
    let mut reader = AccountReader { policies: HashMap::new(), ids: HashMap::new() };
    let mut accounts = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let section = Section::from_value(format!("accounts[{index}]"), value, issues);
        section.known(&known, issues);
        accounts.extend(reader.account(&section.over(&defaults), issues));
    }
    accounts
}

struct AccountReader {
    /// Equal policies are one.
    policies: HashMap<TlsOptions, Arc<TlsOptions>>,
    ids: HashMap<String, String>,
}

impl AccountReader {
    fn account(&mut self, section: &Section<'_>, issues: &mut Issues) -> Option<Arc<Account>> {
        let modes =
            [("implicit", TlsMode::Implicit), ("starttls", TlsMode::StartTls), ("none", TlsMode::None)];
        let tls = section.choice("tls", TlsMode::Implicit, &modes, issues);
        let allow_plaintext = section.boolean("allow_plaintext", false, issues);
        let id = self.id(section, issues);
        let host = required(section, "host", issues);
        let user = required(section, "user", issues);
        let password = password(section, issues);
        if let Some(host) = &host {
            check_host(section, host, tls, allow_plaintext, issues);
        }
        let default_port = if tls == TlsMode::Implicit { 993 } else { 143 };
        let port = u16::try_from(section.number("port", default_port, 1..=65_535, issues)).unwrap_or(993);
        let long = Duration::from_secs(29 * 60);
        let timeout = SECOND..=Duration::from_secs(600);
        let idle_refresh = section.duration("idle_refresh", "9m", SECOND..=long, issues);
        if idle_refresh >= long {
            section.error("idle_refresh", "must be below 29m (RFC 2177)", issues);
        }
        let tls_options = self.tls_options(section, issues);
        let mailboxes = mailboxes(section, issues);
        let initial = initial(section, issues);
        let poll_interval = section.duration("poll_interval", "60s", SECOND..=DAY, issues);
        let connect_timeout = section.duration("connect_timeout", "10s", timeout.clone(), issues);
        let command_timeout = section.duration("command_timeout", "30s", timeout, issues);
        let keepalive = keepalive(section, issues);
        let labels = section.text_table("labels", issues);
        let enabled = section.boolean("enabled", true, issues);
        let allow_preauth = section.boolean("allow_preauth", false, issues);
        let identity = AccountIdentity { id: AccountId::new(id?), user: user?, host: host?, port, labels };
        Some(Arc::new(Account {
            identity: Arc::new(identity),
            enabled,
            tls,
            tls_options,
            allow_plaintext,
            allow_preauth,
            password: password?,
            mailboxes,
            initial,
            idle_refresh,
            poll_interval,
            connect_timeout,
            command_timeout,
            keepalive,
        }))
    }

    fn id(&mut self, section: &Section<'_>, issues: &mut Issues) -> Option<String> {
        let id = required(section, "id", issues)?;
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._@+-".contains(&b);
        let first = id.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !first || id.len() > 128 || !id.bytes().all(allowed) {
            let message = format!(
                "\"{}\" is no id: [a-z0-9][a-z0-9._@+-]*, at most 128 bytes",
                crate::text::shortened(&id, 60)
            );
            section.error("id", message, issues);
            return None;
        }
        let origin = section.origin_of("id");
        if let Some(other) = self.ids.get(&id) {
            section.error("id", format!("\"{id}\" is the id of another account already, at {other}"), issues);
            return None;
        }
        self.ids.insert(id.clone(), origin);
        Some(id)
    }

    fn tls_options(&mut self, section: &Section<'_>, issues: &mut Issues) -> Arc<TlsOptions> {
        let section = section.inner("tls_options", issues);
        if let Some(keys) = keys::DEFAULTS.iter().find_map(|key| match key.kind {
            keys::Kind::Table(keys) if key.name == "tls_options" => Some(keys),
            _ => None,
        }) {
            section.known(keys, issues);
        }
        let backends = [("rustls", TlsBackend::Rustls), ("native", TlsBackend::Native)];
        let versions = [
            ("1.0", TlsVersion::Tls10),
            ("1.1", TlsVersion::Tls11),
            ("1.2", TlsVersion::Tls12),
            ("1.3", TlsVersion::Tls13),
        ];
        let options = TlsOptions {
            backend: section.choice("backend", TlsBackend::Rustls, &backends, issues),
            ca_file: section.path("ca_file", issues),
            min_version: section.choice("min_version", TlsVersion::Tls12, &versions, issues),
        };
        if options.backend == TlsBackend::Rustls && options.min_version < TlsVersion::Tls12 {
            section.error("min_version", "below 1.2 with backend = \"native\" only", issues);
        }
        if options.backend == TlsBackend::Native && options.min_version == TlsVersion::Tls13 {
            section.error("min_version", "1.3 with backend = \"rustls\" only", issues);
        }
        if options.backend == TlsBackend::Native && !cfg!(feature = "native-tls") {
            section.error("backend", "this build is without the feature native-tls", issues);
        }
        self.policies.entry(options.clone()).or_insert_with(|| Arc::new(options)).clone()
    }
}

fn required(section: &Section<'_>, key: &str, issues: &mut Issues) -> Option<String> {
    if !section.has(key) {
        issues.error(&section.origin, &section.path, format!("missing required key `{key}`"));
        return None;
    }
    let text = section.text(key, issues)?;
    if text.trim().is_empty() {
        section.error(key, "must not be empty", issues);
        return None;
    }
    Some(text.to_owned())
}

fn check_host(section: &Section<'_>, host: &str, tls: TlsMode, allow_plaintext: bool, issues: &mut Issues) {
    if host.len() > 255 || host.contains(['/', ' ', '@']) {
        section.error("host", "expected a host name or an address, without scheme, port or path", issues);
    }
    if tls == TlsMode::None && !is_loopback(host) && !allow_plaintext {
        let message =
            "\"none\" sends the password in clear: only to this machine, or with allow_plaintext = true";
        section.error("tls", message, issues);
    }
}

fn mailboxes(section: &Section<'_>, issues: &mut Issues) -> Vec<MailboxName> {
    let Some(names) = section.texts("mailboxes", issues) else { return vec![MailboxName::inbox()] };
    if names.is_empty() {
        section.error("mailboxes", "there is none", issues);
    }
    let mut mailboxes = Vec::new();
    for name in names {
        if name.is_empty() || name.len() > 512 {
            section.error("mailboxes", "a mailbox name must have 1 to 512 bytes", issues);
        } else if name.starts_with(['\\', '!']) || name.contains(['*', '%']) {
            let message = format!("\"{name}\": patterns and special uses are not supported in this version");
            section.error("mailboxes", message, issues);
        }
        let mailbox =
            if name.eq_ignore_ascii_case("INBOX") { MailboxName::inbox() } else { MailboxName::new(name) };
        if mailboxes.contains(&mailbox) {
            section.error("mailboxes", format!("\"{mailbox}\" is named twice"), issues);
        } else {
            mailboxes.push(mailbox);
        }
    }
    mailboxes
}

fn initial(section: &Section<'_>, issues: &mut Issues) -> Initial {
    match section.text("initial", issues) {
        None | Some("baseline") => Initial::Baseline,
        Some("all") => Initial::All,
        Some(text) => match text.strip_prefix("since:").and_then(parse_duration) {
            Some(age) => Initial::Since(age),
            None => {
                let message =
                    format!("expected \"baseline\", \"all\" or \"since:<duration>\", found \"{text}\"");
                section.error("initial", message, issues);
                Initial::Baseline
            }
        },
    }
}

fn keepalive(section: &Section<'_>, issues: &mut Issues) -> Keepalive {
    let section = section.inner("keepalive", issues);
    let hour = Duration::from_secs(3600);
    Keepalive {
        idle: section.duration("idle", "30s", SECOND..=hour, issues),
        interval: section.duration("interval", "10s", SECOND..=hour, issues),
        count: u32::try_from(section.number("count", 3, 1..=100, issues)).unwrap_or(3),
    }
}

const SECRET: &str =
    "expected a table with one of \"env\", \"file\", \"command\", \"credential\", \"inline\"";

fn password(section: &Section<'_>, issues: &mut Issues) -> Option<SecretSource> {
    let source = secret_source(section, issues)?;
    let (path, origin) = (section.key_path("password"), section.origin_of("password"));
    issues.secrets.push(SecretPlace { source: source.clone(), origin, path });
    Some(source)
}

/// Nothing of the value is ever echoed: people paste passwords where a table belongs.
fn secret_source(section: &Section<'_>, issues: &mut Issues) -> Option<SecretSource> {
    let Some(value) = section.get("password") else {
        issues.error(&section.origin, &section.path, "missing required key `password`");
        return None;
    };
    let (path, origin) = (section.key_path("password"), section.origin_of("password"));
    let ValueKind::Table(table) = &value.kind else {
        issues.error(&origin, &path, SECRET);
        return None;
    };
    let names: Vec<&str> = table.keys().map(String::as_str).collect();
    let [name] = names.as_slice() else {
        issues.error(&origin, &path, SECRET);
        return None;
    };
    let inner = Section::from_value(path.clone(), value, issues);
    match *name {
        "env" => Some(SecretSource::Env(required(&inner, "env", issues)?)),
        "file" => Some(SecretSource::File(inner.path("file", issues)?)),
        "credential" => {
            let name = required(&inner, "credential", issues)?;
            if name.contains('/') || name.starts_with('.') {
                inner.error("credential", "a name without `/`", issues);
                return None;
            }
            Some(SecretSource::Credential(name))
        }
        "command" => {
            let argv = inner.texts("command", issues)?;
            if argv.first().is_none_or(String::is_empty) {
                inner.error("command", "expected [\"program\", \"argument\", ...]", issues);
                return None;
            }
            Some(SecretSource::Command(argv))
        }
        "inline" => match &table.get("inline").map(|value| &value.kind) {
            Some(ValueKind::String(text)) => {
                issues.warn(
                    &origin,
                    &path,
                    "the password stands in the file; use file, command or credential",
                );
                Some(SecretSource::Inline(SecretString::from(text.clone())))
            }
            _ => {
                issues.error(&origin, &path, "expected a string");
                None
            }
        },
        _ => {
            issues.error(&origin, &path, SECRET);
            None
        }
    }
}
