//! Where events and cursors become durable in one transaction, and where the lanes keep their positions.

pub mod aggregate;
mod checksum;
pub mod lock;
pub mod overview;
#[cfg(feature = "postgres")]
pub mod postgres;
mod question;
mod recent;
pub mod sqlite;
pub mod writer;

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use self::writer::{Blocked, Dropped, JournalHandle, JournalHealth, LaneSpec, Saving};
use crate::cluster::shard::{Holding, ShardSet};
use crate::event::{AccountId, Cursor, Event, MailboxKey};
use crate::memory::Memory;
use crate::messages::{Batch, Checkpoint, Note};
use crate::refusals::Refusals;

/// Proof that a batch is durable. Only the journal makes one, and only one of these moves an account's cursor.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    checkpoint: Option<(MailboxKey, Cursor)>,
    sequences: Option<RangeInclusive<u64>>,
}

impl Receipt {
    /// The cursor as it was stored.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.checkpoint.as_ref().map(|(_, cursor)| cursor)
    }

    /// The `event.sequence` numbers of the batch's events.
    pub fn sequences(&self) -> Option<RangeInclusive<u64>> {
        self.sequences.clone()
    }
}

/// Why nothing of an entry was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unstored {
    /// The journal does not hold what its checkpoint replaces.
    #[error("the cursor has moved since it was read")]
    Superseded,
    /// The journal cannot read what it needs for this entry, while others were stored: it may be later.
    #[error("a part of the journal's database cannot be read")]
    Unreadable,
}

/// A batch with its events encoded: what a commit takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    events: Vec<Encoded>,
    checkpoint: Option<Checkpoint>,
    notes: Vec<Note>,
}

/// An event, and as it is stored.
#[derive(Clone, Debug, PartialEq)]
struct Encoded {
    event: Arc<Event>,
    payload: String,
}

impl Entry {
    /// Encodes a batch.
    pub fn new(batch: Batch) -> Self {
        let encode = |event: Event| {
            // The event's own types can always be written.
            let payload = serde_json::to_string(&event).ok()?;
            Some(Encoded { event: Arc::new(event), payload })
        };
        Self {
            events: batch.events.into_iter().filter_map(encode).collect(),
            checkpoint: batch.checkpoint,
            notes: batch.notes,
        }
    }

    /// Bytes of its events.
    pub fn bytes(&self) -> u64 {
        self.events.iter().map(|encoded| encoded.payload.len() as u64).sum()
    }

    /// How many events it holds.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether it changes the cursor of this mailbox.
    pub fn is_of(&self, key: &MailboxKey) -> bool {
        self.mailbox() == Some(key)
    }

    /// The mailbox whose cursor it changes.
    pub fn mailbox(&self) -> Option<&MailboxKey> {
        let noted = self.notes.iter().find_map(|note| match note {
            Note::Blind { key, .. } | Note::Gone { key, .. } => Some(key),
            Note::Refusals { .. }
            | Note::Told { .. }
            | Note::IdlePeriod { .. }
            | Note::NoPipelining { .. } => None,
        });
        self.checkpoint.as_ref().map(|checkpoint| &checkpoint.key).or(noted)
    }

    /// The account that it is about, if it is about one.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "a file has all accounts"))]
    fn account(&self) -> Option<&AccountId> {
        let noted = self.notes.iter().find_map(|note| match note {
            Note::Refusals { account, .. } => Some(account),
            Note::Told { key, .. } | Note::Blind { key, .. } | Note::Gone { key, .. } => Some(&key.account),
            Note::IdlePeriod { .. } | Note::NoPipelining { .. } => None,
        });
        let told = || self.events.iter().find_map(|encoded| encoded.event.account.as_ref());
        let checkpoint = self.checkpoint.as_ref().map(|checkpoint| &checkpoint.key.account);
        checkpoint.or(noted).or_else(|| told().map(|identity| &identity.id))
    }

    /// Whether it holds no event.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// An event with its number.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalledEvent {
    /// `event.sequence`
    pub sequence: u64,
    /// The event.
    pub event: Arc<Event>,
    /// The outputs that had it from the monitor that it was taken over from.
    pub had: Vec<String>,
}

/// How far an output has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LanePosition {
    /// Everything up to this sequence was taken.
    pub sequence: u64,
    /// For files: which file, and where it ends as far as it is ours.
    pub file: Option<FileEnd>,
}

