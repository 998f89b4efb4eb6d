//! The latest messages of a mailbox, all of them or those that are asked for: one question, one answer.
//!
//! A search or a date that cannot be had is a failure, never an empty answer.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::command::{Command, UidRange, event_items};
use super::conversation::{Action, Phase, Shared};
use super::ending::Ending;
use super::one_shot::OneShot;
use super::refusal::Refusal;
use super::reply::{FetchItems, Reply, StatusText};
use super::rules::Kind;
use super::search::{Criteria, Hits, Scope};
use super::select::{Opened, wire_name};
use super::summary::{Wanted, fetch_header_fields, internal_date, summarize};
use crate::event::{MailboxName, NewMessage, Role, Source};
use crate::uid_set::UidSet;

/// The latest messages among which a search or a date is looked for: their UIDs fit into one command.
const MOST_LOOKED_AT: u32 = 5_000;

/// Which messages are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct TitleQuery {
    /// Of which mailbox.
    pub mailbox: MailboxName,
    /// How many at most.
    pub count: u32,
    /// Received (INTERNALDATE) then or later.
    pub since: Option<Timestamp>,
    /// That the server finds by these.
    pub criteria: Option<Arc<Criteria>>,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TitleListing {
    /// Newest first.
    pub messages: Vec<NewMessage>,
    /// There are messages that were not looked at.
    pub partial: bool,
}

/// Awaits one step after the other.
#[derive(Debug)]
pub(super) struct TitleFetch {
    query: TitleQuery,
    opened: Opened,
    step: Step,
    messages: Vec<NewMessage>,
}

#[derive(Debug)]
enum Step {
    Delimiter { found: Option<char> },
    Examine,
    Search(Hits),
    Date(Dates),
    Fetch { uids: Option<UidSet> },
}

/// The messages that are young enough.
#[derive(Debug)]
struct Dates {
    since: Timestamp,
    /// Of these; of all that are told where `None`.
    of: Option<UidSet>,
    young: Vec<(Timestamp, u32)>,
}

impl Dates {
    /// A date that is missing or cannot be read does not make a message old.
    fn told(&mut self, items: &FetchItems) {
        let Some(uid) = items.uid else { return };
        let date = items.internal_date.as_deref().and_then(internal_date).unwrap_or(self.since);
        let asked = self.of.as_ref().is_none_or(|of| of.contains(uid));
        if asked && date >= self.since && self.young.len() < MOST_LOOKED_AT as usize {
            self.young.push((date, uid));
        }
    }

    fn latest(mut self, count: u32) -> UidSet {
        self.young.sort_unstable_by_key(|young| std::cmp::Reverse(*young));
        let mut uids: Vec<u32> = self.young.iter().take(count as usize).map(|(_, uid)| *uid).collect();
        uids.sort_unstable();
        uids.into_iter().collect()
    }
}

impl TitleFetch {
    pub(super) fn begin(shared: &mut Shared, query: TitleQuery, now: Instant) -> Phase {
        let step = Step::Delimiter { found: None };
        let titles = Self { query, opened: Opened::default(), step, messages: Vec::new() };
        if titles.query.mailbox.is_inbox() {
            return titles.examine(None, shared, now);
        }
        titles.send(&Command::List { pattern: b"", special_use: false, statuses: None }, shared, now)
    }

    fn send(self, command: &Command<'_>, shared: &mut Shared, now: Instant) -> Phase {
        shared.send_then(command, now, Phase::OneShot(Box::new(OneShot::Titles(self))))
    }

    fn examine(mut self, delimiter: Option<char>, shared: &mut Shared, now: Instant) -> Phase {
        let wire_name = wire_name(&self.query.mailbox, delimiter, shared.capabilities);
        self.step = Step::Examine;
        self.send(&Command::Examine { mailbox: &wire_name, condstore: false }, shared, now)
    }

    pub(super) fn told(&mut self, reply: &Reply, wanted: &Wanted) {
        match (&mut self.step, reply) {
            (Step::Delimiter { found }, Reply::List(entry)) => *found = entry.delimiter,
            (Step::Examine, reply) => self.opened.told(reply),
            (Step::Search(hits), reply) => hits.told(reply, MOST_LOOKED_AT as usize),
            (Step::Date(dates), Reply::Fetch(items)) => dates.told(items),
            (Step::Fetch { uids }, Reply::Fetch(items)) => {
                let asked = |uid: &u32| uids.as_ref().is_none_or(|uids| uids.contains(*uid));
                if let Some(uid) = items.uid.filter(asked)
                    && items.header.is_some()
                    && self.messages.len() < self.query.count as usize
                    && self.messages.iter().all(|message| message.uid != uid)
                {
                    self.messages.push(self.message(uid, items, wanted));
                }
            }
            _ => {}
        }
    }

    /// See [`super::search::Searching::overheard`].
    pub(super) fn overheard(&mut self, kind: Kind) {
        if let (Step::Search(hits), Kind::Unreadable | Kind::NoBad) = (&mut self.step, kind) {
            hits.doubt();
        }
    }

