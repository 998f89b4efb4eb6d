//! What a session tells: while it lives, and at its end.

use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use secrecy::SecretString;
use tokio::task::spawn_blocking;

use super::lifecycle::SessionEnd;
use crate::config::settings::Account;
use crate::event::MailboxName;
use crate::imap::conversation::{Answered, Mode};
use crate::imap::ending::Ending;
use crate::imap::listing::MailboxListing;
use crate::imap::rounds::{Holding, Pace};
use crate::imap::survey::Surveyed;
use crate::imap::suspects::Visits;
use crate::imap::titles::TitleListing;
use crate::refusals::{LoginDigest, QuickDigest};
use crate::wire::peer::Peer;

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
    /// The server completed a command.
    Answered(Answered),
    /// The session's one mailbox is watched in this way from now on.
    Rests(Mode),
    /// This mailbox is being watched.
    Watching(MailboxName),
    /// The server has something to say to its users.
    Alert(String),
    /// The server does not search as it should: everything is fetched.
    SearchRefused(String),
    /// Changes are wanted that cannot be told: why.
    ChangesUntold(&'static str),
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
    pub(super) fn early(end: SessionEnd) -> Self {
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
    pub(super) async fn of(account: &Account, secret: Option<SecretString>) -> Option<Self> {
        let (identity, secret) = (account.identity.clone(), secret?);
        let quick = QuickDigest::new(&secret);
        let digest = spawn_blocking(move || LoginDigest::new(&identity, &secret)).await.ok()?;
        Some(Self { quick, digest })
    }
}
