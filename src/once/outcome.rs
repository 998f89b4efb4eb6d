//! How commands end that are over once every account was looked at. Pure.

use crate::account::lifecycle::{Blame, SessionEnd, Setup, blame};
use crate::exit::Exit;
use crate::imap::ending::Ending;

/// Why nothing, or not all, came of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not be reached, or not made use of.
    Unreachable,
    /// The login was refused, or could not even be tried.
    Refused,
    /// It was reached, and what was asked for could not be had: a mailbox that is missing, a search that is refused.
    Denied,
    /// It was not looked at, or not to the end.
    Unfinished,
}

impl Failure {
    /// What the end of a session was.
    pub fn of(end: &SessionEnd) -> Self {
        match (blame(end), end) {
            (Blame::Credentials | Blame::Operator(Setup::Login), _) => Self::Refused,
            (Blame::Mailbox, _) | (_, SessionEnd::Conversation(Ending::CommandRefused { .. })) => {
                Self::Denied
            }
            (Blame::Nobody | Blame::Ourselves | Blame::Handover, _) => Self::Unfinished,
            _ => Self::Unreachable,
        }
    }
}

/// How a command ends that asked so many accounts, with one failure for each that did not succeed.
pub fn verdict(asked: usize, failures: &[Failure]) -> Exit {
    let all = |of: Failure| failures.len() >= asked && failures.iter().all(|failure| *failure == of);
    match failures {
        [] => Exit::Ok,
        _ if all(Failure::Unreachable) => Exit::Unreachable,
        _ if all(Failure::Refused) => Exit::Refused,
        _ => Exit::SomeFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_every_account_has_an_exit_code_of_its_own() {
        use Failure::{Denied, Refused, Unreachable};
        for (asked, failures, exit) in [
            (3, vec![], Exit::Ok),
            (0, vec![], Exit::Ok),
            (3, vec![Refused], Exit::SomeFailed),
            (2, vec![Refused, Refused], Exit::Refused),
            (2, vec![Unreachable, Unreachable], Exit::Unreachable),
            (2, vec![Unreachable, Refused], Exit::SomeFailed),
            (1, vec![Denied], Exit::SomeFailed),
        ] {
            assert_eq!(verdict(asked, &failures), exit, "{asked} {failures:?}");
        }
    }
}
