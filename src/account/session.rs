//! One connected life: dial, TLS, then the conversation pumped between the wire and the pure core.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Debug;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::Recipient;
use futures::channel::mpsc::UnboundedSender;
use futures::future::LocalBoxFuture;
use futures::{FutureExt, TryFutureExt};
use jiff::Timestamp;
use log::error;
use rand::Rng;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use super::findings::{Report, Reporter};
use super::idle_period::IdlePeriods;
use super::lifecycle::{Blame, SessionEnd, blame};
use super::pipelining::Pipelines;
use super::pulse::Pulse;
use crate::config::settings::{Account, Initial, Settings, TlsMode};
use crate::coordinator::gate::Gate;
use crate::event::MailboxName;
use crate::imap::command::{Credentials, Line, Proof};
use crate::imap::conversation::{
    Action, Conversation, Delivery, Goal, Input, Plan, Security, ToldFrom, Until, Watch,
};
use crate::imap::ending::Ending;
use crate::imap::listing::MailboxListing;
use crate::imap::rounds::{Choice, Holding, LookUp, LookedUp, Pace};
use crate::imap::stops::Met;
use crate::imap::summary::Wanted;
use crate::imap::survey::Surveyed;
use crate::imap::suspects::Visits;
use crate::imap::titles::TitleListing;
use crate::journal::{JournalHandle, Receipt};
use crate::memory::Memory;
use crate::messages::{Deliver, Undelivered};
use crate::metrics::Metrics;
use crate::oauth::store::Store;
use crate::oauth::tokens::Tokens;
use crate::refusals::{LoginDigest, QuickDigest};
use crate::wire::dial::{Addresses, Endpoint, Route, dial};
use crate::wire::link::{Link, LinkError};
use crate::wire::peer::Peer;
use crate::wire::tls::{Stream, TlsContexts, TlsError};

/// For one write, at the very most.
const WRITE: Duration = Duration::from_secs(30);

/// All connections are probed within this time.
const PROBES: Duration = Duration::from_secs(5);

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
}

impl Wires {
    /// Nothing shared yet; whoever holds the sender may have all connections probed.
    pub fn new(settings: &Settings) -> (Self, watch::Sender<u64>) {
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
            metrics: Metrics::new(),
            tokens: Tokens::new(Store::new(&settings.monitor.state_dir)),
        };
        (wires, prober)
    }
}

/// What a session tells while it lives.
#[derive(Debug)]
pub enum Milestone {
    /// The login was accepted.
    LoggedIn,
    /// The server said something, after the login.
    Alive,
    /// So many bytes came and went since the last time.
    Traffic {
        /// From the server.
        received: u64,
        /// To it.
        sent: u64,
    },
    /// This mailbox is being watched.
    Watching(MailboxName),
    /// The server has something to say to its users.
    Alert(String),
    /// The server does not search as it should: everything is fetched.
    SearchRefused(String),
    /// Commands that were sent ahead were answered in order, or they were not.
    Pipelined {
        /// Which of the two.
        worked: bool,
    },
    /// These mailboxes are to have connections of their own.
    Beside(Vec<MailboxName>),
    /// The session is responsible for these mailboxes.
    Shares(Holding),
    /// All mailboxes of the session are watched, this fast.
    Toured(Pace),
    /// A mailbox of the session cannot be opened: why, as if the session had ended of it.
    Unopened(MailboxName, Ending),
    /// There are more mailboxes than are looked at.
    MailboxesTruncated,
    /// The answer to a one-shot question.
    Mailboxes(MailboxListing),
    /// The answer to a one-shot question.
    Titles(TitleListing),
    /// Who was reached; for one-shot questions only.
    Reached(Box<Peer>),
    /// The answer to a survey.
    Surveyed(Box<Surveyed>),
}

/// Where a session's milestones go, with its number.
pub type Milestones = UnboundedSender<(usize, Milestone)>;

