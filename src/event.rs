//! The domain's nouns: accounts, mailboxes, cursors, and the events that tell of them.
//!
//! An [`Event`] is neutral: it holds what is known, capped but not yet shaped for any consumer.
//! `sink::encode` gives it the form that an output asks for. Imports nothing of ours but [`UidSet`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::uid_set::UidSet;

/// The name by which the configuration knows an account; part of every event id.
///
/// Checked by the configuration: `[a-z0-9][a-z0-9._@+-]*`, at most 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountId(Arc<str>);

/// A mailbox name as events show it: decoded from modified UTF-7, `/` between levels, `INBOX` in capitals.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MailboxName(Arc<str>);

macro_rules! text_newtype {
    ($name:ident) => {
        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }
    };
}
text_newtype!(AccountId);
text_newtype!(MailboxName);

impl MailboxName {
    /// The one mailbox that every account has (RFC 9051 section 5.1).
    pub fn inbox() -> Self {
        Self::new("INBOX")
    }

    /// Whether this is `INBOX`.
    pub fn is_inbox(&self) -> bool {
        self.as_str() == "INBOX"
    }
}

/// One mailbox of one account: what a cursor belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MailboxKey {
    /// The account.
    pub account: AccountId,
    /// The mailbox in it.
    pub mailbox: MailboxName,
}

impl fmt::Display for MailboxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.mailbox)
    }
}

/// What has been told of a mailbox: the only memory that decides whether a message is new.
///
/// UIDs are unique only together with the UIDVALIDITY (RFC 9051 section 2.3.1.1). Time plays no part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The epoch that the UIDs belong to; 0, which no server has, only in place of one that was damaged.
    pub uid_validity: u32,
    /// All below are known; a hint for where to ask from. The truth is `seen`.
    pub uid_next: u32,
    /// The UIDs that need no (further) event. The baseline is in it.
    pub seen: UidSet,
    /// HIGHESTMODSEQ (RFC 7162) up to which changes were looked at; `None` without CONDSTORE.
    pub modseq: Option<u64>,
    /// Since when the mailbox is not watched, until that was told.
    pub blind_since: Option<Timestamp>,
    /// The epoch is new, and messages below this UID came before it was met: those that were told already are not
    /// told again. `None` once all of them were looked at.
    pub look_back: Option<u32>,
    /// The mod-sequence (RFC 7162) up to which flags and expunges were told; `None` where they are not.
    pub changes: Option<u64>,
    /// UIDs that no message has any more: a server that forgot when one went may name it again. `None` where expunges
    /// are not told.
    pub gone: Option<UidSet>,
}

impl Cursor {
    /// A first contact: everything below `uid_next` is old.
    pub fn baseline(uid_validity: u32, uid_next: u32, modseq: Option<u64>) -> Self {
        let seen = UidSet::range(1, uid_next.saturating_sub(1));
        Self {
            uid_validity,
            uid_next,
            seen,
            modseq,
            blind_since: None,
            look_back: None,
            changes: None,
            gone: None,
        }
    }
}

/// What the configuration says of an account, as far as its events tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountIdentity {
    /// The account's id.
    pub id: AccountId,
    /// The login name.
    pub user: String,
    /// The server's name or address, as configured.
    pub host: Arc<str>,
    /// The server's port.
    pub port: u16,
    /// The labels of the configuration.
    #[serde(default, skip_serializing_if = "no_labels")]
    pub labels: Arc<BTreeMap<String, String>>,
}

fn no_labels(labels: &BTreeMap<String, String>) -> bool {
    labels.is_empty()
}

/// One thing that happened, ready to be journalled. Its `event.sequence` is given by the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When the monitor saw it.
    pub at: Timestamp,
    /// `event.id`: the same on every resend, see [`crate::event_id`].
    pub id: String,
    /// Whose event it is; `None` for `monitor.state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Arc<AccountIdentity>>,
    /// What happened.
    pub body: EventBody,
    /// What filters say of it; `None` where none applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filtered: Option<Box<Filtered>>,
    /// Fields that [`crate::privacy`] changed; empty in the journal, but for events that were dead letters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<String>,
}

impl Event {
    /// Whether it is meant for the output `name`. What was routed to others is never told to it, whatever became of them:
    /// it may be what it must not know.
    pub fn is_for(&self, name: &str) -> bool {
        let routes = self.filtered.as_ref().map(|filtered| filtered.outputs.as_slice()).unwrap_or_default();
        routes.is_empty() || routes.iter().any(|route| route == name)
    }
}

/// What filters say of an event: see [`crate::filter`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filtered {
    /// The names of those that applied, in their order.
    pub by: Vec<String>,
    /// The outputs that alone take it; all of them where empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// It is not to be told. No journal ever holds such an event.
    #[serde(skip)]
    pub dropped: bool,
}

