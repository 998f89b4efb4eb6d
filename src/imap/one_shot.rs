//! Conversations that ask one thing and log out: the list of mailboxes, the latest messages of one.

use std::time::Instant;

use super::command::{Command, event_items};
use super::conversation::{Action, Phase, Shared};
use super::ending::Ending;
use super::listing::MailboxListing;
use super::refusal::Refusal;
use super::reply::{Reply, Status, StatusText};
use super::select::{Opened, wire_name};
use super::summary::{Wanted, fetch_header_fields, summarize};
use crate::event::{MailboxName, NewMessage, Role, Source};

/// Awaits the answer to a one-shot question.
#[derive(Debug)]
pub(super) enum OneShot {
    Mailboxes(MailboxListing),
    Titles(TitleFetch),
}

impl OneShot {
    pub(super) fn told(&mut self, reply: Reply, wanted: &Wanted) {
        match (self, reply) {
            (Self::Mailboxes(listing), Reply::List(entry)) => listing.listed(&entry),
            (Self::Titles(titles), reply) => titles.told(&reply, wanted),
            _ => {}
        }
    }

    pub(super) fn completed(
        self,
        shared: &mut Shared,
        status: Status,
        text: &StatusText,
        now: Instant,
    ) -> Phase {
        match (self, status == Status::Ok) {
            (Self::Mailboxes(_), false) => shared.refused("LIST", text),
            (Self::Titles(titles), false) => titles.refused(shared, text),
            (Self::Mailboxes(listing), true) => {
                shared.act(Action::Mailboxes(listing));
                shared.log_out(now)
            }
            (Self::Titles(titles), true) => titles.completed(shared, text, now),
        }
    }
}

/// Asks for all of them.
pub(super) fn list_mailboxes(shared: &mut Shared, now: Instant) -> Phase {
    let special_use = shared.capabilities.lists_special_use();
    let phase = Phase::OneShot(OneShot::Mailboxes(MailboxListing::default()));
    shared.send_then(&Command::List { pattern: b"*", special_use }, now, phase)
}

/// The latest messages of a mailbox.
#[derive(Debug)]
pub(super) struct TitleFetch {
    mailbox: MailboxName,
    count: u32,
    opened: Opened,
    step: TitleStep,
    messages: Vec<(u32, NewMessage)>,
}

#[derive(Debug, PartialEq, Eq)]
enum TitleStep {
    Delimiter { found: Option<char> },
    Examine,
    Fetch,
}

impl TitleFetch {
    pub(super) fn begin(shared: &mut Shared, mailbox: MailboxName, count: u32, now: Instant) -> Phase {
        let step = TitleStep::Delimiter { found: None };
        let titles = Self { mailbox, count, opened: Opened::default(), step, messages: Vec::new() };
        if titles.mailbox.is_inbox() {
            return titles.examine(None, shared, now);
        }
        let command = Command::List { pattern: b"", special_use: false };
        shared.send_then(&command, now, Phase::OneShot(OneShot::Titles(titles)))
    }

    fn examine(mut self, delimiter: Option<char>, shared: &mut Shared, now: Instant) -> Phase {
        let wire_name = wire_name(&self.mailbox, delimiter);
        self.step = TitleStep::Examine;
        let command = Command::Examine { mailbox: &wire_name, condstore: false };
        shared.send_then(&command, now, Phase::OneShot(OneShot::Titles(self)))
    }

    fn told(&mut self, reply: &Reply, wanted: &Wanted) {
        match (&mut self.step, reply) {
            (TitleStep::Delimiter { found }, Reply::List(entry)) => *found = entry.delimiter,
            (TitleStep::Examine, reply) => self.opened.told(reply),
            (TitleStep::Fetch, Reply::Fetch(items)) => {
                if let Some(uid) = items.uid
                    && items.header.is_some()
                    && self.messages.len() < self.count as usize
                {
                    self.messages.push((uid, self.message(uid, summarize(items, wanted))));
                }
            }
            _ => {}
        }
    }

    fn message(&self, uid: u32, summary: crate::event::MessageSummary) -> NewMessage {
        NewMessage {
            mailbox: self.mailbox.clone(),
            role: self.mailbox.is_inbox().then_some(Role::Inbox),
            messages: Some(self.opened.exists()),
            uid_validity: self.opened.uid_validity().unwrap_or(0),
            uid,
            source: Source::Sync,
            epoch_changed: false,
            summary,
        }
    }

    fn refused(self, shared: &mut Shared, text: &StatusText) -> Phase {
        match self.step {
            TitleStep::Examine => shared.end(Ending::MailboxRefused(Refusal::of(text))),
            _ => shared.refused("FETCH", text),
        }
    }

    fn completed(mut self, shared: &mut Shared, text: &StatusText, now: Instant) -> Phase {
        match self.step {
            TitleStep::Delimiter { found } => self.examine(found, shared, now),
            TitleStep::Examine => {
                self.opened.told_code(text.code.as_ref());
                self.fetch(shared, now)
            }
            TitleStep::Fetch => self.answer(shared, now),
        }
    }

    fn fetch(mut self, shared: &mut Shared, now: Instant) -> Phase {
        let last = self.opened.exists();
        if last == 0 || self.count == 0 {
            return self.answer(shared, now);
        }
        self.step = TitleStep::Fetch;
        let first = last.saturating_sub(self.count - 1).max(1);
        let fields = fetch_header_fields(&shared.plan.wanted);
        let items = event_items(shared.capabilities, &fields, shared.plan.wanted.attachments);
        let command = Command::Fetch { first, last, items: &items };
        shared.send_then(&command, now, Phase::OneShot(OneShot::Titles(self)))
    }

    fn answer(mut self, shared: &mut Shared, now: Instant) -> Phase {
        self.messages.sort_unstable_by_key(|(uid, _)| std::cmp::Reverse(*uid));
        shared.act(Action::Titles(self.messages.into_iter().map(|(_, message)| message).collect()));
        shared.log_out(now)
    }
}
