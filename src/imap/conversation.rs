//! The conversation with one server about one mailbox: replies in, actions out.
//!
//! A value that can be stepped through in a test. Time is an argument, randomness comes with the [`Plan`], and the
//! only proof of delivery is the journal's [`Receipt`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::capability::Capabilities;
use super::changes::WantedChanges;
use super::command::{Command, Credentials, Encoded, Line, done};
use super::ending::{Ending, ProtocolError, TlsUnavailable};
use super::fetch::Fetching;
use super::idle::{Idle, Polling};
use super::listing::MailboxListing;
use super::login::{self, Login};
use super::looking::Looking;
use super::notify::Notifying;
use super::one_shot::{OneShot, list_mailboxes};
use super::pipelining::Pipelining;
use super::refusal::Refusal;
use super::reply::{Code, Reply, Status, StatusText};
use super::rounds::{self, Choice, Holding, LookUp, LookedUp, Pace, Round, Rounds};
use super::rules::{Kind, Rule, State, rule};
use super::search::{Criteria, Searching};
use super::select::{Dating, Examining, Locating, ProbingUidNext, Recalling};
use super::summary::Wanted;
use super::survey::{Survey, Surveyed, Surveying};
use super::suspects::Visits;
use super::titles::{TitleFetch, TitleListing, TitleQuery};
use super::watch::Selected;
use crate::event::{Cursor, Expunged, FlagsChange, GapReason, MailboxName, NewMessage, Role};
use crate::journal::Receipt;
use crate::memory::Memory;

/// Replies that a state has no use for, with no command completed meanwhile, beyond which a server is only making noise.
const MOST_IGNORED: u32 = 10_000;

/// What a conversation is for, and all that it may know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to do once logged in.
    pub goal: Goal,
    /// How the connection is secured.
    pub security: Security,
    /// Whether a PREAUTH greeting is good enough (never before STARTTLS).
    pub allow_preauth: bool,
    /// Who logs in; forgotten once that is done.
    pub credentials: Credentials,
    /// Whether SASL-IR (RFC 4959) is meant where it is offered.
    pub sasl_ir: bool,
    /// Whether commands may be pipelined, if the server is one of those that are known to take it.
    pub pipelining: bool,
    /// Ten minutes or so, with jitter: IDLE is issued anew after this.
    pub idle_refresh: Duration,
    /// NOOP interval where IDLE is of no use.
    pub poll_interval: Duration,
    /// For the greeting.
    pub greeting_timeout: Duration,
    /// For a command, from its last sign of life.
    pub command_timeout: Duration,
    /// Begins every tag; random, so that nobody can answer ahead (CVE-2026-42246 class).
    pub tag_prefix: Box<str>,
    /// What to fetch of a message.
    pub wanted: Arc<Wanted>,
}

/// What to do once logged in.
#[derive(Clone, Debug, Default)]
pub enum Goal {
    /// Tell what is new in a mailbox, for ever.
    Watch(Box<Watch>),
    /// Tell what is new in many mailboxes, for ever.
    WatchMany(Box<Choice>),
    /// List all mailboxes, and log out.
    #[default]
    ListMailboxes,
    /// Tell the latest messages of a mailbox, and log out.
    Titles(Box<TitleQuery>),
    /// Tell what the server can do and whether the mailboxes that are meant can be opened, and log out.
    Survey(Box<Survey>),
}

impl Goal {
    /// The changes that are told.
    fn changes(&self) -> WantedChanges {
        match self {
            Self::Watch(watch) => watch.changes,
            Self::WatchMany(choice) => choice.changes,
            Self::ListMailboxes | Self::Titles(_) | Self::Survey(_) => WantedChanges::default(),
        }
    }
}

/// The mailbox to watch, and where the last conversation about it stood.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Which mailbox.
    pub mailbox: MailboxName,
    /// Its stored cursor; `None` for a first contact.
    pub checkpoint: Option<Cursor>,
    /// For a first contact: messages from then on are told; `None` for none.
    pub told_from: Option<ToldFrom>,
    /// How many conversations in a row ended in the middle of a FETCH: the more, the less is asked for at once.
    pub caution: u8,
    /// Only messages that the server finds by these are told; `None` for all.
    pub search: Option<Arc<Criteria>>,
    /// Which changes of messages that were told are told.
    pub changes: WantedChanges,
    /// How long.
    pub until: Until,
}

/// From where a first contact tells what is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ToldFrom {
    /// Received (INTERNALDATE) then or later.
    Time(Timestamp),
    /// This UID and those above.
    Uid(u32),
}

/// How long a mailbox is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Until {
    /// For ever.
    #[default]
    Stopped,
    /// Until all that is new is told.
    CaughtUp,
    /// As [`Self::CaughtUp`], but the conversation goes on, to the next mailbox perhaps.
    Visited,
}

