//! The accounts of the database's table: read as their shards come, and followed as they change. The table is looked at by a
//! thread of its own, over a connection of its own: a database that does not answer delays nobody.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use actix::WeakAddr;
use actix::prelude::*;
use futures::executor::block_on;
use log::{error, info, warn};

use super::actor::Coordinator;
use super::reconcile::reconcile;
use crate::accounts_table::{AccountsTable, Latest, Mark, Rows, TableError};
use crate::cluster::shard::{Shard, ShardSet};
use crate::config::rows::{RowReader, RowsRead};
use crate::config::settings::{Account, DatabaseSettings, Settings, TableReading};
use crate::config::{Issue, Severity, shown};
use crate::demand::Demand;
use crate::event::AccountId;
use crate::process;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(5);

/// Asks for a look at once.
#[derive(Clone, Debug)]
pub struct Look(SyncSender<()>);

impl Look {
    /// With what hears it.
    pub fn channel() -> (Self, Receiver<()>) {
        let (asks, asked) = sync_channel(1);
        (Self(asks), asked)
    }

    fn ask(&self) {
        // One that waits already sees what we have seen.
        let _ = self.0.try_send(());
    }
}

/// Brings the coordinator the rows of its shards, at each look that was `asked` for, and all that changes of them. Ends with the
/// coordinator.
pub fn attend(database: DatabaseSettings, asked: Receiver<()>, coordinator: &Addr<Coordinator>) {
    let coordinator = coordinator.downgrade();
    let look = move || match AccountsTable::new(&database) {
        Ok(table) => attend_to(table, &asked, &coordinator),
        Err(error) => error!("the table of accounts is not read: {error}"),
    };
    if let Err(error) = thread::Builder::new().name("accounts".to_owned()).spawn(look) {
        error!("the table of accounts is not read: {error}");
    }
}

fn attend_to(mut table: AccountsTable, asked: &Receiver<()>, coordinator: &WeakAddr<Coordinator>) {
    let mut trusted = None;
    while asked.recv_timeout(PERIOD) != Err(RecvTimeoutError::Disconnected) {
        let Some(coordinator) = coordinator.upgrade() else { return };
        let Ok(Some(known)) = block_on(coordinator.send(AskKnown)) else { continue };
        // While the database is away nothing changes; the connection tells.
        let Ok(Some((rows, connection))) = look(&mut table, known, trusted) else { continue };
        if block_on(coordinator.send(rows)).unwrap_or_default() {
            trusted = Some(connection);
        }
    }
}

/// What is new, and of which connection it was heard.
fn look(
    table: &mut AccountsTable,
    known: Known,
    trusted: Option<u64>,
) -> Result<Option<(TakeRows, u64)>, TableError> {
    let latest = table.latest()?;
    let Some(Due { whole, others }) = known.due(&latest, trusted) else { return Ok(None) };
    let Rows { mark, stored, deleted } = table.read(&whole, &others, known.mark)?;
    let RowsRead { accounts, broken, issues } = known.reader.read(&stored);
    let change = Change { whole, accounts, broken, deleted, issues, mark };
    Ok(Some((TakeRows { reader: known.reader, change }, latest.connection)))
}

/// What the coordinator knows of the table.
#[derive(Debug)]
struct Known {
    reader: Arc<RowReader>,
    /// The shards that were read.
    read: ShardSet,
    /// The shards that are ours.
    held: ShardSet,
    mark: Mark,
}

/// What is to be read.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    /// All rows of these.
    whole: ShardSet,
    /// What changed of these.
    others: ShardSet,
}

impl Known {
    /// Nothing, where the table is as it was. What was heard of another connection than the one that is `trusted`, or before rows
    /// went without a trace, is nothing to go on from.
    fn due(&self, latest: &Latest, trusted: Option<u64>) -> Option<Due> {
        let is_new =
            trusted != Some(latest.connection) || latest.removed > self.mark || latest.mark < self.mark;
        let others = if is_new { ShardSet::NONE } else { self.held.and(&self.read) };
        let whole = self.held.without(&others);
        (!whole.is_empty() || latest.mark != self.mark).then_some(Due { whole, others })
    }
}

