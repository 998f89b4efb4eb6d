//! One life of a producer: what it was given is not given again while it lives.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use log::debug;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Duration, Instant, timeout_at};

use super::meaning::Meaning;
use crate::config::settings::{KafkaCompression, KafkaSettings, SaslMechanism};
use crate::event::Event;
use crate::sink::batch::Batch;
use crate::sink::output::Outcome;
use crate::text;

/// Records that failed with the first one are looked at for their causes.
const BEHIND: Duration = Duration::from_secs(2);

/// Of the brokers' replies, no longer ones are read.
const MOST_REPLY: u32 = 16 << 20;

/// A producer, until a record fails.
pub(super) struct Producer {
    /// Nothing only once it was dropped.
    client: Option<FutureProducer<Listener>>,
    listener: Listener,
    /// What was given to it and is not known to be stored, by `event.sequence`.
    given: BTreeMap<u64, DeliveryFuture>,
}

/// How a batch ended.
pub(super) enum Ended {
    /// All of it is stored.
    Stored,
    /// Not all of it is stored yet; the producer goes on trying.
    Waiting(Outcome),
    /// A record failed. Whatever is behind it must not overtake it: the producer is of no more use.
    Failed(Outcome),
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer({} given)", self.given.len())
    }
}

impl Producer {
    /// Nothing is connected yet.
    pub(super) fn new(settings: &KafkaSettings, password: Option<&SecretString>) -> Result<Self, KafkaError> {
        let listener = Listener { withheld: password.cloned(), ..Listener::default() };
        let client = config(settings, password).create_with_context(listener.clone())?;
        Ok(Self { client: Some(client), listener, given: BTreeMap::new() })
    }

    /// Gives what was not given yet, and waits for all of it until then.
    pub(super) async fn offer(
        &mut self,
        topic: &str,
        instance: &str,
        batch: &Batch,
        limit: Duration,
    ) -> Ended {
        let until = Instant::now() + limit;
        // What lies before it is not asked for again.
        self.given = self.given.split_off(&batch.sequences().0);
        let refused = self.give(topic, instance, batch).err();
        for (taken, item) in batch.items().iter().enumerate() {
            let Some(future) = self.given.get_mut(&item.sequence) else {
                let error = refused.unwrap_or(KafkaError::Canceled);
                return self.not_given(taken, &error);
            };
            match timeout_at(until, future).await {
                Err(_) => return self.late(taken, limit),
                Ok(Ok(Ok(_))) => drop(self.given.remove(&item.sequence)),
                Ok(Ok(Err((error, _)))) => return self.failed(taken, item.sequence, error).await,
                Ok(Err(_)) => return self.failed(taken, item.sequence, KafkaError::Canceled).await,
            }
        }
        self.listener.forget();
        Ended::Stored
    }

    fn give(&mut self, topic: &str, instance: &str, batch: &Batch) -> Result<(), KafkaError> {
        let client = self.client.as_ref().ok_or(KafkaError::Canceled)?;
        for (item, line) in batch.lines() {
            if self.given.contains_key(&item.sequence) {
                continue;
            }
            let record = FutureRecord::to(topic)
                .key(key(&item.event, instance))
                .payload(line)
                .timestamp(item.event.at.as_millisecond())
                .headers(headers(&item.event));
            let future = client.send_result(record).map_err(|(error, _)| error)?;
            self.given.insert(item.sequence, future);
        }
        Ok(())
    }

    /// What was given before it goes first.
    fn not_given(&self, taken: usize, error: &KafkaError) -> Ended {
        let meaning = Meaning::of(error.rdkafka_error_code());
        let outcome = meaning.outcome(taken, self.reason(&error.to_string()));
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull | RDKafkaErrorCode::MessageSizeTooLarge) => {
                Ended::Waiting(outcome)
            }
            _ => Ended::Failed(outcome),
        }
    }

    fn late(&self, taken: usize, limit: Duration) -> Ended {
        let heard = self.listener.heard();
        let meaning = Meaning::of(heard.as_ref().and_then(|heard| heard.code));
        let outcome = meaning.outcome(taken, self.reason(&format!("no acknowledgement for {limit:?}")));
        // Where the login is refused, the next one is another.
        if meaning == Meaning::Operator { Ended::Failed(outcome) } else { Ended::Waiting(outcome) }
    }

    /// The first that failed may only follow from another one, of another partition.
    async fn failed(&mut self, taken: usize, sequence: u64, error: KafkaError) -> Ended {
        self.given.remove(&sequence);
        let (mut worst, mut words) = (Meaning::of(error.rdkafka_error_code()), error.to_string());
        let until = Instant::now() + BEHIND;
        for future in self.given.values_mut() {
            let Ok(Ok(Err((error, _)))) = timeout_at(until, future).await else { continue };
            let meaning = Meaning::of(error.rdkafka_error_code());
            if meaning > worst {
                (worst, words) = (meaning, error.to_string());
            }
        }
        Ended::Failed(worst.outcome(taken, self.reason(&words)))
    }

    fn reason(&self, words: &str) -> String {
        match self.listener.heard() {
            Some(heard) => format!("{words} ({})", heard.words),
            None => words.to_owned(),
        }
    }
}

