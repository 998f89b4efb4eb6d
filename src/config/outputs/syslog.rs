//! `type = "syslog"`

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::super::keys;
use super::super::section::{Issues, Section};
use super::super::settings::{OutputKind, SyslogServer, SyslogSettings, SyslogTransport, is_loopback};
use super::super::validate::{DAY, SECOND};
use super::{required, rustls_options};

pub(super) const KEYS: [&str; 8] =
    ["url", "facility", "app_name", "tls_options", "allow_plaintext", "connect_timeout", "timeout", "hold"];

/// What every receiver of datagrams should take (RFC 5426 section 3.2).
const DATAGRAM: u64 = 2048;

/// What every receiver of streams should take (RFC 5425 section 4.3.1).
const FRAME: u64 = 8192;

/// Twice as long as it takes to notice that a peer is gone: see `sink::output::syslog`.
const SHORTEST_HOLD: Duration = Duration::from_secs(15);

pub(super) fn syslog(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    let facilities: Vec<_> = (0..).zip(keys::FACILITIES).map(|(number, name)| (*name, number)).collect();
    let facility = section.choice("facility", 3, &facilities, issues);
    let app_name = app_name(section, issues);
    let hold = hold(section, issues);
    let tls_options = rustls_options(section, issues);
    let connect_timeout = section.duration("connect_timeout", SECOND * 10, SECOND..=DAY, issues);
    let timeout = section.duration("timeout", SECOND * 10, SECOND..=DAY, issues);
    required(section, "url", issues)?;
    let transport = transport(section, issues)?;
    if !transport.is_stream() && section.has("hold") {
        section.error("hold", "nothing tells that datagrams were lost: for tcp:// and tls:// only", issues);
    }
    let most = if matches!(transport, SyslogTransport::Udp(_)) { DATAGRAM } else { FRAME };
    let max_bytes = section.number("max_bytes", most, DATAGRAM..=1 << 20, issues);
    let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let hold = if transport.is_stream() { hold } else { Duration::ZERO };
    Some(OutputKind::Syslog(Box::new(SyslogSettings {
        transport,
        tls_options,
        facility,
        app_name,
        max_bytes,
        connect_timeout,
        timeout,
        hold,
    })))
}

/// PRINTUSASCII (RFC 5424 section 6).
pub(super) fn app_name(section: &Section<'_>, issues: &mut Issues) -> String {
    let name = section.text("app_name", issues).unwrap_or("idlewatch");
    if !(1..=48).contains(&name.len()) || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        section.error("app_name", "expected 1 to 48 printable ASCII characters without blanks", issues);
    }
    name.to_owned()
}

fn hold(section: &Section<'_>, issues: &mut Issues) -> Duration {
    let hold = section.duration("hold", SECOND * 30, Duration::ZERO..=DAY, issues);
    if !hold.is_zero() && hold < SHORTEST_HOLD {
        section.error("hold", "a lost connection is not noticed in less than 15s: 0s, or 15s to 1d", issues);
    }
    hold
}

/// No secret can stand in it, but what is wrong is not shown all the same: it may be anything.
fn transport(section: &Section<'_>, issues: &mut Issues) -> Option<SyslogTransport> {
    let url = match section.text("url", issues)?.parse::<Url>() {
        Ok(url) => url,
        Err(error) => {
            section.error("url", format!("it is no URL: {error}"), issues);
            return None;
        }
    };
    let problem = match url.scheme() {
        "unix" if url.has_host() || url.path().len() < 2 => "expected unix:///path/of/socket".to_owned(),
        "unix" => return Some(SyslogTransport::Unix(PathBuf::from(url.path()))),
        "udp" => return Some(SyslogTransport::Udp(server(section, &url, 514, issues)?)),
        "tcp" => return Some(SyslogTransport::Tcp(server(section, &url, 601, issues)?)),
        "tls" => return Some(SyslogTransport::Tls(server(section, &url, 6514, issues)?)),
        _ => "expected tls://, tcp://, udp:// or unix://".to_owned(),
    };
    section.error("url", problem, issues);
    None
}

fn server(section: &Section<'_>, url: &Url, port: u16, issues: &mut Issues) -> Option<SyslogServer> {
    let allow_plaintext = section.boolean("allow_plaintext", false, issues);
    let scheme = url.scheme();
    let problem = match url.host_str() {
        None | Some("") => "it names no host".to_owned(),
        Some(_) if !url.username().is_empty() || url.password().is_some() => {
            "syslog knows no users".to_owned()
        }
        Some(_) if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() => {
            format!("expected {scheme}://host:port and no more")
        }
        Some(host) if scheme != "tls" && !allow_plaintext && !is_loopback(host) => format!(
            "{scheme}:// to another host sends mail metadata in clear: use tls://, or set allow_plaintext = true"
        ),
        Some(host) => {
            return Some(SyslogServer { host: host.to_owned(), port: url.port().unwrap_or(port) });
        }
    };
    section.error("url", problem, issues);
    None
}
