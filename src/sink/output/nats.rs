//! NATS JetStream: exactly once per subject, for any outage.
//!
//! A message says which one it expects to follow on its subject, so that what comes late or twice is refused, and what
//! the stream holds last tells what it has. An acknowledgement is not durable (the server syncs every two minutes by
//! default), so the lane holds events for some time after it, and offers them again once the stream has gone backwards.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic;
use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RetentionPolicy, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, HeaderMap};
use bytes::Bytes;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use log::{info, warn};
use secrecy::ExposeSecret;
use tokio::time::timeout;

use super::kept_secret::KeptSecret;
use super::{Outcome, Pause};
use crate::config::settings::NatsSettings;
use crate::journal::JournalHandle;
use crate::sink::batch::{Batch, Item};
use crate::wire::tls::TlsContexts;

/// `event.sequence`, beside `Nats-Msg-Id`, which is `event.id`.
const SEQUENCE: &str = "Idlewatch-Sequence";

/// Subjects that are published to at the same time.
const AT_ONCE: usize = 64;

/// Subjects whose last message is known; all are forgotten when there are more.
const MOST_SUBJECTS: usize = 20_000;

/// Another writer on our subjects is given way to so often.
const MOST_TRIES: usize = 3;

/// The output.
#[derive(Debug)]
pub struct NatsOutput {
    settings: NatsSettings,
    instance: Arc<str>,
    journal: JournalHandle,
    credentials: Option<KeptSecret>,
    token: Option<KeptSecret>,
    link: Option<Link>,
    /// What the stream was known to hold.
    seen: Option<Seen>,
    /// How long ago the stream had got what it was offered last.
    age: Duration,
}

/// A connection.
#[derive(Debug)]
struct Link {
    client: Client,
    context: Context,
    stream: Stream,
    /// How often it had been made when the stream was last looked at.
    connects: u64,
    tails: HashMap<String, Tail>,
}

/// The end of a subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tail {
    /// The stream's sequence of its last message; 0 for none.
    last: u64,
    /// Our events up to this `event.sequence` are there.
    stored: u64,
    /// When the last message was stored, in seconds of Unix; 0 where it was stored by us just now.
    at: i64,
}

/// A stream at its best.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    created: String,
    last: u64,
}

/// What became of one event.
enum Published {
    Stored,
    /// The subject has gone backwards.
    Forgotten,
    Failed(Outcome),
}

impl NatsOutput {
    /// Nothing is connected yet.
    pub fn new(settings: &NatsSettings, instance: &str, journal: &JournalHandle) -> Self {
        Self {
            instance: instance.into(),
            journal: journal.clone(),
            credentials: settings.credentials.clone().map(KeptSecret::new),
            token: settings.token.clone().map(KeptSecret::new),
            settings: settings.clone(),
            link: None,
            seen: None,
            age: Duration::ZERO,
        }
    }

    /// Offers a batch: subject by subject in order, many subjects at once.
    pub async fn deliver(&mut self, batch: &Batch) -> Outcome {
        self.age = Duration::ZERO;
        let outcome = match self.look().await {
            Ok(true) => Outcome::Forgotten,
            Ok(false) => self.publish(batch).await,
            Err(outcome) => outcome,
        };
        if matches!(outcome, Outcome::TryAgain { .. } | Outcome::Forgotten) {
            self.disconnect();
        }
        outcome
    }

    /// Whether the stream has lost what it had taken. Unknown is no: it is asked again.
    pub async fn has_lost(&mut self) -> bool {
        self.seen.is_some() && self.look().await.unwrap_or(false)
    }

    /// How long ago all was stored that was offered last, where nothing of it was news: an earlier process published it, and
    /// most of what it is held for may be over.
    pub fn age(&self) -> Duration {
        self.age
    }

    fn disconnect(&mut self) {
        self.link = None;
        self.credentials.iter_mut().chain(&mut self.token).for_each(KeptSecret::forget);
    }

