//! What is counted, in the form that Prometheus reads. Labels are closed lists: no account, user, host or mailbox is one,
//! unless an operator names accounts for that.

pub mod cluster;
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
use crate::imap::conversation::{Answered, Mode};

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
    commands: Family<OfCommand, Histogram>,
    mailboxes: Family<OfMode, Gauge>,
    token_refreshes: Family<Attempt, Counter>,
    truncated: Counter,
    output_bytes: Family<OfOutput, Counter>,
    output_duration: Family<OfOutput, Histogram>,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCommand {
    command: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMode {
    mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutput {
    output: String,
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
            commands: Family::new_with_constructor(histogram),
            mailboxes: Family::default(),
            token_refreshes: Family::default(),
            truncated: Counter::default(),
            output_bytes: Family::default(),
            output_duration: Family::new_with_constructor(histogram),
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
        m.register_conversations(&mut registry);
        m.register_deliveries(&mut registry);
        Self(Arc::new(Meters { registry, ..meters }))
    }

    /// A server completed a command.
    pub fn answered(&self, Answered { command, took }: Answered) {
        self.0.commands.get_or_create(&OfCommand { command }).observe(took.as_secs_f64());
    }

    /// A connection that watches nothing yet.
    pub fn watched(&self) -> Watched {
        Watched { metrics: self.clone(), now: None }
    }

    /// An access token was asked for at the endpoint of this provider.
    pub fn token_refreshed(&self, provider: &'static str, success: bool) {
        let result = if success { "success" } else { "error" };
        let provider = Label(Arc::from(provider));
        self.0.token_refreshes.get_or_create(&Attempt { provider, result }).inc();
    }

    /// So many events were written shorter than they are, for one output.
    pub fn truncated(&self, events: usize) {
        self.0.truncated.inc_by(events as u64);
    }

    /// An output answered to what was offered to it, after this time.
    pub fn offered(&self, output: &str, took: Duration) {
        let output = OfOutput { output: output.to_owned() };
        self.0.output_duration.get_or_create(&output).observe(took.as_secs_f64());
    }

    /// An output took so many bytes.
    pub fn taken(&self, output: &str, bytes: usize) {
        let output = OfOutput { output: output.to_owned() };
        self.0.output_bytes.get_or_create(&output).inc_by(bytes as u64);
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

impl Meters {
    fn register_conversations(&self, registry: &mut Registry) {
        let help = "Time from sending an IMAP command to its completion, IDLE left out";
        registry.register_with_unit("imap_command_duration", help, Unit::Seconds, self.commands.clone());
        registry.register("mailboxes", "Mailboxes that are watched, by how", self.mailboxes.clone());
        let help = "Requests for access tokens, by result";
        registry.register("oauth_token_refreshes", help, self.token_refreshes.clone());
    }

    fn register_deliveries(&self, registry: &mut Registry) {
        let help = "Events that were shortened to events.max_bytes, counted for each output";
        registry.register("events_truncated", help, self.truncated.clone());
        let help = "Bytes that outputs took";
        registry.register_with_unit("output", help, Unit::Bytes, self.output_bytes.clone());
        let help = "Time that outputs took to answer, whatever they said";
        registry.register_with_unit(
            "output_delivery_duration",
            help,
            Unit::Seconds,
            self.output_duration.clone(),
        );
    }
}

/// The mailboxes of one connection; they are counted for as long as this is held.
#[derive(Debug)]
pub struct Watched {
    metrics: Metrics,
    now: Option<(Mode, i64)>,
}

impl Watched {
    /// So many are watched, in this way.
    pub fn by(&mut self, mode: Mode, mailboxes: usize) {
        self.count(-1);
        self.now = Some((mode, i64::try_from(mailboxes).unwrap_or(i64::MAX)));
        self.count(1);
    }

    fn count(&self, sign: i64) {
        if let Some((mode, mailboxes)) = self.now {
            let mode = OfMode { mode: mode.as_str() };
            self.metrics.0.mailboxes.get_or_create(&mode).inc_by(sign * mailboxes);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.count(-1);
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
                let noticed = !matches!(message.source, Source::Poll | Source::Sync | Source::Replay);
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
            (EventBody::MessageNew(message), Some(account)) if message.source != Source::Replay => {
                Some(Arrival {
                    at: event.at,
                    account: account.id.clone(),
                    mailbox: message.mailbox.clone(),
                    uid: message.uid,
                    delay_seconds: delay.map(|(_, delay)| delay.as_secs_f64()),
                })
            }
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
    use crate::event::AccountState;

    #[test]
    fn what_is_counted_is_named_as_promised() {
        let metrics = Metrics::new();
        let mut connection = metrics.connecting("other".into());
        connection.logged_in();
        drop(metrics.connecting("other".into()));
        metrics.disconnected("other".into(), "network", Some(ErrorType::Connect));
        metrics.traffic(10, 5);
        metrics.answered(Answered { command: "UID FETCH", took: Duration::from_millis(30) });
        let mut watched = metrics.watched();
        watched.by(Mode::Idle, 1);
        watched.by(Mode::Status, 40);
        metrics.token_refreshed("gmail", true);
        metrics.truncated(2);
        metrics.offered("out", Duration::from_millis(3));
        metrics.taken("out", 700);
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
            "idlewatch_imap_command_duration_seconds_bucket{le=\"0.05\",command=\"UID FETCH\"} 1",
            "idlewatch_mailboxes{mode=\"idle\"} 0",
            "idlewatch_mailboxes{mode=\"status\"} 40",
            "idlewatch_oauth_token_refreshes_total{provider=\"gmail\",result=\"success\"} 1",
            "idlewatch_events_truncated_total 2",
            "idlewatch_output_delivery_duration_seconds_count{output=\"out\"} 1",
            "idlewatch_output_bytes_total{output=\"out\"} 700",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
        assert!(
            text.contains("\nprocess_resident_memory_bytes ")
                && text.contains("\nprocess_cpu_seconds_total ")
        );
        assert!(!text.contains("EOF"));
        drop((connection, watched));
        assert!(metrics.encode(&[]).unwrap().contains("idlewatch_mailboxes{mode=\"status\"} 0"));
        assert!(metrics.encode(&[]).unwrap().contains("idlewatch_imap_connections{provider=\"other\"} 0"));
    }

    /// Every label that a large installation has: its providers are few, and everything else is a closed list.
    #[test]
    fn ten_thousand_accounts_have_fifteen_hundred_series_at_most() {
        let metrics = Metrics::new();
        let providers = ["other", "corp", "gmail", "office365", "fastmail", "yahoo", "gmx", "icloud"];
        let reasons = [
            "stopped",
            "network",
            "server",
            "limit",
            "excess",
            "credentials",
            "mailbox",
            "configuration",
            "internal",
            "handover",
        ];
        const ERRORS: [ErrorType; 11] = [
            ErrorType::Dns,
            ErrorType::Connect,
            ErrorType::Tls,
            ErrorType::Auth,
            ErrorType::Throttled,
            ErrorType::Protocol,
            ErrorType::Timeout,
            ErrorType::Mailbox,
            ErrorType::Config,
            ErrorType::Io,
            ErrorType::Internal,
        ];
        let mut held = Vec::new();
        for account in 0..10_000 {
            let name = providers[account % providers.len()];
            let provider: Arc<str> = name.into();
            let mut connection = metrics.connecting(provider.clone());
            if account % 3 > 0 {
                connection.logged_in();
                held.push(connection);
            }
            let kind = ERRORS[account / 8 % ERRORS.len()];
            metrics.disconnected(provider, reasons[account / 8 % reasons.len()], Some(kind));
            metrics.token_refreshed(name, account / 8 % 2 == 0);
        }
        for command in ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M", "N"] {
            metrics.answered(Answered { command, took: Duration::ZERO });
        }
        for output in ["file", "hook", "nats", "stdout"] {
            metrics.offered(output, Duration::ZERO);
            metrics.taken(output, 1);
        }
        let states = AccountState::ALL.into_iter();
        let accounts = states.flat_map(|state| providers.map(|provider| ((Arc::from(provider), state), 1)));
        let snapshot = scrape::Snapshot::empty(accounts.collect());
        let text = metrics.encode(&[snapshot.registry(), process::registry()]).unwrap();
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series > 400 && series <= 1500, "{series}");
    }
}
