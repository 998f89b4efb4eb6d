//! What a new list of accounts, or other shards, mean for those that are watched. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cluster::shard::Holding;
use crate::config::settings::Account;
use crate::event::AccountId;
use crate::messages::{Farewell, ReloadReport};

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

impl Steps {
    /// What that means, for people.
    pub fn report(&self) -> ReloadReport {
        let (added, removed, changed) = (self.start.len(), self.stop.len(), self.replace.len());
        ReloadReport { added, removed, changed, kept: self.kept, ..ReloadReport::default() }
    }

    /// Nothing is to be done to these now.
    pub fn skip(&mut self, skipped: impl Fn(&AccountId) -> bool) {
        self.stop.retain(|(id, _)| !skipped(id));
        self.replace.retain(|account| !skipped(account.id()));
    }
}

/// From what is `running` to what is `desired`, as far as it is ours.
pub fn reconcile(
    running: &HashMap<AccountId, Arc<Account>>,
    desired: &[Arc<Account>],
    holding: &Holding,
) -> Steps {
    let mut steps = Steps::default();
    // Of those that are others' it need not be known what they are.
    let unknown = |id| if holding.has(id) { Farewell::Removed } else { Farewell::HandedOver };
    let mut farewells: HashMap<_, _> = running.keys().map(|id| (id.clone(), unknown(id))).collect();
    for account in desired {
        let id = account.id();
        let is_ours = account.enabled && holding.has(id);
        match running.get(id) {
            None if is_ours => steps.start.push(account.clone()),
            None => {}
            Some(known) if is_ours => {
                farewells.remove(id);
                if known == account {
                    steps.kept += 1;
                } else {
                    steps.replace.push(account.clone());
                }
            }
            Some(_) => {
                let farewell = if account.enabled { Farewell::HandedOver } else { Farewell::Disabled };
                farewells.insert(id.clone(), farewell);
            }
        }
    }
    steps.stop = farewells.into_iter().collect();
    steps.stop.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::shard::{Shard, ShardSet};
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
        let steps = reconcile(&running(&before), &accounts(&before), &Holding::ALONE);
        assert_eq!((steps.kept, steps.stop.len(), steps.replace.len(), steps.start.len()), (2, 0, 0, 0));
    }

    #[test]
    fn accounts_come_go_and_change() {
        let off = format!("{SECRET}\nenabled = false");
        let before = running(&[("gone", SECRET), ("off", SECRET), ("same", SECRET), ("other", SECRET)]);
        let after =
            [("same", SECRET), ("other", "password = { file = \"pw2\" }"), ("new", SECRET), ("off", &*off)];
        let steps = reconcile(&before, &accounts(&after), &Holding::ALONE);
        assert_eq!(steps.stop, [("gone".into(), Farewell::Removed), ("off".into(), Farewell::Disabled)]);
        assert_eq!((ids(&steps.replace), ids(&steps.start), steps.kept), (vec!["other"], vec!["new"], 1));
    }

    /// Both are in the configuration all the time.
    #[test]
    fn accounts_follow_their_shards() {
        let all = [("a", SECRET), ("work", SECRET)];
        let of = |id: &str| ShardSet::from_iter([Shard::of(&id.into())]);
        let holding = |held, leaving| Holding { held, leaving, ..Holding::default() };
        let none = ShardSet::default();
        let steps = reconcile(&HashMap::new(), &accounts(&all), &holding(of("a"), none));
        assert_eq!((ids(&steps.start), steps.stop), (vec!["a"], vec![]));
        let steps = reconcile(&running(&all[..1]), &accounts(&all), &holding(of("work"), none));
        assert_eq!((ids(&steps.start), steps.stop), (vec!["work"], vec![("a".into(), Farewell::HandedOver)]));
        let steps = reconcile(&running(&all), &accounts(&all), &holding(ShardSet::ALL, of("work")));
        assert_eq!((steps.kept, steps.stop), (1, vec![("work".into(), Farewell::HandedOver)]));
        // Who has it says that it is gone.
        let steps = reconcile(&running(&all[..1]), &accounts(&all[..1]), &holding(of("a"), none));
        assert_eq!((steps.kept, steps.stop.len()), (1, 0));
        let steps = reconcile(&running(&all), &accounts(&all[..1]), &holding(of("a"), none));
        assert_eq!(
            steps.stop,
            [("work".into(), Farewell::HandedOver)],
            "nobody here knows what it is by now"
        );
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
            let changed = accounts(&[("a", &format!("{SECRET}\n{more}"))]);
            let steps = reconcile(&running(&[("a", SECRET)]), &changed, &Holding::ALONE);
            assert_eq!(ids(&steps.replace), ["a"], "{more}");
        }
        let inline = |value: &str| {
            format!("tls = \"none\"\nallow_plaintext = true\npassword = {{ inline = \"{value}\" }}")
        };
        let steps = reconcile(
            &running(&[("a", &inline("one"))]),
            &accounts(&[("a", &inline("two"))]),
            &Holding::ALONE,
        );
        assert_eq!(ids(&steps.replace), ["a"]);
    }
}
