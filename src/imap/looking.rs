//! A look at what became of the messages that were told: their flags, and whether they are still there.

use std::time::Instant;

use super::changes::{Living, Look};
use super::command::{Command, STATUS_HIGHEST, UidRange};
use super::conversation::{Action, Phase, Shared};
use super::refusal::{Refusal, Why};
use super::reply::{Code, Reply, Status, StatusText};
use super::watch::Selected;
use crate::uid_set::UidSet;

/// Awaits the mailbox's HIGHESTMODSEQ, then what has changed since the one that is known.
///
/// HIGHESTMODSEQ comes first: what is expunged has no mod-sequence that is told, and what is not above this one has
/// certainly been told at the end.
#[derive(Debug)]
pub(super) struct Looking {
    selected: Box<Selected>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Before the first look: which messages are there?
    Living(Living),
    Highest(Option<u64>),
    Changes(Box<Look>),
}

impl Looking {
    pub(super) fn begin(selected: Box<Selected>, shared: &mut Shared, now: Instant) -> Phase {
        if selected.knows_not_who_is_gone() {
            return Self::list(selected, shared, now);
        }
        let wire_name = selected.wire_name().to_vec();
        let phase = Self { selected, step: Step::Highest(None) };
        shared.send_then(
            &Command::Status { mailbox: &wire_name, items: STATUS_HIGHEST },
            now,
            Phase::Looking(Box::new(phase)),
        )
    }

    fn list(selected: Box<Selected>, shared: &mut Shared, now: Instant) -> Phase {
        let Some(last) = selected.seen().last() else {
            return selected.keep_gone(UidSet::new(), shared, now);
        };
        let uids = UidSet::range(1, last);
        let uids = UidRange::Set(&uids);
        let command = Command::UidFetch { uids, items: "(UID)", changed_since: None, vanished: false };
        let step = Step::Living(Living::up_to(last));
        shared.send_then(&command, now, Phase::Looking(Box::new(Self { selected, step })))
    }

    pub(super) fn selected(&mut self) -> &mut Selected {
        &mut self.selected
    }

    pub(super) fn told(&mut self, reply: &Reply) {
        match (&mut self.step, reply) {
            (Step::Living(living), Reply::Fetch(items)) => {
                items.uid.into_iter().for_each(|uid| living.told(uid));
            }
            (Step::Highest(highest), Reply::MailboxStatus(status)) => {
                *highest = highest.or(status.highest_modseq);
            }
            (Step::Changes(look), Reply::Fetch(items)) => {
                self.selected.looks(|told| look.fetched(items, told));
            }
            (Step::Changes(look), Reply::Vanished { earlier, uids, beyond }) => {
                self.selected.looks(|told| look.vanished(*earlier, uids, *beyond, told));
            }
            (Step::Changes(look), Reply::Expunge(_)) => look.expunged(),
            (Step::Changes(look), Reply::Untagged { status: Status::Ok, text }) => said(look, text),
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
        if status != Status::Ok {
            return self.refused(shared, text, now);
        }
        match self.step {
            Step::Living(living) => self.selected.keep_gone(living.gone(), shared, now),
            Step::Highest(highest) => Self::compare(self.selected, highest.unwrap_or(0), shared, now),
            Step::Changes(mut look) => {
                said(&mut look, text);
                self.selected.tell_changes(*look, shared, now)
            }
        }
    }

    fn compare(mut selected: Box<Selected>, highest: u64, shared: &mut Shared, now: Instant) -> Phase {
        match selected.changes_told() {
            _ if highest == 0 => {
                shared.act(Action::ChangesUntold("the mailbox has no mod-sequences"));
                selected.look_no_more();
                selected.proceed(shared, now)
            }
            Some(told) if told < highest => Self::ask(selected, told, highest, shared, now),
            Some(told) if told == highest => {
                selected.looked_in_vain(now);
                selected.proceed(shared, now)
            }
            // It went backwards, and says nothing of what was (RFC 7162 section 3.1.2.2).
            _ => selected.begin_changes_anew(highest, shared, now),
        }
    }

    /// By an explicit range: for some servers `*` is the last message that is still there.
    fn ask(selected: Box<Selected>, told: u64, highest: u64, shared: &mut Shared, now: Instant) -> Phase {
        let Some(last) = selected.seen().last() else {
            return selected.begin_changes_anew(highest, shared, now);
        };
        let wanted = selected.wanted_changes();
        let uids = UidSet::range(1, last);
        let command = Command::UidFetch {
            uids: UidRange::Set(&uids),
            items: if wanted.flags { "(UID FLAGS)" } else { "(UID)" },
            changed_since: Some(told),
            vanished: wanted.expunges,
        };
        let step = Step::Changes(Box::new(Look::new(wanted, told, highest)));
        shared.send_then(&command, now, Phase::Looking(Box::new(Self { selected, step })))
    }

    /// What was announced is refused: there is nothing to be had, and nothing to be tried again and again.
    fn refused(mut self, shared: &mut Shared, text: &StatusText, now: Instant) -> Phase {
        if Refusal::of(text).why == Why::Patience {
            let command = if matches!(self.step, Step::Highest(_)) { "STATUS" } else { "UID FETCH" };
            return shared.refused(command, text);
        }
        shared.act(Action::ChangesUntold("the server refuses to say what has changed"));
        self.selected.look_no_more();
        self.selected.proceed(shared, now)
    }
}

fn said(look: &mut Look, text: &StatusText) {
    if let Some(Code::HighestModSeq(modseq)) = text.code {
        look.highest_said(modseq);
    }
}
