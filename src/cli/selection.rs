//! `--account GLOB` and `--mailbox GLOB`: a part of what the configuration has.

use std::sync::Arc;

use clap::Args;
use globset::{GlobBuilder, GlobMatcher};

use crate::config::settings::{Account, Policy, Settings, TableReading};
use crate::config::{Issue, Severity};
use crate::filter::pattern::Pattern;

/// Which accounts.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct AccountSelection {
    /// Only accounts whose id matches; may be given several times.
    #[arg(short = 'a', long = "account", value_name = "GLOB")]
    accounts: Vec<String>,
}

impl AccountSelection {
    /// Leaves out all others.
    ///
    /// # Errors
    /// Where a glob is none, or none is left.
    pub(super) fn narrow(&self, settings: &mut Settings) -> Result<(), Issue> {
        if self.accounts.is_empty() {
            return Ok(());
        }
        self.narrow_these(&mut settings.accounts)?;
        settings.narrowed = true;
        if settings.accounts.is_empty() && all_are_known(settings) {
            return Err(problem("--account", "no account matches"));
        }
        Ok(())
    }

    /// The same, of accounts that come later.
    ///
    /// # Errors
    /// Where a glob is none.
    pub(super) fn narrow_these(&self, accounts: &mut Vec<Arc<Account>>) -> Result<(), Issue> {
        let is_meant = self.matcher()?;
        accounts.retain(|account| is_meant(account.id().as_str()));
        Ok(())
    }

    /// Whether an id is one of them: every id is, where none was named.
    ///
    /// # Errors
    /// Where a glob is none.
    pub(super) fn matcher(&self) -> Result<impl Fn(&str) -> bool + use<>, Issue> {
        let globs = matchers("--account", &self.accounts)?;
        Ok(move |id: &str| globs.is_empty() || matches(&globs, id))
    }
}

/// Which mailboxes.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct MailboxSelection {
    /// Only mailboxes whose name matches, of those that are watched; `*` ends at a `/`. May be given several times.
    #[arg(short = 'm', long = "mailbox", value_name = "GLOB")]
    mailboxes: Vec<String>,
}

impl MailboxSelection {
    /// Leaves out all others, and the accounts that have none left.
    ///
    /// # Errors
    /// Where a glob is none, or none is left.
    pub(super) fn narrow(&self, settings: &mut Settings) -> Result<(), Issue> {
        if self.mailboxes.is_empty() {
            return Ok(());
        }
        self.narrow_these(&mut settings.accounts)?;
        settings.narrowed = true;
        if settings.accounts.is_empty() && all_are_known(settings) {
            return Err(problem("--mailbox", "no mailbox that is watched matches"));
        }
        Ok(())
    }

    /// The same, of accounts that come later.
    ///
    /// # Errors
    /// Where a glob is none.
    pub(super) fn narrow_these(&self, accounts: &mut Vec<Arc<Account>>) -> Result<(), Issue> {
        if self.mailboxes.is_empty() {
            return Ok(());
        }
        let patterns = self.mailboxes.iter().map(|glob| Pattern::of_mailboxes(glob));
        let patterns: Vec<_> =
            patterns.collect::<Result<_, _>>().map_err(|error| problem("--mailbox", error.to_string()))?;
        let narrowed = accounts.iter().filter_map(|account| {
            let mailboxes = Arc::new(account.mailboxes.narrowed(&patterns)?);
            let policy = Arc::new(Policy { mailboxes, ..(*account.policy).clone() });
            Some(Arc::new(Account { policy, ..(**account).clone() }))
        });
        *accounts = narrowed.collect();
        Ok(())
    }
}

/// Rows of the database's table may come yet.
fn all_are_known(settings: &Settings) -> bool {
    settings.table.as_ref().is_none_or(TableReading::is_whole)
}

/// The globs of a flag.
///
/// # Errors
/// The first that is none.
pub(super) fn matchers(flag: &str, patterns: &[String]) -> Result<Vec<GlobMatcher>, Issue> {
    let inbox = |pattern: &String| pattern.eq_ignore_ascii_case("INBOX");
    let matcher = |pattern: &String| {
        let pattern = if inbox(pattern) { "INBOX" } else { pattern.as_str() };
        Ok(GlobBuilder::new(pattern).literal_separator(flag == "--mailbox").build()?.compile_matcher())
    };
    let matchers = patterns.iter().map(matcher).collect::<Result<_, globset::Error>>();
    matchers.map_err(|error| problem(flag, error.to_string()))
}

pub(super) fn matches(globs: &[GlobMatcher], name: &str) -> bool {
    globs.iter().any(|glob| glob.is_match(name))
}

/// What is wrong with a flag.
pub(super) fn problem(flag: &str, message: impl Into<String>) -> Issue {
    Issue { severity: Severity::Error, origin: String::new(), path: flag.to_owned(), message: message.into() }
}
