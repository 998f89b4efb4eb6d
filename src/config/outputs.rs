//! `[outputs.X]`: the template of every output, and what each type adds. Pure.

mod elasticsearch;
mod exec;
mod file;
mod journald;
mod kafka;
mod loki;
mod otlp;
mod redis;
mod syslog;

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use config::{Map, Value, ValueKind};
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use secrecy::SecretString;

use super::accounts::tls_options;
use super::keys;
use super::section::{Issues, Section};
use super::settings::*;
use super::surroundings::Thing;
use super::validate::{DAY, SECOND, actions};
use crate::event::Action;
use crate::privacy::{Rule, Rules};
use crate::secrets::{SecretSource, Shape};
use crate::sink::output::subject::SubjectTemplate;

/// Events may wait for others to go with them for this long.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// All of them; one stdout where none is configured.
pub(super) fn outputs(root: &Map<String, Value>, issues: &mut Issues) -> Vec<OutputSettings> {
    let tables = Section::of(root, "outputs", issues).tables(issues);
    let general = Section::of(root, "privacy", issues);
    general.known(keys::PRIVACY, issues);
    if tables.is_empty() {
        return vec![OutputSettings { privacy: privacy(&general, issues), ..stdout_output() }];
    }
    let mut taken = HashMap::new();
    let outputs = tables.into_iter().filter_map(|(name, section)| {
        section.known(keys::OUTPUT, issues);
        let output = output(name, &section, &general, issues)?;
        if let Some(place) = place(&output.kind)
            && let Some(other) = taken.insert(place.clone(), name)
        {
            section.error("type", format!("{place} is taken by outputs.{other} already"), issues);
        }
        Some(output)
    });
    outputs.collect()
}

/// The names of all that are configured, whatever is wrong with them.
pub(super) fn names(root: &Map<String, Value>) -> Vec<&str> {
    let section = Section::of(root, "outputs", &mut Issues::default());
    section.own_keys().collect()
}

/// What no two outputs can share.
fn place(kind: &OutputKind) -> Option<String> {
    match kind {
        OutputKind::Stdout => Some("stdout".to_owned()),
        OutputKind::File { path, .. } => Some(plain(path).display().to_string()),
        OutputKind::Journald(journald) => Some(journald.socket.display().to_string()),
        _ => None,
    }
}

/// Without `.`, and `..` where that is behind a name: the same file may be written in many ways.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
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
        max_bytes: None,
        batch_max_events: 100,
        batch_max_delay: Duration::ZERO,
        privacy: PrivacySettings::default(),
    }
}

/// Key by key, the output's own before the general ones.
fn privacy(section: &Section<'_>, issues: &mut Issues) -> PrivacySettings {
    let of_text = [("include", Rule::Include), ("hash", Rule::Hash), ("omit", Rule::Omit)];
    let of_addresses = [of_text[0], ("domain", Rule::Domain), of_text[1], of_text[2]];
    let mut rule = |key: &str, choices: &[(&str, Rule)]| section.choice(key, Rule::Include, choices, issues);
    let rules = Rules {
        subject: rule("subject", &of_text),
        addresses: rule("addresses", &of_addresses),
        message_id: rule("message_id", &of_addresses),
        attachment_names: rule("attachment_names", &of_text),
    };
    let hash_key = secret(section, "hash_key", issues);
    if rules.hashes() && !section.has("hash_key") {
        issues.error(&section.origin, &section.path, "\"hash\" needs a `hash_key`");
    }
    PrivacySettings { rules, hash_key }
}