/// How the connection is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte.
    Implicit,
    /// STARTTLS, or nothing.
    StartTls,
    /// None, as the configuration allows.
    Plain,
}

/// What comes in.
#[derive(Debug)]
pub enum Input {
    /// The server said something.
    Reply(Reply),
    /// The TLS handshake that [`Action::StartTls`] asked for is done.
    Secured,
    /// There were bytes between the STARTTLS completion and the handshake.
    Injected,
    /// The deadline has passed; `quiet` unless bytes came since the last input.
    Elapsed {
        /// Nothing at all was received.
        quiet: bool,
    },
    /// A delivery is durable.
    Delivered(Receipt),
    /// What [`Action::Recall`] asked for.
    Recalled(Memory),
    /// What [`Action::LookUp`] asked for.
    LookedUp(LookedUp),
    /// Time went on without us: see by then whether the connection lives.
    Probe {
        /// Spread, so that not all connections are probed at once.
        by: Instant,
    },
    /// End it: DONE, LOGOUT.
    Stop,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Action {
    /// Write this, in one piece.
    Send(Line),
    /// Check that no byte is waiting, then do the TLS handshake, then [`Input::Secured`].
    StartTls,
    /// The server accepted the login, or needed none.
    LoggedIn,
    /// This mailbox is watched from now on, its baseline durable.
    Watching(MailboxName),
    /// Make this durable, then [`Input::Delivered`]. Never two at a time.
    Deliver(Delivery),
    /// Look up what was told of this mailbox lately, then [`Input::Recalled`]. Never while a delivery is under way.
    Recall(MailboxName),
    /// Look up where this mailbox stands, then [`Input::LookedUp`]. Never while a delivery is under way.
    LookUp(LookUp),
    /// These mailboxes are to have connections of their own, and no others.
    Beside(Vec<MailboxName>),
    /// This conversation is responsible for these mailboxes.
    Shares(Holding),
    /// All of its mailboxes were visited, and this is how fast it will be.
    Toured(Pace),
    /// One of its mailboxes cannot be opened.
    Unopened {
        /// Which.
        mailbox: MailboxName,
        /// Why, as the end of a conversation about it alone.
        ending: Ending,
    },
    /// There are more mailboxes than are listed.
    MailboxesTruncated,
    /// The answer to [`Goal::ListMailboxes`].
    Mailboxes(MailboxListing),
    /// The answer to [`Goal::Titles`].
    Titles(TitleListing),
    /// The answer to [`Goal::Survey`]; its titles come as [`Action::Titles`].
    Surveyed(Box<Surveyed>),
    /// The server does not search as it should, so everything is fetched: why, hostile until made harmless.
    SearchRefused(String),
    /// Changes of flags, or expunges, are wanted and cannot be told: why.
    ChangesUntold(&'static str),
    /// Commands that were sent ahead were answered in order.
    PipeliningWorked,
    /// They were not: this host is to be asked one by one.
    PipeliningBroke,
    /// The server wants its users to read this (RFC 9051 section 7.1); hostile until made harmless.
    Alert(String),
    /// It is over: close the connection.
    End(Ending),
}

/// What was found, and the cursor that covers it.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Of which mailbox.
    pub mailbox: MailboxName,
    /// In the order in which it is to be told.
    pub findings: Vec<Finding>,
    /// Where the mailbox stands once this is durable.
    pub cursor: Cursor,
    /// Where it stood before; `None` where it was met for the first time.
    pub before: Option<Box<Cursor>>,
}

/// One thing to tell of a mailbox.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// A new message.
    Message(Box<NewMessage>),
    /// The flags of a message are others.
    Flags(Box<FlagsChange>),
    /// A message is gone.
    Expunged(Expunged),
    /// A new UIDVALIDITY.
    Reset {
        /// The mailbox's role.
        role: Option<Role>,
        /// The UIDVALIDITY before.
        previous: u32,
    },
    /// Messages that cannot be told.
    Gap {
        /// The mailbox's role.
        role: Option<Role>,
        /// The first UID, where one is known.
        uid_first: Option<u32>,
        /// The last UID.
        uid_last: Option<u32>,
        /// Since when the mailbox was not watched, where that is the reason.
        since: Option<Timestamp>,
        /// How many messages were told that came meanwhile.
        recovered: Option<u64>,
        /// How many, where that is known.
        lost: Option<u64>,
        /// Why.
        reason: GapReason,
    },
}

/// The state machine.
#[derive(Debug)]
pub struct Conversation {
    shared: Shared,
    phase: Phase,
}