/// What happened. One variant per `event.action`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action")]
pub enum EventBody {
    /// A message that no event was told of yet.
    #[serde(rename = "message.new")]
    MessageNew(Box<NewMessage>),
    /// The flags of a message that was told are others now.
    #[serde(rename = "message.flags")]
    MessageFlags(Box<FlagsChange>),
    /// A message that was told is gone.
    #[serde(rename = "message.expunged")]
    MessageExpunged(Expunged),
    /// An account (or one mailbox of it) went from one state to another.
    #[serde(rename = "account.state")]
    AccountState(Box<StateChange>),
    /// The UIDVALIDITY of a mailbox changed: a new epoch, a new baseline.
    #[serde(rename = "mailbox.reset")]
    MailboxReset(MailboxReset),
    /// Messages that may have been missed: told, so that silence means that nothing was.
    #[serde(rename = "mailbox.gap")]
    MailboxGap(MailboxGap),
    /// The monitor itself.
    #[serde(rename = "monitor.state")]
    MonitorState(MonitorState),
}

impl EventBody {
    /// `event.action`.
    pub fn action(&self) -> Action {
        match self {
            Self::MessageNew(_) => Action::MessageNew,
            Self::MessageFlags(_) => Action::MessageFlags,
            Self::MessageExpunged(_) => Action::MessageExpunged,
            Self::AccountState(_) => Action::AccountState,
            Self::MailboxReset(_) => Action::MailboxReset,
            Self::MailboxGap(_) => Action::MailboxGap,
            Self::MonitorState(_) => Action::MonitorState,
        }
    }
}

/// The closed list of `event.action` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// `message.new`
    MessageNew,
    /// `message.flags`
    MessageFlags,
    /// `message.expunged`
    MessageExpunged,
    /// `account.state`
    AccountState,
    /// `mailbox.reset`
    MailboxReset,
    /// `mailbox.gap`
    MailboxGap,
    /// `monitor.state`
    MonitorState,
}

impl Action {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::MessageNew,
        Self::MessageFlags,
        Self::MessageExpunged,
        Self::AccountState,
        Self::MailboxReset,
        Self::MailboxGap,
        Self::MonitorState,
    ];

    /// Those that are on unless the configuration says otherwise: what becomes of a message later is much, and the
    /// server has to keep mod-sequences.
    pub const ON: [Self; 5] =
        [Self::MessageNew, Self::AccountState, Self::MailboxReset, Self::MailboxGap, Self::MonitorState];

    /// As in `event.action` and in `events.include`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MessageNew => "message.new",
            Self::MessageFlags => "message.flags",
            Self::MessageExpunged => "message.expunged",
            Self::AccountState => "account.state",
            Self::MailboxReset => "mailbox.reset",
            Self::MailboxGap => "mailbox.gap",
            Self::MonitorState => "monitor.state",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Special use of a mailbox (RFC 6154), and `INBOX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each is the RFC's name")]
pub enum Role {
    Inbox,
    All,
    Archive,
    Drafts,
    Flagged,
    Important,
    Junk,
    Sent,
    Trash,
}

impl Role {
    /// The role that a LIST attribute names, whatever its case.
    pub fn from_attribute(attribute: &str) -> Option<Self> {
        let roles = [
            ("\\All", Self::All),
            ("\\Archive", Self::Archive),
            ("\\Drafts", Self::Drafts),
            ("\\Flagged", Self::Flagged),
            ("\\Important", Self::Important),
            ("\\Inbox", Self::Inbox),
            ("\\Junk", Self::Junk),
            ("\\Sent", Self::Sent),
            ("\\Trash", Self::Trash),
        ];
        roles.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(attribute)).map(|(_, role)| role)
    }

    /// As in `idlewatch.mailbox.role`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::All => "all",
            Self::Archive => "archive",
            Self::Drafts => "drafts",
            Self::Flagged => "flagged",
            Self::Important => "important",
            Self::Junk => "junk",
            Self::Sent => "sent",
            Self::Trash => "trash",
        }
    }
}

/// How a message was noticed: `idlewatch.source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The server told it during IDLE (RFC 2177).
    Idle,
    /// The server pushed it (NOTIFY, RFC 5465).
    Notify,
    /// A poll or a check round found it.
    Poll,
    /// It was waiting when the session began.
    Sync,
    /// A person wanted it to be told again.
    Replay,
}

impl Source {
    /// As in `idlewatch.source`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Notify => "notify",
            Self::Poll => "poll",
            Self::Sync => "sync",
            Self::Replay => "replay",
        }
    }
}

