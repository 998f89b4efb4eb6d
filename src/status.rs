//! What is known of all accounts, as a value.

use std::collections::{BTreeMap, HashMap};

use crate::event::{AccountId, AccountState, Trouble};
use crate::messages::StatusChanged;

/// The state of every account.
#[derive(Clone, Debug, Default)]
pub struct StatusBoard {
    accounts: HashMap<AccountId, AccountStatus>,
}

/// The state of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountStatus {
    /// Its state.
    pub state: AccountState,
    /// What is wrong.
    pub trouble: Option<Trouble>,
}

impl StatusBoard {
    /// Watched from now on: connecting.
    pub fn enter(&mut self, account: AccountId) {
        self.accounts.insert(account, AccountStatus { state: AccountState::Connecting, trouble: None });
    }

    /// No longer watched.
    pub fn leave(&mut self, account: &AccountId) {
        self.accounts.remove(account);
    }

    /// Takes a change in. Trouble of one mailbox leaves the account's as it is.
    pub fn apply(&mut self, change: StatusChanged) {
        let Some(status) = self.accounts.get_mut(&change.account) else { return };
        status.state = change.state;
        if change.mailbox.is_none() {
            status.trouble = change.trouble;
        }
    }

    /// How many accounts are in each state.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for status in self.accounts.values() {
            *counts.entry(status.state.as_str()).or_default() += 1;
        }
        counts
    }

    /// What troubles accounts: how many, and the words of one of them. Those that most have come first.
    pub fn troubles(&self) -> Vec<(usize, String)> {
        let mut groups: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for (account, status) in &self.accounts {
            let Some(trouble) = &status.trouble else { continue };
            let words = || format!("{}, for one: {}", account.as_str(), trouble.message);
            let kind = format!("{} {:?}", trouble.error_type, trouble.code);
            groups.entry(kind).or_insert_with(|| (0, words())).0 += 1;
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_unstable_by_key(|(count, _)| std::cmp::Reverse(*count));
        groups
    }

    /// How many accounts there are, and how many are still making their first connection.
    pub fn progress(&self) -> (usize, usize) {
        let connecting = |status: &&AccountStatus| status.state == AccountState::Connecting;
        (self.accounts.len(), self.accounts.values().filter(connecting).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ErrorType;

    #[test]
    fn states_are_counted() {
        let mut board = StatusBoard::default();
        ["a", "b", "c"].into_iter().for_each(|id| board.enter(id.into()));
        board.leave(&"c".into());
        let state = AccountState::Online;
        board.apply(StatusChanged { account: "a".into(), state, trouble: None, mailbox: None });
        board.apply(StatusChanged { account: "unknown".into(), state, trouble: None, mailbox: None });
        assert_eq!(board.counts(), BTreeMap::from([("connecting", 1), ("online", 1)]));
        assert_eq!(board.progress(), (2, 1));
        assert_eq!(board.troubles(), []);
        let trouble = Trouble { error_type: ErrorType::Dns, code: None, message: "no such name".to_owned() };
        let state = AccountState::Backoff;
        board.apply(StatusChanged { account: "b".into(), state, trouble: Some(trouble), mailbox: None });
        assert_eq!(board.troubles(), [(1, "b, for one: no such name".to_owned())]);
    }
}
