//! What an account knows of the connection that several of its mailboxes share. Pure.

use crate::event::{MailboxName, Trouble};
use crate::imap::rounds::Pace;
use crate::imap::suspects::Suspects;
use crate::status::{MailboxReport, WatchedBy};

/// The mailboxes without a connection of their own.
#[derive(Clone, Debug, Default)]
pub struct Sharing {
    mailboxes: Vec<MailboxName>,
    missing: Vec<(MailboxName, Trouble)>,
    /// How fast a message is told.
    pub pace: Option<Pace>,
    /// Connections broke while these were visited.
    pub suspects: Suspects,
}

/// What changes about the connections that mailboxes have for themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// These get one.
    pub come: Vec<MailboxName>,
    /// The sessions with these numbers end.
    pub go: Vec<usize>,
}

impl Exchange {
    /// From those that have one, with the numbers of their sessions, to those that are to have one.
    pub fn new(have: &[(usize, MailboxName)], wanted: &[MailboxName]) -> Self {
        let gone = have.iter().filter(|(_, mailbox)| !wanted.contains(mailbox));
        let new = wanted.iter().filter(|wanted| have.iter().all(|(_, mailbox)| mailbox != *wanted));
        Self { come: new.cloned().collect(), go: gone.map(|(number, _)| *number).collect() }
    }
}

impl Sharing {
    /// All of them.
    pub fn mailboxes(&self) -> &[MailboxName] {
        &self.mailboxes
    }

    /// It is these now; returns those that are watched by nobody from now on: not by their own connections either.
    pub fn share(&mut self, mailboxes: Vec<MailboxName>, beside: &[MailboxName]) -> Vec<MailboxName> {
        let before = std::mem::replace(&mut self.mailboxes, mailboxes);
        self.missing.retain(|(missing, _)| self.mailboxes.contains(missing));
        before.into_iter().filter(|name| !self.mailboxes.contains(name) && !beside.contains(name)).collect()
    }

    /// One of them cannot be opened, or can be again. Returns whether that is news.
    pub fn is_missing(&mut self, mailbox: &MailboxName, trouble: Option<Trouble>) -> bool {
        let was = self.missing.len();
        self.missing.retain(|(missing, _)| missing != mailbox);
        let was_missing = self.missing.len() < was;
        let is_missing = trouble.is_some();
        self.missing.extend(trouble.map(|trouble| (mailbox.clone(), trouble)));
        was_missing != is_missing
    }

    /// What is told of them to those who ask, made of what is told of their session.
    pub fn reports(&self, of: impl Fn(&MailboxName, WatchedBy) -> MailboxReport) -> Vec<MailboxReport> {
        let hears_all = self.pace.is_some_and(|pace| pace.hears_all);
        let watched_by = if hears_all { WatchedBy::Notify } else { WatchedBy::Rounds };
        let worst_delay = self.pace.map(|pace| pace.worst_delay);
        let report = |mailbox: &MailboxName| {
            let mut report = of(mailbox, watched_by);
            report.worst_delay_ms =
                worst_delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
            if let Some(trouble) = self.trouble(mailbox) {
                report.state = "missing".to_owned();
                report.error = Some(trouble.into());
            }
            report
        };
        self.mailboxes.iter().map(report).collect()
    }

    /// Why it cannot be opened.
    pub fn trouble(&self, mailbox: &MailboxName) -> Option<&Trouble> {
        self.missing.iter().find(|(missing, _)| missing == mailbox).map(|(_, trouble)| trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ErrorType;

    fn names(text: &str) -> Vec<MailboxName> {
        text.split_ascii_whitespace().map(MailboxName::from).collect()
    }

    #[test]
    fn connections_come_and_go_with_their_mailboxes() {
        let have: Vec<_> = names("INBOX a b").into_iter().enumerate().collect();
        let exchange = Exchange::new(&have, &names("INBOX b c"));
        assert_eq!(exchange, Exchange { come: names("c"), go: vec![1] });
        assert_eq!(Exchange::new(&have, &names("b INBOX a")), Exchange::default());
    }

    #[test]
    fn who_is_let_go_is_watched_by_nobody() {
        let mut sharing = Sharing::default();
        assert!(sharing.share(names("a b c"), &[]).is_empty());
        assert_eq!(sharing.share(names("a d"), &names("b")), names("c"));
    }

    #[test]
    fn a_missing_mailbox_is_news_once() {
        let mut sharing = Sharing::default();
        sharing.share(names("a b"), &[]);
        let trouble =
            || Some(Trouble { error_type: ErrorType::Mailbox, code: None, message: "x".to_owned() });
        let a = MailboxName::from("a");
        assert!(sharing.is_missing(&a, trouble()) && !sharing.is_missing(&a, trouble()));
        assert!(sharing.trouble(&a).is_some());
        assert!(sharing.is_missing(&a, None) && !sharing.is_missing(&a, None));
    }
}
