//! What a conversation found -> the batch that the sink takes. Pure.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::event::{
    AccountIdentity, Action, Event, EventBody, GapReason, MailboxGap, MailboxKey, MailboxName, MailboxReset,
};
use crate::event_id;
use crate::filter::in_force::FiltersInForce;
use crate::imap::conversation::{Delivery, Finding};
use crate::memory::Told;
use crate::messages::{Batch, Checkpoint, Note};

/// Makes events of findings: ids, times, and only the actions that are on.
#[derive(Clone, Debug)]
pub struct Reporter {
    /// Whose events.
    pub identity: Arc<AccountIdentity>,
    /// The actions that some output takes.
    pub include: Arc<[Action]>,
    /// Which messages are told, and to whom.
    pub filters: FiltersInForce,
}

/// A blindness that is no longer than it takes to notice a dead link is not worth an event.
const SHORT: SignedDuration = SignedDuration::from_secs(60);

fn is_short_blindness(finding: &Finding, at: Timestamp) -> bool {
    match finding {
        Finding::Gap { since: Some(since), reason: GapReason::Offline, .. } => {
            at.duration_since(*since) < SHORT
        }
        _ => false,
    }
}

/// What is made of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Its events, and the cursor that covers them.
    pub batch: Batch,
    /// Messages that filters left out.
    pub dropped: u64,
}

impl Reporter {
    /// What is to be made durable of a delivery.
    pub fn report(&self, delivery: Delivery, at: Timestamp) -> Report {
        let mailbox = &delivery.mailbox;
        let uid_validity = delivery.cursor.uid_validity;
        let uid_next = delivery.cursor.uid_next;
        let told = delivery.findings.iter().filter_map(|finding| match finding {
            Finding::Message(message) => Told::new(&message.summary, at),
            _ => None,
        });
        let (key, messages) = (self.key(mailbox), told.collect::<Vec<_>>());
        let notes = if messages.is_empty() { Vec::new() } else { vec![Note::Told { key, messages }] };
        let filters = self.filters.get();
        let mut dropped = 0;
        let events = delivery
            .findings
            .into_iter()
            .filter(|finding| !is_short_blindness(finding, at))
            .map(|finding| self.body(mailbox, finding, uid_validity, uid_next, at))
            .filter(|(_, body)| self.include.contains(&body.action()))
            .map(|(id, body)| self.event(id, body, at))
            .filter_map(|event| {
                let told = filters.pass(event);
                dropped += u64::from(told.is_none());
                told
            })
            .collect();
        let replaces = delivery.before.into();
        let checkpoint = Checkpoint { key: self.key(mailbox), cursor: delivery.cursor, replaces };
        Report { batch: Batch { events, checkpoint: Some(checkpoint), notes }, dropped }
    }

    /// Which mailbox, for the journal.
    pub fn key(&self, mailbox: &MailboxName) -> MailboxKey {
        MailboxKey { account: self.identity.id.clone(), mailbox: mailbox.clone() }
    }

    /// An event of the account itself; `None` where its action is off.
    pub fn account_event(&self, body: EventBody, at: Timestamp) -> Option<Event> {
        let included = self.include.contains(&body.action());
        included.then(|| self.event(event_id::fresh(), body, at))
    }

    fn event(&self, id: String, body: EventBody, at: Timestamp) -> Event {
        Event { at, id, account: Some(self.identity.clone()), body, filtered: None, redacted: Vec::new() }
    }

    fn body(
        &self,
        mailbox: &MailboxName,
        finding: Finding,
        uid_validity: u32,
        uid_next: u32,
        at: Timestamp,
    ) -> (String, EventBody) {
        let account = &self.identity.id;
        match finding {
            Finding::Message(message) => {
                let id = event_id::message_new(account, mailbox, message.uid_validity, message.uid);
                (id, EventBody::MessageNew(message))
            }
            Finding::Flags(change) => {
                let (uid, modseq) = (change.uid, change.modseq);
                let id = event_id::message_flags(account, mailbox, change.uid_validity, uid, modseq);
                (id, EventBody::MessageFlags(change))
            }
            Finding::Expunged(gone) => {
                let id = event_id::message_expunged(account, mailbox, gone.uid_validity, gone.uid);
                (id, EventBody::MessageExpunged(gone))
            }
            Finding::Reset { role, previous } => {
                let reset = MailboxReset {
                    mailbox: mailbox.clone(),
                    role,
                    uid_validity,
                    uid_validity_previous: previous,
                    uid_next,
                };
                (event_id::reset(account, mailbox, uid_validity), EventBody::MailboxReset(reset))
            }
            Finding::Gap { role, uid_first, uid_last, since, recovered, lost, reason } => {
                let gap = MailboxGap {
                    mailbox: mailbox.clone(),
                    role,
                    uid_validity,
                    since,
                    until: Some(at),
                    uid_first,
                    uid_last,
                    recovered,
                    lost,
                    reason,
                };
                (event_id::gap(account, mailbox, uid_validity, uid_first, at), EventBody::MailboxGap(gap))
            }
        }
    }
}