    /// Connects where there is no connection, and looks at the stream after each connection; whether it went backwards.
    async fn look(&mut self) -> Result<bool, Outcome> {
        let connects = |client: &Client| client.statistics().connects.load(atomic::Ordering::Relaxed);
        if let Some(link) = &self.link
            && connects(&link.client) == link.connects
        {
            return Ok(false);
        }
        let limit = self.settings.connect_timeout + self.settings.timeout;
        let mut link = match self.link.take() {
            Some(link) => link,
            None => {
                timeout(limit, self.connect()).await.map_err(|_| Outcome::again("NATS does not answer"))??
            }
        };
        link.connects = connects(&link.client);
        link.tails.clear();
        let info = link.stream.info().await.map_err(|error| self.failed(&error))?;
        let now = Seen { created: info.created.to_string(), last: info.state.last_sequence };
        let lost = self.seen.as_ref().is_some_and(|seen| went_backwards(seen, &now));
        if lost {
            warn!(
                "the stream {} has lost what it had acknowledged: {} messages are left of {}",
                info.config.name,
                now.last,
                self.seen.as_ref().map_or(0, |seen| seen.last)
            );
        }
        self.seen = Some(now);
        self.link = Some(link);
        Ok(lost)
    }

    async fn connect(&mut self) -> Result<Link, Outcome> {
        let NatsSettings { url, tls_options, timeout, connect_timeout, .. } = &self.settings;
        let (patience, dial) = (*timeout, *connect_timeout);
        let mut options = ConnectOptions::new()
            .name("idlewatch")
            .connection_timeout(dial)
            .request_timeout(Some(patience))
            .ping_interval(Duration::from_secs(15))
            .ignore_discovered_servers()
            .require_tls(url.scheme() == "tls");
        if url.scheme() == "tls" {
            let tls = TlsContexts::default().rustls_config(tls_options);
            let tls = tls.map_err(|error| slowly(error.to_string()))?;
            options = options.tls_client_config((*tls).clone());
        }
        if let Some(credentials) = &mut self.credentials {
            let credentials = credentials.get().await?.expose_secret();
            options = options
                .credentials(credentials)
                .map_err(|_| slowly("the credentials are not in NATS's form"))?;
        }
        if let Some(token) = &mut self.token {
            options = options.token(token.get().await?.expose_secret().to_owned());
        }
        let client = options.connect(url.as_str()).await.map_err(|error| self.failed(&error))?;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(patience)
            .ack_timeout(patience)
            .build(client.clone());
        let stream = self.stream(&context).await?;
        Ok(Link { client, context, stream, connects: 0, tails: HashMap::new() })
    }

    /// It is never made here: its retention, its replicas and its place are an operator's decision.
    async fn stream(&self, context: &Context) -> Result<Stream, Outcome> {
        let subject = self.settings.subject.wildcard();
        let missing =
            || slowly(format!("no stream takes {subject}: make one (`nats stream add`), or set `stream`"));
        let name = match &self.settings.stream {
            Some(name) => name.clone(),
            None => context.stream_by_subject(subject.clone()).await.map_err(|_| missing())?,
        };
        let stream =
            context.get_stream(&name).await.map_err(|error| slowly(format!("stream {name}: {error}")))?;
        let config = &stream.cached_info().config;
        info!(
            "NATS stream {name}: {} replicas, duplicate window {:?}, {:?}",
            config.num_replicas, config.duplicate_window, config.retention
        );
        if config.retention != RetentionPolicy::Limits {
            warn!(
                "NATS stream {name} forgets what was consumed: events may come twice after an outage longer than its duplicate window"
            );
        }
        Ok(stream)
    }

