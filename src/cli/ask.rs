//! Commands that ask accounts one question each: connect, log in, ask, log out.

use std::sync::Arc;

use futures::StreamExt;
use futures::channel::mpsc;
use futures::stream::FuturesUnordered;
use log::error;

use super::tell;
use crate::account::lifecycle::{SessionEnd, trouble};
use crate::account::milestone::Milestone;
use crate::account::session::{self, Wires};
use crate::config::settings::{Account, Settings};
use crate::exit::Exit;
use crate::imap::conversation::Goal;
use crate::imap::ending::Ending;
use crate::imap::listing::MailboxListing;
use crate::imap::titles::TitleListing;
use crate::once;
use crate::once::outcome::{Failure, verdict};
use crate::process;
use crate::text::line;

/// What came back.
#[derive(Debug)]
pub(super) enum Answer {
    /// The mailboxes.
    Mailboxes(MailboxListing),
    /// The latest messages.
    Titles(TitleListing),
}

/// Asks `id`, or the only account there is.
///
/// # Errors
/// How the command ends; why is told on stderr.
pub(super) fn ask(
    settings: Result<Settings, Exit>,
    id: Option<&str>,
    goal: impl Fn(&Account) -> Goal,
) -> Result<(Arc<Account>, Answer), Exit> {
    let settings = settings?;
    let account = choose(&settings, id)?;
    let mut answered = None;
    let exit = ask_all(&settings, vec![account], goal, |account, answer| answered = Some((account, answer)));
    answered.ok_or(exit)
}

/// Asks all of `accounts` as fast as the gate lets them, and hands over each answer as it comes. How it went: failures are told on stderr.
pub(super) fn ask_all(
    settings: &Settings,
    accounts: Vec<Arc<Account>>,
    goal: impl Fn(&Account) -> Goal,
    mut answered: impl FnMut(Arc<Account>, Answer),
) -> Exit {
    let (asked, mut settings) = (accounts.len(), settings.clone());
    once::narrow_gate(&mut settings);
    let connections = settings.connections.max_total.map_or(u64::MAX, u64::from).min(asked as u64);
    if let Err(error) = process::reserve_descriptors(connections) {
        error!("{error}");
        return Exit::CannotStart;
    }
    let (wires, _prober) = Wires::new(&settings);
    let (wires, goal) = (&wires, &goal);
    let ask = |account: Arc<Account>| async move {
        let answer = answer(&account, goal(&account), wires).await;
        (account, answer)
    };
    let mut answers: FuturesUnordered<_> = accounts.into_iter().map(ask).collect();
    let mut failures = Vec::new();
    actix::System::new().block_on(async {
        while let Some((account, answer)) = answers.next().await {
            match answer {
                Ok(answer) => answered(account, answer),
                Err(end) => failures.push(failed(&account, &end)),
            }
        }
    });
    verdict(asked, &failures)
}

async fn answer(account: &Account, goal: Goal, wires: &Wires) -> Result<Answer, SessionEnd> {
    let (milestones, mut heard) = mpsc::unbounded();
    let end = session::ask(account, goal, wires, &milestones).await;
    let mut answer = None;
    while let Ok((_, milestone)) = heard.try_recv() {
        match milestone {
            Milestone::Mailboxes(listing) => answer = Some(Answer::Mailboxes(listing)),
            Milestone::Titles(listing) => answer = Some(Answer::Titles(listing)),
            Milestone::LoggedIn
            | Milestone::Alive
            | Milestone::Traffic { .. }
            | Milestone::Answered(_)
            | Milestone::Rests(_)
            | Milestone::Alert(_)
            | Milestone::Pipelined { .. }
            | Milestone::SearchRefused(_)
            | Milestone::ChangesUntold(_)
            | Milestone::Watching(_)
            | Milestone::Reached(_)
            | Milestone::Surveyed(_)
            | Milestone::Beside(_)
            | Milestone::Shares(_)
            | Milestone::Toured(_)
            | Milestone::Unopened(..)
            | Milestone::MailboxesTruncated => {}
        }
    }
    match (end, answer) {
        (SessionEnd::Conversation(Ending::LoggedOut), Some(answer)) => Ok(answer),
        (end, _) => Err(end),
    }
}

pub(super) fn choose(settings: &Settings, id: Option<&str>) -> Result<Arc<Account>, Exit> {
    let found = match (id, settings.accounts.as_slice()) {
        (Some(id), accounts) => accounts.iter().find(|account| account.id().as_str() == id),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    found.cloned().ok_or_else(|| {
        let ids: Vec<_> = settings.accounts.iter().take(20).map(|account| account.id().as_str()).collect();
        let more = settings.accounts.len() - ids.len();
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let ids = ids.join(", ") + &more;
        match id {
            Some(id) => {
                tell(&format!("error: there is no account \"{}\"; there are: {ids}", line(id, 128)));
                Exit::Config
            }
            None => {
                tell(&format!("error: which account? name one with --account: {ids}"));
                Exit::Usage
            }
        }
    })
}

fn failed(account: &Account, end: &SessionEnd) -> Failure {
    let why = trouble(end).map_or_else(|| "the server gave no answer".to_owned(), |trouble| trouble.message);
    error!(account:% = account.id(), host:% = account.identity.host; "{why}");
    Failure::of(end)
}
