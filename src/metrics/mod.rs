//! What is counted, in the form that Prometheus reads. Labels are closed lists: no account, user, host or mailbox is one,
//! unless an operator names accounts for that.

pub mod process;
pub mod scrape;

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::arrivals::{Arrival, Arrivals};
use crate::event::{Action, ErrorType, Event, EventBody, Source};

/// A gauge of seconds, with fractions.
type Seconds = Gauge<f64, AtomicU64>;

/// Upper bounds of seconds for what takes a round trip or some.
const ROUND_TRIPS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Upper bounds of seconds from a message's arrival to its event.
const DELAYS: [f64; 10] = [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

/// All counters of the process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Meters>);

#[derive(Debug)]
struct Meters {
    registry: Registry,
    connections: Family<OfProvider, Gauge>,
    attempts: Family<Attempt, Counter>,
    disconnects: Family<Disconnect, Counter>,
    connect_duration: Family<OfProvider, Histogram>,
    errors: Family<OfError, Counter>,
    received: Counter,
    sent: Counter,
    events: Family<OfAction, Counter>,
    delay: Family<OfSource, Histogram>,
    resyncs: Family<OfReason, Counter>,
    last_event: Seconds,
    arrivals: Mutex<Arrivals>,
}

/// `provider`: a preset's name, or `other`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProvider {
    provider: Label<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    provider: Label<Arc<str>>,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Disconnect {
    provider: Label<Arc<str>>,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfError {
    provider: Label<Arc<str>>,
    r#type: Label<ErrorType>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAction {
    action: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSource {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

/// What is shown as events show it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Label<T>(pub(crate) T);

impl<T: fmt::Display> EncodeLabelValue for Label<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.to_string().encode(encoder)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("idlewatch");
        let histogram = || Histogram::new(ROUND_TRIPS);
        let meters = Meters {
            connections: Family::default(),
            attempts: Family::default(),
            disconnects: Family::default(),
            connect_duration: Family::new_with_constructor(histogram),
            errors: Family::default(),
            received: Counter::default(),
            sent: Counter::default(),
            events: Family::default(),
            delay: Family::new_with_constructor(|| Histogram::new(DELAYS)),
            resyncs: Family::default(),
            last_event: Seconds::default(),
            arrivals: Mutex::default(),
            registry: Registry::default(),
        };
        let m = &meters;
        registry.register("imap_connections", "Open IMAP connections", m.connections.clone());
        let help = "IMAP connection attempts by result";
        registry.register("imap_connection_attempts", help, m.attempts.clone());
        let help = "IMAP connections that ended, by reason";
        registry.register("imap_disconnects", help, m.disconnects.clone());
        let help = "Time from the begin of an IMAP connection to its login";
        registry.register_with_unit("imap_connect_duration", help, Unit::Seconds, m.connect_duration.clone());
        registry.register("imap_errors", "Errors by type", m.errors.clone());
        let help = "Bytes received from IMAP servers, after TLS";
        registry.register_with_unit("imap_received", help, Unit::Bytes, m.received.clone());
        let help = "Bytes sent to IMAP servers, before TLS";
        registry.register_with_unit("imap_sent", help, Unit::Bytes, m.sent.clone());
        registry.register("events", "Events that became durable, by action", m.events.clone());
        let help = "Time from INTERNALDATE to the event, of messages that were noticed at once";
        registry.register_with_unit("event_detection_delay", help, Unit::Seconds, m.delay.clone());
        registry.register("mailbox_resyncs", "Full resynchronisations, by reason", m.resyncs.clone());
        let help = "Unix time of the last event that became durable";
        registry.register_with_unit("last_event_timestamp", help, Unit::Seconds, m.last_event.clone());
        Self(Arc::new(Meters { registry, ..meters }))
    }

    /// A connection is being made; whoever holds this says how that went.
    pub fn connecting(&self, provider: Arc<str>) -> Connecting {
        Connecting {
            metrics: self.clone(),
            provider: Label(provider),
            since: std::time::Instant::now(),
            told: false,
        }
    }

    /// A connection ended.
    pub fn disconnected(&self, provider: Arc<str>, reason: &'static str, error: Option<ErrorType>) {
        let provider = Label(provider);
        self.0.disconnects.get_or_create(&Disconnect { provider: provider.clone(), reason }).inc();
        if let Some(error) = error {
            self.0.errors.get_or_create(&OfError { provider, r#type: Label(error) }).inc();
        }
    }

    /// So many bytes came and went.
    pub fn traffic(&self, received: u64, sent: u64) {
        self.0.received.inc_by(received);
        self.0.sent.inc_by(sent);
    }

    /// These events became durable.
    pub fn committed(&self, events: &[Counted]) {
        for event in events {
            self.0.events.get_or_create(&OfAction { action: event.action.as_str() }).inc();
            if let Some((source, delay)) = event.delay {
                let source = source.as_str();
                self.0.delay.get_or_create(&OfSource { source }).observe(delay.as_secs_f64());
            }
            if let Some(reason) = event.resync {
                self.0.resyncs.get_or_create(&OfReason { reason }).inc();
            }
        }
        if let Some(event) = events.last() {
            self.0.last_event.set(seconds(event.at));
            let mut arrivals = self.arrivals();
            events.iter().filter_map(|event| event.arrival.clone()).for_each(|arrival| arrivals.add(arrival));
        }
    }

    /// What came in lately.
    pub fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.0.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text that is scraped: all of this, and `more`, which is known only now.
    ///
    /// # Errors
    /// Never, since a `String` takes what is written.
    pub fn encode(&self, more: &[Registry]) -> Result<String, fmt::Error> {
        let mut text = String::new();
        for registry in std::iter::once(&self.0.registry).chain(more) {
            encode(&mut text, registry)?;
        }
        Ok(classic(&text))
    }
}

/// OpenMetrics -> the older text format, which everything reads: there, a counter is called what its samples are.
fn classic(text: &str) -> String {
    let counters: HashSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut classic = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), rest) if counters.contains(name) => {
                let _ = write!(classic, "# {what} {name}_total {}", rest.unwrap_or_default());
            }
            _ => classic.push_str(line),
        }
        classic.push('\n');
    }
    classic
}

