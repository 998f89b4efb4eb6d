//! What an account knows of the connection that several of its mailboxes share. Pure.

use std::collections::HashSet;

use jiff::Timestamp;

use crate::event::{MailboxName, Trouble};
use crate::imap::rounds::{Holding, Newcomers, Pace};
use crate::imap::stops::Met;
use crate::imap::suspects::Suspects;
use crate::status::{MailboxReport, WatchedBy};

/// The mailboxes without a connection of their own.
#[derive(Clone, Debug, Default)]
pub struct Sharing {
    /// `None` before the first list.
    holding: Option<Holding>,
    away_since: Option<Timestamp>,
    missing: Vec<(MailboxName, Trouble)>,
    /// They had connections of their own, until just now.
    let_go: Vec<MailboxName>,
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
        self.holding.as_ref().map_or(&[], |holding| &holding.mailboxes)
    }

    /// Those that need not be met any more; `None` before the first list.
    pub fn known(&self) -> Option<HashSet<MailboxName>> {
        let Holding { mailboxes, newcomers } = self.holding.as_ref()?;
        Some(mailboxes.iter().filter(|name| !newcomers.contains_key(*name)).cloned().collect())
    }

    /// Those that appeared and were not visited yet.
    pub fn newcomers(&self) -> Newcomers {
        self.holding.as_ref().map(|holding| holding.newcomers.clone()).unwrap_or_default()
    }

    /// This one was visited, and has its cursor.
    pub fn was_visited(&mut self, mailbox: &MailboxName) {
        if let Some(holding) = &mut self.holding {
            holding.newcomers.remove(mailbox);
        }
    }

    /// A connection begins, and one lived last at `last_life`: since when a mailbox that appeared unseen may have been
    /// there. While one of those is not visited, that does not change.
    pub fn away_since(&mut self, last_life: Option<Timestamp>) -> Option<Timestamp> {
        let newcomers = self.holding.iter().flat_map(|holding| holding.newcomers.values());
        if !newcomers.into_iter().any(|met| *met == Met::WhileAway) {
            self.away_since = last_life;
        }
        self.away_since
    }

    /// A mailbox has no connection of its own any more: who has it now is said next.
    pub fn let_go(&mut self, mailbox: MailboxName) {
        self.let_go.push(mailbox);
    }

    /// It is these now; returns those that are watched by nobody from now on: not by their own connections either.
    pub fn share(&mut self, holding: Holding, beside: &[MailboxName]) -> Vec<MailboxName> {
        let names: HashSet<_> = holding.mailboxes.iter().collect();
        self.missing.retain(|(missing, _)| names.contains(missing));
        let let_go = std::mem::take(&mut self.let_go);
        let before = self.mailboxes().iter().cloned().chain(let_go);
        let gone = before.filter(|name| !names.contains(name) && !beside.contains(name));
        let gone = gone.collect();
        self.holding = Some(holding);
        gone
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
        self.mailboxes().iter().map(report).collect()
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

    fn holding(mailboxes: &str, newcomers: &[(&str, Met)]) -> Holding {
        let newcomers = newcomers.iter().map(|&(name, met)| (name.into(), met)).collect();
        Holding { mailboxes: names(mailboxes), newcomers }
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
        assert!(sharing.share(holding("a b c", &[]), &[]).is_empty());
        assert_eq!(sharing.share(holding("a d", &[]), &names("b")), names("c"));
        sharing.let_go("b".into());
        assert_eq!(sharing.share(holding("a d", &[]), &[]), names("b"), "it had a connection of its own");
        sharing.let_go("e".into());
        assert!(sharing.share(holding("a d e", &[]), &[]).is_empty(), "it is shared now");
    }

    #[test]
    fn a_mailbox_that_appeared_is_known_once_it_was_visited() {
        let mut sharing = Sharing::default();
        assert_eq!(sharing.known(), None, "there was no list yet");
        sharing.share(holding("a b", &[("b", Met::WhileAway)]), &[]);
        assert_eq!(sharing.known(), Some(names("a").into_iter().collect()));
        assert_eq!(sharing.newcomers().get(&"b".into()), Some(&Met::WhileAway));
        sharing.was_visited(&"b".into());
        assert_eq!(sharing.known(), Some(names("a b").into_iter().collect()));
        sharing.share(holding("", &[]), &[]);
        assert_eq!(sharing.known(), Some(HashSet::new()));
    }

    #[test]
    fn who_appeared_unseen_may_have_done_so_before_every_connection_since() {
        let mut sharing = Sharing::default();
        let at = |second| Timestamp::from_second(second).ok();
        assert_eq!(sharing.away_since(at(1)), at(1));
        sharing.share(holding("a", &[("a", Met::WhileAway)]), &[]);
        assert_eq!(sharing.away_since(at(2)), at(1));
        sharing.was_visited(&"a".into());
        assert_eq!(sharing.away_since(at(3)), at(3));
    }

    #[test]
    fn a_missing_mailbox_is_news_once() {
        let mut sharing = Sharing::default();
        sharing.share(holding("a b", &[]), &[]);
        let trouble =
            || Some(Trouble { error_type: ErrorType::Mailbox, code: None, message: "x".to_owned() });
        let a = MailboxName::from("a");
        assert!(sharing.is_missing(&a, trouble()) && !sharing.is_missing(&a, trouble()));
        assert!(sharing.trouble(&a).is_some());
        assert!(sharing.is_missing(&a, None) && !sharing.is_missing(&a, None));
    }
}
