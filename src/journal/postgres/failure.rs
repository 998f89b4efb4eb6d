//! What the database's refusals mean. Pure.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use crate::journal::JournalError;
use crate::text;

/// Why a statement was in vain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody there, or not able to: it may be later.
    #[error("{0}")]
    Away(String),
    /// It has no room.
    #[error("the database's disk is full")]
    DiskFull,
    /// A page of it is damaged: a person has to mend it. What does not need that page goes on.
    #[error("{0}")]
    Unreadable(String),
    /// It does not let us in: a person has to act.
    #[error("{0}")]
    Refused(String),
    /// It does not do what was asked: the same would happen again.
    #[error("{0}")]
    Rejected(String),
}

impl Failure {
    /// The words are the server's: one harmless line.
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        let words = match (error.as_db_error(), error.source()) {
            (Some(refusal), _) => format!("{} ({})", refusal.message(), refusal.code().code()),
            (None, Some(cause)) => format!("{error}: {cause}"),
            (None, None) => error.to_string(),
        };
        meaning(error.code(), text::line(&words, 200))
    }

    pub(super) fn away(words: impl Into<String>) -> Self {
        Self::Away(words.into())
    }
}

/// By the class of its SQLSTATE; without one, the connection was the trouble.
fn meaning(code: Option<&SqlState>, words: String) -> Failure {
    let Some(code) = code else { return Failure::Away(words) };
    match code.code().get(..2).unwrap_or_default() {
        _ if *code == SqlState::DISK_FULL => Failure::DiskFull,
        _ if [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED].contains(code) => {
            Failure::Unreadable(words)
        }
        _ if *code == SqlState::INSUFFICIENT_PRIVILEGE => Failure::Refused(words),
        // Who we are, and which database.
        "28" | "3D" => Failure::Refused(words),
        // Connections, read-only after a failover, deadlocks, resources, locks, operators, the system.
        "08" | "25" | "40" | "53" | "55" | "57" | "58" => Failure::Away(words),
        _ => Failure::Rejected(words),
    }
}

/// Of a journal that is open, what is refused may be permitted again: a password that is being changed, say.
impl From<Failure> for JournalError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::DiskFull => Self::DiskFull,
            Failure::Unreadable(_) => Self::Unreadable,
            Failure::Away(_) | Failure::Refused(_) => Self::Unreachable,
            Failure::Rejected(words) => Self::Failed(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        let words = || "x".to_owned();
        for (code, expected) in [
            (None, Failure::Away(words())),
            (Some("57P01"), Failure::Away(words())),
            (Some("57014"), Failure::Away(words())),
            (Some("25006"), Failure::Away(words())),
            (Some("53300"), Failure::Away(words())),
            (Some("55P03"), Failure::Away(words())),
            (Some("40P01"), Failure::Away(words())),
            (Some("53100"), Failure::DiskFull),
            (Some("28P01"), Failure::Refused(words())),
            (Some("3D000"), Failure::Refused(words())),
            (Some("42501"), Failure::Refused(words())),
            (Some("42P01"), Failure::Rejected(words())),
            (Some("22P02"), Failure::Rejected(words())),
            (Some("XX000"), Failure::Rejected(words())),
            (Some("XX001"), Failure::Unreadable(words())),
            (Some("XX002"), Failure::Unreadable(words())),
        ] {
            let code = code.map(SqlState::from_code);
            assert_eq!(meaning(code.as_ref(), words()), expected, "{code:?}");
        }
    }
}
