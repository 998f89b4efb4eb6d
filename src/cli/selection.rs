//! `--account GLOB` and `--mailbox GLOB`: a part of what the configuration has.

use clap::Args;
use globset::{Glob, GlobMatcher};

use crate::config::settings::Settings;
use crate::config::{Issue, Severity};

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
        let globs = matchers("--account", &self.accounts)?;
        settings.accounts.retain(|account| matches(&globs, account.id().as_str()));
        if settings.accounts.is_empty() {
            return Err(problem("--account", "no account matches"));
        }
        Ok(())
    }
}

/// The globs of a flag.
///
/// # Errors
/// The first that is none.
pub(super) fn matchers(flag: &str, patterns: &[String]) -> Result<Vec<GlobMatcher>, Issue> {
    let matcher = |pattern: &String| Ok(Glob::new(pattern)?.compile_matcher());
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