/// What outlives a phase.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) capabilities: Capabilities,
    /// QRESYNC is enabled.
    pub(super) qresync: bool,
    pub(super) stopping: bool,
    tag_count: u32,
    in_flight: Option<InFlight>,
    /// The commands that were sent behind it, in order.
    behind: Vec<InFlight>,
    /// The last command that was completed.
    answered: Option<Answered>,
    pub(super) pipelining: Pipelining,
    ignored: u32,
    pub(super) epochs: u32,
    /// Where many mailboxes share the connection.
    pub(super) rounds: Option<Box<Rounds>>,
    /// When to step with [`Input::Elapsed`].
    deadline: Instant,
    /// When even signs of life do not help any more.
    hard_deadline: Instant,
    awaiting: &'static str,
    actions: Vec<Action>,
}

/// The command that the server works on.
#[derive(Debug)]
struct InFlight {
    tag: String,
    command: &'static str,
    sent: Instant,
    /// What waits for a `+`.
    rest: VecDeque<Line>,
}

/// A command that the server has completed, whatever it says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Its name.
    pub command: &'static str,
    /// From its sending on.
    pub took: Duration,
}

/// How new messages in a mailbox are noticed, as the connection does it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The server tells of them in IDLE, and they are asked for.
    Idle,
    /// The server pushes them, or tells of them while another mailbox is open (RFC 5465).
    Notify,
    /// STATUS, in rounds.
    Status,
    /// NOOP, where IDLE is of no use.
    Poll,
}

impl Mode {
    /// As metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Notify => "notify",
            Self::Status => "status",
            Self::Poll => "poll",
        }
    }
}

/// Where the conversation stands: each phase is named by what it awaits, and owns what it needs.
#[derive(Debug)]
pub(super) enum Phase {
    AwaitGreeting,
    AwaitCapability { logged_in: bool },
    AwaitStartTls,
    AwaitTls,
    AwaitLogin(Login),
    AwaitId,
    AwaitEnabled,
    Locating(Box<Locating>),
    Examining(Box<Examining>),
    ProbingUidNext(Box<ProbingUidNext>),
    Recalling(Box<Recalling>),
    Dating(Box<Dating>),
    Searching(Searching),
    Fetching(Fetching),
    AwaitReceipt(Box<Selected>),
    Notifying(Notifying),
    Idle(Idle),
    Polling(Polling),
    Looking(Box<Looking>),
    Round(Box<Round>),
    OneShot(Box<OneShot>),
    AwaitLogout,
    Ended,
}

impl Conversation {
    /// Begins by awaiting the greeting; the connection stands (with TLS, where that is implicit).
    pub fn new(plan: Plan, now: Instant) -> Self {
        let timeout = plan.greeting_timeout;
        let mut shared = Shared {
            pipelining: Pipelining::new(!plan.pipelining),
            plan,
            capabilities: Capabilities::default(),
            qresync: false,
            stopping: false,
            tag_count: 0,
            in_flight: None,
            behind: Vec::new(),
            answered: None,
            ignored: 0,
            epochs: 0,
            rounds: None,
            deadline: now,
            hard_deadline: now,
            awaiting: "",
            actions: Vec::new(),
        };
        shared.wait("the greeting", timeout, timeout * 3, now);
        Self { shared, phase: Phase::AwaitGreeting }
    }

    /// One step. The actions are to be carried out in order, before the next step.
    pub fn step(&mut self, input: Input, now: Instant) -> Vec<Action> {
        let phase = std::mem::replace(&mut self.phase, Phase::Ended);
        self.phase = match input {
            Input::Reply(reply) => {
                let reply = match &phase {
                    Phase::AwaitLogin(login) => login.concealed(reply),
                    _ => reply,
                };
                self.shared.reply(phase, reply, now)
            }
            Input::Secured => self.shared.secured(phase, now),
            Input::Injected => self.shared.end(Ending::TlsUnavailable(TlsUnavailable::Injected)),
            Input::Elapsed { quiet } => self.shared.elapsed(phase, quiet, now),
            Input::Delivered(receipt) => self.shared.delivered(phase, &receipt, now),
            Input::Recalled(memory) => match phase {
                Phase::Recalling(phase) => phase.recalled(&mut self.shared, memory, now),
                phase => phase,
            },
            Input::LookedUp(found) => match phase {
                Phase::Round(phase) => phase.looked_up(&mut self.shared, found, now),
                phase => phase,
            },
            Input::Probe { by } => self.shared.probe(phase, by),
            Input::Stop => self.shared.stop(phase, now),
        };
        std::mem::take(&mut self.shared.actions)
    }

    /// When to step with [`Input::Elapsed`] unless something else happens before.
    pub fn deadline(&self) -> Instant {
        self.shared.deadline
    }

