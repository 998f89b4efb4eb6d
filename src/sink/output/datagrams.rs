//! Messages as datagrams: to a socket of this machine, or by UDP. The kernel having one is all the acknowledgement there is.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::{UdpSocket, UnixDatagram, lookup_host};
use tokio::time::{Instant, timeout};

use super::{Outcome, Pause};
use crate::config::settings::SyslogServer;

/// A name is looked up anew after this: nothing else tells that its address is another one.
const LOOKED_UP: Duration = Duration::from_secs(60);

/// A socket that is connected.
#[derive(Debug)]
pub(super) enum Datagrams {
    Unix(UnixDatagram),
    Udp(UdpSocket, Instant),
}

impl Datagrams {
    pub(super) fn unix(path: &Path) -> Result<Self, Outcome> {
        let connected = UnixDatagram::unbound().and_then(|socket| {
            socket.connect(path)?;
            Ok(socket)
        });
        connected.map(Self::Unix).map_err(|error| Outcome::again(format!("{}: {error}", path.display())))
    }

    pub(super) async fn udp(server: &SyslogServer, limit: Duration) -> Result<Self, Outcome> {
        let SyslogServer { host, port } = server;
        let failed = |error: io::Error| Outcome::again(format!("{host} port {port}: {error}"));
        let connected = timeout(limit, connect(host, *port)).await;
        let socket = connected.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map_err(failed)?;
        Ok(Self::Udp(socket, Instant::now()))
    }

    pub(super) fn is_stale(&self, now: Instant) -> bool {
        matches!(self, Self::Udp(_, made) if now.duration_since(*made) >= LOOKED_UP)
    }

    /// Sends one after the other; after anything but [`Outcome::Taken`], a new socket is worth trying.
    pub(super) async fn send(&self, messages: impl Iterator<Item = Vec<u8>>, limit: Duration) -> Outcome {
        for (sent, message) in messages.enumerate() {
            if let Err(error) = self.send_one(&message, limit).await {
                return refused(sent, &error);
            }
        }
        // One that nobody listens to is not known before the next is sent; on this machine, at once.
        self.trouble().map_or(Outcome::Taken, |error| Outcome::again(error.to_string()))
    }

    /// Waits while the receiver's queue is full, on this machine.
    async fn send_one(&self, message: &[u8], limit: Duration) -> io::Result<()> {
        let sent = match self {
            Self::Unix(socket) => timeout(limit, socket.send(message)).await,
            Self::Udp(socket, _) => timeout(limit, socket.send(message)).await,
        };
        sent.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map(|_| ())
    }

    /// What is known to have gone wrong with what was sent: that nobody listens there.
    fn trouble(&self) -> Option<io::Error> {
        match self {
            Self::Unix(_) => None,
            Self::Udp(socket, _) => socket.take_error().ok().flatten(),
        }
    }
}

/// At the datagram after `sent` others.
fn refused(sent: usize, error: &io::Error) -> Outcome {
    let is_too_long = error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error());
    let reason = error.to_string();
    match error.kind() {
        // It tells of an earlier one, and nobody knows of which.
        ErrorKind::ConnectionRefused => Outcome::again(format!("nobody listens there: {reason}")),
        // No other time is better; it comes first the next time.
        _ if is_too_long && sent == 0 => Outcome::Rejected { reason },
        _ if is_too_long => Outcome::TryAgain { taken: sent, pause: Pause::For(Duration::ZERO), reason },
        _ => Outcome::TryAgain { taken: sent, pause: Pause::Backoff, reason },
    }
}

async fn connect(host: &str, port: u16) -> io::Result<UdpSocket> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host.trim_matches(['[', ']']), port)).await? {
        let from: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(from).await?;
        match socket.connect(address).await {
            Ok(()) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn what_is_too_long_for_a_datagram_is_rejected_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let datagrams = Datagrams::unix(&path).unwrap();
        let (short, long) = (vec![b'x'; 10], vec![b'x'; 4 << 20]);
        let outcome = datagrams.send([short.clone(), long.clone()].into_iter(), PATIENCE).await;
        let Outcome::TryAgain { taken: 1, pause: Pause::For(_), .. } = outcome else { panic!("{outcome:?}") };
        let outcome = datagrams.send([long].into_iter(), PATIENCE).await;
        assert!(matches!(outcome, Outcome::Rejected { .. }), "{outcome:?}");
        assert_eq!(datagrams.send([short].into_iter(), PATIENCE).await, Outcome::Taken);
        drop(receiver);
    }

    #[tokio::test]
    async fn a_receiver_that_is_gone_or_asleep_has_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(Datagrams::unix(&path).is_err());
        let receiver = UnixDatagram::bind(&path).unwrap();
        let datagrams = Datagrams::unix(&path).unwrap();
        let many = (0..10_000).map(|_| vec![b'x'; 1000]);
        let outcome = datagrams.send(many, Duration::from_millis(100)).await;
        let Outcome::TryAgain { taken: 1.., pause: Pause::Backoff, .. } = outcome else {
            panic!("{outcome:?}")
        };
        drop(receiver);
        let outcome = datagrams.send([vec![1]].into_iter(), PATIENCE).await;
        assert!(outcome.reason().unwrap().starts_with("nobody listens there"), "{outcome:?}");
        let port = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let server = SyslogServer { host: "localhost".to_owned(), port };
        let datagrams = Datagrams::udp(&server, PATIENCE).await.unwrap();
        assert!(datagrams.send([vec![1]].into_iter(), PATIENCE).await.reason().is_some());
    }
}