/// What is known of the table; nothing while the configuration is being read.
#[derive(Message)]
#[rtype(result = "Option<Known>")]
struct AskKnown;

/// Rows that were read. Whether they were taken: else all is to be looked at anew.
#[derive(Message)]
#[rtype(result = "bool")]
struct TakeRows {
    /// Who has read them.
    reader: Arc<RowReader>,
    change: Change,
}

/// What rows say.
#[derive(Debug, Default)]
struct Change {
    /// The shards of which there are no others.
    whole: ShardSet,
    accounts: Vec<Arc<Account>>,
    /// Rows that are no accounts.
    broken: HashSet<AccountId>,
    deleted: Vec<AccountId>,
    /// What is to be told of them.
    issues: Vec<Issue>,
    /// What the table was then.
    mark: Mark,
}

impl Change {
    /// It was of others' accounts.
    fn is_nothing(&self) -> bool {
        self.whole.is_empty() && !self.is_news()
    }

    /// Something changed of shards that were read before.
    fn is_news(&self) -> bool {
        let accounts = self.accounts.iter().map(|account| account.id());
        accounts.chain(&self.broken).chain(&self.deleted).any(|id| !self.whole.has(Shard::of(id)))
    }
}

impl Coordinator {
    /// What is others' by now is forgotten, and what has become ours is to be read.
    pub(super) fn follow_rows(&mut self, held: &ShardSet) {
        let settings = &mut self.context.settings;
        let Some(table) = &mut settings.table else { return };
        if !table.shards.without(held).is_empty() {
            let nothing = Change { mark: table.mark, ..Change::default() };
            settings.accounts = merged(table, std::mem::take(&mut settings.accounts), nothing, held);
        }
        if !held.without(&table.shards).is_empty() {
            self.context.look.ask();
        }
    }

    /// Those of our shards whose accounts are known.
    pub(super) fn known_shards(&self, held: &ShardSet) -> ShardSet {
        self.context.settings.table.as_ref().map_or(*held, |table| table.shards.and(held))
    }
}

impl Handler<AskKnown> for Coordinator {
    type Result = Option<Known>;

    fn handle(&mut self, _: AskKnown, _: &mut Self::Context) -> Self::Result {
        let table = self.context.settings.table.as_ref().filter(|_| !self.reloading)?;
        let (reader, held) = (table.reader.clone(), self.holding().held);
        Some(Known { reader, read: table.shards, held, mark: table.mark })
    }
}

impl Handler<TakeRows> for Coordinator {
    type Result = bool;

    fn handle(&mut self, TakeRows { reader, mut change }: TakeRows, ctx: &mut Self::Context) -> Self::Result {
        let (holding, busy) = (self.holding(), self.stopping || self.reloading);
        let settings = &mut self.context.settings;
        // What a reload has read is newer.
        let table = settings.table.as_mut().filter(|table| !busy && Arc::ptr_eq(&table.reader, &reader));
        let Some(table) = table else { return false };
        tell(&change.issues);
        if let Some(loader) = &self.context.loader {
            change.accounts = loader.narrow(change.accounts);
        }
        if change.is_nothing() {
            table.mark = change.mark;
            return true;
        }
        let is_news = change.is_news();
        let are_gained = !change.whole.without(&table.shards).is_empty();
        settings.accounts = merged(table, std::mem::take(&mut settings.accounts), change, &holding.held);
        let mut steps = reconcile(&self.running(), &self.context.settings.accounts, &holding);
        steps.skip(|id| self.is_leaving(id));
        let report = steps.report();
        if is_news || report.removed + report.changed > 0 || (report.added > 0 && !are_gained) {
            info!("the table of accounts changed: {report}");
        }
        if report.added > 0 {
            warn_of_descriptors(&self.context.settings);
        }
        self.note_accounts_soon(ctx);
        let taken = self.take(steps, ctx);
        ctx.spawn(taken);
        self.now_served(&holding.held);
        true
    }
}

