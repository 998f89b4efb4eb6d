//! `type = "kafka"`

use reqwest::Url;

use super::super::section::{Issues, Section};
use super::super::settings::{
    KafkaCompression, KafkaSettings, OutputKind, SaslLogin, SaslMechanism, TlsOptions, TlsVersion,
    is_loopback,
};
use super::super::validate::{DAY, SECOND};
use super::{required, rustls_options, secret};

pub(super) const KEYS: [&str; 10] = [
    "brokers",
    "topic",
    "compression",
    "sasl",
    "user",
    "password",
    "tls_options",
    "allow_plaintext",
    "connect_timeout",
    "timeout",
];

const MECHANISMS: [(&str, SaslMechanism); 3] = [
    ("plain", SaslMechanism::Plain),
    ("scram-sha-256", SaslMechanism::ScramSha256),
    ("scram-sha-512", SaslMechanism::ScramSha512),
];

const COMPRESSIONS: [(&str, KafkaCompression); 4] = [
    ("none", KafkaCompression::None),
    ("gzip", KafkaCompression::Gzip),
    ("snappy", KafkaCompression::Snappy),
    ("lz4", KafkaCompression::Lz4),
];

pub(super) fn kafka(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    if !cfg!(feature = "kafka") {
        section.error("type", "this build is without the feature kafka", issues);
    }
    let topic = topic(section, issues);
    let compression = section.choice("compression", KafkaCompression::None, &COMPRESSIONS, issues);
    let login = login(section, issues);
    let tls_options = tls_options(section, issues);
    let connect_timeout = section.duration("connect_timeout", SECOND * 10, SECOND..=DAY, issues);
    let timeout = section.duration("timeout", SECOND * 30, SECOND..=DAY, issues);
    let (brokers, is_tls) = brokers(section, issues)?;
    Some(OutputKind::Kafka(Box::new(KafkaSettings {
        brokers,
        is_tls,
        topic,
        compression,
        login,
        tls_options,
        connect_timeout,
        timeout,
    })))
}

fn topic(section: &Section<'_>, issues: &mut Issues) -> String {
    let topic = section.text("topic", issues).unwrap_or("idlewatch");
    let is_sound = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    if !(1..=249).contains(&topic.len()) || !topic.bytes().all(is_sound) || matches!(topic, "." | "..") {
        section.error("topic", "expected 1 to 249 letters, digits, `.`, `_` and `-`", issues);
    }
    topic.to_owned()
}

fn login(section: &Section<'_>, issues: &mut Issues) -> Option<SaslLogin> {
    if section.has("user") != section.has("password") {
        issues.error(&section.origin, &section.path, "`user` and `password` go together");
    }
    if section.has("sasl") && !section.has("user") {
        section.error("sasl", "it needs a `user` and a `password`", issues);
    }
    let mechanism = section.choice("sasl", SaslMechanism::ScramSha512, &MECHANISMS, issues);
    let (user, password) = (section.text("user", issues), secret(section, "password", issues));
    let user = user?.to_owned();
    Some(SaslLogin { mechanism, user, password: password? })
}

/// librdkafka has TLS of its own, which knows neither pins nor a lowest version.
fn tls_options(section: &Section<'_>, issues: &mut Issues) -> TlsOptions {
    let options = rustls_options(section, issues);
    if !options.pins.is_empty() || options.pin_only || options.min_version != TlsVersion::Tls12 {
        section.error("tls_options", "kafka knows ca_file, client_cert and client_key only", issues);
    }
    options
}

/// All of one kind: whom they name further is spoken to in the same way.
fn brokers(section: &Section<'_>, issues: &mut Issues) -> Option<(Vec<String>, bool)> {
    let allow_plaintext = section.boolean("allow_plaintext", false, issues);
    required(section, "brokers", issues)?;
    let texts = section.texts("brokers", issues)?;
    let read: Result<Vec<_>, _> = texts.iter().map(|text| broker(text, allow_plaintext)).collect();
    let mixed = |brokers: &[(String, bool)]| {
        brokers.iter().any(|(_, tls)| brokers.first().is_some_and(|first| first.1 != *tls))
    };
    let problem = match read {
        Ok(brokers) if brokers.is_empty() => "expected [\"tls://host:9093\", ...]".to_owned(),
        Ok(brokers) if mixed(&brokers) => "all tls://, or all kafka://".to_owned(),
        Ok(brokers) => {
            let is_tls = brokers.iter().any(|(_, tls)| *tls);
            return Some((brokers.into_iter().map(|(broker, _)| broker).collect(), is_tls));
        }
        Err(problem) => problem,
    };
    section.error("brokers", problem, issues);
    None
}

/// `host:port`, and whether by TLS. What is wrong is not shown: it may be anything.
fn broker(text: &str, allow_plaintext: bool) -> Result<(String, bool), String> {
    let url = text.parse::<Url>().map_err(|error| format!("it is no URL: {error}"))?;
    let (is_tls, port) = match url.scheme() {
        "tls" => (true, 9093),
        "kafka" => (false, 9092),
        _ => return Err("expected tls://host:9093 or kafka://host:9092".to_owned()),
    };
    let bare = url.username().is_empty() && url.password().is_none();
    if !bare {
        return Err("a user does not belong in a URL: use `user` and `password`".to_owned());
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("expected {}://host:port and no more", url.scheme()));
    }
    // A list is what librdkafka makes of a comma.
    let host = url.host_str().filter(|host| !host.is_empty() && !host.contains(','));
    let host = host.ok_or_else(|| "it names no host".to_owned())?;
    if !is_tls && !allow_plaintext && !is_loopback(host) {
        return Err("kafka:// to another host sends mail metadata in clear: use tls://, or set allow_plaintext = true".to_owned());
    }
    Ok((format!("{host}:{}", url.port().unwrap_or(port)), is_tls))
}
