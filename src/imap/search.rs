//! Which of the new messages are wanted at all: asked of the server by UID SEARCH, before anything of them is fetched.
//!
//! What the search does not name counts as seen. An answer that is refused, missing or not wholly readable says nothing
//! of any message: then all of them are fetched.

use std::time::Instant;

use super::command::Command;
use super::conversation::{Action, Phase, Shared};
use super::refusal::{Refusal, Why};
use super::reply::{Reply, Status, StatusText};
use super::rules::Kind;
use super::watch::{Got, Selected};
use crate::uid_set::UidSet;

/// The UIDs that one search spans: its answer stays far below what one response may hold.
pub(super) const SPAN: u32 = 1_000;

/// The server looked at some of the messages only (RFC 9738).
const MESSAGE_LIMIT: &str = "MESSAGELIMIT";

/// What messages have to be like; all of it has to hold. Texts are parts of what is looked at, and case is ignored by the
/// server (RFC 3501 section 6.4.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Criteria(Vec<Key>);

/// One search key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// FROM
    From(String),
    /// TO
    To(String),
    /// CC
    Cc(String),
    /// SUBJECT
    Subject(String),
    /// BODY
    Body(String),
    /// TEXT: header or body.
    Text(String),
    /// HEADER
    Header {
        /// The field's name.
        name: String,
        /// A part of its value; empty for any.
        contains: String,
    },
    /// LARGER, octets.
    Larger(u32),
    /// SMALLER, octets.
    Smaller(u32),
    /// UNSEEN
    Unseen,
    /// FLAGGED
    Flagged,
    /// SINCE: by the day of INTERNALDATE, whatever the time zone.
    Since(jiff::civil::Date),
    /// NOT
    Not(Box<Key>),
}

impl Criteria {
    /// Of these keys; `None` where there is none.
    pub fn new(keys: Vec<Key>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The keys.
    pub fn keys(&self) -> &[Key] {
        &self.0
    }

    /// Whether all texts are ASCII; else a charset has to be named.
    pub fn is_ascii(&self) -> bool {
        self.0.iter().all(|key| key.texts().iter().all(|text| text.is_ascii()))
    }
}

impl Key {
    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::From(_) => "FROM",
            Self::To(_) => "TO",
            Self::Cc(_) => "CC",
            Self::Subject(_) => "SUBJECT",
            Self::Body(_) => "BODY",
            Self::Text(_) => "TEXT",
            Self::Header { .. } => "HEADER",
            Self::Larger(_) => "LARGER",
            Self::Smaller(_) => "SMALLER",
            Self::Unseen => "UNSEEN",
            Self::Flagged => "FLAGGED",
            Self::Since(_) => "SINCE",
            Self::Not(_) => "NOT",
        }
    }

    /// The texts that follow it, each an astring.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::From(text)
            | Self::To(text)
            | Self::Cc(text)
            | Self::Subject(text)
            | Self::Body(text)
            | Self::Text(text) => vec![text],
            Self::Header { name, contains } => vec![name, contains],
            Self::Not(key) => key.texts(),
            Self::Larger(_) | Self::Smaller(_) | Self::Unseen | Self::Flagged | Self::Since(_) => Vec::new(),
        }
    }
}

/// Where a search looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// These UIDs, both included.
    Uids(u32, u32),
    /// From a sequence number to the last message.
    From(u32),
}

/// What the server has answered so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hits {
    found: Vec<u32>,
    /// There was an answer at all.
    answered: bool,
    /// A part of it could not be read, or there was no room.
    broken: bool,
}

impl Hits {
    /// A SEARCH response; of other replies nothing is taken. No more than `most` are kept.
    pub(super) fn told(&mut self, reply: &Reply, most: usize) {
        let Reply::Search { numbers, whole } = reply else { return };
        self.answered = true;
        self.broken |= !whole || self.found.len() + numbers.len() > most;
        let room = most.saturating_sub(self.found.len());
        self.found.extend(numbers.iter().take(room));
    }

    /// Something came that may have been, or concerned, a part of the answer.
    pub(super) fn doubt(&mut self) {
        self.broken = true;
    }

    /// As [`Self::whole`], with what the completion says of the answer.
    pub(super) fn completed(mut self, text: &StatusText) -> Option<UidSet> {
        self.broken |= text.code.as_ref().is_some_and(|code| code.name() == MESSAGE_LIMIT);
        self.whole()
    }

