//! Every message that crosses an actor boundary, on one page.
//!
//! Awaits point down only: app -> coordinator -> account -> sink. Facts travel up by `try_send`.

use std::fmt;
use std::time::Duration;

use actix::Message;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cluster::report::MemberReport;
use crate::config::settings::OutputSettings;
use crate::config::{Issue, Severity, shown};
use crate::event::{AccountId, AccountState, Cursor, Event, MailboxKey, MailboxName, Trouble};
use crate::imap::conversation::ToldFrom;
pub use crate::journal::Receipt;
use crate::memory::Told;
use crate::refusals::Refusals;
use crate::sink::health::OutputHealth;
use crate::status::{AccountQuery, AccountReport, MailboxReport, MonitorStatus, PastState};
use crate::text::{self, counted};

/// What one account hands over in one piece: all of it becomes durable, or none of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// In the order in which they are to be told.
    pub events: Vec<Event>,
    /// Where the mailbox stands once these events are told; `None` for events without a message.
    pub checkpoint: Option<Checkpoint>,
    /// What else has to outlive the process.
    pub notes: Vec<Note>,
}

impl From<Event> for Batch {
    fn from(event: Event) -> Self {
        Self { events: vec![event], ..Self::default() }
    }
}

impl From<Note> for Batch {
    fn from(note: Note) -> Self {
        Self { notes: vec![note], ..Self::default() }
    }
}

/// What has to outlive the process besides events and cursors.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// The refused logins of an account; none of them once a login was accepted.
    Refusals {
        /// Whose.
        account: AccountId,
        /// All of them.
        refusals: Refusals,
    },
    /// Messages of a mailbox that are told by this batch.
    Told {
        /// Which mailbox.
        key: MailboxKey,
        /// The messages.
        messages: Vec<Told>,
    },
    /// A mailbox is not watched any more; an earlier such moment stays until a checkpoint ends it.
    Blind {
        /// Which.
        key: MailboxKey,
        /// When its connection last proved to be alive.
        since: Timestamp,
    },
    /// The server says that a mailbox is not there; an earlier such moment stays until a checkpoint ends it.
    Gone {
        /// Which.
        key: MailboxKey,
        /// When it said so.
        since: Timestamp,
    },
    /// How long IDLE may last at a host, learned by the connections that were cut.
    IdlePeriod {
        /// Which host.
        host: String,
        /// Shorter than what was known before.
        period: Duration,
    },
    /// A host does not take commands that are sent ahead.
    NoPipelining {
        /// Which host.
        host: String,
    },
}

/// A cursor that is to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Whose it is.
    pub key: MailboxKey,
    /// Where it stands.
    pub cursor: Cursor,
    /// What the journal has to hold until then, or nothing of the batch is stored.
    pub replaces: Replaces,
}

/// What a checkpoint was made from.
#[derive(Clone, Debug, PartialEq)]
pub enum Replaces {
    /// This cursor; since when the mailbox is not watched does not matter.
    Cursor(Box<Cursor>),
    /// The mailbox was met for the first time.
    Nothing,
    /// Whatever there is: a person wants it to begin anew.
    Anything,
    /// Nothing: past messages are told again, and the mailbox stands where it stood.
    Aside,
}

impl From<Option<Box<Cursor>>> for Replaces {
    fn from(before: Option<Box<Cursor>>) -> Self {
        before.map_or(Self::Nothing, Self::Cursor)
    }
}

/// Session or account -> sink: make this durable. Answered only once it is, so waiting is backpressure.
#[derive(Debug, Message)]
#[rtype(result = "Result<Receipt, Undelivered>")]
pub struct Deliver {
    /// What is to be delivered.
    pub batch: Batch,
}

/// Why there is no receipt. The cursor stays; the server will be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// The sink is shutting down, or gone.
    #[error("the monitor is stopping")]
    Stopping,
    /// Another session has told of the mailbox since this one read its cursor.
    #[error("another connection of this monitor has told of the mailbox meanwhile")]
    Superseded,
    /// The journal failed for good; the process is about to end.
    #[error("the journal failed")]
    JournalFailed,
}

