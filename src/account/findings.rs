//! What a conversation found -> the batch that the sink takes. Pure.

use std::sync::Arc;

use jiff::Timestamp;

use crate::event::{
    AccountIdentity, Action, Event, EventBody, MailboxGap, MailboxKey, MailboxName, MailboxReset,
};
use crate::event_id;
use crate::imap::conversation::{Delivery, Finding};
use crate::messages::{Batch, Checkpoint};

/// Makes events of findings: ids, times, and only the actions that are on.
#[derive(Clone, Debug)]
pub struct Reporter {
    /// Whose events.
    pub identity: Arc<AccountIdentity>,
    /// The actions that some output takes.
    pub include: Arc<[Action]>,
}

impl Reporter {
    /// The batch of a delivery: its events, and the cursor that covers them.
    pub fn batch(&self, mailbox: &MailboxName, delivery: Delivery, at: Timestamp) -> Batch {
        let uid_validity = delivery.cursor.uid_validity;
        let uid_next = delivery.cursor.uid_next;
        let events = delivery
            .findings
            .into_iter()
            .map(|finding| self.body(mailbox, finding, uid_validity, uid_next, at))
            .filter(|(_, body)| self.include.contains(&body.action()))
            .map(|(id, body)| Event { at, id, account: Some(self.identity.clone()), body })
            .collect();
        let key = MailboxKey { account: self.identity.id.clone(), mailbox: mailbox.clone() };
        Batch { events, checkpoint: Some(Checkpoint { key, cursor: delivery.cursor }) }
    }

    /// An event of the account itself; `None` where its action is off.
    pub fn account_event(&self, body: EventBody, at: Timestamp) -> Option<Event> {
        let included = self.include.contains(&body.action());
        included.then(|| Event { at, id: event_id::fresh(), account: Some(self.identity.clone()), body })
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
            Finding::Gap { role, uid_first, uid_last, lost, reason } => {
                let gap = MailboxGap {
                    mailbox: mailbox.clone(),
                    role,
                    uid_validity,
                    since: None,
                    until: Some(at),
                    uid_first,
                    uid_last,
                    recovered: None,
                    lost,
                    reason,
                };
                (event_id::gap(account, mailbox, uid_validity, uid_first, at), EventBody::MailboxGap(gap))
            }
        }
    }
}
