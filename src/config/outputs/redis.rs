//! `type = "redis"`

use reqwest::Url;

use super::super::section::{Issues, Section};
use super::super::settings::{OutputKind, RedisSettings};
use super::super::validate::{DAY, SECOND};
use super::{endpoint, rustls_options, secret};

pub(super) const KEYS: [&str; 9] = [
    "url",
    "stream",
    "max_len",
    "user",
    "password",
    "tls_options",
    "allow_plaintext",
    "connect_timeout",
    "timeout",
];

pub(super) fn redis(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    let stream = section.text("stream", issues).unwrap_or("idlewatch").to_owned();
    if !(1..=512).contains(&stream.len()) {
        section.error("stream", "expected 1 to 512 bytes", issues);
    }
    let max_len = section.number("max_len", 1_000_000, 0..=u64::from(u32::MAX), issues);
    if section.has("user") && !section.has("password") {
        issues.error(&section.origin, &section.path, "a `user` needs its `password`");
    }
    let user = section.text("user", issues).map(str::to_owned);
    let password = secret(section, "password", issues);
    let tls_options = rustls_options(section, issues);
    let connect_timeout = section.duration("connect_timeout", SECOND * 10, SECOND..=DAY, issues);
    let timeout = section.duration("timeout", SECOND * 10, SECOND..=DAY, issues);
    let url = endpoint(section, ["rediss", "redis"], issues)?;
    let database = database(section, &url, issues)?;
    Some(OutputKind::Redis(Box::new(RedisSettings {
        host: url.host_str().unwrap_or_default().to_owned(),
        port: url.port().unwrap_or(6379),
        is_tls: url.scheme() == "rediss",
        database,
        user,
        password,
        stream,
        max_len: (max_len > 0).then_some(max_len),
        tls_options,
        connect_timeout,
        timeout,
    })))
}

fn database(section: &Section<'_>, url: &Url, issues: &mut Issues) -> Option<u16> {
    let number = url.path().trim_start_matches('/');
    let number = if number.is_empty() { Some(0) } else { number.parse().ok() };
    if number.is_none() || url.query().is_some() || url.fragment().is_some() {
        let problem = format!("expected {}://host:port, and after it at most / and a number", url.scheme());
        section.error("url", problem, issues);
    }
    number
}
