//! Whether a pass connects once more after a session that ended of a message or a mailbox. Pure.

use crate::account::lifecycle::blame;
use crate::account::milestone::Outcome;
use crate::imap::suspects::Suspects;

/// Sessions that may die of a message one after the other, each more careful: see `imap::fetch`.
const MOST_CAUTION: u8 = 5;

/// Sessions of one account in a pass.
const MOST_SESSIONS: u32 = 32;

/// What the sessions of one account died of so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    sessions: u32,
    caution: u8,
    suspects: Suspects,
}

impl Tries {
    /// How careful a session for one mailbox has to be.
    pub(super) fn caution(&self) -> u8 {
        self.caution
    }

    /// The mailboxes that sessions for many died of.
    pub(super) fn suspects(&self) -> &Suspects {
        &self.suspects
    }

    /// A session ended: whether another one is worth it.
    pub(super) fn goes_on(&mut self, outcome: &Outcome) -> bool {
        self.sessions += 1;
        let worth_it = match &outcome.visits.visiting {
            None => outcome.died_fetching && self.caution < MOST_CAUTION,
            Some(mailbox) => {
                let suspect = self.suspects.get(mailbox);
                let of_visit = blame(&outcome.end).may_be_of_a_mailbox();
                // One that is suspected already came last: nobody is behind it.
                let first_time = suspect.is_none() && of_visit;
                let caution = suspect.map_or(0, |suspect| suspect.caution);
                let worth_it = first_time || (outcome.died_fetching && caution < MOST_CAUTION);
                self.suspects.learn(&outcome.visits, of_visit, outcome.died_fetching);
                worth_it
            }
        };
        self.caution += u8::from(worth_it);
        worth_it && self.sessions < MOST_SESSIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::lifecycle::SessionEnd;
    use crate::imap::ending::Ending;
    use crate::imap::suspects::Visits;

    fn outcome(visiting: Option<&str>, died_fetching: bool, end: Ending) -> Outcome {
        Outcome {
            end: SessionEnd::Conversation(end),
            died_fetching,
            died_pipelining: false,
            idled: None,
            refused: None,
            visits: Visits { visiting: visiting.map(Into::into), ..Visits::default() },
        }
    }

    fn broken(visiting: Option<&str>, died_fetching: bool) -> Outcome {
        outcome(visiting, died_fetching, Ending::TimedOut { awaiting: "x" })
    }

    #[test]
    fn a_mailbox_that_ends_sessions_keeps_nobody_behind_it_waiting() {
        let mut tries = Tries::default();
        assert!(tries.goes_on(&broken(Some("a"), false)) && tries.goes_on(&broken(Some("b"), false)));
        assert!(!tries.goes_on(&broken(Some("a"), false)), "it came last");
        assert!(!Tries::default().goes_on(&broken(None, false)), "no mailbox was the reason");
        assert!(!Tries::default().goes_on(&outcome(None, false, Ending::LoggedOut)));
    }

    #[test]
    fn a_message_is_tried_more_and_more_carefully_until_it_is_given_up() {
        for visiting in [None, Some("a")] {
            let mut tries = Tries::default();
            let sessions = (0..20).take_while(|_| tries.goes_on(&broken(visiting, true))).count();
            assert_eq!(sessions, usize::from(MOST_CAUTION), "{visiting:?}");
        }
    }

    #[test]
    fn the_sessions_of_a_pass_have_an_end() {
        let mut tries = Tries::default();
        let names: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
        let sessions = names.iter().take_while(|name| tries.goes_on(&broken(Some(name), false))).count();
        assert!(sessions < 100, "{sessions}");
    }
}
