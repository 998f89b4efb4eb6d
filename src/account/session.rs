//! One connected life: dial, TLS, then the conversation pumped between the wire and the pure core.

use std::cell::RefCell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use jiff::Timestamp;
use rand::Rng;
use tokio::sync::{oneshot, watch};

use super::idle_period::IdlePeriods;
use super::lifecycle::{Blame, SessionEnd, blame};
use super::login::Shown;
use super::milestone::{Milestone, Milestones, Outcome, RefusedLogin};
use super::outlet::{Delivers, NoOutlet, Outlet};
use super::pipelining::Pipelines;
use super::pulse::Pulse;
use super::pump::pump;
use crate::config::settings::{Account, Settings, TlsMode};
use crate::coordinator::gate::{Gate, Permit};
use crate::event::MailboxName;
use crate::imap::command::{Credentials, Proof};
use crate::imap::conversation::{Goal, Plan, Security, Until, Watch};
use crate::imap::ending::Ending;
use crate::imap::rounds::{Choice, LookUp, LookedUp};
use crate::imap::stops::Met;
use crate::imap::summary::Wanted;
use crate::messages::Undelivered;
use crate::metrics::{Connecting, Metrics};
use crate::oauth::store::Store;
use crate::oauth::tokens::Tokens;
use crate::text;
use crate::wire::dial::{Addresses, Endpoint, Route, dial};
use crate::wire::link::Link;
use crate::wire::tls::{Stream, TlsContexts, TlsError};
use crate::wire::transcript::{Recorded, Transcript};

/// What sessions share; one per process.
#[derive(Clone, Debug)]
pub struct Wires {
    /// One TLS context per policy.
    pub tls: TlsContexts,
    /// How many connections are set up at once.
    pub gate: Gate,
    /// What is fetched of a message.
    pub wanted: Arc<Wanted>,
    /// Where servers were found when their names could be resolved.
    pub addresses: Addresses,
    /// How long IDLE may last.
    pub idle_periods: IdlePeriods,
    /// Which hosts do not take commands that are sent ahead.
    pub pipelines: Pipelines,
    /// Changes when all connections are to be probed.
    pub probe: watch::Receiver<u64>,
    /// What is counted.
    pub metrics: Metrics,
    /// The access tokens in use.
    pub tokens: Tokens,
    /// Whose conversations are logged.
    pub recorded: Option<Recorded>,
}

impl Wires {
    /// Nothing shared yet; whoever holds the sender may have all connections probed.
    pub fn new(settings: &Settings) -> (Self, watch::Sender<u64>) {
        Self::counted(settings, Metrics::new())
    }

    /// As [`Self::new`]; what happens is counted there.
    pub fn counted(settings: &Settings, metrics: Metrics) -> (Self, watch::Sender<u64>) {
        let (prober, probe) = watch::channel(0);
        let wanted = Wanted {
            attachments: settings.events.attachments,
            headers: settings.events.headers.clone(),
            asked_headers: settings.filters.headers(),
            max_addresses: settings.events.max_addresses,
        };
        let wires = Self {
            tls: TlsContexts::default(),
            gate: Gate::new(&settings.connections),
            wanted: Arc::new(wanted),
            addresses: Addresses::default(),
            idle_periods: IdlePeriods::default(),
            pipelines: Pipelines::default(),
            probe,
            tokens: Tokens::counted(Store::of(settings), metrics.clone()),
            metrics,
            recorded: Recorded::of(settings),
        };
        (wires, prober)
    }
}

/// What a session is to watch.
#[derive(Debug)]
pub struct Assignment {
    /// The session's number.
    pub number: usize,
    /// Which mailboxes.
    pub task: Task,
    /// How many sessions in a row ended in the middle of a FETCH.
    pub caution: u8,
    /// How long it is watched.
    pub until: Until,
    /// Set once another session of the account found the login refused.
    pub refused: Arc<AtomicBool>,
    /// Beats with every reply.
    pub pulse: Pulse,
    /// The account's, which beats with the replies of all of its sessions.
    pub alive: Pulse,
}

/// Which mailboxes a session is for.
#[derive(Debug)]
pub enum Task {
    /// One.
    Mailbox(MailboxName),
    /// Those that have no session of their own.
    Shared(Box<Choice>),
}

