//! A connection to a syslog server: RFC 6587 with octet counting, RFC 5425.

use std::io::{self, ErrorKind};
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::unproven::Ending;
use crate::config::settings::{Keepalive, SyslogServer, SyslogSettings};
use crate::sink::output::{Outcome, Pause};
use crate::wire::dial::{Addresses, Endpoint, Route, dial};
use crate::wire::tls::{self, TlsContexts};

/// A peer that says so much at once is no syslog server.
const MOST_READS: usize = 64;

/// What connections are made of.
#[derive(Debug, Default)]
pub(super) struct Dialer {
    contexts: TlsContexts,
    addresses: Addresses,
}

impl Dialer {
    pub(super) async fn connect(
        &self,
        server: &SyslogServer,
        is_tls: bool,
        settings: &SyslogSettings,
    ) -> Result<Stream, Outcome> {
        let endpoint = Endpoint {
            host: server.host.clone(),
            port: server.port,
            connect_timeout: settings.connect_timeout,
            keepalive: keepalive(settings.hold),
            route: Route::default(),
        };
        let tcp =
            dial(&endpoint, &self.addresses).await.map_err(|error| Outcome::again(error.to_string()))?;
        if !is_tls {
            return Ok(Stream(tls::Stream::Plain(tcp)));
        }
        let shaken =
            self.contexts.handshake(&settings.tls_options, &server.host, tcp, settings.connect_timeout).await;
        shaken.map(Stream).map_err(|error| Outcome::TryAgain {
            taken: 0,
            pause: if error.needs_operator() { Pause::Slowly } else { Pause::Backoff },
            reason: error.to_string(),
        })
    }
}

/// What the peer's machine does not confirm within a third of `hold` breaks the connection: in time to be offered again.
fn keepalive(hold: Duration) -> Keepalive {
    let hold = if hold.is_zero() { Duration::from_secs(60) } else { hold };
    Keepalive { idle: hold / 6, interval: hold / 18, count: 3 }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Stream(tls::Stream);

impl Stream {
    pub(super) async fn write(&mut self, frames: &[u8], limit: Duration) -> Result<(), Outcome> {
        let written = timeout(limit, async {
            self.0.write_all(frames).await?;
            self.0.flush().await
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Outcome::again(format!("the connection broke: {error}"))),
            Err(_) => Err(Outcome::again(format!("the server took nothing for {limit:?}"))),
        }
    }

    /// Ends our side, and waits for the peer to end its own.
    pub(super) async fn close(mut self, limit: Duration) -> Option<Ending> {
        let closed = timeout(limit, async {
            self.0.shutdown().await?;
            let mut words = [0; 512];
            for _ in 0..MOST_READS {
                if self.0.read(&mut words).await? == 0 {
                    return Ok(());
                }
            }
            Err(ErrorKind::InvalidData.into())
        });
        match closed.await.ok()? {
            Ok(()) => Some(Ending::Closed),
            Err(error) => Some(ending_of(&error)),
        }
    }

    /// How it ended, if it has. What the peer says is not listened to, but must be read: else the end is never seen.
    pub(super) fn ending(&mut self) -> Option<Ending> {
        let mut words = [0; 512];
        for _ in 0..MOST_READS {
            let read = pin!(self.0.read(&mut words));
            match futures::FutureExt::now_or_never(read) {
                None => return None,
                Some(Ok(0)) => return Some(Ending::Closed),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Some(ending_of(&error)),
            }
        }
        Some(Ending::Broken)
    }
}

/// TLS without its own farewell is an end in order, as far as the connection goes.
fn ending_of(error: &io::Error) -> Ending {
    if error.kind() == ErrorKind::UnexpectedEof { Ending::Closed } else { Ending::Broken }
}
