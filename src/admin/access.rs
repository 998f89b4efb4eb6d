//! Who may ask for what. Pure.

use std::net::SocketAddr;

use crate::config::settings::is_loopback;

/// The way by which a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// Any user of this machine, and whatever runs in his browser.
    Tcp(SocketAddr),
    /// The user that runs the monitor: the socket's mode is 0600.
    Socket,
}

/// What of a request matters here.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its method changes nothing: GET, HEAD.
    pub reads: bool,
    /// The Host header.
    pub host: Option<&'a str>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A page of another site, whose name was made to resolve to loopback, asks in its reader's name.
    #[error("this is not the host that was asked for")]
    WrongHost,
    /// Changes are for the user that runs the monitor.
    #[error("changes are taken on the Unix socket only: use `idlewatch reload`, `resume`, `reconnect`")]
    ReadOnly,
}

/// Lets a request in, or says why not.
///
/// # Errors
/// Where it is refused.
pub fn admit(entrance: Entrance, request: Request<'_>) -> Result<(), Refusal> {
    let Entrance::Tcp(listen) = entrance else { return Ok(()) };
    if !request.host.is_some_and(|host| is_ours(host, listen)) {
        return Err(Refusal::WrongHost);
    }
    if request.reads { Ok(()) } else { Err(Refusal::ReadOnly) }
}

fn is_ours(host: &str, listen: SocketAddr) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    is_loopback(name) || name.parse().is_ok_and(|address: std::net::IpAddr| address == listen.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTEN: Entrance =
        Entrance::Tcp(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464));

    fn get(host: Option<&str>) -> Result<(), Refusal> {
        admit(LISTEN, Request { reads: true, host })
    }

    #[test]
    fn a_name_that_somebody_made_resolve_to_loopback_is_refused() {
        for ours in ["127.0.0.1:9464", "localhost:9464", "LOCALHOST", "[::1]:9464", "127.0.0.1"] {
            assert_eq!(get(Some(ours)), Ok(()), "{ours}");
        }
        for wrong in [
            "evil.example",
            "evil.example:9464",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "10.0.0.1",
        ] {
            assert_eq!(get(Some(wrong)), Err(Refusal::WrongHost), "{wrong}");
        }
        assert_eq!(get(None), Err(Refusal::WrongHost));
    }

    #[test]
    fn only_the_own_user_changes_anything() {
        let post = Request { reads: false, host: Some("localhost") };
        assert_eq!(admit(LISTEN, post), Err(Refusal::ReadOnly));
        assert_eq!(admit(Entrance::Socket, post), Ok(()));
        assert_eq!(admit(Entrance::Socket, Request { reads: true, host: None }), Ok(()));
    }
}