    /// What is being waited for, for people.
    pub fn awaiting(&self) -> &'static str {
        self.shared.awaiting
    }

    /// Where there are many mailboxes: which of them the conversation may have ended of.
    pub fn visits(&self) -> Visits {
        self.shared.visits().cloned().unwrap_or_default()
    }

    /// Since when there was nothing but IDLE.
    pub fn silent_since(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Idle(phase) => phase.silent_since(),
            _ => None,
        }
    }

    /// The command that the last step found completed, once.
    pub fn take_answered(&mut self) -> Option<Answered> {
        self.shared.answered.take()
    }

    /// How its one mailbox is watched, while it rests; of many, [`Action::Toured`] tells.
    pub fn mode(&self) -> Option<Mode> {
        match &self.phase {
            Phase::Idle(phase) if phase.awaits_push() => Some(Mode::Notify),
            Phase::Idle(_) => Some(Mode::Idle),
            Phase::Polling(_) => Some(Mode::Poll),
            _ => None,
        }
    }

    /// Whether commands were sent ahead that are not all answered: a connection that ends now may have ended of it.
    pub fn is_pipelining(&self) -> bool {
        self.shared.pipelining.is_running()
    }

    /// Whether a FETCH of messages runs: a connection that ends now may have died of a message.
    pub fn is_fetching(&self) -> bool {
        match &self.phase {
            Phase::Fetching(fetching) => fetching.is_full(),
            // It may be the search that the server dies of.
            phase => matches!(phase, Phase::Searching(_)),
        }
    }
}

impl Phase {
    fn state(&self) -> State {
        match self {
            Self::AwaitGreeting => State::Greeting,
            Self::AwaitCapability { logged_in: false } | Self::AwaitLogin(_) => State::NotAuthenticated,
            Self::AwaitStartTls | Self::AwaitTls => State::StartTls,
            Self::AwaitCapability { logged_in: true }
            | Self::AwaitId
            | Self::AwaitEnabled
            | Self::Locating(_)
            | Self::Examining(_)
            | Self::Round(_)
            | Self::OneShot(_) => State::Authenticated,
            Self::ProbingUidNext(_)
            | Self::Recalling(_)
            | Self::Dating(_)
            | Self::Searching(_)
            | Self::Fetching(_)
            | Self::AwaitReceipt(_)
            | Self::Notifying(_)
            | Self::Looking(_)
            | Self::Polling(_) => State::Selected,
            Self::Idle(_) => State::Idling,
            Self::AwaitLogout | Self::Ended => State::LoggingOut,
        }
    }

    fn awaits_list(&self) -> bool {
        match self {
            Self::Round(phase) => phase.awaits_list(),
            phase => matches!(phase, Self::Locating(_) | Self::OneShot(_)),
        }
    }

    fn selected(&mut self) -> Option<&mut Selected> {
        match self {
            Self::ProbingUidNext(phase) => Some(phase.selected()),
            Self::Recalling(phase) => Some(phase.selected()),
            Self::Dating(phase) => Some(phase.selected()),
            Self::Searching(phase) => Some(phase.selected()),
            Self::Fetching(phase) => Some(phase.selected()),
            Self::AwaitReceipt(selected) => Some(selected),
            Self::Notifying(phase) => Some(phase.selected()),
            Self::Idle(phase) => Some(phase.selected()),
            Self::Polling(phase) => Some(phase.selected()),
            Self::Looking(phase) => Some(phase.selected()),
            Self::Round(phase) => phase.selected(),
            _ => None,
        }
    }
}

/// Sending, waiting, ending.
impl Shared {
    /// Sends `command` and waits for its completion.
    ///
    /// Callers return the phase that awaits it. Where the command cannot be sent, the conversation ends.
    pub(super) fn send(&mut self, command: &Command<'_>, now: Instant) -> Result<(), Ending> {
        let (tag, encoded) = self.encode(command)?;
        self.in_flight = Some(InFlight { tag, command: command.name(), sent: now, rest: encoded.rest });
        self.actions.push(Action::Send(encoded.first));
        self.wait(command.name(), self.plan.command_timeout, self.plan.command_timeout * 10, now);
        Ok(())
    }

    fn encode(&mut self, command: &Command<'_>) -> Result<(String, Encoded), Ending> {
        self.tag_count += 1;
        let tag = format!("{}{}", self.plan.tag_prefix, self.tag_count);
        let encoded = command.encode(&tag, self.capabilities).map_err(|_| Ending::Unsendable)?;
        Ok((tag, encoded))
    }

    /// Leaves IDLE for `command`, and enters it again, in one write. `command` has no literal.
    pub(super) fn send_between_idles(&mut self, command: &Command<'_>, now: Instant) -> Result<(), Ending> {
        let mut line = done().as_bytes().to_vec();
        for command in [command, &Command::Idle] {
            let (tag, encoded) = self.encode(command)?;
            line.extend_from_slice(encoded.first.as_bytes());
            let (command, rest) = (command.name(), VecDeque::new());
            self.behind.push(InFlight { tag, command, sent: now, rest });
        }
        self.pipelining.begin();
        self.actions.push(Action::Send(line.into()));
        self.wait(command.name(), self.plan.command_timeout, self.plan.command_timeout * 10, now);
        Ok(())
    }