fn tell(issues: &[Issue]) {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        issues.iter().cloned().partition(|issue| issue.severity == Severity::Error);
    shown(&errors).iter().for_each(|line| error!("{line}"));
    shown(&warnings).iter().for_each(|line| warn!("{line}"));
}

/// A start would have been refused.
fn warn_of_descriptors(settings: &Settings) {
    if let Err(error) = process::reserve_descriptors(Demand::of(settings).connections) {
        warn!("{error}");
    }
}

/// All accounts as the change has them, as far as they are ours; `table` follows.
fn merged(
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
    (table.shards, table.mark) = (shards, change.mark);
    accounts.extend(new.into_values());
    accounts
}

#[cfg(test)]
#[cfg(feature = "postgres")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::accounts_table::{PLACE, Stored};
    use crate::config::from_texts;

    const TEXT: &str = "[defaults]\nhost = \"h.example\"\nuser = \"{id}\"\npassword = { credential = \"{id}\" }\n\
        [[accounts]]\nid = \"filed\"\n[[account_lists]]\ndatabase = true\n\
        [journal]\nurl = \"postgres://iw@localhost/mail?sslmode=disable\"\n";

    fn shards(ids: &[&str]) -> ShardSet {
        ids.iter().map(|id| Shard::of(&(*id).into())).collect()
    }

    /// As if these rows had been read.
    fn read(rows: &str) -> (TableReading, Vec<Arc<Account>>) {
        let settings = from_texts("t.toml", TEXT, &[(PLACE, rows)]).unwrap().0;
        (settings.table.unwrap(), settings.accounts)
    }

    #[test]
    fn only_what_is_new_is_read() {
        let reader = read("").0.reader;
        let due = |read: &[&str], held: &[&str], mark, latest, removed, trusted| {
            let known =
                Known { reader: reader.clone(), read: shards(read), held: shards(held), mark: Mark(mark) };
            let latest = Latest { mark: Mark(latest), removed: Mark(removed), connection: 2 };
            known.due(&latest, trusted).map(|Due { whole, others }| (whole, others))
        };
        let (none, one, both) = (ShardSet::NONE, shards(&["a"]), shards(&["a", "b"]));
        let ab = ["a", "b"];
        assert_eq!(due(&ab, &ab, 7, 7, 3, Some(2)), None, "it is as it was");
        assert_eq!(due(&ab, &ab, 7, 8, 3, Some(2)), Some((none, both)), "something changed");
        assert_eq!(due(&["b"], &ab, 7, 7, 3, Some(2)), Some((one, shards(&["b"]))), "a shard came");
        assert_eq!(due(&ab, &["a"], 7, 8, 3, Some(2)), Some((none, one)), "a shard went");
        assert_eq!(due(&ab, &ab, 7, 9, 8, Some(2)), Some((both, none)), "rows went without a trace");
        assert_eq!(due(&ab, &ab, 7, 6, 3, Some(2)), Some((both, none)), "it is an older one");
        assert_eq!(due(&ab, &ab, 7, 7, 3, Some(1)), Some((both, none)), "it may be another server");
        assert_eq!(due(&[], &[], 0, 9, 0, None), Some((none, none)), "there is nothing, and that is known");
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
    }

    fn id(n: usize) -> AccountId {
        AccountId::from(format!("u{n}").as_str())
    }

    fn change(table: &TableReading, rows: &HashMap<usize, Row>, ids: &[usize], whole: ShardSet) -> Change {
        let stored: Vec<_> = ids.iter().filter_map(|n| Some(rows.get(n)?.stored(*n))).collect();
        let RowsRead { accounts, broken, issues } = table.reader.read(&stored);
        assert!(broken.is_empty() || !issues.is_empty());
        Change { whole, accounts, broken, ..Change::default() }
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let row = (1..9u16, prop::bool::weighted(0.2)).prop_map(|(port, is_broken)| Row { port, is_broken });
        let step = prop_oneof![
            4 => (0..6usize, row).prop_map(|(id, row)| Step::Write(id, row)),
            2 => (0..6usize).prop_map(Step::Delete),
            2 => prop::collection::vec(any::<bool>(), 6).prop_map(Step::Hold),
            1 => Just(Step::Reread),
        ];
        prop::collection::vec(step, 1..40)
    }

    proptest! {
        /// Whatever happens in whatever order: what is known is what the table has of our shards, and what is in files stays. Where a
        /// row is broken, either nothing is known or what was right before.
        #[test]
        fn changes_add_up_to_the_table(steps in steps()) {
            let (mut table, mut accounts) = read("");
            table.shards = ShardSet::NONE;
            let mut rows: HashMap<usize, Row> = HashMap::new();
            let mut held = ShardSet::NONE;
            for step in steps {
                let change = match step {
                    Step::Write(n, row) => {
                        rows.insert(n, row);
                        let ids = if table.shards.has(Shard::of(&id(n))) { vec![n] } else { Vec::new() };
                        change(&table, &rows, &ids, ShardSet::NONE)
                    }
                    Step::Delete(n) => {
                        rows.remove(&n);
                        Change { deleted: vec![id(n)], ..Change::default() }
                    }
                    Step::Hold(flags) => {
                        held = flags.iter().enumerate().filter(|(_, held)| **held).map(|(n, _)| Shard::of(&id(n))).collect();
                        let whole = held.without(&table.shards);
                        let ids: Vec<_> = (0..6).filter(|n| whole.has(Shard::of(&id(*n)))).collect();
                        change(&table, &rows, &ids, whole)
                    }
                    Step::Reread => {
                        let ids: Vec<_> = (0..6).filter(|n| held.has(Shard::of(&id(*n)))).collect();
                        change(&table, &rows, &ids, held)
                    }
                };
                accounts = merged(&mut table, accounts, change, &held);
                prop_assert_eq!(table.shards, held);
                let known: HashMap<_, _> = accounts.iter().map(|account| (account.id().clone(), account.identity.port)).collect();
                prop_assert_eq!(known.len(), accounts.len(), "none twice");
                prop_assert!(known.contains_key(&AccountId::from("filed")));
                for n in 0..6 {
                    let (found, is_ours) = (known.get(&id(n)), held.has(Shard::of(&id(n))));
                    match rows.get(&n).filter(|_| is_ours) {
                        None => prop_assert!(found.is_none() && !table.broken.contains(&id(n))),
                        Some(row) if row.is_broken => prop_assert!(table.broken.contains(&id(n))),
                        Some(row) => prop_assert_eq!((found, table.broken.contains(&id(n))), (Some(&row.port), false)),
                    }
                    prop_assert_eq!(table.ids.contains(&id(n)), found.is_some());
                }
            }
        }
    }

    /// What accounts have in common is one, whenever they were read; and a row cannot take the name of an account in a file.
    #[test]
    fn rows_that_come_later_are_read_as_the_first() {
        let (table, accounts) = read("u1\t{}\n");
        let row = |id: &str| Stored { id: id.to_owned(), config: "{}".to_owned(), secret: None };
        let later = table.reader.read(&[row("u2"), row("filed")]);
        assert!(Arc::ptr_eq(&accounts[1].policy, &later.accounts[0].policy));
        assert!(Arc::ptr_eq(&accounts[1].identity.host, &later.accounts[0].identity.host));
        assert_eq!(later.broken, HashSet::from([AccountId::from("filed")]));
        let told = later.issues.iter().map(ToString::to_string).collect::<String>();
        assert!(told.contains("\"filed\" is the id of another account already, at t.toml:6:1"), "{told}");
    }

    /// They all stand at one place.
    #[test]
    fn each_row_has_its_own_proxy() {
        let rows =
            "u1\t{\"proxy\": \"http://a.example:1\"}\nu2\t{\"proxy\": \"http://b.example:2\"}\nu3\t{}\n";
        let (_, accounts) = read(rows);
        let proxies: Vec<_> =
            accounts.iter().map(|account| account.proxy.as_ref().map(|proxy| proxy.port)).collect();
        assert_eq!(proxies, [None, Some(1), Some(2), None]);
    }
}
