//! Connects to accounts, many at a time, as the gate lets them.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::channel::mpsc;

use super::Finding;
use crate::account::milestone::Milestone;
use crate::account::session::{self, Wires};
use crate::config::settings::Account;
use crate::event::AccountId;
use crate::imap::conversation::Goal;
use crate::imap::survey::Survey;
use crate::refusals::Refusals;

/// Looks at each of `accounts` once, `at_once` at the same time, and hands over what was found as it comes.
pub async fn survey_all(
    accounts: Vec<Arc<Account>>,
    mut refusals: HashMap<AccountId, Refusals>,
    wires: &Wires,
    at_once: usize,
    mut found: impl FnMut(Finding),
) {
    let findings = futures::stream::iter(accounts).map(|account| survey(account, 0, wires));
    let mut findings = std::pin::pin!(findings.buffer_unordered(at_once));
    while let Some(mut finding) = findings.next().await {
        finding.refusals = refusals.remove(finding.account.id());
        found(finding);
    }
}

/// Looks at one account, and at the latest messages of its first mailbox.
pub async fn survey(account: Arc<Account>, titles: u32, wires: &Wires) -> Finding {
    let goal = Goal::Survey(Box::new(Survey { choice: account.mailboxes.clone(), titles }));
    let (milestones, mut heard) = mpsc::unbounded();
    let end = session::ask(&account, goal, wires, &milestones).await;
    let mut finding =
        Finding { account, peer: None, logged_in: false, surveyed: None, titles: None, end, refusals: None };
    while let Ok((_, milestone)) = heard.try_recv() {
        match milestone {
            Milestone::Reached(peer) => finding.peer = Some(*peer),
            Milestone::LoggedIn => finding.logged_in = true,
            Milestone::Surveyed(surveyed) => finding.surveyed = Some(*surveyed),
            Milestone::Titles(titles) => finding.titles = Some(titles),
            _ => {}
        }
    }
    finding
}