    /// The command in flight is completed, and the one behind it moves up.
    fn move_up(&mut self) {
        self.in_flight = (!self.behind.is_empty()).then(|| self.behind.remove(0));
        if self.behind.is_empty() {
            self.behind = Vec::new();
        }
    }

    /// Commands that were sent ahead, if there are any, were answered otherwise than in order.
    /// IDLE ends when we want it to, which says nothing of the server.
    fn note_answer(&mut self, now: Instant) {
        let command = self.in_flight.as_ref().filter(|sent| sent.command != Command::Idle.name());
        self.answered = command.map(|InFlight { command, sent, .. }| Answered {
            command,
            took: now.saturating_duration_since(*sent),
        });
    }

    pub(super) fn pipelining_broke(&mut self) {
        if self.pipelining.broke() {
            self.act(Action::PipeliningBroke);
        }
    }

    /// Sends `command` and goes to `phase`.
    pub(super) fn send_then(&mut self, command: &Command<'_>, now: Instant, phase: Phase) -> Phase {
        match self.send(command, now) {
            Ok(()) => phase,
            Err(ending) => self.end(ending),
        }
    }

    /// Waits until `timeout` after the last sign of life, and `hard` at most.
    pub(super) fn wait(&mut self, awaiting: &'static str, timeout: Duration, hard: Duration, now: Instant) {
        self.awaiting = awaiting;
        self.deadline = now + timeout;
        self.hard_deadline = now + hard;
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn end(&mut self, ending: Ending) -> Phase {
        if matches!(ending, Ending::Protocol(ProtocolError::Unexpected { .. })) {
            self.pipelining_broke();
        }
        self.in_flight = None;
        self.actions.push(Action::End(ending));
        Phase::Ended
    }

    /// A mailbox begins anew: whether one did already in this conversation. A server that goes on so makes only noise.
    pub(super) fn is_another_epoch(&mut self) -> bool {
        self.epochs += 1;
        self.epochs > 1
    }

    pub(super) fn unexpected(&mut self, got: &'static str) -> Phase {
        let awaiting = self.awaiting;
        self.end(Ending::Protocol(ProtocolError::Unexpected { awaiting, got }))
    }

    /// NO or BAD to a command that has no rule of its own.
    pub(super) fn refused(&mut self, command: &'static str, text: &StatusText) -> Phase {
        self.end(Ending::CommandRefused { command, refusal: Refusal::of(text) })
    }

    pub(super) fn log_out(&mut self, now: Instant) -> Phase {
        let phase = self.send_then(&Command::Logout, now, Phase::AwaitLogout);
        self.wait("LOGOUT", Duration::from_secs(2), Duration::from_secs(2), now);
        phase
    }
}

/// The inputs.
impl Shared {
    fn reply(&mut self, phase: Phase, reply: Reply, now: Instant) -> Phase {
        if matches!(phase, Phase::Ended) {
            return Phase::Ended;
        }
        let Some(reply) = self.continued(reply) else { return phase };
        let (mut phase, reply) = match (phase, reply) {
            (Phase::AwaitLogin(login), Reply::Continue(challenge)) => {
                return login.challenged(self, &challenge);
            }
            both => both,
        };
        let kind = Kind::of(&reply);
        match rule(phase.state(), kind) {
            Rule::Take => {}
            Rule::Ignore if self.rounds.is_some() && matches!(kind, Kind::List | Kind::MailboxStatus) => {}
            Rule::Ignore if matches!((&phase, kind), (Phase::Looking(_), Kind::MailboxStatus)) => {}
            Rule::Ignore => {
                match &mut phase {
                    Phase::Searching(searching) => searching.overheard(kind),
                    Phase::OneShot(question) => question.overheard(kind),
                    _ => {}
                }
                return self.ignore(phase);
            }
            Rule::End if matches!(phase, Phase::AwaitGreeting) && kind == Kind::Unreadable => {
                return self.end(Ending::Protocol(ProtocolError::NotImap));
            }
            Rule::End => return self.unexpected(kind.as_str()),
        }
        self.note_capabilities(&phase, &reply);
        self.note_alert(&phase, &reply);
        match reply {
            Reply::Untagged { status: Status::Bye, text } => self.bye(&phase, &text),
            Reply::Tagged { tag, .. } if self.in_flight.as_ref().is_none_or(|command| command.tag != tag) => {
                if self.behind.iter().any(|command| command.tag == tag) {
                    self.pipelining_broke();
                }
                self.end(Ending::Protocol(ProtocolError::UnknownTag))
            }
            Reply::Tagged { status, text, .. } => {
                // It does what it is asked to: what it said besides was no mere noise.
                self.ignored = 0;
                self.note_answer(now);
                self.move_up();
                self.completed(phase, status, &text, now)
            }
            reply => {
                if let Some(selected) = phase.selected() {
                    selected.told(&reply, now);
                }
                self.told_of_others(&mut phase, &reply, now);
                self.data(phase, reply, now)
            }
        }
    }