/// A type: its name, the keys that are its own, how it is read.
type Reader = fn(&Section<'_>, &mut Issues) -> Option<OutputKind>;

const HTTP: [&str; 8] =
    ["url", "token", "headers", "tls_options", "proxy", "allow_plaintext", "connect_timeout", "timeout"];

const NATS: [&str; 11] = [
    "url",
    "subject",
    "stream",
    "jetstream",
    "credentials",
    "token",
    "tls_options",
    "allow_plaintext",
    "connect_timeout",
    "timeout",
    "hold",
];

/// The types. Every key that is here belongs to the types that name it; all others belong to every type.
const TYPES: [(&str, &[&[&str]], Reader); 12] = [
    ("stdout", &[], |_, _| Some(OutputKind::Stdout)),
    ("file", &[&["path", "rotate"]], file::file),
    ("webhook", &[&HTTP, &["secret", "body"]], webhook),
    ("nats", &[&NATS], nats),
    ("syslog", &[&syslog::KEYS], syslog::syslog),
    ("exec", &[&exec::KEYS], exec::exec),
    ("journald", &[&journald::KEYS], journald::journald),
    ("elasticsearch", &[&HTTP, &elasticsearch::KEYS], elasticsearch::elasticsearch),
    ("loki", &[&HTTP, &loki::KEYS], loki::loki),
    ("otlp", &[&HTTP, &otlp::KEYS], otlp::otlp),
    ("redis", &[&redis::KEYS], redis::redis),
    ("kafka", &[&kafka::KEYS], kafka::kafka),
];

/// The type, and complaints of keys that belong to others. Of a type that is none, no key can be wrong.
fn type_of(section: &Section<'_>, issues: &mut Issues) -> Option<Reader> {
    required(section, "type", issues)?;
    let names: Vec<_> = TYPES.iter().map(|kind| (kind.0, Some(*kind))).collect();
    let (name, own, read) = section.choice("type", None, &names, issues)?;
    let owns = |keys: &[&[&str]], key: &str| keys.iter().any(|group| group.contains(&key));
    for key in section.own_keys() {
        if !owns(own, key) && TYPES.iter().any(|(_, keys, _)| owns(keys, key)) {
            section.error(key, format!("outputs of type \"{name}\" have no such key"), issues);
        }
    }
    Some(read)
}

fn output<'a>(
    name: &str,
    section: &Section<'a>,
    general: &Section<'a>,
    issues: &mut Issues,
) -> Option<OutputSettings> {
    let kind = type_of(section, issues).and_then(|read| read(section, issues));
    let default = match kind {
        Some(OutputKind::Stdout) => OutputFormat::Auto,
        Some(OutputKind::Journald(_)) => OutputFormat::Flat,
        _ => OutputFormat::Ecs,
    };
    let formats = [
        ("auto", OutputFormat::Auto),
        ("ecs", OutputFormat::Ecs),
        ("flat", OutputFormat::Flat),
        ("cloudevents", OutputFormat::CloudEvents),
        ("pretty", OutputFormat::Pretty),
    ];
    let (batch, queue) = (section.inner("batch", issues), section.inner("queue", issues));
    let own = section.inner("privacy", issues);
    own.known(keys::PRIVACY, issues);
    batch.known(keys::BATCH, issues);
    queue.known(keys::QUEUE, issues);
    // All of it is read, whatever is wrong with its type: mistakes are told at once.
    let output = OutputSettings {
        privacy: privacy(&own.over(general), issues),
        name: name.to_owned(),
        kind: OutputKind::Stdout,
        required: section.boolean("required", true, issues),
        queue_max_events: queue.number("max_events", 10_000, 1..=u64::from(u32::MAX), issues),
        include: actions(section, issues).unwrap_or_else(|| Action::ALL.to_vec()),
        format: section.choice("format", default, &formats, issues),
        max_bytes: max_bytes(section, issues),
        batch_max_events: usize::try_from(batch.number("max_events", 100, 1..=1000, issues)).unwrap_or(100),
        batch_max_delay: batch.duration("max_delay", Duration::ZERO, Duration::ZERO..=LONGEST_DELAY, issues),
    };
    Some(OutputSettings { kind: kind?, ..output })
}

/// As `events.max_bytes`, and never more.
fn max_bytes(section: &Section<'_>, issues: &mut Issues) -> Option<usize> {
    let most = section.has("max_bytes").then(|| section.number("max_bytes", 8000, 2000..=1 << 20, issues))?;
    usize::try_from(most).ok()
}

fn required(section: &Section<'_>, key: &str, issues: &mut Issues) -> Option<()> {
    if !section.has(key) {
        issues.error(&section.origin, &section.path, format!("missing required key `{key}`"));
        return None;
    }
    Some(())
}

fn webhook(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    let bodies = [
        ("ndjson", WebhookBody::Ndjson),
        ("json", WebhookBody::Json),
        ("single", WebhookBody::Single),
        ("binary", WebhookBody::Binary),
    ];
    let (secret, http) = (secret(section, "secret", issues), http(section, issues));
    let body = section.choice("body", WebhookBody::Ndjson, &bodies, issues);
    if body == WebhookBody::Binary && section.text("format", issues) != Some("cloudevents") {
        section.error("body", "\"binary\" is a form of cloudevents: set format = \"cloudevents\"", issues);
    }
    Some(OutputKind::Webhook(Box::new(WebhookSettings { http: http?, secret, body })))
}

