//! From a host name to a TCP connection, straight or through a proxy: all addresses, each step with a deadline.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use secrecy::SecretString;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

use super::proxy;
use crate::config::settings::{IpVersion, Keepalive, ProxySettings};

/// For the resolver.
const LOOKUP: Duration = Duration::from_secs(5);

/// Addresses of one host that are tried.
const MOST_ADDRESSES: usize = 8;

/// An address that has not answered by then has company (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Where to connect.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// For each address, and for the answer of a proxy.
    pub connect_timeout: Duration,
    /// How a dead link is noticed.
    pub keepalive: Keepalive,
    /// How to get there.
    pub route: Route,
}

/// How to get to a host.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// Our own address.
    pub source: Option<IpAddr>,
    /// Which addresses are tried, and in which order.
    pub ip_version: IpVersion,
    /// Who connects for us, and resolves the name.
    pub proxy: Option<Arc<ProxySettings>>,
}

/// Addresses that are used while the resolver fails.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Where hosts were reached last; cheap to clone. Never more entries than the configuration has hosts and proxies.
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
    /// The address to come from is not this machine's.
    #[error("source_address {source_address}: {cause}")]
    Source {
        /// As configured.
        source_address: IpAddr,
        /// Why it cannot be used.
        cause: String,
    },
    /// The proxy cannot be reached, or does not connect.
    #[error("the proxy {proxy}: {cause}")]
    Proxy {
        /// Its host and port.
        proxy: String,
        /// Why.
        cause: String,
    },
}

/// Connects.
///
/// # Errors
/// Where the name has no address, none of them answers in time, or the proxy does not connect.
pub async fn dial(endpoint: &Endpoint, known: &Addresses) -> Result<TcpStream, DialError> {
    match &endpoint.route.proxy {
        Some(proxy) => dial_through(proxy, endpoint, known).await,
        None => dial_straight(endpoint, known).await,
    }
}

async fn dial_through(
    proxy: &ProxySettings,
    endpoint: &Endpoint,
    known: &Addresses,
) -> Result<TcpStream, DialError> {
    let failed = |cause: String| DialError::Proxy { proxy: format!("{}:{}", proxy.host, proxy.port), cause };
    let hop = Endpoint {
        host: proxy.host.clone(),
        port: proxy.port,
        route: Route { proxy: None, ..endpoint.route.clone() },
        ..endpoint.clone()
    };
    let tcp = dial_straight(&hop, known).await.map_err(|error| match error {
        error @ DialError::Source { .. } => error,
        other => failed(other.to_string()),
    })?;
    let password = match &proxy.credentials {
        Some(credentials) => {
            Some(credentials.password.resolve().await.map_err(|error| failed(error.to_string()))?)
        }
        None => None,
    };
    let user = proxy.credentials.as_ref().map(|credentials| credentials.user.as_str());
    let credentials: Option<(&str, &SecretString)> = user.zip(password.as_ref());
    let target = (endpoint.host.trim_matches(['[', ']']), endpoint.port);
    match timeout(endpoint.connect_timeout, proxy::ask(tcp, proxy, credentials, target)).await {
        Ok(asked) => asked.map_err(|refused| failed(refused.to_string())),
        Err(_) => Err(failed(format!("no answer in {:?}", endpoint.connect_timeout))),
    }
}

async fn dial_straight(endpoint: &Endpoint, known: &Addresses) -> Result<TcpStream, DialError> {
    let found = match resolve(endpoint).await {
        Ok(found) => found,
        Err(error) => known.of(endpoint, Instant::now()).ok_or(error)?,
    };
    let addresses = ordered(found.clone(), &endpoint.route);
    if addresses.is_empty() {
        return Err(DialError::Dns {
            host: endpoint.host.clone(),
            cause: "none of its addresses fits ip_version and source_address".to_owned(),
        });
    }
    let (stream, winner) = race(endpoint, &addresses).await?;
    tune(&stream, &endpoint.keepalive);
    let (mut first, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| *address == winner);
    first.extend(others);
    known.remember(&endpoint.host, first, Instant::now());
    Ok(stream)
}