/// The end of an output file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileEnd {
    /// Device and inode: another file at the same path is another generation.
    pub generation: String,
    /// Bytes.
    pub offset: u64,
}

/// All accounts that the configuration has in some shards, and how far the journal has come in comparing what it knows with
/// them. It does so by small steps, since there may be very many, and at each has the whole list: what is undone when a process
/// ends is done by the next.
#[derive(Clone, Debug)]
pub struct Configured {
    accounts: HashSet<AccountId>,
    /// Of the others nothing is known.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "a file has all shards"))]
    shards: ShardSet,
    /// When it was read.
    at: Timestamp,
    /// What it has come to, in words of the journal's own.
    place: String,
}

impl Configured {
    /// The configuration had these accounts then, and in these shards no others.
    pub fn new(accounts: HashSet<AccountId>, shards: ShardSet, at: Timestamp) -> Self {
        Self { accounts, shards, at, place: String::new() }
    }

    fn has(&self, account: &str) -> bool {
        self.accounts.contains(&AccountId::new(account))
    }

    /// From there, the next time. Whether there is none.
    fn goes_on(&mut self, place: Option<String>) -> bool {
        place.map(|place| self.place = place).is_none()
    }
}

/// Whether there was state before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateOrigin {
    /// None: everything begins with a baseline.
    New,
    /// There was.
    Existing,
}

/// How long a mailbox that is gone is remembered: it may come back.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What keeps events, cursors and lane positions.
///
/// There is no way to save a cursor without the events that it covers, nor the other way round.
pub trait Journal: Send {
    /// Makes entries durable, and lane positions with them: one transaction. Of an entry whose cursor has moved since it
    /// was read nothing is stored, whoever moved it.
    ///
    /// # Errors
    /// Nothing of it is kept then.
    fn commit(
        &mut self,
        entries: &[Entry],
        positions: &[(String, LanePosition)],
    ) -> Result<Vec<Result<Receipt, Unstored>>, JournalError>;

    /// The cursor of a mailbox, of its current epoch.
    ///
    /// # Errors
    /// When the journal cannot be read, or the row is damaged.
    fn cursor(&mut self, key: &MailboxKey) -> Result<Option<Cursor>, JournalError>;

    /// What was told of a mailbox lately.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn memory(&mut self, key: &MailboxKey) -> Result<Memory, JournalError>;

    /// The refused logins of an account.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn refusals(&mut self, account: &AccountId) -> Result<Refusals, JournalError>;

    /// How long IDLE may last, by host, where that was learned.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn idle_periods(&mut self) -> Result<Vec<(String, Duration)>, JournalError>;

    /// The hosts that do not take commands that are sent ahead.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn unpipelined(&mut self) -> Result<Vec<String>, JournalError>;

    /// A monitor begins: no mailbox has been watched since the one before was known to live.
    ///
    /// # Errors
    /// When the journal cannot be written.
    fn begin(&mut self, now: Timestamp) -> Result<(), JournalError>;

    /// Remembers that the monitor lives, and looks what has changed hands: [`Self::holding`] says so afterwards.
    ///
    /// # Errors
    /// When the journal cannot be written.
    fn alive(&mut self, now: Timestamp) -> Result<(), JournalError>;

    /// One step: of some accounts that are known, those that have left the configuration are absent since it was read, and
    /// those that are back are not absent any more. Whether all were looked at.
    ///
    /// # Errors
    /// When the journal cannot be written.
    fn compare(&mut self, configured: &mut Configured) -> Result<bool, JournalError>;

    /// Forgets mailboxes that are not there any more, or whose accounts are not, for [`KEPT`] before `now`. How many.
    ///
    /// # Errors
    /// When the journal cannot be written.
    fn forget_gone(&mut self, now: Timestamp) -> Result<usize, JournalError>;

    /// The next `most` events after `sequence`: up to the first that another is to tell, who has not taken it yet.
    ///
    /// # Errors
    /// When the journal cannot be read, or a row of a file is damaged; one of a database is set aside.
    fn pending(&mut self, after: u64, most: usize) -> Result<Vec<JournalledEvent>, JournalError>;

    /// Whether anything at all waits behind `sequence`, whoever is to tell it.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn has_after(&mut self, sequence: u64) -> Result<bool, JournalError>;

    /// The lanes that are to be known from now on, and where each stands; a new one begins with the oldest event.
    ///
    /// # Errors
    /// When the journal cannot be written.
    fn lanes(&mut self, names: &[String]) -> Result<Vec<LanePosition>, JournalError>;