/// JetStream only: without it, nobody says whether an event arrived.
fn nats(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    if !section.boolean("jetstream", true, issues) {
        section.error("jetstream", "without JetStream nothing says whether an event arrived", issues);
    }
    if !cfg!(feature = "nats") {
        section.error("type", "this build is without the feature nats", issues);
    }
    let text = section.text("subject", issues).unwrap_or("idlewatch.{account}.{action}");
    let subject = SubjectTemplate::parse(text).map_err(|problem| section.error("subject", problem, issues));
    let second = |n| SECOND * n;
    Some(OutputKind::Nats(Box::new(NatsSettings {
        stream: section.text("stream", issues).map(str::to_owned),
        credentials: secret(section, "credentials", issues),
        token: secret(section, "token", issues),
        tls_options: rustls_options(section, issues),
        connect_timeout: section.duration("connect_timeout", second(10), SECOND..=DAY, issues),
        timeout: section.duration("timeout", second(5), SECOND..=DAY, issues),
        hold: section.duration("hold", second(600), Duration::ZERO..=DAY, issues),
        url: endpoint(section, ["tls", "nats"], issues)?,
        subject: subject.ok()?,
    })))
}

pub(super) fn rustls_options(section: &Section<'_>, issues: &mut Issues) -> TlsOptions {
    let options = tls_options(section, issues);
    if options.backend != TlsBackend::Rustls {
        section.error("tls_options", "only rustls is used here", issues);
    }
    options
}

fn http(section: &Section<'_>, issues: &mut Issues) -> Option<EndpointSettings> {
    let second = |n| SECOND * n;
    Some(EndpointSettings {
        login: login(section, issues),
        headers: headers(section, issues),
        tls_options: rustls_options(section, issues),
        proxy: section.has("proxy").then(|| url(section, "proxy", &PROXIES, issues)).flatten(),
        connect_timeout: section.duration("connect_timeout", second(10), SECOND..=DAY, issues),
        timeout: section.duration("timeout", second(30), SECOND..=DAY, issues),
        url: endpoint(section, ["https", "http"], issues)?,
    })
}

/// One of those that the type has.
fn login(section: &Section<'_>, issues: &mut Issues) -> Option<HttpLogin> {
    let given: Vec<_> = ["token", "api_key", "user"].into_iter().filter(|key| section.has(key)).collect();
    if let [first, second, ..] = given[..] {
        section.error(second, format!("beside `{first}`: one of them"), issues);
    }
    if section.has("user") != section.has("password") {
        issues.error(&section.origin, &section.path, "`user` and `password` go together");
    }
    let (token, api_key) = (secret(section, "token", issues), secret(section, "api_key", issues));
    let (user, password) = (section.text("user", issues), secret(section, "password", issues));
    if user.is_some_and(|user| user.contains(|c: char| c == ':' || c.is_control())) {
        section.error("user", "no colon can be in it", issues);
    }
    let by_password = user.zip(password);
    let by_password =
        by_password.map(|(user, password)| HttpLogin::Password { user: user.to_owned(), password });
    token.map(HttpLogin::Token).or(api_key.map(HttpLogin::ApiKey)).or(by_password)
}

/// Some outputs make something of their lines.
fn only_in(known: &[OutputFormat], section: &Section<'_>, issues: &mut Issues) {
    let choices = [("ecs", OutputFormat::Ecs), ("flat", OutputFormat::Flat)];
    let choices: Vec<_> = choices.into_iter().filter(|(_, format)| known.contains(format)).collect();
    let asked = section.has("format").then(|| section.text("format", issues)).flatten();
    if asked.is_some_and(|asked| !choices.iter().any(|(name, _)| *name == asked)) {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        section.error("format", format!("this type takes {} only", names.join(" or ")), issues);
    }
}

const PROXIES: [&str; 4] = ["http", "https", "socks5", "socks5h"];