/// One address of a header, decoded and made harmless.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `local@domain`, the domain in lower case.
    pub address: String,
}

/// A header that filters ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedHeader {
    /// Decoded and made harmless.
    pub values: Vec<String>,
    /// There is more of it than is kept.
    pub cut: bool,
}

/// The most attachments that are kept of a message.
pub const MOST_ATTACHMENTS: usize = 20;

/// One attachment, as BODYSTRUCTURE tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The file's name, decoded and made harmless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The media type, lower case.
    pub mime_type: String,
    /// Octets in the transfer encoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// `message.new`: what is known of a message. Absent means unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMessage {
    /// The mailbox it lies in.
    pub mailbox: MailboxName,
    /// The mailbox's role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// How many messages the mailbox held (EXISTS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<u32>,
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// UID.
    pub uid: u32,
    /// How it was noticed.
    pub source: Source,
    /// Found by the look-back after a UIDVALIDITY change.
    #[serde(default)]
    pub epoch_changed: bool,
    /// All that the FETCH told.
    pub summary: MessageSummary,
}

/// `message.flags`: what the flags of a message are now. What they were before is known to no one here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagsChange {
    /// The mailbox it lies in.
    pub mailbox: MailboxName,
    /// The mailbox's role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// UID.
    pub uid: u32,
    /// All of its flags, harmless.
    pub flags: Vec<String>,
    /// The mod-sequence of the change (RFC 7162).
    pub modseq: u64,
    /// How it was noticed.
    pub source: Source,
}

/// `message.expunged`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expunged {
    /// The mailbox it lay in.
    pub mailbox: MailboxName,
    /// The mailbox's role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// The UID it had.
    pub uid: u32,
    /// How it was noticed.
    pub source: Source,
}

/// What FETCH tells of one message: decoded, capped, harmless. Made by `imap::summary`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageSummary {
    /// FLAGS; `None` where not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<String>>,
    /// MODSEQ (RFC 7162).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modseq: Option<u64>,
    /// EMAILID (RFC 8474), or X-GM-MSGID as decimal text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_id: Option<String>,
    /// THREADID (RFC 8474), or X-GM-THRID as decimal text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<String>,
    /// RFC822.SIZE, octets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// INTERNALDATE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_at: Option<Timestamp>,
    /// The Date header, where it can be parsed and its year is within 1970..=2100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
    /// Message-ID without `<>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Subject, decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// From.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Address>,
    /// Sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<Address>,
    /// Reply-To.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reply_to: Vec<Address>,
    /// To, groups flattened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Address>,
    /// Cc.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cc: Vec<Address>,
    /// Bcc.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bcc: Vec<Address>,
    /// To, Cc and Bcc together, before any list was cut.
    #[serde(skip_serializing_if = "is_zero")]
    pub recipient_count: u32,
    /// In-Reply-To, without `<>`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub in_reply_to: Vec<String>,
    /// How many ids References names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub references_count: Option<u32>,
    /// List-Id, what stands in `<>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list_id: Option<String>,
    /// Headers that filters ask for, told or not: lower-case name to decoded values. Not kept.
    #[serde(skip)]
    pub asked_headers: BTreeMap<String, AskedHeader>,
    /// Headers asked for by `events.headers`: lower-case name to decoded values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
    /// The top-level media type, lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The attachments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Event fields whose source could not be read (`email.subject`, ...; `message` for all of it).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decode_errors: Vec<String>,
    /// Event fields that were cut while reading.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// The states of an account: `idlewatch.account.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// A first connection is being made.
    Connecting,
    /// Logged in and watching.
    Online,
    /// Waits for a clock after a failure.
    Backoff,
    /// The login was refused; a clock runs to the next try.
    AuthFailed,
    /// The server asked for patience.
    Throttled,
    /// TLS or its certificate is not acceptable.
    TlsFailed,
    /// Waits for a person.
    Suspended,
    /// `enabled = false`.
    Disabled,
    /// No longer in the configuration.
    Removed,
}

impl AccountState {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Connecting,
        Self::Online,
        Self::Backoff,
        Self::AuthFailed,
        Self::Throttled,
        Self::TlsFailed,
        Self::Suspended,
        Self::Disabled,
        Self::Removed,
    ];

    /// As in `idlewatch.account.state`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Online => "online",
            Self::Backoff => "backoff",
            Self::AuthFailed => "auth_failed",
            Self::Throttled => "throttled",
            Self::TlsFailed => "tls_failed",
            Self::Suspended => "suspended",
            Self::Disabled => "disabled",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for AccountState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The closed list of `error.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum ErrorType {
    Dns,
    Connect,
    Tls,
    Auth,
    Throttled,
    Protocol,
    Timeout,
    Mailbox,
    Config,
    Io,
    Internal,
}

impl ErrorType {
    /// As in `error.type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Throttled => "throttled",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Mailbox => "mailbox",
            Self::Config => "config",
            Self::Io => "io",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `error.*` of an event. Never holds a secret; the text may come from a server, so it is capped and harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// `error.type`
    pub error_type: ErrorType,
    /// `error.code`: the server's response code in capitals, or a finer class in lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// `error.message`
    pub message: String,
}