/// Watches its mailboxes until the connection ends. Never panics: a panic inside is one more way to end.
pub fn run(
    account: Arc<Account>,
    assignment: Assignment,
    wires: Arc<Wires>,
    sink: Outlet,
    milestones: Milestones,
    mut stop: oneshot::Receiver<()>,
) -> impl Future<Output = Outcome> {
    let life = async move {
        let Assignment { number, task, caution, until, refused, pulse, alive } = assignment;
        let goal = match task {
            Task::Shared(choice) => Goal::WatchMany(choice),
            Task::Mailbox(mailbox) => {
                let known = Box::pin(known(mailbox, &account, &sink, caution, until));
                tokio::select! {
                    watch = known => match watch {
                        Ok(watch) => Goal::Watch(watch),
                        Err(undelivered) => return Outcome::early(undelivered.into()),
                    },
                    _ = &mut stop => return Outcome::early(SessionEnd::Conversation(Ending::LoggedOut)),
                }
            }
        };
        let told = |milestone| match milestone {
            Milestone::Alive => {
                let now = Timestamp::now();
                pulse.beat(now);
                alive.beat(now);
            }
            milestone => drop(milestones.unbounded_send((number, milestone))),
        };
        converse(&account, goal, &wires, &sink, (told, |_: &Stream| {}), &refused, stop).await
    };
    unpanicked(Box::pin(life))
}

/// What the journal knows of the mailbox.
async fn known(
    mailbox: MailboxName,
    account: &Account,
    sink: &Outlet,
    caution: u8,
    until: Until,
) -> Result<Box<Watch>, Undelivered> {
    let met = LookUp { mailbox, met: Met::AtFirst, formerly: Vec::new() };
    let LookedUp { checkpoint, told_from, .. } = sink.looked_up(&met).await?;
    let (search, changes) = (account.search.clone(), sink.changes());
    Ok(Box::new(Watch { mailbox: met.mailbox, checkpoint, told_from, caution, search, changes, until }))
}

/// Asks one question and logs out.
pub async fn ask(account: &Account, goal: Goal, wires: &Wires, milestones: &Milestones) -> SessionEnd {
    let (_keep, stop) = oneshot::channel();
    let told = |milestone| drop(milestones.unbounded_send((0, milestone)));
    let refused = AtomicBool::new(false);
    let reached = |stream: &Stream| told(Milestone::Reached(Box::new(stream.peer())));
    unpanicked(Box::pin(converse(account, goal, wires, &NoOutlet, (told, reached), &refused, stop))).await.end
}

/// A life is as large as a page, and it is kept once: what wraps it holds a pointer.
async fn unpanicked(life: Pin<Box<impl Future<Output = Outcome>>>) -> Outcome {
    match AssertUnwindSafe(life).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => Outcome::early(SessionEnd::Panicked(text::of_panic(panic.as_ref()))),
    }
}

/// Connects, and pumps the conversation to its end. What is not the pump itself is boxed: it is large and soon gone.
async fn converse(
    account: &Account,
    goal: Goal,
    wires: &Wires,
    delivers: &impl Delivers,
    (mut told, reached): (impl FnMut(Milestone), impl Fn(&Stream)),
    refused: &AtomicBool,
    mut stop: oneshot::Receiver<()>,
) -> Outcome {
    let host = &account.identity.host;
    let shared = matches!(goal, Goal::WatchMany(_));
    let ready = tokio::select! {
        ready = Box::pin(set_up(account, goal, wires, refused)) => ready,
        _ = &mut stop => return Outcome::early(SessionEnd::Conversation(Ending::LoggedOut)),
    };
    let Ready { stream, transcript, plan, mut permit, mut connecting, shown } = match ready {
        Ok(ready) => *ready,
        // To its end, stop or not: a refusal has to be remembered.
        Err(end) => return Box::pin(refused_by_endpoint(account, end, wires)).await,
    };
    if account.tls != TlsMode::StartTls {
        reached(&stream);
    }
    let secure = async |stream| Box::pin(upgrade(account, wires, stream)).await.inspect(&reached);
    let mut watched = wires.metrics.watched();
    let shown = RefCell::new(shown);
    let told = |milestone| {
        match milestone {
            Milestone::Traffic { received, sent } => return wires.metrics.traffic(received, sent),
            Milestone::Answered(answered) => return wires.metrics.answered(answered),
            Milestone::Rests(mode) if !shared => return watched.by(mode, 1),
            Milestone::Rests(_) => return,
            Milestone::Toured(pace) => watched.by(pace.mode(), pace.mailboxes),
            Milestone::Pipelined { worked: true } => return wires.pipelines.worked(host),
            Milestone::Pipelined { worked: false } if !wires.pipelines.broke(host) => return,
            _ => {}
        }
        if matches!(milestone, Milestone::LoggedIn) {
            permit.is_set_up();
            connecting.logged_in();
            shown.borrow_mut().taken();
            wires.gate.welcomed(host);
        }
        told(milestone);
    };
    let link = Link::new(stream).recorded(transcript);
    let outcome = pump(link, *plan, delivers, told, secure, wires.probe.clone(), stop).await;
    Box::pin(judged(account, wires, outcome, shown.into_inner())).await
}

/// A connection that stands, and what is to be said on it.
struct Ready {
    stream: Stream,
    transcript: Option<Box<Transcript>>,
    plan: Box<Plan>,
    permit: Permit,
    connecting: Connecting,
    shown: Shown,
}

