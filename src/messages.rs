//! Every message that crosses an actor boundary, on one page.
//!
//! Awaits point down only: app -> coordinator -> account -> sink. Facts travel up by `try_send`.

use std::fmt;
use std::time::Duration;

use actix::Message;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::{AccountId, AccountState, Cursor, Event, MailboxKey, MailboxName, Trouble};
pub use crate::journal::Receipt;
use crate::memory::Told;
use crate::refusals::Refusals;
use crate::status::{AccountQuery, AccountReport, MailboxReport, MonitorStatus, PastState};

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
}

impl Farewell {
    /// The state that the account is in afterwards, where that is news.
    pub fn state(self) -> Option<AccountState> {
        match self {
            Self::Shutdown | Self::Changed => None,
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
    /// Sections that changed and wait for the next start.
    pub waiting: Vec<String>,
}

impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { added, removed, changed, kept, waiting } = self;
        write!(f, "{added} accounts added, {removed} removed, {changed} changed, {kept} as before")?;
        if waiting.is_empty() {
            return Ok(());
        }
        write!(f, "; these changed and wait for the next start: [{}]", waiting.join("], ["))
    }
}

/// Why a reload changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// The configuration is not valid: its problems, with their places.
    #[error("the configuration has {} problems; the old one stays in force", .0.len())]
    Invalid(Vec<String>),
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
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "String")]
pub struct Scrape;

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

/// App -> sink: open the output files anew (SIGHUP, SIGUSR1).
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct ReopenFiles;
