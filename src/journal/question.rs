//! What is asked of the journal, and its answer.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Journal, JournalError, JournalledEvent};
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

    /// Answers it; comes back where there is no answer to be had now.
    pub(super) fn answer(self, journal: &mut dyn Journal) -> Option<Self> {
        match self {
            Self::Cursor { key, answer } => {
                send(answer, journal.cursor(&key)).map(|answer| Self::Cursor { key, answer })
            }
            Self::Memory { key, answer } => {
                send(answer, journal.memory(&key)).map(|answer| Self::Memory { key, answer })
            }
            Self::Refusals { account, answer } => {
                send(answer, journal.refusals(&account)).map(|answer| Self::Refusals { account, answer })
            }
            Self::IdlePeriods { answer } => {
                send(answer, journal.idle_periods()).map(|answer| Self::IdlePeriods { answer })
            }
            Self::Unpipelined { answer } => {
                send(answer, journal.unpipelined()).map(|answer| Self::Unpipelined { answer })
            }
            Self::Pending { after, most, answer } => {
                let found = journal.pending(after, most);
                send(answer, found).map(|answer| Self::Pending { after, most, answer })
            }
            Self::HasAfter { sequence, answer } => {
                send(answer, journal.has_after(sequence)).map(|answer| Self::HasAfter { sequence, answer })
            }
        }
    }
}

/// Whoever asked waits for what passes.
fn send<T>(answer: Answer<T>, result: Result<T, JournalError>) -> Option<Answer<T>> {
    match result {
        Err(failure) if failure.passes() => Some(answer),
        result => {
            let _ = answer.send(result);
            None
        }
    }
}
