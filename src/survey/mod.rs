//! What `check` and `init` find out of accounts: one connection and at most one login each, nothing is changed.
//!
//! `runner` connects; all else is pure: `report` of one account, `summary` of all, `hints` for known troubles, `table`
//! for people.

pub mod hints;
pub mod report;
pub mod runner;
pub mod summary;
pub mod table;

use std::sync::Arc;

use crate::account::lifecycle::SessionEnd;
use crate::config::settings::Account;
use crate::imap::survey::Surveyed;
use crate::imap::titles::TitleListing;
use crate::refusals::Refusals;
use crate::wire::peer::Peer;

/// What was found of one account, as it came.
#[derive(Debug)]
pub struct Finding {
    /// Which.
    pub account: Arc<Account>,
    /// Who was reached.
    pub peer: Option<Peer>,
    /// The login was accepted.
    pub logged_in: bool,
    /// What the server told after it.
    pub surveyed: Option<Surveyed>,
    /// The latest messages of its first mailbox, where they were asked for.
    pub titles: Option<TitleListing>,
    /// How it ended.
    pub end: SessionEnd,
    /// The refused logins that a monitor knows of.
    pub refusals: Option<Refusals>,
}
