//! The mailboxes that share a connection: which of them has to be looked at? Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::reply::MailboxStatus;
use super::select::Located;
use super::suspects::Suspect;
use super::utf7;
use crate::event::MailboxName;

/// One that could not be opened is tried again after this.
const CLOSED: Duration = Duration::from_secs(5 * 60);

/// One that another connection let go is left alone for so long: what that delivered last may be on its way.
const HANDOVER: Duration = Duration::from_secs(15);

/// When a mailbox was met: that decides what a first contact tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// It was there when the account was watched for the first time.
    AtFirst,
    /// It appeared while there was no connection.
    WhileAway,
    /// It appeared while the account was watched.
    WhileWatched {
        /// When it was listed first.
        since: Instant,
    },
}

/// The numbers of a mailbox that say whether it moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) uid_validity: u32,
    pub(super) uid_next: u32,
    pub(super) messages: u32,
    /// Up to where changes are told; `None` where they are not.
    pub(super) changes: Option<u64>,
}

impl Numbers {
    /// Whether a STATUS tells more than was seen. What it leaves out has not moved.
    fn moved(&self, told: &MailboxStatus) -> bool {
        let Self { uid_validity, uid_next, messages, changes } = *self;
        told.uid_validity.is_some_and(|n| n != uid_validity)
            || told.uid_next.is_some_and(|n| n != uid_next)
            // A lower UID that became visible late, or a server without UIDNEXT.
            || told.messages.is_some_and(|n| n > messages)
            || changes.is_some_and(|known| told.highest_modseq > Some(known))
    }
}

/// One mailbox of a shared connection.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) located: Located,
    pub(super) met: Met,
    /// Mailboxes that went when it came.
    pub(super) formerly: Vec<MailboxName>,
    /// As last seen; `None` before the first visit.
    numbers: Option<Numbers>,
    /// It has to be opened.
    due: bool,
    /// Opened last in the round: a connection broke while it was visited.
    suspect: Option<Suspect>,
    /// It cannot be opened before that.
    closed_until: Option<Instant>,
    /// How often its UIDs were given anew, see [`super::conversation`].
    pub(super) epochs: u32,
}

/// All of them, the most important first.
#[derive(Debug, Default)]
pub(super) struct Stops {
    stops: Vec<Stop>,
    /// Where each stands.
    places: HashMap<MailboxName, usize>,
    /// The same, by the decoded names with the server's delimiter.
    by_told_name: HashMap<String, usize>,
}

impl Stop {
    pub(super) fn new(located: Located, met: Met, formerly: Vec<MailboxName>) -> Self {
        Self {
            located,
            met,
            formerly,
            numbers: None,
            due: true,
            suspect: None,
            closed_until: None,
            epochs: 0,
        }
    }

    /// A connection died of it.
    pub(super) fn suspected(self, suspect: &Suspect, now: Instant) -> Self {
        let closed_until = suspect.left_alone().map(|time| now + time);
        Self { suspect: Some(suspect.clone()), closed_until, ..self }
    }

    /// See [`super::conversation::Watch::caution`].
    pub(super) fn caution(&self) -> u8 {
        self.suspect.as_ref().map_or(0, |suspect| suspect.caution)
    }

    /// Another connection has watched it so far.
    pub(super) fn handed_over(self, now: Instant) -> Self {
        Self { closed_until: Some(now + HANDOVER), ..self }
    }

    pub(super) fn mailbox(&self) -> &MailboxName {
        &self.located.mailbox
    }

    pub(super) fn is_watched(&self) -> bool {
        self.numbers.is_some() && self.closed_until.is_none()
    }

    fn is_open(&self, now: Instant) -> bool {
        self.closed_until.is_none_or(|until| until <= now)
    }

    fn is_due(&self, now: Instant) -> bool {
        match self.closed_until {
            Some(until) => until <= now,
            None => self.due,
        }
    }

    /// All that is new in it is told. Returns whether it was suspected until now.
    pub(super) fn visited(&mut self, numbers: Numbers, epochs: u32) -> bool {
        self.numbers = Some(numbers);
        self.closed_until = None;
        self.due = false;
        self.met = Met::AtFirst;
        self.formerly = Vec::new();
        self.epochs = epochs;
        self.suspect.take().is_some()
    }

    /// It cannot be opened. Returns whether it could be before.
    pub(super) fn refused(&mut self, now: Instant) -> bool {
        let was_watched = self.is_watched();
        self.closed_until = Some(now + CLOSED);
        was_watched
    }

    /// STATUS cannot be had: the visit finds out.
    pub(super) fn is_in_doubt(&mut self) {
        self.due = true;
    }
}

impl Stops {
    pub(super) fn len(&self) -> usize {
        self.stops.len()
    }