    /// What the server tells of mailboxes that are not open.
    fn told_of_others(&mut self, phase: &mut Phase, reply: &Reply, now: Instant) {
        match reply {
            Reply::MailboxStatus(status) => {
                self.status_told(status, phase.selected().map(|selected| selected.mailbox()));
            }
            Reply::List(_) if !phase.awaits_list() => self.mailboxes_changed(now),
            Reply::Untagged { text, .. }
                if text.code.as_ref().is_some_and(|code| code.name() == "NOTIFICATIONOVERFLOW") =>
            {
                self.notifications_overflowed(now);
            }
            _ => {}
        }
    }

    /// A `+` that a literal or a SASL exchange waits for is answered here; any other reply is given back.
    fn continued(&mut self, reply: Reply) -> Option<Reply> {
        if let Reply::Continue(_) = reply
            && let Some(line) = self.in_flight.as_mut().and_then(|command| command.rest.pop_front())
        {
            self.actions.push(Action::Send(line));
            return None;
        }
        Some(reply)
    }

    fn ignore(&mut self, phase: Phase) -> Phase {
        self.ignored += 1;
        if self.ignored > MOST_IGNORED {
            return self.end(Ending::Protocol(ProtocolError::Flood));
        }
        phase
    }

    /// The newest list counts, wherever it stands. Nothing told before the TLS handshake survives it.
    fn note_capabilities(&mut self, phase: &Phase, reply: &Reply) {
        let tokens = match reply {
            Reply::Capability(tokens) => tokens,
            Reply::Tagged { status: Status::Ok, text, .. } | Reply::Untagged { status: Status::Ok, text } => {
                match &text.code {
                    Some(Code::Capability(tokens)) => tokens,
                    _ => return,
                }
            }
            Reply::Untagged { status: Status::PreAuth, text } => match &text.code {
                Some(Code::Capability(tokens)) => tokens,
                _ => return,
            },
            _ => return,
        };
        // async-imap's parser takes `* ENABLED` for a list of capabilities.
        if !matches!(phase, Phase::AwaitStartTls | Phase::AwaitTls | Phase::AwaitEnabled) {
            let offered = Capabilities::new(tokens);
            self.capabilities = if self.plan.sasl_ir { offered } else { offered.without("SASL-IR") };
        }
    }

    /// An ALERT counts only once the server is known to be the one: nothing told in clear before TLS is passed on.
    fn note_alert(&mut self, phase: &Phase, reply: &Reply) {
        let (Reply::Tagged { text, .. } | Reply::Untagged { text, .. }) = reply else { return };
        let is_trusted = self.plan.security != Security::StartTls && !matches!(phase, Phase::AwaitTls);
        if is_trusted && text.code.as_ref().is_some_and(|code| code.name() == "ALERT") {
            self.act(Action::Alert(text.text.clone()));
        }
    }

    fn bye(&mut self, phase: &Phase, text: &StatusText) -> Phase {
        match phase {
            // The BYE that we asked for; its completion need not be waited for.
            Phase::AwaitLogout => self.end(Ending::LoggedOut),
            _ => self.end(Ending::Bye(Refusal::of(text))),
        }
    }

    /// The completion of the command in flight.
    fn completed(&mut self, phase: Phase, status: Status, text: &StatusText, now: Instant) -> Phase {
        let ok = status == Status::Ok;
        match phase {
            Phase::AwaitCapability { .. } if !ok => self.refused("CAPABILITY", text),
            Phase::AwaitCapability { logged_in: false } => self.greeted(now),
            Phase::AwaitCapability { logged_in: true } => self.identify(now),
            Phase::AwaitStartTls if ok => {
                self.act(Action::StartTls);
                self.wait(
                    "the TLS handshake",
                    self.plan.greeting_timeout * 2,
                    self.plan.greeting_timeout * 2,
                    now,
                );
                Phase::AwaitTls
            }
            Phase::AwaitStartTls => self.end(Ending::TlsUnavailable(TlsUnavailable::Refused)),
            Phase::AwaitLogin(login) => login.completed(self, status, text, now),
            // Whatever the server thinks of our name.
            Phase::AwaitId => self.enable(now),
            Phase::AwaitEnabled if !ok && self.capabilities.needs_utf8() => self.refused("ENABLE", text),
            Phase::AwaitEnabled => self.pursue(now),
            Phase::Locating(phase) => phase.completed(self, status, text, now),
            Phase::Examining(phase) => phase.completed(self, status, text, now),
            Phase::ProbingUidNext(phase) => phase.completed(self, status, text, now),
            Phase::Dating(phase) => phase.completed(self, status, text, now),
            Phase::Searching(phase) => phase.completed(self, status, text, now),
            Phase::Fetching(phase) => phase.completed(self, status, text, now),
            Phase::Notifying(phase) => phase.completed(self, status, now),
            Phase::Idle(phase) => phase.completed(self, status, now),
            Phase::Polling(phase) => phase.completed(self, status, text, now),
            Phase::Looking(phase) => phase.completed(self, status, text, now),
            Phase::Round(phase) => phase.completed(self, status, text, now),
            Phase::OneShot(phase) => phase.completed(self, status, text, now),
            Phase::AwaitLogout => self.end(Ending::LoggedOut),
            Phase::AwaitGreeting
            | Phase::AwaitTls
            | Phase::AwaitReceipt(_)
            | Phase::Recalling(_)
            | Phase::Ended => self.end(Ending::Protocol(ProtocolError::UnknownTag)),
        }
    }