    /// Forgets events up to `sequence`.
    ///
    /// # Errors
    /// When the journal cannot be written.
    fn forget(&mut self, sequence: u64) -> Result<(), JournalError>;

    /// The accounts of whom it has lost what it had taken, since this was asked last: their mailboxes are where it says.
    fn forgotten(&mut self) -> Vec<AccountId> {
        Vec::new()
    }

    /// What is said of our accounts to those who look at the whole: their states, as a JSON object.
    fn describe(&mut self, _: String) {}

    /// The accounts, by shards, whose events and cursors it takes: all of them, where there is nobody else.
    fn holding(&self) -> Holding {
        Holding::ALONE
    }

    /// Nobody watches the accounts of these shards here any more: others may have them, with what waits for outputs.
    ///
    /// # Errors
    /// When the journal cannot be written.
    fn hand_over(&mut self, _: &ShardSet, _: Timestamp) -> Result<(), JournalError> {
        Ok(())
    }

    /// Nothing is written any more: leaves everything as others want to find it. In one file, for whoever copies that one
    /// alone; free, for whoever waits for it.
    fn tidy(&mut self);

    /// How often it wants to be told that the monitor lives.
    fn rhythm(&self) -> Duration;

    /// Bytes of the events that are kept.
    fn bytes(&self) -> u64;

    /// What was found damaged since it was opened. A file is looked at before it is used.
    fn damage(&self) -> Damage {
        Damage::default()
    }

    /// The last sequence given.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn last(&mut self) -> Result<u64, JournalError>;
}

/// How much of a database was not what was written: each is told, and gone without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Events, which nobody is told of.
    pub events: u64,
    /// Cursors, whose mailboxes begin anew.
    pub cursors: u64,
    /// Positions of outputs, which get again what is still there.
    pub positions: u64,
    /// Refused logins of accounts, which are counted anew.
    pub refusals: u64,
    /// Pages that the database cannot read: what needs them waits.
    pub pages: u64,
}

/// What goes wrong with an open journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// No room; it may come back.
    #[error("the disk of the journal is full")]
    DiskFull,
    /// Its database does not answer; it may again.
    #[error("the journal's database cannot be reached")]
    Unreachable,
    /// Its database has a damaged page; a person may mend it.
    #[error("a part of the journal's database cannot be read")]
    Unreadable,
    /// It is another monitor's now: nothing of ours is stored any more.
    #[error("another monitor has taken the journal over")]
    TakenOver,
    /// For good: what is on disk is known again only after a restart.
    #[error("the journal failed: {0}")]
    Failed(String),
    /// Nobody writes it any more.
    #[error("the journal is closed")]
    Closed,
}

impl JournalError {
    /// Whether the same may succeed later, without a restart.
    pub fn passes(&self) -> bool {
        Blocked::by(self).is_some()
    }
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum OpenError {
    #[error("{path}: {cause}", path = path.display())]
    StateDir { path: PathBuf, cause: std::io::Error },
    #[error("{path}: others may enter it (mode {mode:o}); the journal holds mail metadata: chmod 700 it", path = path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{path}: others may read it (mode {mode:o}); the journal holds mail metadata: chmod 600 it", path = path.display())]
    Readable { path: PathBuf, mode: u32 },
    #[error("{path} is locked by another idlewatch{by}", path = path.display(), by = pid.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked { path: PathBuf, pid: Option<String> },
    #[error("{path} is damaged: {cause}; `idlewatch state repair` keeps what is whole of it, `idlewatch run --new-state` moves it aside and begins anew: every mailbox with a baseline", path = path.display())]
    Damaged { path: PathBuf, cause: String },
    #[error("{path} was written by a newer idlewatch (schema {version})", path = path.display())]
    Newer { path: PathBuf, version: i64 },
    #[error("{path} was written by an older idlewatch (schema {version}): `idlewatch run` brings it up to date, with the state", path = path.display())]
    Older { path: PathBuf, version: i64 },
    #[error("there is no state in {path}, and monitor.require_state is set", path = path.display())]
    NoState { path: PathBuf },
    #[error("the journal's database: {0}")]
    Away(String),
    #[error("the journal's database: {0}")]
    Database(String),
    #[error(
        "the journal is {by}'s, which is alive; it is free once that has stopped, or has shown no life for its journal.ttl"
    )]
    Held { by: String },
}
