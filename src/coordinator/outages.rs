//! Which changes of accounts the log tells one by one, and which only by their number: a storm must not drown it. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::Level;

use crate::event::AccountState;
use crate::messages::StatusChanged;

/// Changes within [`WINDOW`] that are told one by one.
const MOST: usize = 100;

/// More than that within this time is a storm.
const WINDOW: Duration = Duration::from_secs(10);

/// What was told lately, and what was not.
#[derive(Debug)]
pub struct Outages {
    began: Instant,
    told: usize,
    kept_back: BTreeMap<String, usize>,
    /// When the window began in which the first of them came: others follow it, as long as anything changes.
    keeping_since: Instant,
}

impl Outages {
    /// Nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { began: now, told: 0, kept_back: BTreeMap::new(), keeping_since: now }
    }

    /// How loud a change is told; `None` where it is only counted. `previous` is the state before.
    pub fn judge(&mut self, change: &StatusChanged, previous: AccountState, now: Instant) -> Option<Level> {
        let level = level(change, previous);
        if level == Level::Debug {
            return Some(level);
        }
        if now.saturating_duration_since(self.began) >= WINDOW {
            (self.began, self.told) = (now, 0);
        }
        self.told += 1;
        if self.told <= MOST {
            return Some(level);
        }
        if self.kept_back.is_empty() {
            self.keeping_since = self.began;
        }
        *self.kept_back.entry(cause(change)).or_default() += 1;
        None
    }

    /// What was only counted, once the time for it is over.
    pub fn summary(&mut self, now: Instant) -> Option<String> {
        if self.kept_back.is_empty() || now.saturating_duration_since(self.keeping_since) < WINDOW {
            return None;
        }
        let kept_back = std::mem::take(&mut self.kept_back);
        let parts: Vec<_> =
            kept_back.into_iter().map(|(cause, count)| format!("{count} × {cause}")).collect();
        Some(parts.join(" · "))
    }
}

/// Trouble is a warning, its end is news, and that a start goes well is neither.
fn level(change: &StatusChanged, previous: AccountState) -> Level {
    match (&change.trouble, change.state) {
        (Some(_), _) => Level::Warn,
        (None, AccountState::Online) if is_trouble(previous) => Level::Info,
        (None, _) => Level::Debug,
    }
}

fn is_trouble(state: AccountState) -> bool {
    match state {
        AccountState::Backoff
        | AccountState::AuthFailed
        | AccountState::Throttled
        | AccountState::TlsFailed
        | AccountState::Suspended => true,
        AccountState::Connecting | AccountState::Online | AccountState::Disabled | AccountState::Removed => {
            false
        }
    }
}

fn cause(change: &StatusChanged) -> String {
    match &change.trouble {
        Some(trouble) => format!("{} ({})", change.state, trouble.error_type),
        None => change.state.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ErrorType, Trouble};

    fn changed(state: AccountState, trouble: Option<ErrorType>) -> StatusChanged {
        let trouble = trouble.map(|error_type| Trouble { error_type, code: None, message: "x".to_owned() });
        StatusChanged { account: "a".into(), state, trouble, mailbox: None }
    }

    #[test]
    fn trouble_and_its_end_are_told_and_a_start_is_not() {
        let mut outages = Outages::new(Instant::now());
        let mut told =
            |state, trouble, previous| outages.judge(&changed(state, trouble), previous, Instant::now());
        let (connecting, online, backoff) =
            (AccountState::Connecting, AccountState::Online, AccountState::Backoff);
        assert_eq!(told(online, None, connecting), Some(Level::Debug));
        assert_eq!(told(backoff, Some(ErrorType::Connect), online), Some(Level::Warn));
        assert_eq!(told(online, None, backoff), Some(Level::Info));
        assert_eq!(told(AccountState::Removed, None, online), Some(Level::Debug));
    }

    #[test]
    fn a_storm_is_told_by_its_causes_and_the_next_quiet_change_for_itself() {
        let start = Instant::now();
        let mut outages = Outages::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let lost = changed(AccountState::Backoff, Some(ErrorType::Connect));
        let refused = changed(AccountState::AuthFailed, Some(ErrorType::Auth));
        let mut one_by_one = 0;
        for number in 0..10_000 {
            let change = if number % 10 == 0 { &refused } else { &lost };
            one_by_one += usize::from(outages.judge(change, AccountState::Online, at(1)).is_some());
        }
        assert_eq!((one_by_one, outages.summary(at(9))), (MOST, None));
        let summary = outages.summary(at(10)).unwrap();
        assert_eq!(summary, "990 × auth_failed (auth) · 8910 × backoff (connect)");
        assert_eq!(outages.summary(at(10)), None);
        assert_eq!(outages.judge(&lost, AccountState::Online, at(11)), Some(Level::Warn));
    }

    #[test]
    fn changes_after_a_storm_do_not_put_off_what_is_told_of_it() {
        let start = Instant::now();
        let mut outages = Outages::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let lost = changed(AccountState::Backoff, Some(ErrorType::Connect));
        for _ in 0..=MOST {
            outages.judge(&lost, AccountState::Online, at(1));
        }
        assert_eq!(outages.judge(&lost, AccountState::Online, at(11)), Some(Level::Warn));
        assert_eq!(outages.summary(at(15)).as_deref(), Some("1 × backoff (connect)"));
    }
}