    /// Untagged data and continuation requests.
    fn data(&mut self, phase: Phase, reply: Reply, now: Instant) -> Phase {
        match (phase, reply) {
            (Phase::AwaitGreeting, Reply::Untagged { status, text }) => {
                self.pipelining.introduced(&text.text);
                self.greeting(status, now)
            }
            (phase, Reply::Id(name)) => {
                self.pipelining.introduced(&name);
                phase
            }
            (Phase::AwaitLogin(mut login), Reply::Capability(_)) => {
                login.capabilities_told();
                Phase::AwaitLogin(login)
            }
            (Phase::Locating(mut phase), Reply::List(entry)) => {
                phase.listed(entry);
                Phase::Locating(phase)
            }
            (Phase::Examining(mut phase), reply) => {
                phase.told(&reply);
                Phase::Examining(phase)
            }
            (Phase::ProbingUidNext(mut phase), Reply::Fetch(items)) => {
                phase.told(&items);
                Phase::ProbingUidNext(phase)
            }
            (Phase::Dating(mut phase), Reply::Fetch(items)) => {
                phase.told(&items);
                Phase::Dating(phase)
            }
            (Phase::Searching(mut phase), reply) => {
                phase.told(&reply);
                Phase::Searching(phase)
            }
            (Phase::Fetching(mut phase), Reply::Fetch(items)) => {
                phase.told(&items, &self.plan.wanted);
                Phase::Fetching(phase)
            }
            (Phase::Idle(phase), Reply::Continue(_)) => phase.accepted(self, now),
            (Phase::Idle(phase), Reply::Exists(_)) => phase.pushed(self, now),
            (Phase::Idle(phase), Reply::Fetch(items)) => phase.fetched(self, &items, now),
            (
                Phase::Idle(phase),
                Reply::Untagged { .. }
                | Reply::MailboxStatus(_)
                | Reply::List(_)
                | Reply::Expunge(_)
                | Reply::Vanished { .. },
            ) => phase.remarked(self, now),
            (Phase::AwaitEnabled, Reply::Capability(enabled)) => {
                self.qresync = enabled.iter().any(|name| name.eq_ignore_ascii_case("QRESYNC"));
                Phase::AwaitEnabled
            }
            (Phase::Looking(mut phase), reply) => {
                phase.told(&reply);
                Phase::Looking(phase)
            }
            (Phase::Round(mut phase), reply) => {
                phase.told(&reply);
                Phase::Round(phase)
            }
            (Phase::OneShot(mut phase), reply) => {
                phase.told(reply, &self.plan.wanted);
                Phase::OneShot(phase)
            }
            (phase, _) => phase,
        }
    }

    fn secured(&mut self, phase: Phase, now: Instant) -> Phase {
        match phase {
            Phase::AwaitTls => {
                self.capabilities = Capabilities::default();
                self.plan.security = Security::Implicit;
                self.ask_capability(false, now)
            }
            phase => phase,
        }
    }

    fn elapsed(&mut self, phase: Phase, quiet: bool, now: Instant) -> Phase {
        match phase {
            Phase::Idle(phase) if phase.is_resting() => phase.elapsed(self, now),
            Phase::Polling(phase) if phase.is_resting() => phase.ask(self, now),
            Phase::AwaitReceipt(selected) => selected.rest(self, now),
            Phase::Round(phase) if phase.is_pausing() => phase.go_on(self, now),
            Phase::AwaitLogout => self.end(Ending::LoggedOut),
            Phase::Ended => Phase::Ended,
            phase if !quiet && now < self.hard_deadline => {
                self.deadline = (now + self.plan.command_timeout).min(self.hard_deadline);
                phase
            }
            _ => {
                let awaiting = self.awaiting;
                self.end(Ending::TimedOut { awaiting })
            }
        }
    }

    fn delivered(&mut self, phase: Phase, receipt: &Receipt, now: Instant) -> Phase {
        match phase {
            Phase::AwaitReceipt(mut selected) => {
                selected.delivered(receipt, self);
                selected.proceed(self, now)
            }
            Phase::Idle(phase) => phase.delivered(receipt, self, now),
            Phase::Polling(phase) => phase.delivered(receipt, self, now),
            phase => phase,
        }
    }