/// Waits for a turn at the gate, and connects.
async fn set_up(
    account: &Account,
    goal: Goal,
    wires: &Wires,
    refused: &AtomicBool,
) -> Result<Box<Ready>, SessionEnd> {
    let host = &account.identity.host;
    let period = account.provider.as_ref().and_then(|chosen| chosen.provider.connect_period);
    let prepared = account.login.prepare(&wires.tokens).await?;
    let permit = wires.gate.enter(host, period).await;
    if refused.load(Ordering::Relaxed) {
        return Err(SessionEnd::Conversation(Ending::LoggedOut));
    }
    let connecting = wires.metrics.connecting(account.provider_name());
    let (proof, shown) = account.login.show(prepared, &wires.tokens).await?;
    let stream = connect(account, wires).await?;
    let plan = Box::new(plan(account, goal, proof, wires));
    let recorded = wires.recorded.as_ref();
    let transcript = recorded.and_then(|recorded| recorded.transcript(account.id(), &plan.credentials));
    if let Some(transcript) = &transcript {
        transcript.note(&format!("connected to {host}:{}", account.identity.port));
    }
    Ok(Ready { stream, transcript, plan, permit, connecting, shown }.into())
}

/// What its end says of the login and of the host.
async fn judged(account: &Account, wires: &Wires, outcome: Outcome, shown: Shown) -> Outcome {
    match blame(&outcome.end) {
        Blame::Limit => wires.gate.throttled(&account.identity.host),
        Blame::Token => {
            account.login.is_stale(&shown, &wires.tokens).await;
        }
        Blame::Credentials if account.login.is_stale(&shown, &wires.tokens).await => {
            return Outcome { end: SessionEnd::StaleToken(Box::new(outcome.end)), ..outcome };
        }
        Blame::Credentials => {
            let secret = account.login.behind(shown, &wires.tokens).await;
            return Outcome { refused: RefusedLogin::of(account, secret).await, ..outcome };
        }
        _ => {}
    }
    outcome
}

/// A grant that its endpoint refuses is a refused login, and is known again like one.
async fn refused_by_endpoint(account: &Account, end: SessionEnd, wires: &Wires) -> Outcome {
    match blame(&end) {
        Blame::Credentials => {
            let secret = account.login.known_by(&wires.tokens).await.ok();
            Outcome { refused: RefusedLogin::of(account, secret).await, ..Outcome::early(end) }
        }
        _ => Outcome::early(end),
    }
}

fn plan(account: &Account, goal: Goal, proof: Proof, wires: &Wires) -> Plan {
    let (jitter, tag_prefix) = {
        let mut random = rand::rng();
        let letters: String = (0..6).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
        (random.random_range(0.9..1.1), letters.into())
    };
    Plan {
        goal,
        security: match account.tls {
            TlsMode::Implicit => Security::Implicit,
            TlsMode::StartTls => Security::StartTls,
            TlsMode::None => Security::Plain,
        },
        allow_preauth: account.allow_preauth,
        credentials: Credentials { user: account.identity.user.clone(), proof },
        pipelining: wires.pipelines.may(&account.identity.host),
        sasl_ir: account.provider.as_ref().is_none_or(|chosen| chosen.provider.sasl_ir),
        idle_refresh: wires.idle_periods.of(&account.identity.host, account.idle_refresh).mul_f64(jitter),
        poll_interval: account.poll_interval.mul_f64(jitter),
        greeting_timeout: account.connect_timeout,
        command_timeout: account.command_timeout,
        tag_prefix,
        wanted: wires.wanted.clone(),
    }
}

async fn connect(account: &Account, wires: &Wires) -> Result<Stream, SessionEnd> {
    let endpoint = Endpoint {
        host: account.identity.host.to_string(),
        port: account.identity.port,
        connect_timeout: account.connect_timeout,
        keepalive: account.keepalive,
        route: Route {
            source: account.source_address,
            ip_version: account.ip_version,
            proxy: account.proxy.clone(),
        },
    };
    let tcp = dial(&endpoint, &wires.addresses).await?;
    match account.tls {
        TlsMode::Implicit => Ok(wires
            .tls
            .handshake(&account.tls_options, &account.identity.host, tcp, account.connect_timeout)
            .await?),
        TlsMode::StartTls | TlsMode::None => Ok(Stream::Plain(tcp)),
    }
}

async fn upgrade(account: &Account, wires: &Wires, stream: Stream) -> Result<Stream, TlsError> {
    match stream {
        Stream::Plain(tcp) => {
            let host = &account.identity.host;
            wires.tls.handshake(&account.tls_options, host, tcp, account.connect_timeout).await
        }
        secured => Ok(secured),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bug of ours costs one session, and is told as what it is.
    #[tokio::test]
    async fn a_panic_is_one_more_way_to_end() {
        let outcome = unpanicked(Box::pin(async { panic!("a bug in {}", "here") })).await;
        assert!(matches!(outcome.end, SessionEnd::Panicked(text) if text == "a bug in here"));
    }
}
