//! A survey: what the server can do, which mailboxes there are, whether those that are meant can be opened.

use std::sync::Arc;
use std::time::Instant;

use super::capability::Capabilities;
use super::command::Command;
use super::conversation::{Action, Phase, Shared};
use super::listing::MailboxListing;
use super::one_shot::OneShot;
use super::refusal::{Refusal, Why};
use super::reply::{Reply, Status, StatusText};
use super::select::{Opened, wire_name};
use super::titles::{TitleFetch, TitleQuery};
use crate::event::MailboxName;
use crate::mailbox_choice::MailboxChoice;

/// Mailboxes that are opened; of more it is only told how many there are.
pub const MOST_OPENED: usize = 50;

/// What to look at.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The mailboxes that are meant.
    pub choice: Arc<MailboxChoice>,
    /// How many of the latest messages of the first one are told besides; 0 for none.
    pub titles: u32,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Surveyed {
    /// What the server can do after the login.
    pub capabilities: Capabilities,
    /// All mailboxes of the account.
    pub listing: MailboxListing,
    /// Those that are meant, in their order, [`MOST_OPENED`] at most.
    pub mailboxes: Vec<SurveyedMailbox>,
    /// How many more are meant.
    pub unopened: usize,
}

/// A mailbox that is meant.
#[derive(Debug)]
pub struct SurveyedMailbox {
    /// Which.
    pub mailbox: MailboxName,
    /// How many messages it holds, or why it cannot be watched.
    pub opened: Result<u32, Refusal>,
}

/// Awaits LIST, then one EXAMINE after the other.
#[derive(Debug)]
pub(super) struct Surveying {
    survey: Survey,
    found: Surveyed,
    step: Step,
}

#[derive(Debug)]
enum Step {
    List,
    Examine(Examine),
}

/// The mailbox that is being opened, and those after it.
#[derive(Debug)]
struct Examine {
    mailbox: MailboxName,
    opened: Opened,
    left: std::vec::IntoIter<(MailboxName, Vec<u8>)>,
}

impl Surveying {
    pub(super) fn begin(shared: &mut Shared, survey: Survey, now: Instant) -> Phase {
        let special_use = shared.capabilities.lists_special_use();
        let surveying = Self { survey, found: Surveyed::default(), step: Step::List };
        let command = Command::List { pattern: b"*", special_use, statuses: None };
        shared.send_then(&command, now, Phase::OneShot(Box::new(OneShot::Survey(Box::new(surveying)))))
    }

    pub(super) fn told(&mut self, reply: &Reply) {
        match (&mut self.step, reply) {
            (Step::List, Reply::List(entry)) => self.found.listing.listed(entry),
            (Step::Examine(examine), reply) => examine.opened.told(reply),
            _ => {}
        }
    }

    pub(super) fn completed(
        mut self,
        shared: &mut Shared,
        status: Status,
        text: &StatusText,
        now: Instant,
    ) -> Phase {
        match std::mem::replace(&mut self.step, Step::List) {
            Step::List if status != Status::Ok => shared.refused("LIST", text),
            Step::List => {
                let chosen = self.chosen(shared.capabilities).into_iter();
                self.open_next(chosen, shared, now)
            }
            Step::Examine(mut examine) => {
                examine.opened.told_code(text.code.as_ref());
                let opened = examined(&examine.opened, status, text);
                self.found.mailboxes.push(SurveyedMailbox { mailbox: examine.mailbox, opened });
                self.open_next(examine.left, shared, now)
            }
        }
    }

    /// The mailboxes that are meant, with their names on the wire.
    fn chosen(&mut self, capabilities: Capabilities) -> Vec<(MailboxName, Vec<u8>)> {
        let listed = &self.found.listing.mailboxes;
        let delimiter = listed.iter().find_map(|mailbox| mailbox.delimiter);
        let mut chosen: Vec<_> = self
            .survey
            .choice
            .choose(listed)
            .into_iter()
            .map(|chosen| {
                let own = chosen.listed.map(|listed| listed.wire_name.clone());
                let wire = own.unwrap_or_else(|| wire_name(&chosen.mailbox, delimiter, capabilities));
                (chosen.mailbox, wire)
            })
            .collect();
        self.found.unopened = chosen.len().saturating_sub(MOST_OPENED);
        chosen.truncate(MOST_OPENED);
        chosen
    }

    fn open_next(
        mut self,
        mut left: std::vec::IntoIter<(MailboxName, Vec<u8>)>,
        shared: &mut Shared,
        now: Instant,
    ) -> Phase {
        let Some((mailbox, wire_name)) = left.next() else { return self.answer(shared, now) };
        self.step = Step::Examine(Examine { mailbox, opened: Opened::default(), left });
        let command = Command::Examine { mailbox: &wire_name, condstore: false };
        shared.send_then(&command, now, Phase::OneShot(Box::new(OneShot::Survey(Box::new(self)))))
    }

    fn answer(mut self, shared: &mut Shared, now: Instant) -> Phase {
        self.found.capabilities = shared.capabilities;
        let first = self.found.mailboxes.iter().find(|mailbox| mailbox.opened.is_ok());
        let titles_of = first.map(|first| first.mailbox.clone()).filter(|_| self.survey.titles > 0);
        shared.act(Action::Surveyed(Box::new(self.found)));
        match titles_of {
            Some(mailbox) => {
                let query = TitleQuery { mailbox, count: self.survey.titles, since: None, criteria: None };
                TitleFetch::begin(shared, query, now)
            }
            None => shared.log_out(now),
        }
    }
}

fn examined(opened: &Opened, status: Status, text: &StatusText) -> Result<u32, Refusal> {
    if status != Status::Ok {
        return Err(Refusal::of(text));
    }
    opened.uid_validity().map(|_| opened.exists()).ok_or_else(|| Refusal {
        why: Why::Mailbox,
        code: Some("NOUIDVALIDITY".to_owned()),
        text: "the mailbox has no UIDVALIDITY".to_owned(),
    })
}
