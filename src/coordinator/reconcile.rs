//! What a new list of accounts means for those that are watched. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::settings::Account;
use crate::event::AccountId;
use crate::messages::Farewell;

/// What is to be done, in this order; accounts that are not named go on undisturbed.
#[derive(Debug, Default)]
pub struct Steps {
    /// No longer watched.
    pub stop: Vec<(AccountId, Farewell)>,
    /// Watched in another way: stopped first, then started as this.
    pub replace: Vec<Arc<Account>>,
    /// Not watched until now.
    pub start: Vec<Arc<Account>>,
    /// How many go on as they are.
    pub kept: usize,
}

/// From what is `running` to what is `desired`.
pub fn reconcile(running: &HashMap<AccountId, Arc<Account>>, desired: &[Arc<Account>]) -> Steps {
    let mut steps = Steps::default();
    for account in desired.iter().filter(|account| account.enabled) {
        match running.get(account.id()) {
            None => steps.start.push(account.clone()),
            Some(known) if known == account => steps.kept += 1,
            Some(_) => steps.replace.push(account.clone()),
        }
    }
    let (enabled, disabled): (Vec<_>, Vec<_>) = desired.iter().partition(|account| account.enabled);
    let ids = |accounts: &[&Arc<Account>]| accounts.iter().map(|account| account.id().clone()).collect();
    let (enabled, disabled): (HashSet<_>, HashSet<_>) = (ids(&enabled), ids(&disabled));
    let mut gone: Vec<_> = running.keys().filter(|id| !enabled.contains(*id)).cloned().collect();
    gone.sort_unstable();
    let farewell =
        |id: &AccountId| if disabled.contains(id) { Farewell::Disabled } else { Farewell::Removed };
    steps.stop = gone.into_iter().map(|id| (id.clone(), farewell(&id))).collect();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn accounts(lines: &[(&str, &str)]) -> Vec<Arc<Account>> {
        let account = |(id, more): &(&str, &str)| {
            format!("[[accounts]]\nid = \"{id}\"\nhost = \"imap.example.com\"\nuser = \"u\"\n{more}\n")
        };
        let text: String = lines.iter().map(account).collect();
        config::from_text("t.toml", &text).unwrap_or_else(|issues| panic!("{issues:?}")).0.accounts
    }

    const SECRET: &str = "password = { file = \"pw\" }";

    fn running(lines: &[(&str, &str)]) -> HashMap<AccountId, Arc<Account>> {
        accounts(lines).into_iter().map(|account| (account.id().clone(), account)).collect()
    }

    fn ids(accounts: &[Arc<Account>]) -> Vec<&str> {
        accounts.iter().map(|account| account.id().as_str()).collect()
    }

    #[test]
    fn what_did_not_change_is_left_alone() {
        let before = [("a", SECRET), ("b", SECRET)];
        let steps = reconcile(&running(&before), &accounts(&before));
        assert_eq!((steps.kept, steps.stop.len(), steps.replace.len(), steps.start.len()), (2, 0, 0, 0));
    }

    #[test]
    fn accounts_come_go_and_change() {
        let off = format!("{SECRET}\nenabled = false");
        let before = running(&[("gone", SECRET), ("off", SECRET), ("same", SECRET), ("other", SECRET)]);
        let after =
            [("same", SECRET), ("other", "password = { file = \"pw2\" }"), ("new", SECRET), ("off", &*off)];
        let steps = reconcile(&before, &accounts(&after));
        assert_eq!(steps.stop, [("gone".into(), Farewell::Removed), ("off".into(), Farewell::Disabled)]);
        assert_eq!((ids(&steps.replace), ids(&steps.start), steps.kept), (vec!["other"], vec!["new"], 1));
    }

    /// Whatever an account is about makes it another one.
    #[test]
    fn every_key_of_an_account_counts() {
        for more in [
            "port = 1993",
            "mailboxes = [\"INBOX\", \"Sent\"]",
            "idle_refresh = \"5m\"",
            "initial = \"all\"",
            "labels = { team = \"x\" }",
            "tls_options = { ca_file = \"x.pem\" }",
        ] {
            let steps =
                reconcile(&running(&[("a", SECRET)]), &accounts(&[("a", &format!("{SECRET}\n{more}"))]));
            assert_eq!(ids(&steps.replace), ["a"], "{more}");
        }
        let inline = |value: &str| {
            format!("tls = \"none\"\nallow_plaintext = true\npassword = {{ inline = \"{value}\" }}")
        };
        let steps = reconcile(&running(&[("a", &inline("one"))]), &accounts(&[("a", &inline("two"))]));
        assert_eq!(ids(&steps.replace), ["a"]);
    }
}
