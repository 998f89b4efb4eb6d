//! What is asked of the journal, and its answer.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Blocked, Journal, JournalError, JournalledEvent};
use crate::event::{AccountId, Cursor, MailboxKey};
use crate::memory::Memory;
use crate::refusals::Refusals;

type Answer<T> = oneshot::Sender<Result<T, JournalError>>;

/// A question, and who asked it.
#[derive(Debug)]
pub(super) enum Question {
    Cursor { key: MailboxKey, answer: Answer<Option<Cursor>> },
    Memory { key: MailboxKey, answer: Answer<Memory> },
    Refusals { account: AccountId, answer: Answer<Refusals> },
    IdlePeriods { answer: Answer<Vec<(String, Duration)>> },
    Unpipelined { answer: Answer<Vec<String>> },
    Pending { after: u64, most: usize, answer: Answer<Vec<JournalledEvent>> },
    HasAfter { sequence: u64, answer: Answer<bool> },
}

impl Question {
    /// Events up to `sequence` are nobody's business any more.
    pub(super) fn past(self, sequence: u64) -> Self {
        match self {
            Self::Pending { after, most, answer } => {
                Self::Pending { after: after.max(sequence), most, answer }
            }
            other => other,
        }
    }

    /// Answers it; comes back where there is no answer to be had now, and says why.
    pub(super) fn answer(self, journal: &mut dyn Journal) -> Option<(Self, Blocked)> {
        let (again, blocked) = match self {
            Self::Cursor { key, answer } => {
                let (answer, blocked) = send(answer, journal.cursor(&key))?;
                (Self::Cursor { key, answer }, blocked)
            }
            Self::Memory { key, answer } => {
                let (answer, blocked) = send(answer, journal.memory(&key))?;
                (Self::Memory { key, answer }, blocked)
            }
            Self::Refusals { account, answer } => {
                let (answer, blocked) = send(answer, journal.refusals(&account))?;
                (Self::Refusals { account, answer }, blocked)
            }
            Self::IdlePeriods { answer } => {
                let (answer, blocked) = send(answer, or_nothing(journal.idle_periods()))?;
                (Self::IdlePeriods { answer }, blocked)
            }
            Self::Unpipelined { answer } => {
                let (answer, blocked) = send(answer, or_nothing(journal.unpipelined()))?;
                (Self::Unpipelined { answer }, blocked)
            }
            Self::Pending { after, most, answer } => {
                let (answer, blocked) = send(answer, journal.pending(after, most))?;
                (Self::Pending { after, most, answer }, blocked)
            }
            Self::HasAfter { sequence, answer } => {
                let (answer, blocked) = send(answer, journal.has_after(sequence))?;
                (Self::HasAfter { sequence, answer }, blocked)
            }
        };
        Some((again, blocked))
    }
}

/// Whoever asked waits for what passes.
fn send<T>(answer: Answer<T>, result: Result<T, JournalError>) -> Option<(Answer<T>, Blocked)> {
    match result.as_ref().err().and_then(Blocked::by) {
        Some(blocked) => Some((answer, blocked)),
        None => {
            let _ = answer.send(result);
            None
        }
    }
}

/// What was learned is learned anew: nobody has to wait for it.
fn or_nothing<T: Default>(result: Result<T, JournalError>) -> Result<T, JournalError> {
    if matches!(result, Err(JournalError::Unreadable)) { Ok(T::default()) } else { result }
}
