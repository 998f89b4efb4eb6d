//! What rows of the database's table mean for the accounts that are known. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::cluster::shard::{Shard, ShardSet};
use crate::config::settings::{Account, Settings, TableReading};
use crate::event::AccountId;

/// What is to be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// All rows of these.
    pub(super) whole: ShardSet,
    /// What changed of these.
    pub(super) others: ShardSet,
}

impl Due {
    /// Of the shards that are `held`, whose rows were `read`. Where that is nothing to go on from, all is read.
    pub(super) fn of(held: &ShardSet, read: &ShardSet, is_trusted: bool) -> Self {
        let others = if is_trusted { held.and(read) } else { ShardSet::NONE };
        Self { whole: held.without(&others), others }
    }
}

/// What rows say.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The shards of which there are no others.
    pub(super) whole: ShardSet,
    pub(super) accounts: Vec<Arc<Account>>,
    /// Rows that are no accounts.
    pub(super) broken: HashSet<AccountId>,
    pub(super) deleted: Vec<AccountId>,
}

impl Change {
    /// Accounts that the flags leave out, or narrow. Whether there were some, and none is meant.
    pub(super) fn keep_only(&mut self, meant: Vec<Arc<Account>>) -> bool {
        let ids: HashSet<_> = meant.iter().map(|account| account.id()).collect();
        let others = self.accounts.iter().map(|account| account.id()).filter(|id| !ids.contains(id));
        self.deleted.extend(others.cloned());
        let none = meant.is_empty() && !self.accounts.is_empty();
        self.accounts = meant;
        none
    }

    /// It was of others' accounts.
    pub(super) fn is_nothing(&self) -> bool {
        self.whole.is_empty() && !self.is_news()
    }

    /// Something changed of shards that were read before.
    pub(super) fn is_news(&self) -> bool {
        let accounts = self.accounts.iter().map(|account| account.id());
        accounts.chain(&self.broken).chain(&self.deleted).any(|id| !self.whole.has(Shard::of(id)))
    }
}

/// Until they are read anew, rows are as they were.
pub(super) fn keep_rows(settings: &mut Settings, before: &Settings) {
    let (Some(table), Some(known)) = (&mut settings.table, &before.table) else { return };
    let named: HashSet<_> = settings.accounts.iter().map(|account| account.id().clone()).collect();
    let is_row = |id: &AccountId| known.ids.contains(id) && !named.contains(id);
    let rows: Vec<_> = before.accounts.iter().filter(|account| is_row(account.id())).cloned().collect();
    table.ids = rows.iter().map(|account| account.id().clone()).collect();
    (table.shards, table.broken) = (known.shards, known.broken.clone());
    settings.accounts.extend(rows);
}

/// All accounts as the change has them, as far as they are ours; `table` follows.
pub(super) fn merged(
    table: &mut TableReading,
    mut accounts: Vec<Arc<Account>>,
    change: Change,
    held: &ShardSet,
) -> Vec<Arc<Account>> {
    let shards = table.shards.or(&change.whole).and(held);
    let is_ours = |id: &AccountId| shards.has(Shard::of(id));
    let new = change.accounts.into_iter().filter(|account| is_ours(account.id()));
    let new: HashMap<_, _> = new.map(|account| (account.id().clone(), account)).collect();
    let deleted: HashSet<_> = change.deleted.into_iter().collect();
    // Of a row that is broken, what was known before is kept.
    let is_there = |id: &AccountId| change.broken.contains(id) || !change.whole.has(Shard::of(id));
    let stays =
        |id: &AccountId| is_ours(id) && is_there(id) && !new.contains_key(id) && !deleted.contains(id);
    accounts.retain(|account| !table.ids.contains(account.id()) || stays(account.id()));
    table.ids.retain(&stays);
    table.broken.retain(&stays);
    table.ids.extend(new.keys().cloned());
    table.broken.extend(change.broken.iter().filter(|id| is_ours(id)).cloned());
    table.shards = shards;
    accounts.extend(new.into_values());
    accounts
}

