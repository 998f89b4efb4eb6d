//! Refused logins that an earlier process left in the journal.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::config::settings::Account;
use crate::journal::JournalHandle;
use crate::oauth::tokens::Tokens;
use crate::refusals::{LoginDigest, QuickDigest, Refusals};

/// What an earlier process left of refused logins.
#[derive(Debug)]
pub enum Recalled {
    /// Nothing that still counts.
    Nothing,
    /// These, with the secret that is still configured; `None` while nobody can tell.
    Refused(Refusals, Option<QuickDigest>),
}

/// Looks it up. Where a login was refused, the secret is fetched, to see whether it is still that one.
pub async fn recall(journal: JournalHandle, account: Arc<Account>, tokens: Tokens) -> Recalled {
    let refusals = journal.refusals(account.id()).await.unwrap_or_default();
    let Some(login) = refusals.login().cloned() else { return Recalled::Nothing };
    let Ok(secret) = account.login.known_by(&tokens).await else { return Recalled::Refused(refusals, None) };
    let quick = QuickDigest::new(&secret);
    let identity = account.identity.clone();
    match spawn_blocking(move || LoginDigest::new(&identity, &secret)).await {
        Ok(configured) if configured == login => Recalled::Refused(refusals, Some(quick)),
        _ => Recalled::Nothing,
    }
}
