//! `[journal] url`: PostgreSQL in place of a file. Pure.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::outputs::{rustls_options, secret};
use super::section::{Issues, Section};
use super::settings::{DatabaseServer, DatabaseSettings, is_loopback};
use super::validate::SECOND;

/// Where servers listen by default.
const PORT: u16 = 5432;

/// What only a journal in a database has.
const ONLY_WITH_URL: [&str; 4] = ["password", "tls_options", "allow_plaintext", "ttl"];

pub(super) fn database(section: &Section<'_>, issues: &mut Issues) -> Option<Box<DatabaseSettings>> {
    if !section.has("url") {
        for key in ONLY_WITH_URL.into_iter().filter(|key| section.has(key)) {
            section.error(key, "of a journal in a database only: there is no `url`", issues);
        }
        return None;
    }
    if !cfg!(feature = "postgres") {
        section.error("url", "this build is without the feature postgres", issues);
    }
    let password = secret(section, "password", issues);
    let tls_options = rustls_options(section, issues);
    let allow_plaintext = section.boolean("allow_plaintext", false, issues);
    let ttl = section.duration("ttl", SECOND * 15, SECOND * 2..=Duration::from_secs(600), issues);
    let parsed = parse(section.text("url", issues)?).and_then(|parsed| {
        let in_clear = !parsed.is_tls && !parsed.servers.iter().all(is_here);
        if in_clear && !allow_plaintext {
            return Err("without TLS, mail metadata goes to another host in clear: leave sslmode out, or set allow_plaintext = true".to_owned());
        }
        Ok(parsed)
    });
    let Parsed { servers, user, name, is_tls } =
        parsed.map_err(|problem| section.error("url", problem, issues)).ok()?;
    let tls_options = is_tls.then_some(tls_options);
    Some(Box::new(DatabaseSettings { servers, user, name, password, tls_options, ttl }))
}

/// What stays on this machine.
fn is_here(server: &DatabaseServer) -> bool {
    server.is_socket() || is_loopback(&server.host)
}

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    servers: Vec<DatabaseServer>,
    user: String,
    name: String,
    is_tls: bool,
}

/// `postgres://USER@HOST:PORT,HOST:PORT/DATABASE`; a host may be the directory of a Unix socket, with `%2F` for its slashes.
/// Nothing of it is shown: there may be a password in it, where none belongs.
fn parse(text: &str) -> Result<Parsed, String> {
    let form =
        || "expected postgres://user@host:port/database; several hosts stand between commas".to_owned();
    let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let (authority, path) = rest.and_then(|rest| rest.split_once('/')).ok_or_else(form)?;
    let (user, hosts) = authority.rsplit_once('@').ok_or_else(form)?;
    // The syntax of URLs knows one host.
    let one = |host: &str| format!("postgres://{user}@{host}/{path}").parse::<Url>().map_err(|_| form());
    let urls: Vec<Url> = hosts.split(',').map(one).collect::<Result<_, _>>()?;
    let first = urls.first().ok_or_else(form)?;
    if first.password().is_some() {
        return Err("a password does not belong in a URL: use the key `password`".to_owned());
    }
    let (user, name) = (decoded(first.username())?, decoded(first.path().trim_start_matches('/'))?);
    if user.is_empty() || name.is_empty() || name.contains('/') || first.fragment().is_some() {
        return Err(form());
    }
    let servers: Vec<_> = urls.iter().map(server).collect::<Result<_, _>>()?;
    let is_tls = is_tls(first)? && !servers.iter().any(DatabaseServer::is_socket);
    Ok(Parsed { servers, user, name, is_tls })
}

fn server(url: &Url) -> Result<DatabaseServer, String> {
    let host = decoded(url.host_str().unwrap_or_default())?;
    if host.is_empty() {
        return Err("a host is empty".to_owned());
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(DatabaseServer { host, port: url.port().unwrap_or(PORT) })
}

/// Whoever says nothing has TLS, with a certificate that is verified.
fn is_tls(url: &Url) -> Result<bool, String> {
    let mut is_tls = true;
    for (name, value) in url.query_pairs() {
        is_tls = match (&*name, &*value) {
            ("sslmode", "verify-full") => true,
            ("sslmode", "disable") => false,
            ("sslmode", _) => return Err("sslmode is verify-full (as without it) or disable".to_owned()),
            _ => return Err("behind the ? only sslmode is known".to_owned()),
        };
    }
    Ok(is_tls)
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| "it is not UTF-8".to_owned())?;
    if text.contains('\0') { Err("it holds a NUL".to_owned()) } else { Ok(text.into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let Parsed { servers, user, name, is_tls } = parse(text)?;
        let servers: Vec<_> = servers.iter().map(|at| format!("{} {}", at.host, at.port)).collect();
        Ok(format!("{user} {name} {is_tls} {}", servers.join(",")))
    }

    #[test]
    fn a_url_says_who_where_and_which_database() {
        for (text, expected) in [
            ("postgres://iw@db/mail", "iw mail true db 5432"),
            ("postgresql://iw@db1,db2:6000/mail?sslmode=verify-full", "iw mail true db1 5432,db2 6000"),
            ("postgres://iw@[::1]:6000/mail?sslmode=disable", "iw mail false ::1 6000"),
            ("postgres://iw@%2Frun%2Fpostgresql/mail", "iw mail false /run/postgresql 5432"),
            ("postgres://a%40b@db/m%20x", "a@b m x true db 5432"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused_and_never_shown() {
        for text in [
            "mysql://canary@db/mail",
            "postgres://db/mail",
            "postgres://canary@db",
            "postgres://canary@db/",
            "postgres://iw:canary@db/mail",
            "postgres://iw@db,/mail",
            "postgres://iw@db:canary/mail",
            "postgres://iw@db/mail/canary",
            "postgres://iw@db/mail?sslmode=canary",
            "postgres://iw@db/mail?canary=1",
            "postgres://iw@db/ma%00il",
            "postgres://iw@db/%ff",
        ] {
            let problem = read(text).unwrap_err();
            assert!(!problem.contains("canary"), "{text}: {problem}");
        }
    }
}