    fn message(&self, uid: u32, items: &FetchItems, wanted: &Wanted) -> NewMessage {
        NewMessage {
            mailbox: self.query.mailbox.clone(),
            role: self.query.mailbox.is_inbox().then_some(Role::Inbox),
            messages: Some(self.opened.exists()),
            uid_validity: self.opened.uid_validity().unwrap_or(0),
            uid,
            source: Source::Sync,
            epoch_changed: false,
            summary: summarize(items, wanted),
        }
    }

    pub(super) fn refused(self, shared: &mut Shared, text: &StatusText) -> Phase {
        match self.step {
            Step::Examine => shared.end(Ending::MailboxRefused(Refusal::of(text))),
            Step::Delimiter { .. } => shared.refused("LIST", text),
            Step::Search(_) => shared.refused("UID SEARCH", text),
            Step::Date(_) | Step::Fetch { .. } => shared.refused("FETCH", text),
        }
    }

    pub(super) fn completed(mut self, shared: &mut Shared, text: &StatusText, now: Instant) -> Phase {
        match std::mem::replace(&mut self.step, Step::Examine) {
            Step::Delimiter { found } => self.examine(found, shared, now),
            Step::Examine => {
                self.opened.told_code(text.code.as_ref());
                self.choose(shared, now)
            }
            Step::Search(hits) => match hits.completed(text) {
                Some(found) => self.date(Some(found), shared, now),
                None => {
                    let text = "there was no answer that could be read".to_owned();
                    shared.refused("UID SEARCH", &StatusText { code: None, text })
                }
            },
            Step::Date(dates) => {
                let uids = dates.latest(self.query.count);
                self.fetch(Some(uids), shared, now)
            }
            Step::Fetch { .. } => self.answer(shared, now),
        }
    }

    fn choose(mut self, shared: &mut Shared, now: Instant) -> Phase {
        if self.opened.exists() == 0 || self.query.count == 0 {
            return self.answer(shared, now);
        }
        let Some(criteria) = self.query.criteria.clone() else { return self.date(None, shared, now) };
        self.step = Step::Search(Hits::default());
        let scope = Scope::From(self.first_looked_at());
        self.send(&Command::UidSearch { scope, criteria: &criteria }, shared, now)
    }

    fn first_looked_at(&self) -> u32 {
        self.opened.exists().saturating_sub(MOST_LOOKED_AT - 1).max(1)
    }

    fn date(mut self, of: Option<UidSet>, shared: &mut Shared, now: Instant) -> Phase {
        let Some(since) = self.query.since else { return self.fetch_latest(of, shared, now) };
        if of.as_ref().is_some_and(UidSet::is_empty) {
            return self.answer(shared, now);
        }
        let items = "(UID INTERNALDATE)";
        self.step = Step::Date(Dates { since, of: of.clone(), young: Vec::new() });
        match &of {
            Some(uids) => {
                let uids = UidRange::Set(uids);
                self.send(
                    &Command::UidFetch { uids, items, changed_since: None, vanished: false },
                    shared,
                    now,
                )
            }
            None => {
                let (first, last) = (self.first_looked_at(), self.opened.exists());
                self.send(&Command::Fetch { first, last, items }, shared, now)
            }
        }
    }

    /// Whoever asks for no date takes the last ones for the latest.
    fn fetch_latest(self, found: Option<UidSet>, shared: &mut Shared, now: Instant) -> Phase {
        let count = self.query.count;
        let latest = found.map(|found| {
            let uids: Vec<u32> = found.iter().collect();
            uids.iter().skip(uids.len().saturating_sub(count as usize)).copied().collect()
        });
        self.fetch(latest, shared, now)
    }

    /// These; the last ones of all where `None`.
    fn fetch(mut self, uids: Option<UidSet>, shared: &mut Shared, now: Instant) -> Phase {
        if uids.as_ref().is_some_and(UidSet::is_empty) {
            return self.answer(shared, now);
        }
        let fields = fetch_header_fields(&shared.plan.wanted);
        let items = event_items(shared.capabilities, &fields, shared.plan.wanted.attachments);
        let (count, last) = (self.query.count, self.opened.exists());
        self.step = Step::Fetch { uids: uids.clone() };
        match &uids {
            Some(uids) => {
                let uids = UidRange::Set(uids);
                self.send(
                    &Command::UidFetch { uids, items: &items, changed_since: None, vanished: false },
                    shared,
                    now,
                )
            }
            None => {
                let first = last.saturating_sub(count - 1).max(1);
                self.send(&Command::Fetch { first, last, items: &items }, shared, now)
            }
        }
    }

    fn answer(mut self, shared: &mut Shared, now: Instant) -> Phase {
        let chosen = self.query.since.is_some() || self.query.criteria.is_some();
        self.messages
            .sort_unstable_by_key(|message| std::cmp::Reverse((message.summary.received_at, message.uid)));
        let partial = chosen && self.first_looked_at() > 1;
        shared.act(Action::Titles(TitleListing { messages: self.messages, partial }));
        shared.log_out(now)
    }
}