    async fn publish(&mut self, batch: &Batch) -> Outcome {
        let Some(link) = &mut self.link else { return Outcome::again("not connected") };
        if link.tails.len() > MOST_SUBJECTS {
            link.tails.clear();
        }
        let mut subjects: HashMap<String, Vec<(usize, &Item, Bytes)>> = HashMap::new();
        for (at, (item, line)) in batch.lines().enumerate() {
            let subject = self.settings.subject.fill(&item.event, &self.instance);
            subjects.entry(subject).or_default().push((at, item, Bytes::copy_from_slice(line)));
        }
        let (shared, tails) = (&*link, &link.tails);
        let (journal, keeps) = (&self.journal, !self.settings.hold.is_zero());
        let work = subjects.into_iter().map(|(subject, items)| {
            let tail = tails.get(&subject).copied();
            async move {
                let done = shared.in_order(journal, &subject, tail, items, keeps).await;
                (subject, done)
            }
        });
        let done: Vec<_> = stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
        let mut trouble: Option<(usize, Published)> = None;
        let (mut last, mut latest) = (0, Some(0));
        for (subject, Done { tail, failed, stored_at }) in done {
            latest = latest.zip(stored_at).map(|(latest, at)| at.max(latest));
            last = last.max(tail.map_or(0, |tail| tail.last));
            match tail {
                Some(tail) => drop(link.tails.insert(subject, tail)),
                None => drop(link.tails.remove(&subject)),
            }
            if let Some((at, what)) = failed
                && trouble.as_ref().is_none_or(|(first, _)| at < *first)
            {
                trouble = Some((at, what));
            }
        }
        if let Some(seen) = &mut self.seen {
            seen.last = seen.last.max(last);
        }
        match trouble {
            None => {
                let newest = batch.items().iter().map(|item| item.event.at).max();
                self.age = latest
                    .zip(newest)
                    .map_or(Duration::ZERO, |(stored_at, newest)| age(stored_at, newest, Timestamp::now()));
                Outcome::Taken
            }
            Some((_, Published::Forgotten | Published::Stored)) => Outcome::Forgotten,
            Some((taken, Published::Failed(Outcome::TryAgain { pause, reason, .. }))) => {
                Outcome::TryAgain { taken, pause, reason }
            }
            Some((_, Published::Failed(outcome))) => outcome,
        }
    }

    fn failed(&self, error: &dyn std::error::Error) -> Outcome {
        Outcome::again(format!("NATS: {}", crate::wire::http::chain(error)))
    }
}

fn slowly(reason: impl Into<String>) -> Outcome {
    Outcome::TryAgain { taken: 0, pause: Pause::Slowly, reason: reason.into() }
}

/// Another stream of that name, or an older state of it.
fn went_backwards(seen: &Seen, now: &Seen) -> bool {
    now.created != seen.created || now.last < seen.last
}

/// Since when events are there, of which the last was stored at a moment of the server's clock. None was before it was made,
/// by our clock: a server whose clock is behind lets go of nothing that is new.
fn age(stored_at: i64, newest: Timestamp, now: Timestamp) -> Duration {
    let since = stored_at.max(newest.as_second());
    Duration::from_secs(now.as_second().saturating_sub(since).try_into().unwrap_or(0))
}

/// What became of the events of one subject.
struct Done {
    /// How it ends, as far as is known.
    tail: Option<Tail>,
    /// The first that failed, by its place in the batch.
    failed: Option<(usize, Published)>,
    /// When the last of them was stored, where all were there before (seconds of Unix).
    stored_at: Option<i64>,
}

impl Done {
    fn failed(at: usize, what: Published) -> Self {
        Self { tail: None, failed: Some((at, what)), stored_at: None }
    }
}

impl Link {
    /// The events of one subject; it is asked since when they are there where it `keeps` what was stored.
    async fn in_order(
        &self,
        journal: &JournalHandle,
        subject: &str,
        known: Option<Tail>,
        items: Vec<(usize, &Item, Bytes)>,
        keeps: bool,
    ) -> Done {
        let mut tail = match known {
            Some(tail) => tail,
            None => match self.tail(journal, subject).await {
                Ok(tail) => tail,
                Err(outcome) => {
                    return Done::failed(items.first().map_or(0, |(at, ..)| *at), Published::Failed(outcome));
                }
            },
        };
        let last = items.last().map_or(0, |(_, item, _)| item.sequence);
        let stored_at = match keeps && last <= tail.stored {
            true => self.stored_at(subject, &tail, last).await,
            false => None,
        };
        for (at, item, line) in items {
            match self.one(journal, subject, &mut tail, item, line).await {
                Published::Stored => tail.stored = tail.stored.max(item.sequence),
                failed => return Done::failed(at, failed),
            }
        }
        Done { tail: Some(tail), failed: None, stored_at }
    }

