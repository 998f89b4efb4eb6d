//! Commands that ask one account one question: connect, log in, ask, log out.

use std::sync::Arc;

use futures::channel::mpsc;
use log::error;

use crate::account::lifecycle::{Blame, SessionEnd, blame, trouble};
use crate::account::session::{self, Milestone, Wires};
use crate::config::settings::{Account, Settings};
use crate::event::NewMessage;
use crate::exit::Exit;
use crate::imap::conversation::Goal;
use crate::imap::ending::Ending;
use crate::imap::listing::MailboxListing;
use crate::text::line;

/// What came back.
#[derive(Debug)]
pub(super) enum Answer {
    /// The mailboxes.
    Mailboxes(MailboxListing),
    /// The latest messages, newest first.
    Titles(Vec<NewMessage>),
}

/// Asks `id`, or the only account there is.
///
/// # Errors
/// How the command ends; why is told on stderr.
pub(super) fn ask(
    settings: Result<Settings, Exit>,
    id: Option<&str>,
    goal: impl FnOnce(&Account) -> Goal,
) -> Result<(Arc<Account>, Answer), Exit> {
    let settings = settings?;
    let account = choose(&settings, id)?;
    let (wires, _prober) = Wires::new(&settings);
    let (milestones, mut heard) = mpsc::unbounded();
    let goal = goal(&account);
    let end = actix::System::new().block_on(session::ask(&account, goal, &wires, &milestones));
    let mut answer = None;
    while let Ok((_, milestone)) = heard.try_recv() {
        match milestone {
            Milestone::Mailboxes(listing) => answer = Some(Answer::Mailboxes(listing)),
            Milestone::Titles(messages) => answer = Some(Answer::Titles(messages)),
            Milestone::LoggedIn
            | Milestone::Alive
            | Milestone::Traffic { .. }
            | Milestone::Alert(_)
            | Milestone::SearchRefused(_)
            | Milestone::Watching(_) => {}
        }
    }
    match (end, answer) {
        (SessionEnd::Conversation(Ending::LoggedOut), Some(answer)) => Ok((account, answer)),
        (end, _) => Err(failed(&account, &end)),
    }
}

fn choose(settings: &Settings, id: Option<&str>) -> Result<Arc<Account>, Exit> {
    let found = match (id, settings.accounts.as_slice()) {
        (Some(id), accounts) => accounts.iter().find(|account| account.id().as_str() == id),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    found.cloned().ok_or_else(|| {
        let ids: Vec<_> = settings.accounts.iter().take(20).map(|account| account.id().as_str()).collect();
        match id {
            Some(id) => error!("there is no account \"{}\"; there are: {}", line(id, 128), ids.join(", ")),
            None => error!("which account? name one with --account: {}", ids.join(", ")),
        }
        Exit::Config
    })
}

fn failed(account: &Account, end: &SessionEnd) -> Exit {
    let why = trouble(end).map_or_else(|| "the server gave no answer".to_owned(), |trouble| trouble.message);
    error!(account:% = account.id(), host:% = account.identity.host; "{why}");
    match blame(end) {
        Blame::Credentials => Exit::Refused,
        Blame::Mailbox => Exit::SomeFailed,
        _ => Exit::Unreachable,
    }
}
