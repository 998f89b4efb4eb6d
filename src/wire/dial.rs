//! From a host name to a TCP connection: all addresses, each step with a deadline.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::config::settings::Keepalive;

/// For the resolver.
const LOOKUP: Duration = Duration::from_secs(5);

/// Addresses of one host that are tried.
const MOST_ADDRESSES: usize = 8;

/// Where to connect.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// For each address.
    pub connect_timeout: Duration,
    /// How a dead link is noticed.
    pub keepalive: Keepalive,
}

/// Addresses that are used while the resolver fails.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Where hosts were reached last; cheap to clone. Never more entries than the configuration has hosts.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<HashMap<String, Reached>>>);

#[derive(Debug)]
struct Reached {
    addresses: Vec<SocketAddr>,
    at: Instant,
}

impl Addresses {
    fn remember(&self, host: &str, addresses: Vec<SocketAddr>, now: Instant) {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.insert(host.to_owned(), Reached { addresses, at: now });
    }

    fn of(&self, Endpoint { host, port, .. }: &Endpoint, now: Instant) -> Option<Vec<SocketAddr>> {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = hosts.get(host)?;
        let same = |address: &SocketAddr| SocketAddr::new(address.ip(), *port);
        (now.saturating_duration_since(reached.at) < KEPT)
            .then(|| reached.addresses.iter().map(same).collect())
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address, or nobody tells it.
    #[error("{host}: the name cannot be resolved: {cause}")]
    Dns {
        /// The name.
        host: String,
        /// Why.
        cause: String,
    },
    /// No address answers.
    #[error("{host} port {port}: {attempts}")]
    Connect {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// Each address with what went wrong.
        attempts: String,
    },
}

/// Connects.
///
/// # Errors
/// Where the name has no address, or none of them answers in time.
pub async fn dial(endpoint: &Endpoint, known: &Addresses) -> Result<TcpStream, DialError> {
    let addresses = match resolve(endpoint).await {
        Ok(addresses) => addresses,
        Err(error) => known.of(endpoint, Instant::now()).ok_or(error)?,
    };
    let mut attempts = Vec::new();
    for address in addresses.iter().copied() {
        match timeout(endpoint.connect_timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                tune(&stream, &endpoint.keepalive);
                known.remember(&endpoint.host, addresses, Instant::now());
                return Ok(stream);
            }
            Ok(Err(error)) => attempts.push(format!("{address}: {}", error.kind())),
            Err(_) => attempts.push(format!("{address}: no answer in {:?}", endpoint.connect_timeout)),
        }
    }
    let Endpoint { host, port, .. } = endpoint.clone();
    Err(DialError::Connect { host, port, attempts: attempts.join(", ") })
}

async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, DialError> {
    let host = endpoint.host.trim_matches(['[', ']']);
    let failed = |cause: String| DialError::Dns { host: endpoint.host.clone(), cause };
    let found = match timeout(LOOKUP, lookup_host((host, endpoint.port))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("no answer in {LOOKUP:?}"))),
    };
    let addresses = interleaved(found.collect());
    if addresses.is_empty() { Err(failed("it has no address".to_owned())) } else { Ok(addresses) }
}

/// The resolver's order, the two families by turns (RFC 8305 section 4): one dead family costs one time-out.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let longest = first.len().max(second.len());
    let pairs = (0..longest).flat_map(|i| [first.get(i).copied(), second.get(i).copied()]);
    pairs.flatten().take(MOST_ADDRESSES).collect()
}

/// A dead link is noticed within the keepalive's time, whether it is idle or something was just written.
fn tune(stream: &TcpStream, keepalive: &Keepalive) {
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new()
        .with_time(keepalive.idle)
        .with_interval(keepalive.interval)
        .with_retries(keepalive.count);
    let give_up = keepalive.idle + keepalive.interval * keepalive.count;
    let tuned: [io::Result<()>; 3] = [
        stream.set_nodelay(true),
        socket.set_tcp_keepalive(&probes),
        socket.set_tcp_user_timeout(Some(give_up)),
    ];
    for error in tuned.into_iter().filter_map(Result::err) {
        log::debug!("a socket option could not be set: {error}");
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn endpoint(host: &str, port: u16) -> Endpoint {
        let seconds = Duration::from_secs;
        let keepalive = Keepalive { idle: seconds(30), interval: seconds(10), count: 3 };
        Endpoint { host: host.to_owned(), port, connect_timeout: seconds(2), keepalive }
    }

    #[tokio::test]
    async fn the_next_address_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // localhost may be ::1 first, where nobody listens.
        let stream = dial(&endpoint("localhost", port), &Addresses::default()).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(60)));
    }

    #[tokio::test]
    async fn a_refusal_names_the_address() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let error = dial(&endpoint("127.0.0.1", port), &Addresses::default()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("127.0.0.1 port {port}: 127.0.0.1:{port}: connection refused"));
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_dns_trouble() {
        let error = dial(&endpoint("no-such-host.invalid", 143), &Addresses::default()).await.unwrap_err();
        assert!(matches!(error, DialError::Dns { .. }), "{error}");
    }

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let all = ["[::1]:1", "[::2]:1", "1.1.1.1:1"].map(parse).to_vec();
        assert_eq!(interleaved(all), ["[::1]:1", "1.1.1.1:1", "[::2]:1"].map(parse));
    }

    #[tokio::test]
    async fn a_name_that_was_resolved_today_is_known_while_the_resolver_fails() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (known, unknown) = (Addresses::default(), endpoint("no-such-host.invalid", address.port()));
        known.remember(&unknown.host, vec![address], Instant::now());
        assert!(dial(&unknown, &known).await.is_ok());
        let old = Instant::now() - KEPT;
        known.remember(&unknown.host, vec![address], old);
        assert!(matches!(dial(&unknown, &known).await, Err(DialError::Dns { .. })), "a day is over");
    }
}
