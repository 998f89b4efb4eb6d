//! Syslog (RFC 5424), as datagrams or in a stream.
//!
//! No transport of syslog has an acknowledgement, so "taken" is the most that can be known: of a datagram, that the
//! kernel has it for a receiver that is there; of a stream, that it was written, and that for `hold` afterwards
//! the connection was not seen to end: until then the journal keeps it.

pub(in crate::sink) mod message;
mod stream;
mod unproven;

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use self::message::Header;
use self::stream::{Dialer, Stream};
use self::unproven::{Ending, Unproven};
use super::datagrams::Datagrams;
use super::{Outcome, Pause};
use crate::config::settings::{SyslogSettings, SyslogTransport};
use crate::sink::batch::Batch;

/// A peer has so long to read what is left.
const FAREWELL: Duration = Duration::from_secs(3);

/// The output.
#[derive(Debug)]
pub struct SyslogOutput {
    settings: SyslogSettings,
    header: Header,
    dialer: Dialer,
    datagrams: Option<Datagrams>,
    stream: Option<Stream>,
    unproven: Unproven,
    /// Why the last stream ended, where we know more than that it did.
    trouble: Option<String>,
}

impl SyslogOutput {
    /// Nothing is connected yet.
    pub fn new(settings: &SyslogSettings, instance: &str) -> Self {
        Self {
            header: Header::new(settings.facility, instance, &settings.app_name, std::process::id()),
            unproven: Unproven::new(settings.hold),
            settings: settings.clone(),
            dialer: Dialer::default(),
            datagrams: None,
            stream: None,
            trouble: None,
        }
    }

    /// Offers a batch.
    pub async fn deliver(&mut self, batch: &Batch) -> Outcome {
        if self.settings.transport.is_stream() { self.write(batch).await } else { self.send(batch).await }
    }

    /// Whether the stream ended with what may not have been read.
    pub fn has_lost(&mut self) -> bool {
        let Some(ending) = self.stream.as_mut().and_then(Stream::ending) else { return false };
        self.end(ending)
    }

    /// Says farewell. A peer that then closes in order has read everything: else its machine would reset the connection.
    pub async fn settle(&mut self) -> bool {
        match self.stream.take() {
            Some(stream) => stream.close(FAREWELL).await == Some(Ending::Closed),
            None => false,
        }
    }

    fn end(&mut self, ending: Ending) -> bool {
        self.stream = None;
        self.unproven.ended(Instant::now(), ending)
    }

    async fn write(&mut self, batch: &Batch) -> Outcome {
        if self.has_lost() {
            return Outcome::Forgotten;
        }
        if let Some(wait) = self.unproven.pause(rand::rng().random_range(0.0..1.0)) {
            let ended = || "the connection ended before what was written was surely read".to_owned();
            let reason = self.trouble.take().unwrap_or_else(ended);
            return Outcome::TryAgain { taken: 0, pause: Pause::For(wait), reason };
        }
        match self.try_write(batch).await {
            Ok(()) => {
                self.unproven.wrote(Instant::now(), batch.sequences().1);
                Outcome::Taken
            }
            Err(outcome) => self.failed(outcome),
        }
    }

    /// The batch is offered again in any case; so is what went before, where that may be lost too.
    fn failed(&mut self, outcome: Outcome) -> Outcome {
        if !self.end(Ending::Broken) {
            return outcome;
        }
        self.trouble = outcome.reason().map(str::to_owned);
        Outcome::Forgotten
    }

    async fn try_write(&mut self, batch: &Batch) -> Result<(), Outcome> {
        let mut frames = Vec::with_capacity(batch.text().len() + batch.len() * 128);
        for (item, line) in batch.lines() {
            self.header.frame(item, line, &mut frames);
        }
        let limit = self.settings.timeout;
        self.connected().await?.write(&frames, limit).await
    }

    async fn connected(&mut self) -> Result<&mut Stream, Outcome> {
        if let Some(stream) = self.stream.take() {
            return Ok(self.stream.insert(stream));
        }
        let (server, is_tls) = match &self.settings.transport {
            SyslogTransport::Tcp(server) => (server, false),
            SyslogTransport::Tls(server) => (server, true),
            _ => return Err(Outcome::again("it is no stream")),
        };
        let stream = self.dialer.connect(server, is_tls, &self.settings).await?;
        self.unproven.connected(Instant::now());
        Ok(self.stream.insert(stream))
    }

    async fn send(&mut self, batch: &Batch) -> Outcome {
        let datagrams = match self.datagrams().await {
            Ok(datagrams) => datagrams,
            Err(outcome) => return outcome,
        };
        let messages = batch.lines().map(|(item, line)| {
            let mut message = Vec::with_capacity(line.len() + 128);
            self.header.message(item, line, &mut message);
            message
        });
        let outcome = datagrams.send(messages, self.settings.timeout).await;
        self.datagrams = Some(datagrams).filter(|_| outcome == Outcome::Taken);
        outcome
    }

    /// It is given back only while all is well.
    async fn datagrams(&mut self) -> Result<Datagrams, Outcome> {
        match (self.datagrams.take(), &self.settings.transport) {
            (Some(datagrams), _) if !datagrams.is_stale(Instant::now()) => Ok(datagrams),
            (_, SyslogTransport::Unix(path)) => Datagrams::unix(path),
            (_, SyslogTransport::Udp(server)) => Datagrams::udp(server, self.settings.connect_timeout).await,
            _ => Err(Outcome::again("it takes no datagrams")),
        }
    }
}