async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, DialError> {
    let host = endpoint.host.trim_matches(['[', ']']);
    let failed = |cause: String| DialError::Dns { host: endpoint.host.clone(), cause };
    let found: Vec<_> = match timeout(LOOKUP, lookup_host((host, endpoint.port))).await {
        Ok(Ok(found)) => found.take(MOST_KEPT).collect(),
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("no answer in {LOOKUP:?}"))),
    };
    if found.is_empty() { Err(failed("it has no address".to_owned())) } else { Ok(found) }
}

/// Addresses of one host that are looked at.
const MOST_KEPT: usize = 64;

/// The addresses that may be tried. The two families by turns (RFC 8305 section 4), the preferred one first, in the
/// resolver's order otherwise: one dead family costs a head start.
fn ordered(mut addresses: Vec<SocketAddr>, route: &Route) -> Vec<SocketAddr> {
    addresses.retain(|address| match route.ip_version {
        IpVersion::Only4 => address.is_ipv4(),
        IpVersion::Only6 => address.is_ipv6(),
        IpVersion::Auto | IpVersion::Prefer4 | IpVersion::Prefer6 => true,
    });
    addresses.retain(|address| route.source.is_none_or(|source| source.is_ipv4() == address.is_ipv4()));
    let first_is_v6 = match route.ip_version {
        IpVersion::Prefer4 => false,
        IpVersion::Prefer6 => true,
        _ => addresses.first().is_some_and(SocketAddr::is_ipv6),
    };
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let longest = first.len().max(second.len());
    let pairs = (0..longest).flat_map(|i| [first.get(i).copied(), second.get(i).copied()]);
    pairs.flatten().take(MOST_ADDRESSES).collect()
}

/// The first address that answers (RFC 8305 section 5): each has a head start over the next, which a failure ends.
async fn race(endpoint: &Endpoint, addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), DialError> {
    let mut waiting = addresses.iter().copied();
    let mut running = FuturesUnordered::new();
    let mut attempts = Vec::new();
    running.extend(waiting.next().map(|address| attempt(endpoint, address)));
    loop {
        tokio::select! {
            ended = running.next() => match ended {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(Failed::Source(error))) => return Err(error),
                Some(Err(Failed::Address(words))) => attempts.push(words),
                None => break,
            },
            () = sleep(HEAD_START), if waiting.len() > 0 => {}
        }
        running.extend(waiting.next().map(|address| attempt(endpoint, address)));
    }
    let Endpoint { host, port, .. } = endpoint.clone();
    Err(DialError::Connect { host, port, attempts: attempts.join(", ") })
}

/// Why one address does not answer.
enum Failed {
    /// It is not to blame: no other would.
    Source(DialError),
    Address(String),
}

async fn attempt(endpoint: &Endpoint, address: SocketAddr) -> Result<(TcpStream, SocketAddr), Failed> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let failed = |error: io::Error| Failed::Address(format!("{address}: {}", error.kind()));
    let socket = socket.map_err(failed)?;
    if let Some(source_address) = endpoint.route.source {
        socket.bind((source_address, 0).into()).map_err(|error| {
            Failed::Source(DialError::Source { source_address, cause: error.kind().to_string() })
        })?;
    }
    match timeout(endpoint.connect_timeout, socket.connect(address)).await {
        Ok(connected) => Ok((connected.map_err(failed)?, address)),
        Err(_) => Err(Failed::Address(format!("{address}: no answer in {:?}", endpoint.connect_timeout))),
    }
}