/// librdkafka waits for its threads, which may take a while.
impl Drop for Producer {
    fn drop(&mut self) {
        let client = self.client.take();
        let _ = thread::Builder::new().name("kafka-end".to_owned()).spawn(move || drop(client));
    }
}

/// Records of an account are in one partition, in their order.
fn key<'e>(event: &'e Event, instance: &'e str) -> &'e str {
    event.account.as_ref().map_or(instance, |account| account.id.as_str())
}

fn headers(event: &Event) -> OwnedHeaders {
    let header = |key, value| Header { key, value: Some(value) };
    OwnedHeaders::new_with_capacity(2)
        .insert(header("event_id", event.id.as_str()))
        .insert(header("event_action", event.body.action().as_str()))
}

fn config(settings: &KafkaSettings, password: Option<&SecretString>) -> ClientConfig {
    let mut config = ClientConfig::new();
    let mut set = |key: &str, value: &str| {
        config.set(key, value);
    };
    set("bootstrap.servers", &settings.brokers.join(","));
    set("client.id", "idlewatch");
    // Each record once and in order, however often it is sent; a gap ends the producer, before anything behind it is sent.
    set("enable.idempotence", "true");
    set("enable.gapless.guarantee", "true");
    set("max.in.flight", "1");
    // How long a failure lasts is the lane's matter.
    set("message.timeout.ms", "0");
    set("acks", "all");
    // As Java's producers choose partitions.
    set("partitioner", "murmur2_random");
    set("queue.buffering.max.messages", "10000");
    set("receive.message.max.bytes", &MOST_REPLY.to_string());
    set("socket.keepalive.enable", "true");
    set("socket.connection.setup.timeout.ms", &settings.connect_timeout.as_millis().max(1000).to_string());
    set("reconnect.backoff.max.ms", "10000");
    set("log.connection.close", "false");
    set("compression.type", compression(settings.compression));
    set("security.protocol", protocol(settings));
    if let (Some(login), Some(password)) = (&settings.login, password) {
        set("sasl.mechanisms", mechanism(login.mechanism));
        set("sasl.username", &login.user);
        set("sasl.password", password.expose_secret());
    }
    if settings.is_tls {
        let options = &settings.tls_options;
        set("ssl.endpoint.identification.algorithm", "https");
        let client = options.client.as_ref();
        let files = [
            ("ssl.ca.location", options.ca_file.as_ref()),
            ("ssl.certificate.location", client.map(|client| &client.certificate)),
            ("ssl.key.location", client.map(|client| &client.key)),
        ];
        for (key, file) in files {
            // A path that cannot be said is one that is not found: never a default in its place.
            if let Some(file) = file {
                set(key, &file.to_string_lossy());
            }
        }
    }
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

const fn compression(compression: KafkaCompression) -> &'static str {
    match compression {
        KafkaCompression::None => "none",
        KafkaCompression::Gzip => "gzip",
        KafkaCompression::Snappy => "snappy",
        KafkaCompression::Lz4 => "lz4",
    }
}

const fn protocol(settings: &KafkaSettings) -> &'static str {
    match (settings.is_tls, settings.login.is_some()) {
        (false, false) => "plaintext",
        (false, true) => "sasl_plaintext",
        (true, false) => "ssl",
        (true, true) => "sasl_ssl",
    }
}

const fn mechanism(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::Plain => "PLAIN",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
    }
}

/// Hears what librdkafka says outside of any record.
#[derive(Clone, Default)]
struct Listener {
    heard: Arc<Mutex<Option<Heard>>>,
    withheld: Option<SecretString>,
}

/// The last trouble.
#[derive(Clone, Debug)]
struct Heard {
    code: Option<RDKafkaErrorCode>,
    words: String,
}

impl Listener {
    fn heard(&self) -> Option<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It is over.
    fn forget(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A broker's words are among it: harmless, and without what we sent it.
    fn harmless(&self, words: &str) -> String {
        let secret =
            self.withheld.as_ref().map(|secret| secret.expose_secret()).filter(|secret| !secret.is_empty());
        match secret {
            Some(secret) if words.contains(secret) => "what was said is withheld".to_owned(),
            _ => text::line(words, 300),
        }
    }
}

impl ClientContext for Listener {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, words: &str) {
        debug!("librdkafka: {}: {}", text::line(facility, 40), self.harmless(words));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let heard = Heard { code: error.rdkafka_error_code(), words: self.harmless(reason) };
        // What all of them say is less than what one of them said.
        let mut last = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.code != Some(RDKafkaErrorCode::AllBrokersDown) || last.is_none() {
            *last = Some(heard);
        }
    }
}
