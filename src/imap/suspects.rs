//! Mailboxes that connections died of: each is visited last and with caution, or is left alone for a while. Pure.

use std::time::Duration;

use crate::event::MailboxName;

/// For how long the second connection that a mailbox ends closes it; each one more doubles that.
const LEFT_ALONE: Duration = Duration::from_secs(5 * 60);
const MOST_DOUBLINGS: u32 = 8;

/// So often a session that dies of a message makes the next one more careful: see [`super::fetch`].
const MOST_CAUTION: u8 = 6;

/// Mailboxes that are suspected at the same time.
const MOST_SUSPECTS: usize = 256;

/// A mailbox that a connection died of, as far as can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Which.
    pub mailbox: MailboxName,
    /// See [`super::conversation::Watch::caution`].
    pub caution: u8,
    /// Connections that it ended after others of its mailboxes had been visited, and that caution did not help.
    strikes: u32,
}

/// What a connection tells of its visits when it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visits {
    /// The mailbox that was being visited.
    pub visiting: Option<MailboxName>,
    /// The suspects that were visited, and all that was new in them told.
    pub cleared: Vec<MailboxName>,
    /// Any mailbox was: the server is not out of order altogether.
    pub proven: bool,
}

/// All suspects of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspects(Vec<Suspect>);

impl Suspect {
    /// How long it is left alone; `None` while it is only visited last.
    pub fn left_alone(&self) -> Option<Duration> {
        let doublings = self.strikes.checked_sub(2)?.min(MOST_DOUBLINGS);
        Some(LEFT_ALONE * 2_u32.pow(doublings))
    }
}

impl Suspects {
    /// This one, if it is one.
    pub fn get(&self, mailbox: &MailboxName) -> Option<&Suspect> {
        self.0.iter().find(|suspect| suspect.mailbox == *mailbox)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Suspect> {
        self.0.iter()
    }

    /// A connection ended. `of_visit` where a mailbox may be the reason; `died_fetching` where one of its messages may.
    pub fn learn(&mut self, visits: &Visits, of_visit: bool, died_fetching: bool) {
        self.0.retain(|suspect| !visits.cleared.contains(&suspect.mailbox));
        let Some(mailbox) = visits.visiting.as_ref().filter(|_| of_visit) else { return };
        let known = self.0.iter().position(|suspect| suspect.mailbox == *mailbox);
        let mut suspect = match known {
            Some(index) => self.0.remove(index),
            None => Suspect { mailbox: mailbox.clone(), caution: 0, strikes: 0 },
        };
        let caution_may_help = died_fetching && suspect.caution < MOST_CAUTION;
        suspect.caution = if died_fetching { (suspect.caution + 1).min(MOST_CAUTION) } else { 0 };
        if visits.proven && !caution_may_help {
            suspect.strikes = suspect.strikes.saturating_add(1);
        }
        self.0.truncate(MOST_SUSPECTS - 1);
        self.0.push(suspect);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visits(visiting: &str, cleared: &[&str], proven: bool) -> Visits {
        let cleared = cleared.iter().copied().map(Into::into).collect();
        Visits { visiting: Some(visiting.into()), cleared, proven }
    }

    fn caution(suspects: &Suspects, mailbox: &str) -> Option<u8> {
        suspects.get(&mailbox.into()).map(|suspect| suspect.caution)
    }

    fn left_alone(suspects: &Suspects, mailbox: &str) -> Option<Duration> {
        suspects.get(&mailbox.into()).and_then(Suspect::left_alone)
    }

    #[test]
    fn caution_grows_for_each_mailbox_by_itself() {
        let mut suspects = Suspects::default();
        suspects.learn(&visits("a", &[], false), true, true);
        suspects.learn(&visits("b", &[], false), true, true);
        suspects.learn(&visits("b", &[], false), true, true);
        assert_eq!((caution(&suspects, "a"), caution(&suspects, "b")), (Some(1), Some(2)));
        suspects.learn(&visits("a", &["b"], true), true, true);
        assert_eq!((caution(&suspects, "a"), caution(&suspects, "b")), (Some(2), None));
        suspects.learn(&visits("c", &[], true), false, false);
        assert_eq!(caution(&suspects, "c"), None, "nobody's fault");
    }

    #[test]
    fn one_that_ends_connections_again_and_again_is_left_alone_for_longer_and_longer() {
        let mut suspects = Suspects::default();
        suspects.learn(&visits("a", &[], true), true, false);
        assert_eq!(left_alone(&suspects, "a"), None);
        for doubled in [1, 2, 4] {
            suspects.learn(&visits("a", &[], true), true, false);
            assert_eq!(left_alone(&suspects, "a"), Some(LEFT_ALONE * doubled));
        }
        suspects.learn(&visits("b", &["a"], true), true, false);
        assert_eq!(suspects.get(&"a".into()), None);
    }

    #[test]
    fn a_server_that_lets_nobody_visit_anything_makes_no_mailbox_wait() {
        let mut suspects = Suspects::default();
        (0..10).for_each(|_| suspects.learn(&visits("a", &[], false), true, false));
        assert_eq!(left_alone(&suspects, "a"), None);
    }

    #[test]
    fn a_message_is_given_up_before_its_mailbox_is() {
        let mut suspects = Suspects::default();
        for _ in 0..MOST_CAUTION {
            suspects.learn(&visits("a", &[], true), true, true);
            assert_eq!(left_alone(&suspects, "a"), None);
        }
        (0..2).for_each(|_| suspects.learn(&visits("a", &[], true), true, true));
        assert_eq!(left_alone(&suspects, "a"), Some(LEFT_ALONE));
    }
}