fn endpoint(section: &Section<'_>, [tls, plain]: [&str; 2], issues: &mut Issues) -> Option<Url> {
    let allow_plaintext = section.boolean("allow_plaintext", false, issues);
    required(section, "url", issues)?;
    let url = url(section, "url", &[tls, plain], issues)?;
    if url.scheme() == plain && !allow_plaintext && !url.host_str().is_some_and(is_loopback) {
        let message = format!(
            "{plain}:// to another host sends mail metadata in clear: use {tls}://, or set allow_plaintext = true"
        );
        section.error("url", message, issues);
        return None;
    }
    Some(url)
}

/// Nothing of it is shown: it may hold a secret in its path.
fn url(section: &Section<'_>, key: &str, schemes: &[&str], issues: &mut Issues) -> Option<Url> {
    let url = section.text(key, issues)?.parse::<Url>();
    let problem = match &url {
        Err(error) => format!("it is no URL: {error}"),
        Ok(url) if !schemes.contains(&url.scheme()) => format!("expected {}://", schemes.join(":// or ")),
        Ok(url) if !url.has_host() => "it names no host".to_owned(),
        Ok(url) if key == "url" && (!url.username().is_empty() || url.password().is_some()) => {
            "a user does not belong in a URL: use the keys for that, like `token` or `user`".to_owned()
        }
        Ok(_) => return url.ok(),
    };
    section.error(key, problem, issues);
    None
}

fn headers(section: &Section<'_>, issues: &mut Issues) -> Vec<(String, String)> {
    let mut headers: Vec<_> = section.text_table("headers", issues).into_iter().collect();
    headers.retain(|(name, value)| {
        let sound = HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(value).is_ok();
        if !sound {
            let name = crate::text::line(name, 60);
            section.error("headers", format!("\"{name}\": no such header can be sent"), issues);
        }
        sound
    });
    headers
}

/// Where a secret of an output comes from.
pub(super) fn secret(section: &Section<'_>, key: &str, issues: &mut Issues) -> Option<SecretSource> {
    let value = section.get(key)?;
    let inner = Section::from_value(section.key_path(key), value, &mut Issues::default());
    let source = only_secret(&inner, value, issues)?;
    section.names(key, Thing::Secret(source.clone(), Shape::Line), issues);
    Some(source)
}

/// One or more of them.
pub(super) fn secrets(section: &Section<'_>, key: &str, issues: &mut Issues) -> Vec<SecretSource> {
    let items = match section.get(key) {
        Some(Value { kind: ValueKind::Array(items), .. }) if !items.is_empty() => items.as_slice(),
        // It may be a key that was pasted.
        Some(_) => {
            section.error(
                key,
                "expected one or more tables, like [{ file = \"/etc/idlewatch/seal.key\" }]",
                issues,
            );
            &[]
        }
        None => &[],
    };
    let read = |(at, item)| {
        let path = format!("{}[{at}]", section.key_path(key));
        only_secret(&Section::from_value(path, item, &mut Issues::default()), item, issues)
    };
    items.iter().enumerate().filter_map(read).collect()
}

fn only_secret(inner: &Section<'_>, value: &Value, issues: &mut Issues) -> Option<SecretSource> {
    let only = match &value.kind {
        ValueKind::Table(table) if table.len() == 1 => table.keys().next().map(String::as_str),
        _ => None,
    };
    let Some(kind) = keys::SECRET.iter().find(|known| only == Some(known.name)) else {
        let names: Vec<_> = keys::SECRET.iter().map(|key| format!("\"{}\"", key.name)).collect();
        let message = format!("expected a table with one of {}", names.join(", "));
        issues.error(&inner.origin, &inner.path, message);
        return None;
    };
    source(inner, kind.name, issues)
}