/// Session or account -> coordinator: something about an account changed. Sent by `try_send`; the newest wins.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct StatusChanged {
    /// The account.
    pub account: AccountId,
    /// Its state now.
    pub state: AccountState,
    /// What is wrong.
    pub trouble: Option<Trouble>,
    /// The mailbox, where only that one is concerned.
    pub mailbox: Option<MailboxName>,
}

/// Coordinator -> account: end all sessions with DONE and LOGOUT, in at most `deadline`.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct StopAccount {
    /// Then they are dropped.
    pub deadline: Duration,
    /// Why, and so what is told of it.
    pub farewell: Farewell,
}

/// Why an account is no longer watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The process ends.
    Shutdown,
    /// The configuration has it otherwise now: it starts again as that.
    Changed,
    /// It says `enabled = false` now.
    Disabled,
    /// It is gone from the configuration.
    Removed,
    /// Another monitor watches it now.
    HandedOver,
}

impl Farewell {
    /// The state that the account is in afterwards, where that is news.
    pub fn state(self) -> Option<AccountState> {
        match self {
            Self::Shutdown | Self::Changed | Self::HandedOver => None,
            Self::Disabled => Some(AccountState::Disabled),
            Self::Removed => Some(AccountState::Removed),
        }
    }
}

/// App, admin -> coordinator: read the configuration again.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<ReloadReport, ReloadError>")]
pub struct Reload;

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Accounts that are watched since.
    pub added: usize,
    /// Accounts that are no longer watched.
    pub removed: usize,
    /// Accounts that are watched in another way.
    pub changed: usize,
    /// Accounts that did not notice.
    pub kept: usize,
    /// Outputs that were exchanged, in words; empty where none was.
    pub outputs: String,
    /// Sections that changed and wait for the next start.
    pub waiting: Vec<String>,
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resume => "resume",
            Self::Reconnect => "reconnect",
        })
    }
}

impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { added, removed, changed, kept, outputs, waiting } = self;
        let added = counted(*added, "account");
        write!(f, "{added} added, {removed} removed, {changed} changed, {kept} as before")?;
        if !outputs.is_empty() {
            write!(f, "; outputs: {outputs}")?;
        }
        if waiting.is_empty() {
            return Ok(());
        }
        write!(f, "; these changed and wait for the next start: [{}]", waiting.join("], ["))
    }
}

/// Why a reload changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// The configuration is not valid.
    #[error("{} in the configuration; the old one stays in force", counted(*.errors, "problem"))]
    Invalid {
        /// How many there are, without warnings.
        errors: usize,
        /// Each of them with its place, and then the warnings.
        lines: Vec<(Severity, String)>,
    },
    /// Another one is under way; a further one follows it.
    #[error("the configuration is being read; it will be read again after that")]
    Busy,
    /// There is no file to read.
    #[error("this configuration was not read from a file")]
    NoFile,
    /// The process ends.
    #[error("the monitor is stopping")]
    Stopping,
}

impl ReloadError {
    /// All that is wrong with the configuration.
    pub fn invalid(issues: &[Issue]) -> Self {
        let errors = issues.iter().filter(|issue| issue.severity == Severity::Error).count();
        let of = |severity| {
            let issues: Vec<_> = issues.iter().filter(|issue| issue.severity == severity).cloned().collect();
            shown(&issues).into_iter().map(move |line| (severity, line))
        };
        Self::Invalid { errors, lines: of(Severity::Error).chain(of(Severity::Warning)).collect() }
    }

    /// One thing that cannot be had.
    pub fn problem(line: String) -> Self {
        Self::Invalid { errors: 1, lines: vec![(Severity::Error, line)] }
    }
}

/// App -> coordinator: the outputs are open, watch the accounts.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct StartAccounts;

/// App -> coordinator: write to the log how they all are (SIGUSR2).
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Summarize;

/// Admin -> coordinator: how are they all?
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "MonitorStatus")]
pub struct GetStatus;