    pub(super) fn get(&self, mailbox: &MailboxName) -> Option<&Stop> {
        self.stops.get(*self.places.get(mailbox)?)
    }

    pub(super) fn of(&mut self, mailbox: &MailboxName) -> Option<&mut Stop> {
        self.stops.get_mut(*self.places.get(mailbox)?)
    }

    pub(super) fn holds(&self, mailbox: &MailboxName) -> bool {
        self.get(mailbox).is_some()
    }

    pub(super) fn mailboxes(&self) -> impl Iterator<Item = &MailboxName> {
        self.stops.iter().map(Stop::mailbox)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Stop> {
        self.stops.iter()
    }

    /// From now on these, in this order; what is known of those that stay is kept. Returns those that go.
    pub(super) fn arrange(&mut self, stops: Vec<Stop>) -> Vec<MailboxName> {
        let before = std::mem::take(self).stops.into_iter().map(|stop| (stop.located.mailbox.clone(), stop));
        let mut before: HashMap<_, _> = before.collect();
        for (place, new) in stops.into_iter().enumerate() {
            let known = before.remove(new.mailbox());
            self.places.insert(new.mailbox().clone(), place);
            self.by_told_name.insert(utf7::decode(&new.located.wire_name), place);
            self.stops.push(match known {
                Some(known) => Stop { located: new.located, ..known },
                None => new,
            });
        }
        before.into_keys().collect()
    }

    /// INBOX is one mailbox in whatever case (RFC 9051 section 5.1). Dovecot 2.3 tells names in UTF-8 where they are
    /// changes that NOTIFY asked for, and in modified UTF-7 elsewhere.
    fn called(&mut self, wire_name: &[u8]) -> Option<&mut Stop> {
        let place = match self.by_told_name.get(&utf7::decode(wire_name)) {
            None if wire_name.eq_ignore_ascii_case(b"INBOX") => self.places.get(&MailboxName::inbox()),
            place => place,
        };
        self.stops.get_mut(*place?)
    }

    /// Whether the UIDs of any that was visited are of this UIDVALIDITY.
    pub(super) fn shares_validity(&self, uid_validity: u32) -> bool {
        let mut numbers = self.stops.iter().filter_map(|stop| stop.numbers);
        numbers.any(|numbers| numbers.uid_validity == uid_validity)
    }

    /// A STATUS came. The mailbox that is open needs none.
    pub(super) fn told(&mut self, status: &MailboxStatus, open: Option<&MailboxName>) {
        let Some(stop) = self.called(&status.name).filter(|stop| open != Some(stop.mailbox())) else {
            return;
        };
        let Some(numbers) = &mut stop.numbers else { return };
        stop.due |= numbers.moved(status);
        if let Some(messages) = status.messages {
            numbers.messages = numbers.messages.min(messages);
        }
    }

    /// The next that has to be opened; one that a connection died of comes last.
    pub(super) fn due(&self, now: Instant) -> Option<&Stop> {
        let due = self.stops.iter().filter(|stop| stop.is_due(now));
        due.min_by_key(|stop| stop.suspect.is_some())
    }

    /// Where the connection rests.
    pub(super) fn home(&self, now: Instant) -> Option<&Stop> {
        self.stops.iter().find(|stop| stop.is_open(now))
    }

    /// The first, from `index` on, whose STATUS is of use while `open` is open: its place.
    pub(super) fn to_ask(&self, index: usize, open: Option<&MailboxName>) -> Option<(usize, &Stop)> {
        let useful = |stop: &Stop| stop.is_watched() && !stop.due && open != Some(stop.mailbox());
        self.stops.iter().enumerate().skip(index).find(|(_, stop)| useful(stop))
    }

    /// When the next of those that cannot be opened is to be tried again.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        self.stops.iter().filter_map(|stop| stop.closed_until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::suspects::{Suspects, Visits};
    use super::*;

    fn stop(name: &str) -> Stop {
        let located = Located { mailbox: name.into(), wire_name: name.into(), role: None, listed: true };
        Stop::new(located, Met::AtFirst, Vec::new())
    }

    fn stops(names: &[&str]) -> Stops {
        let mut stops = Stops::default();
        stops.arrange(names.iter().map(|name| stop(name)).collect());
        stops
    }

    fn visit_all(stops: &mut Stops) {
        let numbers = Numbers { uid_validity: 1, uid_next: 10, messages: 3, changes: None };
        stops.stops.iter_mut().for_each(|stop| {
            stop.visited(numbers, 0);
        });
    }

    fn due(stops: &Stops, now: Instant) -> Option<&str> {
        stops.due(now).map(|stop| stop.mailbox().as_str())
    }

    fn status(name: &str, validity: u32, next: u32, messages: u32) -> MailboxStatus {
        MailboxStatus {
            name: name.into(),
            messages: Some(messages),
            uid_next: Some(next).filter(|&next| next > 0),
            uid_validity: Some(validity).filter(|&validity| validity > 0),
            highest_modseq: None,
        }
    }

    #[test]
    fn a_mailbox_that_moved_is_due_and_no_other() {
        let now = Instant::now();
        for (told, moved) in [
            (status("b", 1, 10, 3), false),
            (status("b", 1, 11, 4), true),
            (status("b", 1, 11, 3), true),
            (status("b", 2, 10, 3), true),
            (status("b", 1, 9, 3), true),
            (status("b", 1, 10, 2), false),
            (status("b", 1, 10, 4), true),
            (status("b", 0, 0, 3), false),
            (status("b", 0, 0, 4), true),
            (status("elsewhere", 9, 99, 99), false),
        ] {
            let mut stops = stops(&["INBOX", "b"]);
            visit_all(&mut stops);
            stops.told(&told, Some(&"INBOX".into()));
            assert_eq!(due(&stops, now).is_some(), moved, "{told:?}");
        }
    }

    #[test]
    fn a_name_is_known_in_either_encoding() {
        for told in ["Gr&APYA3w-e/R&-D", "Größe/R&D"] {
            let located = Located {
                mailbox: "Größe/R&D".into(),
                wire_name: b"Gr&APYA3w-e/R&-D".to_vec(),
                role: None,
                listed: true,
            };
            let mut stops = Stops::default();
            stops.arrange(vec![Stop::new(located, Met::AtFirst, Vec::new())]);
            visit_all(&mut stops);
            stops.told(&status(told, 1, 11, 4), None);
            assert!(due(&stops, Instant::now()).is_some(), "{told}");
        }
    }

    #[test]
    fn a_late_uid_shows_even_behind_an_expunge() {
        let mut stops = stops(&["b"]);
        visit_all(&mut stops);
        stops.told(&status("b", 1, 10, 2), None);
        stops.told(&status("b", 1, 10, 3), None);
        assert_eq!(due(&stops, Instant::now()), Some("b"));
    }

    #[test]
    fn the_open_mailbox_needs_no_status() {
        let mut stops = stops(&["INBOX", "b"]);
        visit_all(&mut stops);
        stops.told(&status("inbox", 1, 11, 4), Some(&MailboxName::inbox()));
        assert_eq!(due(&stops, Instant::now()), None);
        stops.told(&status("inbox", 1, 11, 4), None);
        assert_eq!(due(&stops, Instant::now()), Some("INBOX"));
    }

    #[test]
    fn one_that_cannot_be_opened_is_tried_again_later_and_keeps_nobody() {
        let now = Instant::now();
        let mut stops = stops(&["INBOX", "gone"]);
        visit_all(&mut stops);
        let gone = stops.of(&"gone".into()).unwrap();
        gone.is_in_doubt();
        assert!(gone.refused(now) && !gone.refused(now), "it was watched once");
        assert_eq!(due(&stops, now), None);
        assert_eq!(due(&stops, now + CLOSED), Some("gone"));
        assert_eq!(stops.opens_at(), Some(now + CLOSED));
        assert!(stops.to_ask(0, Some(&MailboxName::inbox())).is_none());
    }

    #[test]
    fn the_connection_rests_in_the_first_that_is_open() {
        let now = Instant::now();
        let mut stops = stops(&["INBOX", "b"]);
        stops.of(&"INBOX".into()).unwrap().refused(now);
        assert_eq!(stops.home(now).unwrap().mailbox().as_str(), "b");
    }

    #[test]
    fn what_is_known_outlives_a_new_list() {
        let now = Instant::now();
        let mut stops = stops(&["INBOX", "a", "b"]);
        visit_all(&mut stops);
        let gone = stops.arrange(vec![stop("INBOX"), stop("new"), stop("b")]);
        assert_eq!(gone, ["a".into()]);
        assert_eq!(due(&stops, now), Some("new"));
        assert_eq!(stops.mailboxes().map(MailboxName::as_str).collect::<Vec<_>>(), ["INBOX", "new", "b"]);
    }

    #[test]
    fn a_connection_died_of_it_so_it_comes_last() {
        let mut stops = Stops::default();
        let mut suspects = Suspects::default();
        let visits = Visits { visiting: Some("a".into()), ..Visits::default() };
        suspects.learn(&visits, true, false);
        let suspected = stop("a").suspected(suspects.get(&"a".into()).unwrap(), Instant::now());
        stops.arrange(vec![suspected, stop("b"), stop("c").handed_over(Instant::now())]);
        assert_eq!(due(&stops, Instant::now()), Some("b"));
    }
}
