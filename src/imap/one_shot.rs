//! Conversations that ask one thing and log out: the list of mailboxes, the latest messages of one, a survey.

use std::time::Instant;

use super::command::Command;
use super::conversation::{Action, Phase, Shared};
use super::listing::MailboxListing;
use super::reply::{Reply, Status, StatusText};
use super::rules::Kind;
use super::summary::Wanted;
use super::survey::Surveying;
use super::titles::TitleFetch;

/// Awaits the answer to a one-shot question.
#[derive(Debug)]
pub(super) enum OneShot {
    Mailboxes(MailboxListing),
    Titles(TitleFetch),
    Survey(Box<Surveying>),
}

impl OneShot {
    pub(super) fn told(&mut self, reply: Reply, wanted: &Wanted) {
        match (self, reply) {
            (Self::Mailboxes(listing), Reply::List(entry)) => listing.listed(&entry),
            (Self::Titles(titles), reply) => titles.told(&reply, wanted),
            (Self::Survey(survey), reply) => survey.told(&reply),
            _ => {}
        }
    }

    /// What the conversation itself has no use for.
    pub(super) fn overheard(&mut self, kind: Kind) {
        if let Self::Titles(titles) = self {
            titles.overheard(kind);
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
            (Self::Mailboxes(mut listing), true) => {
                listing.hears_all = shared.capabilities.has("NOTIFY");
                shared.act(Action::Mailboxes(listing));
                shared.log_out(now)
            }
            (Self::Titles(titles), true) => titles.completed(shared, text, now),
            (Self::Survey(survey), _) => survey.completed(shared, status, text, now),
        }
    }
}

/// Asks for all of them.
pub(super) fn list_mailboxes(shared: &mut Shared, now: Instant) -> Phase {
    let special_use = shared.capabilities.lists_special_use();
    let phase = Phase::OneShot(Box::new(OneShot::Mailboxes(MailboxListing::default())));
    shared.send_then(&Command::List { pattern: b"*", special_use, statuses: None }, now, phase)
}