    async fn one(
        &self,
        journal: &JournalHandle,
        subject: &str,
        tail: &mut Tail,
        item: &Item,
        line: Bytes,
    ) -> Published {
        for _ in 0..MOST_TRIES {
            if item.sequence <= tail.stored {
                return Published::Stored;
            }
            let error = match self.send(subject, tail.last, item, line.clone()).await {
                // The original stands further back; what is last now has to be looked up.
                Ok(ack) if ack.duplicate => match self.tail(journal, subject).await {
                    Ok(now) => {
                        *tail = now;
                        return Published::Stored;
                    }
                    Err(outcome) => return Published::Failed(outcome),
                },
                Ok(ack) => {
                    (tail.last, tail.at) = (ack.sequence, 0);
                    return Published::Stored;
                }
                Err(error) => error,
            };
            if error.kind() != PublishErrorKind::WrongLastSequence {
                return Published::Failed(refused(subject, &error));
            }
            // Our own message whose acknowledgement was lost, another writer, or a stream that went backwards.
            match self.tail(journal, subject).await {
                Ok(now) if now.last < tail.last => return Published::Forgotten,
                Ok(now) => *tail = now,
                Err(outcome) => return Published::Failed(outcome),
            }
        }
        Published::Failed(Outcome::again(format!("others write to {subject} all the time")))
    }

    async fn send(
        &self,
        subject: &str,
        last: u64,
        item: &Item,
        line: Bytes,
    ) -> Result<jetstream::publish::PublishAck, PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(SEQUENCE, item.sequence.to_string());
        let message = PublishMessage::build()
            .payload(line)
            .headers(headers)
            .message_id(&item.event.id)
            .expected_last_subject_sequence(last);
        self.context.send_publish(subject.to_owned(), message).await?.await
    }

    /// The last message of a subject. What it says of our events counts only where the journal knows it too: another
    /// journal, or one that began anew, counts in another way.
    async fn tail(&self, journal: &JournalHandle, subject: &str) -> Result<Tail, Outcome> {
        let message = match self.stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                return Ok(Tail::default());
            }
            Err(error) => {
                return Err(Outcome::again(format!(
                    "the last message on {subject}: {}",
                    crate::wire::http::chain(&error)
                )));
            }
        };
        let header = |name| message.headers.get(name).map(|value| value.as_str());
        let sequence = header(SEQUENCE).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
        let stored = match (sequence.checked_sub(1), header("Nats-Msg-Id")) {
            (Some(before), Some(id)) if is_ours(journal, before, id).await => sequence,
            _ => 0,
        };
        Ok(Tail { last: message.sequence, stored, at: message.time.unix_timestamp() })
    }

    /// When our event of this number was stored, which lies at or before the tail; unknown where others write there too.
    async fn stored_at(&self, subject: &str, tail: &Tail, wanted: u64) -> Option<i64> {
        if wanted == tail.stored {
            return Some(tail.at).filter(|at| *at > 0);
        }
        let (mut first, mut last) = (1, tail.last);
        while first <= last {
            let middle = first + (last - first) / 2;
            let message = self.stream.get_first_raw_message_by_subject(subject, middle).await.ok()?;
            let found: u64 = message.headers.get(SEQUENCE)?.as_str().parse().ok()?;
            match found.cmp(&wanted) {
                Ordering::Equal => return Some(message.time.unix_timestamp()),
                Ordering::Less => first = message.sequence + 1,
                Ordering::Greater => last = middle - 1,
            }
        }
        None
    }
}

async fn is_ours(journal: &JournalHandle, before: u64, id: &str) -> bool {
    let found = journal.pending(before, 1).await.unwrap_or_default();
    found.first().is_some_and(|event| event.sequence == before + 1 && event.event.id == id)
}

fn refused(subject: &str, error: &PublishError) -> Outcome {
    let reason = format!("publishing to {subject}: {}", crate::wire::http::chain(error));
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => Outcome::Rejected { reason },
        PublishErrorKind::StreamNotFound => slowly(reason),
        _ => Outcome::again(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_shorter_or_another_one_has_lost_something() {
        let seen = Seen { created: "monday".to_owned(), last: 7 };
        for (created, last, lost) in
            [("monday", 7, false), ("monday", 8, false), ("monday", 6, true), ("tuesday", 9, true)]
        {
            assert_eq!(went_backwards(&seen, &Seen { created: created.to_owned(), last }), lost);
        }
    }

    #[test]
    fn nothing_is_older_than_its_event_whatever_the_clock_of_the_server_says() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        for (stored_at, newest, seconds) in [(60, 50, 40), (10, 50, 50), (130, 50, 0), (60, 120, 0)] {
            assert_eq!(
                age(stored_at, at(newest), at(100)),
                Duration::from_secs(seconds),
                "{stored_at} {newest}"
            );
        }
    }
}