/// What of an event is counted, once it is durable.
#[derive(Clone, Debug)]
pub struct Counted {
    action: Action,
    at: Timestamp,
    delay: Option<(Source, Duration)>,
    resync: Option<&'static str>,
    arrival: Option<Arrival>,
}

impl From<&Event> for Counted {
    fn from(event: &Event) -> Self {
        let delay = match &event.body {
            EventBody::MessageNew(message) => {
                let noticed = !matches!(message.source, Source::Poll | Source::Sync);
                let received = message.summary.received_at.filter(|_| noticed);
                let delay = received.map(|received| event.at.duration_since(received));
                delay.map(|delay| (message.source, Duration::try_from(delay).unwrap_or_default()))
            }
            _ => None,
        };
        let resync = match &event.body {
            EventBody::MailboxReset(_) => Some("uidvalidity"),
            _ => None,
        };
        let arrival = match (&event.body, &event.account) {
            (EventBody::MessageNew(message), Some(account)) => Some(Arrival {
                at: event.at,
                account: account.id.clone(),
                mailbox: message.mailbox.clone(),
                uid: message.uid,
                delay: delay.map(|(_, delay)| delay),
            }),
            _ => None,
        };
        Self { action: event.body.action(), at: event.at, delay, resync, arrival }
    }
}

/// A connection that is being made, then lives; it is counted for as long as this is held.
#[derive(Debug)]
pub struct Connecting {
    metrics: Metrics,
    provider: Label<Arc<str>>,
    since: std::time::Instant,
    told: bool,
}

impl Connecting {
    /// Its login was accepted.
    pub fn logged_in(&mut self) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let Meters { attempts, connect_duration, connections, .. } = &*self.metrics.0;
        let of_provider = OfProvider { provider: self.provider.clone() };
        attempts.get_or_create(&Attempt { provider: self.provider.clone(), result: "success" }).inc();
        connect_duration.get_or_create(&of_provider).observe(self.since.elapsed().as_secs_f64());
        connections.get_or_create(&of_provider).inc();
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        let Meters { attempts, connections, .. } = &*self.metrics.0;
        if self.told {
            connections.get_or_create(&OfProvider { provider: self.provider.clone() }).dec();
        } else {
            attempts.get_or_create(&Attempt { provider: self.provider.clone(), result: "error" }).inc();
        }
    }
}

/// Unix time.
pub fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_named_as_promised() {
        let metrics = Metrics::new();
        let mut connection = metrics.connecting("other".into());
        connection.logged_in();
        drop(metrics.connecting("other".into()));
        metrics.disconnected("other".into(), "network", Some(ErrorType::Connect));
        metrics.traffic(10, 5);
        let text = metrics.encode(&[process::registry()]).unwrap();
        for line in [
            "# TYPE idlewatch_imap_connection_attempts_total counter",
            "idlewatch_imap_connection_attempts_total{provider=\"other\",result=\"success\"} 1",
            "idlewatch_imap_connection_attempts_total{provider=\"other\",result=\"error\"} 1",
            "idlewatch_imap_connections{provider=\"other\"} 1",
            "idlewatch_imap_connect_duration_seconds_count{provider=\"other\"} 1",
            "idlewatch_imap_disconnects_total{provider=\"other\",reason=\"network\"} 1",
            "idlewatch_imap_errors_total{provider=\"other\",type=\"connect\"} 1",
            "idlewatch_imap_received_bytes_total 10",
            "idlewatch_imap_sent_bytes_total 5",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
        assert!(
            text.contains("\nprocess_resident_memory_bytes ")
                && text.contains("\nprocess_cpu_seconds_total ")
        );
        assert!(!text.contains("EOF"));
        drop(connection);
        assert!(metrics.encode(&[]).unwrap().contains("idlewatch_imap_connections{provider=\"other\"} 0"));
    }
}