/// How a session ended.
#[derive(Debug)]
pub struct Outcome {
    /// Why.
    pub end: SessionEnd,
    /// It ended in the middle of a FETCH, and nothing of the mailbox was delivered since it was opened.
    pub died_fetching: bool,
    /// It ended while commands sent ahead were not all answered.
    pub died_pipelining: bool,
    /// How long there had been nothing but IDLE.
    pub idled: Option<Duration>,
    /// The login that was refused.
    pub refused: Option<RefusedLogin>,
    /// Where there are many mailboxes: which of them it may have ended of.
    pub visits: Visits,
}

impl Outcome {
    fn early(end: SessionEnd) -> Self {
        Self {
            end,
            died_fetching: false,
            died_pipelining: false,
            idled: None,
            refused: None,
            visits: Visits::default(),
        }
    }
}

/// A login that was refused, to be known again.
#[derive(Debug)]
pub struct RefusedLogin {
    /// For this process.
    pub quick: QuickDigest,
    /// For those after it.
    pub digest: LoginDigest,
}

impl RefusedLogin {
    /// Of this login. The slow digest is made on a thread for such things.
    async fn of(account: &Account, secret: Option<SecretString>) -> Option<Self> {
        let (identity, secret) = (account.identity.clone(), secret?);
        let quick = QuickDigest::new(&secret);
        let digest = spawn_blocking(move || LoginDigest::new(&identity, &secret)).await.ok()?;
        Some(Self { quick, digest })
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

/// Where a session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Where the last one stood, as the journal has it.
    Checkpoint,
    /// As if a mailbox was never met, from there on; but those that were begun go on.
    Anew(ToldFrom, Begun),
}

/// The mailboxes of which something was made durable, by whatever session of a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun(Rc<RefCell<HashSet<MailboxName>>>);

impl Start {
    /// From where `mailbox` is told anew; `None` where its checkpoint counts.
    fn anew(&self, mailbox: &MailboxName) -> Option<ToldFrom> {
        match self {
            Self::Anew(from, begun) if !begun.0.borrow().contains(mailbox) => Some(*from),
            Self::Anew(..) | Self::Checkpoint => None,
        }
    }