fn source(inner: &Section<'_>, kind: &str, issues: &mut Issues) -> Option<SecretSource> {
    Some(match kind {
        "env" => SecretSource::Env(inner.text(kind, issues)?.to_owned()),
        "file" => SecretSource::File(inner.path(kind, issues)?),
        "credential" => match inner.text(kind, issues)? {
            name if name.contains('/') || name.starts_with('.') => {
                inner.error(kind, "a name without `/`", issues);
                return None;
            }
            name => SecretSource::Credential(name.to_owned()),
        },
        "secret" => {
            inner.error(kind, "[secrets.X] tells secrets of accounts only", issues);
            return None;
        }
        "command" => match inner.texts(kind, issues)? {
            argv if argv.first().is_none_or(String::is_empty) => {
                inner.error(kind, "expected [\"program\", \"argument\", ...]", issues);
                return None;
            }
            argv => SecretSource::Command(argv),
        },
        _ => {
            let text = inner.secret(kind, issues)?;
            issues.warn(
                &inner.origin,
                &inner.path,
                "the secret stands in the file; use file, command or credential",
            );
            SecretSource::Inline(SecretString::from(text))
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::config::{from_text, settings::*};
    use crate::privacy::{Rule, Rules};

    const ACCOUNT: &str = "[[accounts]]\nid = \"work\"\nhost = \"imap.example.com\"\nuser = \"bob\"\npassword = { env = \"PW\" }\n";

    fn read(output: &str) -> Result<OutputSettings, Vec<String>> {
        match from_text("t", &format!("[outputs.x]\n{output}\n{ACCOUNT}")) {
            Ok((settings, _)) => Ok(settings.outputs[0].clone()),
            Err(issues) => Err(issues.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn a_webhook_is_read_whole() {
        let text = "type = \"webhook\"\nurl = \"https://hooks.example.com/mail\"\nsecret = { env = \"S\" }\nbody = \"json\"\n\
                    headers = { X-Team = \"mail\" }\nbatch = { max_events = 7, max_delay = \"1s\" }\nproxy = \"socks5h://p.example:1080\"";
        let output = read(text).unwrap();
        assert_eq!((output.batch_max_events, output.batch_max_delay.as_secs()), (7, 1));
        let OutputKind::Webhook(webhook) = output.kind else { panic!() };
        assert_eq!((webhook.body, webhook.http.timeout.as_secs()), (WebhookBody::Json, 30));
        assert_eq!(webhook.http.headers, [("X-Team".to_owned(), "mail".to_owned())]);
    }

    #[test]
    fn a_syslog_has_the_bounds_of_its_transport() {
        for (url, transport, max_bytes, hold) in [
            ("unix:///dev/log", SyslogTransport::Unix("/dev/log".into()), 8192, 0),
            ("udp://127.0.0.1", SyslogTransport::Udp(server("127.0.0.1", 514)), 2048, 0),
            ("tcp://localhost", SyslogTransport::Tcp(server("localhost", 601)), 8192, 30),
            ("tls://logs.example.com", SyslogTransport::Tls(server("logs.example.com", 6514)), 8192, 30),
            ("tls://[2001:db8::1]:7", SyslogTransport::Tls(server("[2001:db8::1]", 7)), 8192, 30),
        ] {
            let output = read(&format!("type = \"syslog\"\nurl = \"{url}\"\nfacility = \"local7\"")).unwrap();
            let OutputKind::Syslog(syslog) = output.kind else { panic!() };
            assert_eq!(syslog.transport, transport);
            assert_eq!(
                (syslog.max_bytes, syslog.hold.as_secs(), syslog.facility),
                (max_bytes, hold, 23),
                "{url}"
            );
        }
    }

    #[test]
    fn stores_have_one_way_to_log_in_each() {
        let url = "url = \"https://x.example\"";
        for (kind, more) in [
            ("elasticsearch", "api_key = { env = \"K\" }\nindex = \"mail-{date}\""),
            ("loki", "token = { env = \"K\" }\ntenant = \"mail\"\nlabels = { env = \"prod\" }"),
            ("otlp", "user = \"bob\"\npassword = { env = \"K\" }"),
        ] {
            let kind = read(&format!("type = \"{kind}\"\n{url}\n{more}")).unwrap().kind;
            let http = match &kind {
                OutputKind::Elasticsearch(elasticsearch) => &elasticsearch.http,
                OutputKind::Loki(loki) => &loki.http,
                OutputKind::Otlp(otlp) => &otlp.http,
                other => panic!("{other:?}"),
            };
            let fits = match &http.login {
                Some(HttpLogin::ApiKey(_)) => kind.name() == "elasticsearch",
                Some(HttpLogin::Token(_)) => kind.name() == "loki",
                Some(HttpLogin::Password { user, .. }) => kind.name() == "otlp" && user == "bob",
                None => false,
            };
            assert!(fits, "{http:?}");
        }
        for (text, problem) in [
            (
                "type = \"elasticsearch\"\ntoken = { env = \"K\" }\napi_key = { env = \"K\" }",
                "outputs.x.api_key: beside `token`",
            ),
            ("type = \"elasticsearch\"\nuser = \"bob\"", "`user` and `password` go together"),
            (
                "type = \"elasticsearch\"\nuser = \"b:b\"\npassword = { env = \"K\" }",
                "outputs.x.user: no colon",
            ),
            ("type = \"elasticsearch\"\nindex = \"mail-{account}\"", "outputs.x.index: unknown placeholder"),
            (
                "type = \"elasticsearch\"\nformat = \"pretty\"",
                "outputs.x.format: this type takes ecs or flat only",
            ),
            ("type = \"loki\"\nlabels = { level = \"x\" }", "outputs.x.labels: \"level\": every stream has"),
            ("type = \"loki\"\nlabels = { \"a-b\" = \"x\" }", "outputs.x.labels: \"a-b\": expected letters"),
            ("type = \"loki\"\ntenant = \"\"", "outputs.x.tenant: no such header"),
            (
                "type = \"loki\"\napi_key = { env = \"K\" }",
                "outputs.x.api_key: outputs of type \"loki\" have no such key",
            ),
            ("type = \"otlp\"\nformat = \"flat\"", "outputs.x.format: this type takes ecs only"),
        ] {
            let problems = read(&format!("{text}\n{url}")).unwrap_err();
            assert!(problems.iter().any(|told| told.contains(problem)), "{text}: {problems:?}");
        }
    }

    #[test]
    fn two_outputs_cannot_have_one_file_however_it_is_written() {
        let second = |path: &str| {
            read(&format!(
                "type = \"file\"\npath = \"logs/x.jsonl\"\n[outputs.y]\ntype = \"file\"\npath = \"{path}\""
            ))
        };
        for path in ["logs/x.jsonl", "./logs/x.jsonl", "logs//x.jsonl", "logs/../logs/./x.jsonl"] {
            let problems = second(path).unwrap_err();
            assert!(problems[0].contains("logs/x.jsonl is taken by outputs.x already"), "{problems:?}");
        }
        for path in ["../logs/x.jsonl", "logs/y.jsonl", "/logs/x.jsonl"] {
            assert!(second(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn an_error_names_the_host_and_nothing_that_may_be_secret() {
        for (output, target) in [
            (
                "type = \"webhook\"\nurl = \"https://hooks.example.com/canary?canary\"",
                Some("hooks.example.com:443"),
            ),
            ("type = \"redis\"\nurl = \"rediss://r.example\"", Some("r.example:6379")),
            ("type = \"syslog\"\nurl = \"tls://s.example\"", Some("s.example:6514")),
            ("type = \"file\"\npath = \"x\"", None),
        ] {
            assert_eq!(read(output).unwrap().kind.target().as_deref(), target);
        }
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn brokers_are_of_one_kind_and_their_ports_may_be_left_out() {
        let text = "type = \"kafka\"\nbrokers = [\"tls://a.example\", \"tls://[2001:db8::1]:7\"]\nuser = \"bob\"\npassword = { env = \"K\" }";
        let OutputKind::Kafka(kafka) = read(text).unwrap().kind else { panic!() };
        assert_eq!(
            (kafka.brokers.join(" ").as_str(), kafka.is_tls),
            ("a.example:9093 [2001:db8::1]:7", true)
        );
        assert_eq!(kafka.login.map(|login| login.mechanism), Some(SaslMechanism::ScramSha512));
        for (text, problem) in [
            ("", "outputs.x: missing required key `brokers`"),
            ("brokers = []", "outputs.x.brokers: expected [\"tls://host:9093\", ...]"),
            ("brokers = [\"a.example:9092\"]", "outputs.x.brokers: expected tls://host:9093"),
            ("brokers = [\"kafka://a.example\"]", "outputs.x.brokers: kafka:// to another host"),
            ("brokers = [\"tls://a.example\", \"kafka://localhost\"]", "all tls://, or all kafka://"),
            ("brokers = [\"tls://bob:canary@a.example\"]", "a user does not belong in a URL"),
            ("brokers = [\"tls://a.example/canary\"]", "expected tls://host:port and no more"),
            ("brokers = [\"tls://a.example,b.example\"]", "it names no host"),
            (
                "brokers = [\"tls://a.example\"]\ntopic = \"a b\"",
                "outputs.x.topic: expected 1 to 249 letters",
            ),
            ("brokers = [\"tls://a.example\"]\nuser = \"bob\"", "`user` and `password` go together"),
            ("brokers = [\"tls://a.example\"]\nsasl = \"plain\"", "outputs.x.sasl: it needs a `user`"),
            (
                "brokers = [\"tls://a.example\"]\ntls_options = { min_version = \"1.3\" }",
                "outputs.x.tls_options: kafka knows ca_file",
            ),
        ] {
            let problems = read(&format!("type = \"kafka\"\n{text}")).unwrap_err();
            assert!(problems.iter().any(|told| told.contains(problem)), "{text}: {problems:?}");
            assert!(!problems.concat().contains("canary"), "{problems:?}");
        }
    }

    fn server(host: &str, port: u16) -> SyslogServer {
        SyslogServer { host: host.to_owned(), port }
    }

    #[test]
    fn privacy_of_an_output_lies_over_the_general_one_key_by_key() {
        let general = "[privacy]\nsubject = \"omit\"\naddresses = \"hash\"\nhash_key = { env = \"K\" }";
        let output =
            read(&format!("type = \"stdout\"\nprivacy = {{ addresses = \"domain\" }}\n{general}")).unwrap();
        let rules = Rules { subject: Rule::Omit, addresses: Rule::Domain, ..Rules::default() };
        assert_eq!((output.privacy.rules, output.privacy.hash_key.is_some()), (rules, true));
        for (text, problem) in [
            ("[privacy]\nsubject = \"hash\"", "\"hash\" needs a `hash_key`"),
            ("[privacy]\nsubject = \"domain\"", "privacy.subject: unknown value \"domain\""),
            ("[privacy]\nattachment_names = \"domain\"", "privacy.attachment_names: unknown value"),
            ("[privacy]\nsubjects = \"omit\"", "privacy.subjects: unknown key"),
        ] {
            let problems = read(&format!("type = \"stdout\"\n{text}")).unwrap_err();
            assert!(problems.iter().any(|told| told.contains(problem)), "{text}: {problems:?}");
        }
    }

    #[test]
    fn one_mistake_is_one_problem_and_all_are_told_at_once() {
        let problems = read("type = \"webhok\"\nurl = \"https://x.example\"").unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains("did you mean \"webhook\"?"), "{problems:?}");
        let filter = "[filters.f]\naction = \"route\"\noutputs = [\"x\"]\naccounts = [\"work\"]";
        let text = format!("type = \"webhook\"\nformat = \"yaml\"\nbatch = {{ max_events = 0 }}\n{filter}");
        let problems = read(&text).unwrap_err();
        for told in ["missing required key `url`", "outputs.x.format: ", "outputs.x.batch.max_events: "] {
            assert!(problems.iter().any(|problem| problem.contains(told)), "{told}: {problems:?}");
        }
        assert_eq!(problems.len(), 3, "the filter is not to blame: {problems:?}");
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (text, problem) in [
            ("type = \"webhook\"", "outputs.x: missing required key `url`"),
            (
                "type = \"webhook\"\nurl = \"http://hooks.example.com/\"",
                "outputs.x.url: http:// to another host",
            ),
            (
                "type = \"webhook\"\nurl = \"ftp://hooks.example.com/\"",
                "outputs.x.url: expected https:// or http://",
            ),
            (
                "type = \"webhook\"\nurl = \"https://bob:canary@x.example/\"",
                "outputs.x.url: a user does not belong",
            ),
            ("type = \"webhook\"\nurl = \"canary\"", "outputs.x.url: it is no URL"),
            (
                "type = \"webhook\"\nurl = \"https://x.example\"\nsecret = \"canary\"",
                "outputs.x.secret: expected a table",
            ),
            (
                "type = \"webhook\"\nurl = \"https://x.example\"\nheaders = { \"a b\" = \"canary\" }",
                "outputs.x.headers: \"a b\": no such header",
            ),
            (
                "type = \"webhook\"\nurl = \"https://x.example\"\npath = \"x\"",
                "outputs.x.path: outputs of type \"webhook\" have no such key",
            ),
            (
                "type = \"file\"\npath = \"x\"\nurl = \"https://x.example\"",
                "outputs.x.url: outputs of type \"file\" have no such key",
            ),
            ("type = \"syslog\"", "outputs.x: missing required key `url`"),
            (
                "type = \"syslog\"\nurl = \"http://x.example\"",
                "outputs.x.url: expected tls://, tcp://, udp:// or unix://",
            ),
            ("type = \"syslog\"\nurl = \"udp://x.example\"", "outputs.x.url: udp:// to another host"),
            ("type = \"syslog\"\nurl = \"unix://canary\"", "outputs.x.url: expected unix:///path"),
            (
                "type = \"syslog\"\nurl = \"tls://x.example/canary\"",
                "outputs.x.url: expected tls://host:port",
            ),
            ("type = \"syslog\"\nurl = \"tls://bob@x.example\"", "outputs.x.url: syslog knows no users"),
            (
                "type = \"syslog\"\nurl = \"unix:///dev/log\"\nhold = \"1m\"",
                "outputs.x.hold: nothing tells that datagrams were lost",
            ),
            (
                "type = \"syslog\"\nurl = \"tls://x.example\"\nhold = \"3s\"",
                "outputs.x.hold: a lost connection is not noticed",
            ),
            (
                "type = \"syslog\"\nurl = \"tls://x.example\"\nfacility = \"local8\"",
                "outputs.x.facility: unknown value \"local8\"",
            ),
            (
                "type = \"syslog\"\nurl = \"tls://x.example\"\napp_name = \"a b\"",
                "outputs.x.app_name: expected 1 to 48",
            ),
            (
                "type = \"syslog\"\nurl = \"udp://127.0.0.1\"\nmax_bytes = 500",
                "outputs.x.max_bytes: expected 2048",
            ),
            ("type = \"stdout\"\nmax_bytes = 500", "outputs.x.max_bytes: expected 2000"),
            (
                "type = \"webhook\"\nurl = \"https://x.example\"\nbody = \"binary\"",
                "outputs.x.body: \"binary\" is a form of cloudevents",
            ),
            ("type = \"exec\"", "outputs.x: missing required key `command`"),
            ("type = \"exec\"\ncommand = []", "outputs.x.command: expected [\"program\""),
            ("type = \"exec\"\ncommand = \"sh -c x\"", "outputs.x.command: expected an array of strings"),
            (
                "type = \"exec\"\ncommand = [\"true\"]\nenvironment = { IDLEWATCH_X = \"canary\" }",
                "outputs.x.environment: \"IDLEWATCH_X\": no such variable",
            ),
            (
                "type = \"exec\"\ncommand = [\"true\"]\nconcurrency = 0",
                "outputs.x.concurrency: expected 1 to 64",
            ),
            (
                "type = \"file\"\npath = \"x\"\nrotate = { keep = 3 }",
                "outputs.x.rotate: set `max_bytes`, `max_age` or both",
            ),
            (
                "type = \"file\"\npath = \"x\"\nrotate = { max_bytes = \"1\" }",
                "outputs.x.rotate.max_bytes: expected a size of at least",
            ),
            (
                "type = \"file\"\npath = \"x\"\nrotate = { max_age = \"1d\", keep = 0 }",
                "outputs.x.rotate.keep: expected 1 to",
            ),
            (
                "type = \"file\"\npath = \"x\"\nrotate = { max_size = \"1MiB\" }",
                "outputs.x.rotate.max_size: unknown key",
            ),
            (
                "type = \"journald\"\nformat = \"ecs\"",
                "outputs.x.format: an entry of the journal has fields, and no other form",
            ),
            ("type = \"redis\"\nurl = \"redis://x.example\"", "outputs.x.url: redis:// to another host"),
            (
                "type = \"redis\"\nurl = \"rediss://x.example/canary\"",
                "outputs.x.url: expected rediss://host:port",
            ),
            ("type = \"redis\"\nurl = \"rediss://bob:canary@x.example\"", "a user does not belong in a URL"),
            (
                "type = \"redis\"\nurl = \"rediss://x.example\"\nuser = \"bob\"",
                "a `user` needs its `password`",
            ),
            (
                "type = \"redis\"\nurl = \"rediss://x.example\"\nstream = \"\"",
                "outputs.x.stream: expected 1 to 512",
            ),
        ] {
            let problems = read(text).unwrap_err();
            assert!(problems.iter().any(|told| told.contains(problem)), "{text}: {problems:?}");
            assert!(!problems.concat().contains("canary"), "{problems:?}");
        }
        assert!(read("type = \"webhook\"\nurl = \"http://127.0.0.1:9/\"").is_ok());
        assert!(read("type = \"webhook\"\nurl = \"http://x.example/\"\nallow_plaintext = true").is_ok());
    }
}