/// `account.state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// The state now.
    pub state: AccountState,
    /// The state before; the same for trouble of one mailbox.
    pub previous: AccountState,
    /// How many tries in a row failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// Milliseconds to the next try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_ms: Option<u64>,
    /// When a round trip last proved the connection alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_proven_alive: Option<Timestamp>,
    /// The mailbox, where the trouble is that mailbox's alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<MailboxName>,
    /// What went wrong; `None` when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

/// `mailbox.reset`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxReset {
    /// The mailbox.
    pub mailbox: MailboxName,
    /// Its role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The new UIDVALIDITY.
    pub uid_validity: u32,
    /// The one before.
    pub uid_validity_previous: u32,
    /// The new baseline.
    pub uid_next: u32,
}

/// Why messages may have been missed: `idlewatch.gap.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// The account was not watched.
    Offline,
    /// Messages were expunged before they could be fetched.
    Expunged,
    /// The UIDVALIDITY changed.
    UidValidity,
    /// There were too many changes of flags, and expunges, to tell each.
    Changes,
}

impl GapReason {
    /// As in `idlewatch.gap.reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Expunged => "expunged",
            Self::UidValidity => "uidvalidity",
            Self::Changes => "changes",
        }
    }
}

/// `mailbox.gap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxGap {
    /// The mailbox.
    pub mailbox: MailboxName,
    /// Its role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The epoch that the UIDs belong to.
    pub uid_validity: u32,
    /// From when nothing was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The first UID concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid_first: Option<u32>,
    /// The last UID concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid_last: Option<u32>,
    /// How many messages were told after all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<u64>,
    /// How many were lost; absent when it cannot be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// Why.
    pub reason: GapReason,
}

/// `monitor.state`: `idlewatch.monitor.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum MonitorState {
    /// The monitor runs.
    Started,
    /// It was asked to stop.
    Stopping,
    /// The journal holds `journal.max_bytes`; FETCH pauses.
    JournalFull,
    /// There is room again.
    JournalOk,
    /// There was no state: a first start, or state that was lost.
    StateNew,
    /// The state is older than what the outputs hold.
    StateRestored,
}

impl MonitorState {
    /// As in `idlewatch.monitor.state`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopping => "stopping",
            Self::JournalFull => "journal_full",
            Self::JournalOk => "journal_ok",
            Self::StateNew => "state_new",
            Self::StateRestored => "state_restored",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(outputs: &[&str]) -> Event {
        let outputs = outputs.iter().map(|output| (*output).to_owned()).collect();
        Event {
            at: Timestamp::UNIX_EPOCH,
            id: "x".to_owned(),
            account: None,
            body: EventBody::MonitorState(MonitorState::Started),
            filtered: Some(Box::new(Filtered { by: vec!["f".to_owned()], outputs, dropped: false })),
            redacted: Vec::new(),
        }
    }

    #[test]
    fn a_route_leads_to_its_outputs_only_also_once_they_are_gone() {
        let configured = ["file", "hook"].map(str::to_owned);
        let takers = |routes: &[&str]| -> Vec<&str> {
            let event = routed(routes);
            let names = configured.iter().map(String::as_str);
            names.filter(|name| event.is_for(name)).collect()
        };
        assert_eq!(takers(&["hook"]), ["hook"]);
        assert_eq!(takers(&["hook", "gone"]), ["hook"]);
        assert_eq!(takers(&["gone"]), [""; 0]);
        assert_eq!(takers(&[]), ["file", "hook"]);
    }

    #[test]
    fn what_filters_say_is_kept_and_what_they_asked_for_is_not() {
        let event = routed(&["hook"]);
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        let asked_headers = BTreeMap::from([("x-secret".to_owned(), AskedHeader::default())]);
        let summary = MessageSummary { asked_headers, ..MessageSummary::default() };
        assert!(!serde_json::to_string(&summary).unwrap().contains("secret"));
        let old =
            r#"{"at":"1970-01-01T00:00:00Z","id":"x","body":{"action":"monitor.state","state":"started"}}"#;
        assert_eq!(serde_json::from_str::<Event>(old).unwrap().filtered, None, "as older versions wrote it");
    }
}