    /// Phases that await an answer have a deadline that is near anyway.
    fn probe(&mut self, phase: Phase, by: Instant) -> Phase {
        let resting = match &phase {
            Phase::Idle(phase) => phase.is_resting(),
            Phase::Polling(phase) => phase.is_resting(),
            _ => false,
        };
        if resting {
            self.deadline = self.deadline.min(by);
        }
        phase
    }

    fn stop(&mut self, phase: Phase, now: Instant) -> Phase {
        self.stopping = true;
        match phase {
            Phase::Idle(phase) => phase.stop(self, now),
            Phase::Polling(phase) if phase.is_resting() => phase.stop(self, now),
            Phase::Round(phase) if phase.is_pausing() => phase.go_on(self, now),
            Phase::Round(phase) => Phase::Round(phase),
            phase if matches!(phase.state(), State::Selected | State::LoggingOut) => phase,
            // A login under way is not cut in the middle: the server would count it.
            Phase::AwaitLogin(login) => Phase::AwaitLogin(login),
            _ => self.end(Ending::LoggedOut),
        }
    }
}

/// From the greeting to the goal.
impl Shared {
    fn greeting(&mut self, status: Status, now: Instant) -> Phase {
        match (status, self.plan.security) {
            (Status::PreAuth, Security::StartTls) => {
                self.end(Ending::TlsUnavailable(TlsUnavailable::PreAuth))
            }
            (Status::PreAuth, _) if !self.plan.allow_preauth => {
                self.end(Ending::Protocol(ProtocolError::PreAuth))
            }
            (Status::PreAuth, _) => {
                self.act(Action::LoggedIn);
                self.logged_in(!self.capabilities.is_imap(), now)
            }
            _ if self.capabilities.is_imap() => self.greeted(now),
            _ => self.ask_capability(false, now),
        }
    }

    fn ask_capability(&mut self, logged_in: bool, now: Instant) -> Phase {
        self.send_then(&Command::Capability, now, Phase::AwaitCapability { logged_in })
    }

    /// Greeted, capabilities known: TLS first, then the login.
    fn greeted(&mut self, now: Instant) -> Phase {
        if self.stopping {
            return self.log_out(now);
        }
        match self.plan.security {
            Security::StartTls if self.capabilities.has("STARTTLS") => {
                self.send_then(&Command::StartTls, now, Phase::AwaitStartTls)
            }
            Security::StartTls => self.end(Ending::TlsUnavailable(TlsUnavailable::NotOffered)),
            Security::Implicit | Security::Plain => login::begin(self, now),
        }
    }

    /// Logged in: the capabilities may be others now (RFC 9051 section 6.2.3).
    pub(super) fn logged_in(&mut self, ask_capability: bool, now: Instant) -> Phase {
        if ask_capability { self.ask_capability(true, now) } else { self.identify(now) }
    }

    /// ID, which some servers (163.com) require and the others may know us by.
    fn identify(&mut self, now: Instant) -> Phase {
        if self.capabilities.has("ID") {
            self.send_then(&Command::Id, now, Phase::AwaitId)
        } else {
            self.enable(now)
        }
    }

    /// UTF-8, where the server does not do without; QRESYNC, where expunges are told.
    fn enable(&mut self, now: Instant) -> Phase {
        let utf8 = self.capabilities.needs_utf8().then_some("UTF8=ACCEPT");
        let expunges = self.plan.goal.changes().expunges && self.capabilities.has("QRESYNC");
        let extensions: Vec<_> = utf8.into_iter().chain(expunges.then_some("QRESYNC")).collect();
        if extensions.is_empty() || self.stopping {
            return self.pursue(now);
        }
        self.send_then(&Command::Enable(&extensions), now, Phase::AwaitEnabled)
    }

    /// Of changes that are wanted, those are told that the server can tell.
    fn tell_untold_changes(&mut self) {
        let untold = self.plan.goal.changes().untold(self.capabilities.has("CONDSTORE"), self.qresync);
        untold.for_each(|why| self.act(Action::ChangesUntold(why)));
    }

    fn pursue(&mut self, now: Instant) -> Phase {
        if self.stopping {
            return self.log_out(now);
        }
        self.tell_untold_changes();
        // Not needed any more after this, and an idle connection lives for months.
        match std::mem::take(&mut self.plan.goal) {
            Goal::Watch(watch) => Locating::begin(self, *watch, now),
            Goal::WatchMany(choice) => rounds::begin(self, *choice, now),
            Goal::ListMailboxes => list_mailboxes(self, now),
            Goal::Titles(query) => TitleFetch::begin(self, *query, now),
            Goal::Survey(survey) => Surveying::begin(self, *survey, now),
        }
    }
}