/// Admin -> coordinator: everything that is counted, as text.
#[derive(Clone, Debug, Default, Message)]
#[rtype(result = "String")]
pub struct Scrape {
    /// Those who share the accounts, where the journal's database has told it.
    pub members: Option<Vec<MemberReport>>,
}

/// Admin -> coordinator: these accounts, by their ids.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Vec<AccountReport>")]
pub struct FindAccounts(pub AccountQuery);

/// Admin -> coordinator: this account; `None` where there is no such account.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Option<AccountReport>")]
pub struct GetAccount(pub AccountId);

/// Admin -> coordinator: somebody wants this of an account; `false` where it is not watched.
#[derive(Clone, Debug, Message)]
#[rtype(result = "bool")]
pub struct Urge {
    /// Which.
    pub account: AccountId,
    /// What.
    pub wish: Wish,
}

/// Admin -> coordinator: the output of this name.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Option<OutputHealth>")]
pub struct FindOutput(pub String);

/// Admin -> coordinator: past messages are to be told again.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<ReplayReport, ReplayError>")]
pub struct Replay {
    /// Whose.
    pub account: AccountId,
    /// A glob; all that are watched where `None`.
    pub mailbox: Option<String>,
    /// From there on.
    pub from: ToldFrom,
    /// The one output that is told; those that filters say where `None`.
    pub output: Option<String>,
}

/// What became of a replay: `/api/v1/accounts/{id}/replay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// The account.
    pub account: AccountId,
    /// `false` while it goes on.
    pub settled: bool,
    /// Whether all that there is was told.
    pub complete: bool,
    /// Events that became durable.
    pub events: usize,
    /// Why not all was told.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// Why there is no replay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Of this name.
    #[error("there is no account \"{}\" that is watched", text::line(.0.as_str(), 128))]
    NoAccount(AccountId),
    /// That matches.
    #[error("no mailbox that is watched matches \"{}\"", text::line(.0, 128))]
    NoMailbox(String),
    /// Of this name.
    #[error("there is no [outputs.{}]", text::line(.0, 128))]
    NoOutput(String),
    /// A UID is of one mailbox.
    #[error("a UID is of one mailbox: name it with --mailbox")]
    ManyMailboxes,
    /// One at a time.
    #[error("past messages are being told again already; one account at a time")]
    Busy,
    /// The process ends.
    #[error("the monitor is stopping")]
    Stopping,
}

/// Coordinator -> account: what a person wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum Wish {
    /// Whatever it waits for, it is to be tried now; refused logins are forgiven.
    Resume,
    /// Its connections are to be made anew.
    Reconnect,
}

/// Coordinator -> account: what only the account itself knows.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "AccountDetails")]
pub struct Describe;

/// What only the account itself knows.
#[derive(Clone, Debug, Default)]
pub struct AccountDetails {
    /// Of the mailboxes that were ever watched, the one that is silent for the longest said something at this moment.
    pub last_proven_alive: Option<Timestamp>,
    /// When the next login may be tried, where that waits for a clock.
    pub next_login_at: Option<Timestamp>,
    /// When the next connection is made, of those that wait for a clock.
    pub next_try_at: Option<Timestamp>,
    /// Its mailboxes.
    pub mailboxes: Vec<MailboxReport>,
    /// Its latest states, the newest last.
    pub history: Vec<PastState>,
}

/// App -> coordinator: stop all accounts.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct StopAccounts {
    /// The time for all of them.
    pub deadline: Duration,
}

/// App -> sink: commit what came, let the outputs take what they can, close them.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "DrainReport")]
pub struct Drain {
    /// What is not taken by then stays in the journal.
    pub deadline: Duration,
}

/// What a drain left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Events that a required output still lacks; they are sent at the next start.
    pub undelivered: u64,
}

/// Coordinator -> sink: these outputs from now on, as far as they are others than before; how each does. Where one cannot be
/// built, nothing has changed.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<OutputHealth>, String>")]
pub struct ExchangeOutputs(pub Vec<OutputSettings>);

/// App -> sink: open the output files anew (SIGHUP, SIGUSR1).
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct ReopenFiles;