    /// The UIDs, if the answer says of every message whether it is meant.
    fn whole(self) -> Option<UidSet> {
        let Self { mut found, answered, broken } = self;
        // In order: to insert at random places would take a hostile server's time of ours.
        found.sort_unstable();
        (answered && !broken).then(|| found.into_iter().collect())
    }
}

/// Awaits UID SEARCH.
#[derive(Debug)]
pub(super) struct Searching {
    selected: Box<Selected>,
    asked: UidSet,
    hits: Hits,
}

impl Searching {
    /// The lowest of the messages that were not searched yet. They are told as if found where nothing is searched for.
    pub(super) fn begin(mut selected: Box<Selected>, shared: &mut Shared, now: Instant) -> Phase {
        let asked = selected.take_unsearched(SPAN);
        let (Some(criteria), Some(first), Some(last)) = (selected.search(), asked.first(), asked.last())
        else {
            selected.wanted(&asked);
            return selected.proceed(shared, now);
        };
        let command = Command::UidSearch { scope: Scope::Uids(first, last), criteria: &criteria };
        shared.send_then(&command, now, Phase::Searching(Self { selected, asked, hits: Hits::default() }))
    }

    pub(super) fn selected(&mut self) -> &mut Selected {
        &mut self.selected
    }

    pub(super) fn told(&mut self, reply: &Reply) {
        self.hits.told(reply, 2 * SPAN as usize);
    }

    /// What cannot be read may have been a part of the answer; an untagged NO or BAD warns that something is missing.
    pub(super) fn overheard(&mut self, kind: Kind) {
        if matches!(kind, Kind::Unreadable | Kind::NoBad) {
            self.hits.doubt();
        }
    }

    pub(super) fn completed(
        mut self,
        shared: &mut Shared,
        status: Status,
        text: &StatusText,
        now: Instant,
    ) -> Phase {
        if status == Status::Ok {
            return match std::mem::take(&mut self.hits).completed(text) {
                Some(found) => self.found(&found, shared, now),
                None => self.without("there was no answer that could be read", shared, now),
            };
        }
        if Refusal::of(text).why == Why::Patience {
            return shared.refused("UID SEARCH", text);
        }
        self.without(&text.text, shared, now)
    }

    fn found(mut self, found: &UidSet, shared: &mut Shared, now: Instant) -> Phase {
        let mut unwanted = self.asked.clone();
        unwanted.subtract(found);
        self.asked.subtract(&unwanted);
        self.selected.unwanted(&unwanted);
        if self.asked.is_empty() {
            return self.selected.tell(shared, Got::default(), now);
        }
        self.selected.wanted(&self.asked);
        self.selected.proceed(shared, now)
    }

    /// This server's searches are of no use: all is fetched, as if nothing had been searched for.
    fn without(mut self, why: &str, shared: &mut Shared, now: Instant) -> Phase {
        shared.act(Action::SearchRefused(why.to_owned()));
        self.selected.search_no_more();
        self.selected.wanted(&self.asked);
        self.selected.proceed(shared, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(replies: &[(&[u32], bool)], most: usize) -> Option<UidSet> {
        let mut hits = Hits::default();
        for (numbers, whole) in replies {
            hits.told(&Reply::Search { numbers: numbers.to_vec(), whole: *whole }, most);
        }
        hits.told(&Reply::Exists(7), most);
        hits.whole()
    }

    #[test]
    fn an_answer_counts_only_if_there_is_one_and_all_of_it_was_read() {
        assert_eq!(told(&[], 10), None);
        assert_eq!(told(&[(&[], true)], 10), Some(UidSet::new()));
        assert_eq!(told(&[(&[9, 5], true), (&[7], true)], 10), Some([5, 7, 9].into_iter().collect()));
        assert_eq!(told(&[(&[5], true), (&[7], false)], 10), None);
        assert_eq!(told(&[(&[5, 6], true), (&[7], true)], 2), None, "no room is no answer");
    }

    #[test]
    fn criteria_of_nothing_are_none() {
        assert_eq!(Criteria::new(Vec::new()), None);
        assert!(Criteria::new(vec![Key::Unseen]).unwrap().is_ascii());
        let not = Key::Not(Box::new(Key::Subject("Größe".to_owned())));
        assert!(!Criteria::new(vec![Key::Unseen, not]).unwrap().is_ascii());
    }
}