#[cfg(test)]
#[cfg(feature = "postgres")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::accounts_table::Stored;
    use crate::config::from_texts;
    use crate::config::rows::RowsRead;

    const TEXT: &str = "[defaults]\nhost = \"h.example\"\nuser = \"{id}\"\npassword = { credential = \"{id}\" }\n\
        [[accounts]]\nid = \"filed\"\n[[account_lists]]\ndatabase = true\n\
        [journal]\nurl = \"postgres://iw@localhost/mail?sslmode=disable\"\n";

    fn shards(ids: &[&str]) -> ShardSet {
        ids.iter().map(|id| Shard::of(&(*id).into())).collect()
    }

    #[test]
    fn only_what_is_new_is_read() {
        let due = |read: &[&str], held: &[&str], is_trusted| {
            let Due { whole, others } = Due::of(&shards(held), &shards(read), is_trusted);
            (whole, others)
        };
        let (none, one, both, ab) = (ShardSet::NONE, shards(&["a"]), shards(&["a", "b"]), ["a", "b"]);
        assert_eq!(due(&ab, &ab, true), (none, both));
        assert_eq!(due(&["b"], &ab, true), (one, shards(&["b"])), "a shard came");
        assert_eq!(due(&ab, &["a"], true), (none, one), "a shard went");
        assert_eq!(due(&ab, &ab, false), (both, none), "it may be another server, or another configuration");
    }

    #[derive(Clone, Debug)]
    struct Row {
        port: u16,
        is_broken: bool,
    }

    impl Row {
        fn stored(&self, id: usize) -> Stored {
            let config = if self.is_broken {
                "{\"prot\": 1}".to_owned()
            } else {
                format!("{{\"port\": {}}}", self.port)
            };
            Stored { id: format!("u{id}"), config, secret: None }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(usize, Row),
        Delete(usize),
        Hold(Vec<bool>),
        Reread,
        /// Whether a file has that name then.
        Reload(Option<usize>),
    }

    fn id(n: usize) -> AccountId {
        AccountId::from(format!("u{n}").as_str())
    }

    fn change(table: &TableReading, rows: &HashMap<usize, Row>, ids: &[usize], whole: ShardSet) -> Change {
        let stored: Vec<_> = ids.iter().filter_map(|n| Some(rows.get(n)?.stored(*n))).collect();
        let RowsRead { accounts, broken, issues, lacks_keys } = table.reader.read(&stored);
        assert_eq!((broken.is_empty(), false), (issues.is_empty(), lacks_keys));
        Change { whole, accounts, broken, ..Change::default() }
    }

    /// As a start has read it, with an account of this name in a file.
    fn started(name: Option<usize>) -> Settings {
        let more = name.map(|n| format!("[[accounts]]\nid = \"{}\"\nport = 77\n", id(n))).unwrap_or_default();
        let mut settings = from_texts("t.toml", &format!("{TEXT}{more}"), &[]).unwrap().0;
        settings.table.as_mut().unwrap().shards = ShardSet::NONE;
        settings
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let row = (1..9u16, prop::bool::weighted(0.2)).prop_map(|(port, is_broken)| Row { port, is_broken });
        let step = prop_oneof![
            4 => (0..6usize, row).prop_map(|(id, row)| Step::Write(id, row)),
            2 => (0..6usize).prop_map(Step::Delete),
            2 => prop::collection::vec(any::<bool>(), 6).prop_map(Step::Hold),
            1 => Just(Step::Reread),
            1 => prop::option::of(0..6usize).prop_map(Step::Reload),
        ];
        prop::collection::vec(step, 1..40)
    }

    proptest! {
        /// Whatever happens in whatever order: what is known is what the table has of our shards, and what is in files stays. Where a
        /// row is broken, either nothing is known or what was right before.
        #[test]
        fn changes_add_up_to_the_table(steps in steps()) {
            let mut settings = started(None);
            let mut rows: HashMap<usize, Row> = HashMap::new();
            let (mut held, mut filed) = (ShardSet::NONE, None);
            for step in steps {
                if let Step::Reload(name) = step {
                    filed = name;
                    let mut desired = started(name);
                    keep_rows(&mut desired, &settings);
                    let kept: HashSet<_> = desired.accounts.iter().map(|account| account.id()).collect();
                    let before = settings.table.iter().flat_map(|table| &table.ids);
                    prop_assert!(before.into_iter().all(|id| kept.contains(id)), "until they are read anew");
                    settings = desired;
                }
                let Settings { table: Some(table), accounts, .. } = &mut settings else { unreachable!() };
                let of = |shards: &ShardSet| (0..6).filter(|n| shards.has(Shard::of(&id(*n)))).collect::<Vec<_>>();
                let change = match step {
                    Step::Write(n, row) => {
                        rows.insert(n, row);
                        let ids = if table.shards.has(Shard::of(&id(n))) { vec![n] } else { Vec::new() };
                        change(table, &rows, &ids, ShardSet::NONE)
                    }
                    Step::Delete(n) => {
                        rows.remove(&n);
                        Change { deleted: vec![id(n)], ..Change::default() }
                    }
                    Step::Hold(flags) => {
                        held = flags.iter().enumerate().filter(|(_, held)| **held).map(|(n, _)| Shard::of(&id(n))).collect();
                        let whole = held.without(&table.shards);
                        change(table, &rows, &of(&whole), whole)
                    }
                    Step::Reread | Step::Reload(_) => change(table, &rows, &of(&held), held),
                };
                *accounts = merged(table, std::mem::take(accounts), change, &held);
                prop_assert_eq!(table.shards, held);
                let known: HashMap<_, _> = accounts.iter().map(|account| (account.id().clone(), account.identity.port)).collect();
                prop_assert_eq!(known.len(), accounts.len(), "none twice");
                prop_assert!(known.contains_key(&AccountId::from("filed")));
                for n in 0..6 {
                    let (found, is_broken) = (known.get(&id(n)).copied(), table.broken.contains(&id(n)));
                    let row = rows.get(&n).filter(|_| held.has(Shard::of(&id(n))));
                    if filed == Some(n) {
                        prop_assert_eq!((found, is_broken), (Some(77), row.is_some()), "what is in a file stays");
                        prop_assert!(!table.ids.contains(&id(n)));
                        continue;
                    }
                    match row {
                        None => prop_assert_eq!((found, is_broken), (None, false)),
                        Some(row) if row.is_broken => prop_assert!(is_broken),
                        Some(row) => prop_assert_eq!((found, is_broken), (Some(row.port), false)),
                    }
                    prop_assert_eq!(table.ids.contains(&id(n)), found.is_some());
                }
            }
        }
    }
}
