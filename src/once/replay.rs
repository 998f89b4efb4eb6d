//! Past messages, told again: by the normal way, marked, and without a cursor that moves. Pure.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::settings::{Account, Policy, Settings};
use crate::event::{Cursor, EventBody, MailboxName, Source};
use crate::filter::pattern::Pattern;
use crate::imap::conversation::ToldFrom;
use crate::messages::{Batch, Replaces, Replay, ReplayError};

/// What is told again, and how much of it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaying {
    /// From there on.
    pub from: ToldFrom,
    /// The one output that is told; those that filters say where `None`.
    output: Option<Arc<str>>,
    events: Rc<Cell<usize>>,
    /// Where mailboxes stand that were begun: a session that ends early is followed by one that goes on there.
    stands: Rc<RefCell<HashMap<MailboxName, Cursor>>>,
}

impl Replaying {
    /// Nothing told yet.
    pub fn new(wanted: &Replay) -> Self {
        let output = wanted.output.as_deref().map(Arc::from);
        Self { from: wanted.from, output, events: Rc::default(), stands: Rc::default() }
    }

    /// How many events are durable.
    pub fn events(&self) -> usize {
        self.events.get()
    }

    /// These became durable, and the mailbox stands there, as far as this replay goes.
    pub fn told(&self, mailbox: MailboxName, events: usize, cursor: Option<Cursor>) {
        self.events.set(self.events.get() + events);
        self.stands.borrow_mut().extend(cursor.map(|cursor| (mailbox, cursor)));
    }

    /// Where the mailbox stands, once it was begun.
    pub fn stands(&self, mailbox: &MailboxName) -> Option<Cursor> {
        self.stands.borrow().get(mailbox).cloned()
    }

    /// Of what was found, the messages alone; the mailbox stands where it stood.
    pub fn of(&self, mut batch: Batch) -> Batch {
        batch.events.retain_mut(|event| match &mut event.body {
            EventBody::MessageNew(message) => {
                message.source = Source::Replay;
                if let Some(output) = &self.output {
                    let mut filtered = event.filtered.take().unwrap_or_default();
                    filtered.outputs = vec![output.to_string()];
                    event.filtered = Some(filtered);
                }
                true
            }
            _ => false,
        });
        batch.checkpoint.iter_mut().for_each(|checkpoint| checkpoint.replaces = Replaces::Aside);
        Batch { notes: Vec::new(), ..batch }
    }
}

/// The configuration of the account and the mailboxes that are wanted.
///
/// # Errors
/// Where there are none, or no such output, or a UID could be of more than one mailbox.
pub fn narrow(settings: &Settings, wanted: &Replay) -> Result<Settings, ReplayError> {
    let account = settings.accounts.iter().find(|account| account.enabled && *account.id() == wanted.account);
    let account = account.ok_or_else(|| ReplayError::NoAccount(wanted.account.clone()))?;
    if let Some(output) = &wanted.output
        && !settings.outputs.iter().any(|known| known.name == *output)
    {
        return Err(ReplayError::NoOutput(output.clone()));
    }
    let account = match &wanted.mailbox {
        Some(mailbox) => of_mailboxes(account, mailbox)?,
        None => account.clone(),
    };
    let is_one = !account.mailboxes.needs_listing() && account.mailboxes.names().len() == 1;
    if matches!(wanted.from, ToldFrom::Uid(_)) && !is_one {
        return Err(ReplayError::ManyMailboxes);
    }
    Ok(Settings { accounts: vec![account], ..settings.clone() })
}

fn of_mailboxes(account: &Arc<Account>, glob: &str) -> Result<Arc<Account>, ReplayError> {
    let none = || ReplayError::NoMailbox(glob.to_owned());
    let pattern = Pattern::of_mailboxes(glob).map_err(|_| none())?;
    let mailboxes = Arc::new(account.mailboxes.narrowed(&[pattern]).ok_or_else(none)?);
    let policy = Arc::new(Policy { mailboxes, ..(*account.policy).clone() });
    Ok(Arc::new(Account { policy, ..(**account).clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn settings() -> Settings {
        let text = "[outputs.out]\ntype = \"stdout\"\n[defaults]\nhost = \"h.example\"\nuser = \"u\"\npassword = { file = \"pw\" }\n\
                    [[accounts]]\nid = \"a\"\nmailboxes = [\"INBOX\", \"Sent\"]\n\
                    [[accounts]]\nid = \"off\"\nenabled = false\n[[accounts]]\nid = \"all\"\nmailboxes = [\"*\"]\n";
        config::from_text("t.toml", text).unwrap_or_else(|issues| panic!("{issues:?}")).0
    }

    fn wanted(account: &str, mailbox: Option<&str>, from: ToldFrom, output: Option<&str>) -> Replay {
        let (mailbox, output) = (mailbox.map(str::to_owned), output.map(str::to_owned));
        Replay { account: account.into(), mailbox, from, output }
    }

    #[test]
    fn a_mailbox_that_was_begun_goes_on_where_it_stood() {
        let replaying = Replaying::new(&wanted("a", None, ToldFrom::Uid(7), None));
        let (inbox, sent) = (MailboxName::inbox(), MailboxName::from("Sent"));
        let cursor = Cursor::baseline(1, 10, None);
        let of_a_session = replaying.clone();
        of_a_session.told(inbox.clone(), 3, Some(cursor.clone()));
        of_a_session.told(sent.clone(), 2, None);
        assert_eq!(
            (replaying.events(), replaying.stands(&inbox), replaying.stands(&sent)),
            (5, Some(cursor), None)
        );
    }

    #[test]
    fn only_what_is_watched_is_told_again_and_a_uid_is_of_one_mailbox() {
        let (uid, time) = (ToldFrom::Uid(7), ToldFrom::Time(jiff::Timestamp::UNIX_EPOCH));
        let ask = |account, mailbox, from, output| {
            narrow(&settings(), &wanted(account, mailbox, from, output)).map(|settings| {
                let names = settings.accounts[0].mailboxes.names();
                names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            })
        };
        assert_eq!(ask("a", None, time, Some("out")), Ok("INBOX Sent".to_owned()));
        assert_eq!(ask("a", Some("Sent"), uid, None), Ok("Sent".to_owned()));
        assert_eq!(ask("a", None, uid, None), Err(ReplayError::ManyMailboxes));
        assert_eq!(ask("all", None, uid, None), Err(ReplayError::ManyMailboxes));
        assert_eq!(ask("a", Some("Trash"), time, None), Err(ReplayError::NoMailbox("Trash".to_owned())));
        assert_eq!(ask("a", None, time, Some("x")), Err(ReplayError::NoOutput("x".to_owned())));
        for account in ["off", "nobody"] {
            assert_eq!(ask(account, None, time, None), Err(ReplayError::NoAccount(account.into())));
        }
    }
}