    fn begun(&self, mailbox: MailboxName) {
        if let Self::Anew(_, begun) = self {
            begun.0.borrow_mut().insert(mailbox);
        }
    }
}

/// Which mailboxes a session is for.
#[derive(Debug)]
pub enum Task {
    /// One.
    Mailbox(MailboxName),
    /// Those that have no session of their own.
    Shared(Choice),
}

/// Watches its mailboxes until the connection ends. Never panics: a panic inside is one more way to end.
pub fn run(
    account: Arc<Account>,
    assignment: Assignment,
    wires: Wires,
    sink: Outlet,
    milestones: Milestones,
    mut stop: oneshot::Receiver<()>,
) -> impl Future<Output = Outcome> {
    let life = async move {
        let Assignment { number, task, caution, until, refused, pulse, alive } = assignment;
        let goal = match task {
            Task::Shared(choice) => Goal::WatchMany(choice),
            Task::Mailbox(mailbox) => {
                let met = LookUp { mailbox: mailbox.clone(), met: Met::AtFirst, formerly: Vec::new() };
                let LookedUp { checkpoint, told_from, .. } = tokio::select! {
                    found = sink.looked_up(&met) => found?,
                    _ = &mut stop => return Err(SessionEnd::Conversation(Ending::LoggedOut)),
                };
                let search = account.search.clone();
                Goal::Watch(Watch { mailbox, checkpoint, told_from, caution, search, until })
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

/// Asks one question and logs out.
pub async fn ask(account: &Account, goal: Goal, wires: &Wires, milestones: &Milestones) -> SessionEnd {
    let (_keep, stop) = oneshot::channel();
    let told = |milestone| drop(milestones.unbounded_send((0, milestone)));
    let refused = AtomicBool::new(false);
    let reached = |stream: &Stream| told(Milestone::Reached(Box::new(stream.peer())));
    unpanicked(Box::pin(converse(account, goal, wires, &NoOutlet, (told, reached), &refused, stop))).await.end
}

/// A life is as large as a page, and it is kept once: what wraps it holds a pointer.
async fn unpanicked(life: Pin<Box<impl Future<Output = Result<Outcome, SessionEnd>>>>) -> Outcome {
    match AssertUnwindSafe(life).catch_unwind().await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(end)) => Outcome::early(end),
        Err(panic) => Outcome::early(SessionEnd::Panicked(panic_text(panic.as_ref()))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// Connects, and pumps the conversation to its end. Set-up is boxed: its state is large and soon gone.
async fn converse(
    account: &Account,
    goal: Goal,
    wires: &Wires,
    delivers: &impl Delivers,
    (mut told, reached): (impl FnMut(Milestone), impl Fn(&Stream)),
    refused: &AtomicBool,
    mut stop: oneshot::Receiver<()>,
) -> Result<Outcome, SessionEnd> {
    let host = &account.identity.host;
    let period = account.provider.as_ref().and_then(|chosen| chosen.provider.connect_period);
    let turn = Box::pin(async {
        let prepared = account.login.prepare(&wires.tokens).await?;
        Ok::<_, SessionEnd>((prepared, wires.gate.enter(host, period).await))
    });
    let (prepared, permit) = tokio::select! {
        turn = turn => match turn {
            Ok(turn) => turn,
            Err(end) => return Ok(refused_by_endpoint(account, end, wires).await),
        },
        _ = &mut stop => return Err(SessionEnd::Conversation(Ending::LoggedOut)),
    };
    if refused.load(Ordering::Relaxed) {
        return Err(SessionEnd::Conversation(Ending::LoggedOut));
    }
    let mut connecting = wires.metrics.connecting(account.provider_name());
    let set_up = Box::pin(async {
        let (proof, shown) = account.login.show(prepared, &wires.tokens).await?;
        let stream = connect(account, wires).await?;
        Ok::<_, SessionEnd>((proof, shown, stream))
    });
    let (proof, shown, stream) = tokio::select! {
        ready = set_up => match ready {
            Ok(ready) => ready,
            Err(end) => return Ok(refused_by_endpoint(account, end, wires).await),
        },
        _ = &mut stop => return Err(SessionEnd::Conversation(Ending::LoggedOut)),
    };
    let plan = plan(account, goal, proof, wires);
    // Boxed: a handshake is large, and seldom needed here.
    let secure = async |stream| Box::pin(upgrade(account, wires, stream)).await.inspect(&reached);
    if account.tls != TlsMode::StartTls {
        reached(&stream);
    }
    let mut permit = permit;
    let shown = RefCell::new(shown);
    let told = |milestone| {
        match milestone {
            Milestone::Traffic { received, sent } => return wires.metrics.traffic(received, sent),
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
    let outcome = pump(stream, plan, delivers, told, secure, wires.probe.clone(), stop).await;
    let shown = shown.into_inner();
    match blame(&outcome.end) {
        Blame::Limit => wires.gate.throttled(host),
        Blame::Token => {
            account.login.is_stale(&shown, &wires.tokens).await;
        }
        Blame::Credentials if account.login.is_stale(&shown, &wires.tokens).await => {
            return Ok(Outcome { end: SessionEnd::StaleToken(Box::new(outcome.end)), ..outcome });
        }
        Blame::Credentials => {
            let secret = account.login.behind(shown, &wires.tokens).await;
            return Ok(Outcome { refused: RefusedLogin::of(account, secret).await, ..outcome });
        }
        _ => {}
    }
    Ok(outcome)
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
        let letters = (0..6).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
        (random.random_range(0.9..1.1), letters)
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

/// Where a conversation's deliveries go.
pub trait Delivers {
    /// Makes `delivery` durable; waiting for that is backpressure.
    fn deliver(&self, delivery: Delivery) -> Delivering;

    /// Where a mailbox of many stands.
    fn look_up(&self, asked: LookUp) -> LookingUp {
        drop(asked);
        futures::future::ready(Err(Undelivered::Stopping)).boxed_local()
    }

    /// What was told of the mailbox lately.
    fn recall(&self, mailbox: &MailboxName) -> Recalling;
}

/// The sink, as one session sees it.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// Where batches go.
    pub sink: Recipient<Deliver>,
    /// Where checkpoints are read.
    pub journal: JournalHandle,
    /// Makes events of findings.
    pub reporter: Reporter,
    /// Where its mailboxes begin.
    pub from: Start,
    /// What a first contact tells.
    pub initial: Initial,
    /// A mailbox that appears is noticed within this time.
    pub noticed_within: Duration,
    /// When a connection was last known to live, before mailboxes appeared unseen.
    pub last_life: Option<Timestamp>,
}

impl Outlet {
    async fn looked_up(&self, asked: &LookUp) -> Result<LookedUp, Undelivered> {
        let cursor = |mailbox| {
            let cursor = self.journal.cursor(self.reporter.key(mailbox));
            cursor.map_err(|failure| {
                error!("{failure}");
                Undelivered::JournalFailed
            })
        };
        if let Some(from) = self.from.anew(&asked.mailbox) {
            return Ok(LookedUp { told_from: Some(from), ..LookedUp::default() });
        }
        let checkpoint = cursor(&asked.mailbox).await?;
        let mut inheritance = Vec::new();
        for mailbox in asked.formerly.iter().filter(|_| checkpoint.is_none()) {
            inheritance.extend(cursor(mailbox).await?);
        }
        let told_from = self.told_from(asked.met, Timestamp::now());
        Ok(LookedUp { checkpoint, told_from, inheritance })
    }

    /// What is in a mailbox that was not there before came since then.
    fn told_from(&self, met: Met, now: Timestamp) -> Option<ToldFrom> {
        let configured = self.initial.told_from(now);
        let Some(last_seen) = last_without(met, self.last_life, now) else { return configured };
        let appeared = last_seen.checked_sub(self.noticed_within).unwrap_or(Timestamp::MIN);
        Some(match configured {
            Some(ToldFrom::Time(configured)) => ToldFrom::Time(configured.min(appeared)),
            Some(of_a_uid) => of_a_uid,
            None => ToldFrom::Time(appeared),
        })
    }
}

/// When the list was last known not to hold the mailbox, or soon after; `None` where it held it from the first.
fn last_without(met: Met, last_life: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    match met {
        Met::AtFirst => None,
        Met::WhileAway => Some(last_life.unwrap_or(now)),
        Met::WhileWatched { since } => {
            let waited = self::now().saturating_duration_since(since);
            Some(now.checked_sub(waited).unwrap_or(Timestamp::MIN))
        }
    }
}

impl Delivers for Outlet {
    fn deliver(&self, delivery: Delivery) -> Delivering {
        let (mailbox, from) = (delivery.mailbox.clone(), self.from.clone());
        let Report { batch, dropped } = self.reporter.report(delivery, Timestamp::now());
        let (sink, filters) = (self.sink.clone(), self.reporter.filters.clone());
        async move {
            let receipt = sink.send(Deliver { batch }).await.unwrap_or(Err(Undelivered::Stopping))?;
            filters.count_dropped(dropped);
            from.begun(mailbox);
            Ok(receipt)
        }
        .boxed_local()
    }

    fn look_up(&self, asked: LookUp) -> LookingUp {
        let outlet = self.clone();
        async move { outlet.looked_up(&asked).await }.boxed_local()
    }

    fn recall(&self, mailbox: &MailboxName) -> Recalling {
        let (journal, key) = (self.journal.clone(), self.reporter.key(mailbox));
        async move { journal.memory(key).await.map_err(|_| Undelivered::JournalFailed) }.boxed_local()
    }
}

/// A one-shot conversation delivers nothing.
struct NoOutlet;

impl Delivers for NoOutlet {
    fn deliver(&self, _: Delivery) -> Delivering {
        futures::future::ready(Err(Undelivered::Stopping)).boxed_local()
    }

    fn recall(&self, _: &MailboxName) -> Recalling {
        futures::future::ready(Err(Undelivered::Stopping)).boxed_local()
    }
}

/// Pumps replies into the core and its actions out, until one of them says that it is over.
///
/// Generic over the stream, so that transcripts run through all of it but TCP and TLS.
pub async fn pump<S>(
    stream: S,
    plan: Plan,
    delivers: &impl Delivers,
    told: impl FnMut(Milestone),
    secure: impl AsyncFn(S) -> Result<S, TlsError>,
    mut probe: watch::Receiver<u64>,
    mut stop: oneshot::Receiver<()>,
) -> Outcome
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Debug,
{
    let mut pump = Pump {
        conversation: Conversation::new(plan, now()),
        delivers,
        told,
        asked: None,
        delivered: false,
        fetching: false,
        logged_in: false,
        silent_since: None,
    };
    let mut link = Link::new(stream);
    let mut stopping = false;
    let end = 'life: loop {
        let heard = link.bytes_in();
        let input = tokio::select! {
            biased;
            // Asked to stop, or nobody is left who could ask.
            _ = &mut stop, if !stopping => {
                stopping = true;
                Input::Stop
            }
            Ok(()) = probe.changed() => {
                Input::Probe { by: now() + PROBES.mul_f64(rand::rng().random_range(0.0..1.0)) }
            }
            answer = answer(&mut pump.asked) => match answer {
                Ok(input) => pump.answered(input),
                Err(error) => break error.into(),
            },
            // Bytes that never make a reply do not outrun this deadline, as they would a branch of its own.
            reply = timeout_at(pump.conversation.deadline().into(), link.next()) => match reply {
                Ok(Ok(reply)) => Input::Reply(reply),
                Ok(Err(error)) => break pump.lost(error),
                Err(_) => Input::Elapsed { quiet: link.bytes_in() == heard },
            },
        };
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let then = pump.step(&mut link, input).await;
            pump.tell_traffic(&mut link);
            match then {
                Ok(Then::Listen) => {}
                Ok(Then::StartTls) if link.has_buffered() => next = Some(Input::Injected),
                Ok(Then::StartTls) => match secure(link.into_stream()).await {
                    Ok(secured) => {
                        link = Link::new(secured);
                        next = Some(Input::Secured);
                    }
                    Err(error) => break 'life error.into(),
                },
                Err(end) => break 'life end,
            }
        }
        // Replies that never pause never let the timer have its turn.
        if now() >= pump.conversation.deadline()
            && let Err(end) = pump.step(&mut link, Input::Elapsed { quiet: false }).await
        {
            break end;
        }
    };
    let silent_since = pump.conversation.silent_since().or(pump.silent_since);
    let idled = silent_since.map(|since| now().saturating_duration_since(since));
    Outcome {
        end,
        died_fetching: pump.fetching && !pump.delivered,
        died_pipelining: pump.conversation.is_pipelining(),
        idled,
        refused: None,
        visits: pump.conversation.visits(),
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// A delivery under way.
pub type Delivering = LocalBoxFuture<'static, Result<Receipt, Undelivered>>;

/// A look into the journal.
pub type Recalling = LocalBoxFuture<'static, Result<Memory, Undelivered>>;

/// Another one.
pub type LookingUp = LocalBoxFuture<'static, Result<LookedUp, Undelivered>>;

/// What the journal is asked for.
enum Asked {
    Delivery(Delivering),
    Memory(Recalling),
    Cursor(LookingUp),
}

/// The journal's answer; never, where nothing is asked.
async fn answer(asked: &mut Option<Asked>) -> Result<Input, Undelivered> {
    match asked {
        Some(Asked::Delivery(delivery)) => delivery.await.map(Input::Delivered),
        Some(Asked::Memory(memory)) => memory.await.map(Input::Recalled),
        Some(Asked::Cursor(cursor)) => cursor.await.map(Input::LookedUp),
        None => std::future::pending().await,
    }
}

/// What the pump does after a step.
enum Then {
    Listen,
    StartTls,
}

struct Pump<'a, D, T> {
    conversation: Conversation,
    delivers: &'a D,
    told: T,
    asked: Option<Asked>,
    /// Something of the mailbox was, since it was opened.
    delivered: bool,
    /// A FETCH of messages was running before the last step.
    fetching: bool,
    logged_in: bool,
    /// Since when there had been nothing but IDLE, where the conversation ended in it.
    silent_since: Option<std::time::Instant>,
}

impl<D: Delivers, T: FnMut(Milestone)> Pump<'_, D, T> {
    fn answered(&mut self, input: Input) -> Input {
        self.asked = None;
        self.delivered |= matches!(input, Input::Delivered(_));
        input
    }

    fn tell_traffic<S>(&mut self, link: &mut Link<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + Debug,
    {
        let (received, sent) = link.take_traffic();
        if received + sent > 0 {
            (self.told)(Milestone::Traffic { received, sent });
        }
    }

    fn lost(&self, error: LinkError) -> SessionEnd {
        SessionEnd::Link { error, awaiting: self.conversation.awaiting() }
    }

    /// One input, and all actions that follow from it.
    async fn step<S>(&mut self, link: &mut Link<S>, input: Input) -> Result<Then, SessionEnd>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + Debug,
    {
        if self.logged_in && matches!(input, Input::Reply(_)) {
            (self.told)(Milestone::Alive);
        }
        self.fetching = self.conversation.is_fetching();
        let silent_since = self.conversation.silent_since();
        let mut then = Then::Listen;
        for action in self.conversation.step(input, now()) {
            match action {
                Action::Send(line) => send(link, &line).await.map_err(|error| self.lost(error))?,
                Action::StartTls => then = Then::StartTls,
                Action::LoggedIn => {
                    link.logged_in();
                    self.logged_in = true;
                    (self.told)(Milestone::LoggedIn);
                }
                Action::Watching(mailbox) => (self.told)(Milestone::Watching(mailbox)),
                Action::Alert(text) => (self.told)(Milestone::Alert(text)),
                Action::SearchRefused(why) => (self.told)(Milestone::SearchRefused(why)),
                Action::PipeliningWorked => (self.told)(Milestone::Pipelined { worked: true }),
                Action::PipeliningBroke => (self.told)(Milestone::Pipelined { worked: false }),
                Action::Mailboxes(listing) => (self.told)(Milestone::Mailboxes(listing)),
                Action::Surveyed(found) => (self.told)(Milestone::Surveyed(found)),
                Action::Titles(messages) => (self.told)(Milestone::Titles(messages)),
                Action::Deliver(found) => self.asked = Some(Asked::Delivery(self.delivers.deliver(found))),
                Action::Recall(mailbox) => self.asked = Some(Asked::Memory(self.delivers.recall(&mailbox))),
                Action::LookUp(asked) => {
                    // What was delivered of the mailboxes before says nothing of this one.
                    self.delivered = false;
                    self.asked = Some(Asked::Cursor(self.delivers.look_up(asked)));
                }
                Action::Beside(mailboxes) => (self.told)(Milestone::Beside(mailboxes)),
                Action::Shares(holding) => (self.told)(Milestone::Shares(holding)),
                Action::Toured(pace) => (self.told)(Milestone::Toured(pace)),
                Action::Unopened { mailbox, ending } => (self.told)(Milestone::Unopened(mailbox, ending)),
                Action::MailboxesTruncated => (self.told)(Milestone::MailboxesTruncated),
                Action::End(ending) => {
                    self.silent_since = silent_since;
                    return Err(SessionEnd::Conversation(ending));
                }
            }
        }
        self.fetching = self.conversation.is_fetching();
        Ok(then)
    }
}

/// Writes run to their end under a deadline: half a command cannot be repaired.
async fn send<S>(link: &mut Link<S>, line: &Line) -> Result<(), LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Debug,
{
    timeout(WRITE, link.send(line.as_bytes())).await.unwrap_or(Err(LinkError::Closed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mailbox that cannot be opened at once loses nothing of what comes until it can be.
    #[tokio::test(start_paused = true)]
    async fn a_mailbox_is_told_from_when_it_was_met_not_from_when_it_is_opened() {
        let now = Timestamp::now();
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let met = Met::WhileWatched { since: self::now() };
        tokio::time::advance(Duration::from_secs(7200)).await;
        assert_eq!(last_without(met, Some(ago(10)), now), Some(ago(7200)));
        assert_eq!(last_without(Met::WhileAway, Some(ago(10)), now), Some(ago(10)));
        assert_eq!(last_without(Met::AtFirst, Some(ago(10)), now), None);
    }

    /// A bug of ours costs one session, and is told as what it is.
    #[tokio::test]
    async fn a_panic_is_one_more_way_to_end() {
        let outcome = unpanicked(Box::pin(async { panic!("a bug in {}", "here") })).await;
        assert!(matches!(outcome.end, SessionEnd::Panicked(text) if text == "a bug in here"));
    }
}
