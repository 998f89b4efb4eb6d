//! Who may ask for what. Pure.

use std::net::SocketAddr;

use crate::config::settings::is_loopback;

/// The way by which a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// Any user of this machine, and whatever runs in his browser.
    Loopback(SocketAddr),
    /// Anybody, who has to show the token.
    Guarded,
    /// The user that runs the monitor: the socket's mode is 0600.
    Socket,
}

/// What a request shows for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing.
    Nothing,
    /// Something else than the token.
    Wrong,
    /// Whoever this is has shown too many wrong ones.
    TooMany,
    /// The token, as `Authorization: Bearer`: nobody sends that by accident.
    Bearer,
    /// The token, as a password (RFC 7617): a browser sends it by itself, whichever page wants something of us.
    Password,
}

/// What of a request matters here.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its method changes nothing: GET, HEAD.
    pub reads: bool,
    /// It only asks whether the monitor is well, yes or no.
    pub health: bool,
    /// The Host header.
    pub host: Option<&'a str>,
    /// A page of another site asks, in its reader's name.
    pub foreign: bool,
    /// What it shows.
    pub proof: Proof,
}

/// How much whoever is let in is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Everything.
    Known,
    /// Whether the monitor is well, without reasons.
    Unknown,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A page of another site, whose name was made to resolve to loopback, asks in its reader's name.
    #[error("this is not the host that was asked for")]
    WrongHost,
    /// It could not read the answer, but would take places from others.
    #[error("pages of other sites are not answered")]
    Foreign,
    /// Changes are for the user that runs the monitor, and for those who have a token.
    #[error(
        "without http.token changes are taken on the Unix socket only: use `idlewatch reload`, `resume`, `reconnect`, `outputs retry`"
    )]
    ReadOnly,
    /// Who asks?
    #[error(
        "the token of the monitor is needed: Authorization: Bearer TOKEN, or as the password of any user"
    )]
    Unauthorized,
    /// What a browser sends by itself is no proof that its reader wants a change.
    #[error("changes are taken with Authorization: Bearer only")]
    PasswordOnly,
    /// Guessing takes its time.
    #[error("too many wrong tokens; try again in a minute")]
    TooMany,
}

/// Lets a request in, or says why not.
///
/// # Errors
/// Where it is refused.
pub fn admit(entrance: Entrance, request: Request<'_>) -> Result<Admitted, Refusal> {
    match entrance {
        Entrance::Socket => Ok(Admitted::Known),
        Entrance::Loopback(_) | Entrance::Guarded if request.foreign => Err(Refusal::Foreign),
        Entrance::Loopback(listen) if !request.host.is_some_and(|host| is_ours(host, listen)) => {
            Err(Refusal::WrongHost)
        }
        Entrance::Loopback(_) if request.reads => Ok(Admitted::Known),
        Entrance::Loopback(_) => Err(Refusal::ReadOnly),
        Entrance::Guarded => guarded(request),
    }
}

/// The name by which a browser came does not matter: it keeps passwords apart by name.
fn guarded(Request { reads, health, proof, .. }: Request<'_>) -> Result<Admitted, Refusal> {
    match proof {
        Proof::Bearer => Ok(Admitted::Known),
        Proof::Password if reads => Ok(Admitted::Known),
        Proof::Nothing | Proof::Wrong | Proof::TooMany if reads && health => Ok(Admitted::Unknown),
        Proof::Password => Err(Refusal::PasswordOnly),
        Proof::TooMany => Err(Refusal::TooMany),
        Proof::Nothing | Proof::Wrong => Err(Refusal::Unauthorized),
    }
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
        Entrance::Loopback(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464));

    const GET: Request<'static> = Request {
        reads: true,
        health: false,
        host: Some("localhost"),
        foreign: false,
        proof: Proof::Nothing,
    };

    const POST: Request<'static> = Request { reads: false, ..GET };

    fn get(host: Option<&str>) -> Result<Admitted, Refusal> {
        admit(LISTEN, Request { host, ..GET })
    }

    #[test]
    fn a_name_that_somebody_made_resolve_to_loopback_is_refused() {
        for ours in ["127.0.0.1:9464", "localhost:9464", "LOCALHOST", "[::1]:9464", "127.0.0.1"] {
            assert_eq!(get(Some(ours)), Ok(Admitted::Known), "{ours}");
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
    fn a_page_of_another_site_is_not_answered_whatever_its_reader_may() {
        let foreign = Request { foreign: true, ..GET };
        assert_eq!(admit(LISTEN, foreign), Err(Refusal::Foreign));
        for proof in [Proof::Nothing, Proof::Password, Proof::Bearer] {
            let health = Request { health: true, proof, ..foreign };
            assert_eq!(admit(Entrance::Guarded, health), Err(Refusal::Foreign), "{proof:?}");
        }
        assert_eq!(admit(Entrance::Socket, foreign), Ok(Admitted::Known), "no page gets there");
    }

    #[test]
    fn without_a_token_only_the_own_user_changes_anything() {
        assert_eq!(admit(LISTEN, POST), Err(Refusal::ReadOnly));
        // A header that is not asked for opens nothing.
        assert_eq!(admit(LISTEN, Request { proof: Proof::Bearer, ..POST }), Err(Refusal::ReadOnly));
        assert_eq!(admit(Entrance::Socket, POST), Ok(Admitted::Known));
        assert_eq!(admit(Entrance::Socket, Request { host: None, ..GET }), Ok(Admitted::Known));
    }

    #[test]
    fn where_there_is_a_token_nobody_reads_without_it_and_no_browser_changes_anything_by_itself() {
        let ask = |request: Request<'_>, proof| admit(Entrance::Guarded, Request { proof, ..request });
        let health = Request { health: true, ..GET };
        for (proof, read, change) in [
            (Proof::Nothing, Err(Refusal::Unauthorized), Err(Refusal::Unauthorized)),
            (Proof::Wrong, Err(Refusal::Unauthorized), Err(Refusal::Unauthorized)),
            (Proof::TooMany, Err(Refusal::TooMany), Err(Refusal::TooMany)),
            (Proof::Password, Ok(Admitted::Known), Err(Refusal::PasswordOnly)),
            (Proof::Bearer, Ok(Admitted::Known), Ok(Admitted::Known)),
        ] {
            assert_eq!((ask(GET, proof), ask(POST, proof)), (read, change), "{proof:?}");
            let told = if read.is_ok() { Admitted::Known } else { Admitted::Unknown };
            assert_eq!(ask(health, proof), Ok(told), "{proof:?}");
        }
        assert_eq!(ask(Request { health: true, ..POST }, Proof::Nothing), Err(Refusal::Unauthorized));
    }
}
