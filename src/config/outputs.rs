//! `[outputs.X]`: the template of every output, and what each type adds. Pure.

use std::collections::HashMap;
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

/// What no two outputs can share.
fn place(kind: &OutputKind) -> Option<String> {
    match kind {
        OutputKind::Stdout => Some("stdout".to_owned()),
        OutputKind::File { path } => Some(path.display().to_string()),
        OutputKind::Webhook(_) | OutputKind::Nats(_) => None,
    }
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
const TYPES: [(&str, &[&[&str]], Reader); 4] = [
    ("stdout", &[], |_, _| Some(OutputKind::Stdout)),
    ("file", &[&["path"]], file),
    ("webhook", &[&HTTP, &["secret", "body"]], webhook),
    ("nats", &[&NATS], nats),
];

/// The type, and complaints of keys that belong to others.
fn type_of(section: &Section<'_>, issues: &mut Issues) -> Reader {
    let names: Vec<_> = TYPES.iter().enumerate().map(|(at, (name, ..))| (*name, at)).collect();
    let at = section.choice("type", 0, &names, issues);
    let owns = |keys: &[&[&str]], key: &str| keys.iter().any(|group| group.contains(&key));
    let (name, own, read) = TYPES.get(at).copied().unwrap_or(TYPES[0]);
    for key in section.own_keys() {
        if !owns(own, key) && TYPES.iter().any(|(_, keys, _)| owns(keys, key)) {
            section.error(key, format!("outputs of type \"{name}\" have no such key"), issues);
        }
    }
    read
}

fn output<'a>(
    name: &str,
    section: &Section<'a>,
    general: &Section<'a>,
    issues: &mut Issues,
) -> Option<OutputSettings> {
    required(section, "type", issues)?;
    let kind = type_of(section, issues)(section, issues)?;
    let default = if kind == OutputKind::Stdout { OutputFormat::Auto } else { OutputFormat::Ecs };
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
    Some(OutputSettings {
        privacy: privacy(&own.over(general), issues),
        name: name.to_owned(),
        kind,
        required: section.boolean("required", true, issues),
        queue_max_events: queue.number("max_events", 10_000, 1..=u64::from(u32::MAX), issues),
        include: actions(section, issues).unwrap_or_else(|| Action::ALL.to_vec()),
        format: section.choice("format", default, &formats, issues),
        batch_max_events: usize::try_from(batch.number("max_events", 100, 1..=1000, issues)).unwrap_or(100),
        batch_max_delay: batch.duration("max_delay", Duration::ZERO, Duration::ZERO..=LONGEST_DELAY, issues),
    })
}

fn required(section: &Section<'_>, key: &str, issues: &mut Issues) -> Option<()> {
    if !section.has(key) {
        issues.error(&section.origin, &section.path, format!("missing required key `{key}`"));
        return None;
    }
    Some(())
}

fn file(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    required(section, "path", issues)?;
    let path = section.path("path", issues)?;
    section.names("path", Thing::Output(path.clone()), issues);
    Some(OutputKind::File { path })
}

fn webhook(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    let bodies = [("ndjson", WebhookBody::Ndjson), ("json", WebhookBody::Json)];
    let (secret, http) = (secret(section, "secret", issues), http(section, issues));
    let body = section.choice("body", WebhookBody::Ndjson, &bodies, issues);
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

fn rustls_options(section: &Section<'_>, issues: &mut Issues) -> TlsOptions {
    let options = tls_options(section, issues);
    if options.backend != TlsBackend::Rustls {
        section.error("tls_options", "outputs have rustls only", issues);
    }
    options
}

fn http(section: &Section<'_>, issues: &mut Issues) -> Option<EndpointSettings> {
    let second = |n| SECOND * n;
    Some(EndpointSettings {
        token: secret(section, "token", issues),
        headers: headers(section, issues),
        tls_options: rustls_options(section, issues),
        proxy: section.has("proxy").then(|| url(section, "proxy", &PROXIES, issues)).flatten(),
        connect_timeout: section.duration("connect_timeout", second(10), SECOND..=DAY, issues),
        timeout: section.duration("timeout", second(30), SECOND..=DAY, issues),
        url: endpoint(section, ["https", "http"], issues)?,
    })
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
            "a user does not belong in a URL: use `token` or `headers`".to_owned()
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
    let only = match &value.kind {
        ValueKind::Table(table) if table.len() == 1 => table.keys().next().map(String::as_str),
        _ => None,
    };
    let Some(kind) = keys::SECRET.iter().find(|known| only == Some(known.name)) else {
        let names: Vec<_> = keys::SECRET.iter().map(|key| format!("\"{}\"", key.name)).collect();
        section.error(key, format!("expected a table with one of {}", names.join(", ")), issues);
        return None;
    };
    let inner = section.nearest(key, issues)?;
    let source = source(&inner, kind.name, issues)?;
    section.names(key, Thing::Secret(source.clone(), Shape::Line), issues);
    Some(source)
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
            ("type = \"webhok\"\nurl = \"https://x.example\"", "did you mean \"webhook\"?"),
        ] {
            let problems = read(text).unwrap_err();
            assert!(problems.iter().any(|told| told.contains(problem)), "{text}: {problems:?}");
            assert!(!problems.concat().contains("canary"), "{problems:?}");
        }
        assert!(read("type = \"webhook\"\nurl = \"http://127.0.0.1:9/\"").is_ok());
        assert!(read("type = \"webhook\"\nurl = \"http://x.example/\"\nallow_plaintext = true").is_ok());
    }
}