/// A dead link is noticed within the keepalive's time, whether it is idle or something was just written.
fn tune(stream: &TcpStream, keepalive: &Keepalive) {
    let socket = SockRef::from(stream);
    let (idle, interval) = apart(keepalive, rand::random());
    let probes = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(keepalive.count);
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

/// When one connection is probed: never later than asked for, and not when all the others are. Thousands that were made
/// together would send their probes in one moment, lose them in the kernel's queue (`net.core.netdev_max_backlog`), and
/// be taken for dead. Each `random` is uniform in `0.0..1.0`.
fn apart(keepalive: &Keepalive, random: (f64, f64)) -> (Duration, Duration) {
    // The kernel counts in seconds, and takes no 0.
    let shortened =
        |most: Duration, by: f64| most.mul_f64(1.0 - by.clamp(0.0, 1.0)).max(Duration::from_secs(1));
    (shortened(keepalive.idle, random.0 / 2.0), shortened(keepalive.interval, random.1 / 5.0))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn endpoint(host: &str, port: u16) -> Endpoint {
        let seconds = Duration::from_secs;
        let keepalive = Keepalive { idle: seconds(30), interval: seconds(10), count: 3 };
        let route = Route::default();
        Endpoint { host: host.to_owned(), port, connect_timeout: seconds(2), keepalive, route }
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

    #[test]
    fn probes_come_apart_and_never_late() {
        let seconds = |keepalive: (u64, u64), random| {
            let (idle, interval) = (Duration::from_secs(keepalive.0), Duration::from_secs(keepalive.1));
            let (idle, interval) = apart(&Keepalive { idle, interval, count: 3 }, random);
            (idle.as_secs_f64(), interval.as_secs_f64())
        };
        assert_eq!(seconds((30, 10), (0.0, 0.0)), (30.0, 10.0), "never later than asked for");
        assert_eq!(seconds((30, 10), (0.5, 0.5)), (22.5, 9.0));
        assert_eq!(seconds((30, 10), (1.0, 1.0)), (15.0, 8.0));
        assert_eq!(seconds((1, 1), (1.0, 1.0)), (1.0, 1.0), "the kernel takes no 0");
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
    fn families_take_turns_and_the_preferred_one_goes_first() {
        let all = ["[::1]:1", "[::2]:1", "1.1.1.1:1"].map(|text| text.parse::<SocketAddr>().unwrap());
        let (v4, v6) = (Some("192.0.2.7".parse().unwrap()), Some("::9".parse().unwrap()));
        for (ip_version, source, expected) in [
            (IpVersion::Auto, None, ["[::1]:1", "1.1.1.1:1", "[::2]:1"].as_slice()),
            (IpVersion::Prefer6, None, &["[::1]:1", "1.1.1.1:1", "[::2]:1"]),
            (IpVersion::Prefer4, None, &["1.1.1.1:1", "[::1]:1", "[::2]:1"]),
            (IpVersion::Only4, None, &["1.1.1.1:1"]),
            (IpVersion::Only6, None, &["[::1]:1", "[::2]:1"]),
            (IpVersion::Prefer6, v4, &["1.1.1.1:1"]),
            (IpVersion::Auto, v6, &["[::1]:1", "[::2]:1"]),
            (IpVersion::Only4, v6, &[]),
        ] {
            let route = Route { source, ip_version, proxy: None };
            let found: Vec<_> = ordered(all.to_vec(), &route).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{ip_version:?} {source:?}");
        }
    }

    /// The first address takes connections only into its queue, which is full: a black hole.
    #[tokio::test]
    async fn an_address_that_is_silent_is_overtaken() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(0).unwrap();
        let silent = full.local_addr().unwrap();
        let _queued: Vec<_> = {
            let connect = |_| timeout(Duration::from_millis(100), TcpStream::connect(silent));
            futures::future::join_all((0..3).map(connect)).await
        };
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let slow = Endpoint { connect_timeout: Duration::from_secs(600), ..endpoint("x.example", 1) };
        let (_, winner) = race(&slow, &[silent, good]).await.unwrap();
        assert_eq!(winner, good);
    }

    #[tokio::test]
    async fn a_connection_comes_from_the_source_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let from = |source: &str| {
            let route = Route { source: Some(source.parse().unwrap()), ..Route::default() };
            Endpoint { route, ..endpoint("localhost", port) }
        };
        let _stream = dial(&from("127.0.0.9"), &Addresses::default()).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1.ip().to_string(), "127.0.0.9");
        let error = dial(&from("192.0.2.7"), &Addresses::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "source_address 192.0.2.7: address not available");
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
