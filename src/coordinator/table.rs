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
use crate::accounts_table::{AccountsTable, Mark, PLACE, Rows, TableError};
use crate::cluster::shard::{Shard, ShardSet};
use crate::config::rows::{RowReader, RowsRead};
use crate::config::settings::{Account, DatabaseSettings, Settings, TableReading};
use crate::config::{Issue, Severity, shown};
use crate::event::AccountId;
use crate::text::counted;

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

    pub(super) fn ask(&self) {
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
    let (mut trusted, mut told) = (None, Told::default());
    while asked.recv_timeout(PERIOD) != Err(RecvTimeoutError::Disconnected) {
        let Some(coordinator) = coordinator.upgrade() else { return };
        let Ok(Some(known)) = block_on(coordinator.send(AskKnown)) else { continue };
        match look(&mut table, known, trusted.as_ref()) {
            Ok(Looked { rows, issues, trusted: since }) => {
                told.tell(&issues);
                let taken = block_on(coordinator.send(rows)).unwrap_or_default();
                trusted = since.filter(|_| taken).or(trusted.filter(|_| !taken));
            }
            Err(error) => told.tell(&[unread(&error)]),
        }
    }
}

/// What a look has found.
struct Looked {
    rows: TakeRows,
    /// What is to be told of them.
    issues: Vec<Issue>,
    /// What the next one goes on from, where all was well.
    trusted: Option<Trusted>,
}

/// What was read before, and by whom.
struct Trusted {
    /// Another one may be to another server, which knows less.
    connection: u64,
    /// Another one may understand rows in another way.
    reader: Arc<RowReader>,
    mark: Mark,
}

fn look(table: &mut AccountsTable, known: Known, trusted: Option<&Trusted>) -> Result<Looked, TableError> {
    let connection = table.connection()?;
    let trusted = trusted
        .filter(|known_by| known_by.connection == connection && Arc::ptr_eq(&known_by.reader, &known.reader));
    let Due { whole, others } = known.due(trusted.is_some());
    let since = trusted.map(|trusted| trusted.mark.clone()).unwrap_or_default();
    let Rows { mark, stored, deleted } = table.read(&whole, &others, &since)?;
    let RowsRead { accounts, broken, issues, lacks_keys } = known.reader.read(&stored);
    let is_sure = !lacks_keys && table.connection()? == connection;
    let trusted = is_sure.then(|| Trusted { connection, reader: known.reader.clone(), mark });
    let change = Change { whole, accounts, broken, deleted };
    Ok(Looked { rows: TakeRows { reader: known.reader, change }, issues, trusted })
}

fn unread(error: &TableError) -> Issue {
    let (origin, message) = (PLACE.to_owned(), format!("it cannot be read: {error}"));
    Issue { severity: Severity::Warning, origin, path: String::new(), message }
}

/// What was told at the last look is not told again: a row may be read several times, and a database may be away for long.
#[derive(Default)]
struct Told(HashSet<String>);

impl Told {
    fn tell(&mut self, issues: &[Issue]) {
        let mut now = HashSet::new();
        for severity in [Severity::Error, Severity::Warning] {
            let issues: Vec<_> = issues.iter().filter(|issue| issue.severity == severity).cloned().collect();
            for line in shown(&issues) {
                if !self.0.contains(&line) {
                    match severity {
                        Severity::Error => error!("{line}"),
                        Severity::Warning => warn!("{line}"),
                    }
                }
                now.insert(line);
            }
        }
        self.0 = now;
    }
}

/// What the coordinator knows of the table.
#[derive(Debug)]
struct Known {
    reader: Arc<RowReader>,
    /// The shards that were read.
    read: ShardSet,
    /// The shards that are ours.
    held: ShardSet,
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
    /// Where what was read before is nothing to go on from, all is read.
    fn due(&self, is_trusted: bool) -> Due {
        let others = if is_trusted { self.held.and(&self.read) } else { ShardSet::NONE };
        Due { whole: self.held.without(&others), others }
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
}

impl Change {
    /// Accounts that the flags leave out, or narrow.
    fn keep_only(&mut self, meant: Vec<Arc<Account>>) {
        let ids: HashSet<_> = meant.iter().map(|account| account.id()).collect();
        let others = self.accounts.iter().map(|account| account.id()).filter(|id| !ids.contains(id));
        self.deleted.extend(others.cloned());
        if meant.is_empty() && !self.accounts.is_empty() {
            info!(
                "of {} of the table, none is meant by --account or --mailbox",
                counted(self.accounts.len(), "row")
            );
        }
        self.accounts = meant;
    }

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
        self.forget_rows(held);
        let is_unread = |table: &TableReading| !held.without(&table.shards).is_empty();
        if self.context.settings.table.as_ref().is_some_and(is_unread) {
            self.context.look.ask();
        }
    }

    fn forget_rows(&mut self, held: &ShardSet) {
        let settings = &mut self.context.settings;
        if let Some(table) = settings.table.as_mut().filter(|table| !table.shards.without(held).is_empty()) {
            settings.accounts =
                merged(table, std::mem::take(&mut settings.accounts), Change::default(), held);
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
        let held = self.holding().held;
        // What came back in between is no more read than what is new.
        self.forget_rows(&held);
        let table = self.context.settings.table.as_ref().filter(|_| !self.reloading)?;
        Some(Known { reader: table.reader.clone(), read: table.shards, held })
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
        if change.is_nothing() {
            return true;
        }
        if let Some(loader) = &self.context.loader {
            let meant = loader.narrow(change.accounts.clone());
            change.keep_only(meant);
        }
        let is_news = change.is_news();
        let are_gained = !change.whole.without(&table.shards).is_empty();
        settings.accounts = merged(table, std::mem::take(&mut settings.accounts), change, &holding.held);
        let mut steps = reconcile(&self.running(), &self.context.settings.accounts, &holding);
        steps.skip(|id| self.is_leaving(id));
        let report = steps.report();
        if report.removed + report.changed > 0 || (report.added > 0 && (is_news || !are_gained)) {
            info!("the table of accounts changed: {report}");
        }
        self.note_accounts_soon(ctx);
        let taken = self.take(steps, ctx);
        ctx.spawn(taken);
        self.now_served(&holding.held);
        true
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
    table.shards = shards;
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
    use crate::config::settings::LoginMeans;
    use crate::secrets::SecretSource;

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
        let due = |read: &[&str], held: &[&str], is_trusted| {
            let known = Known { reader: reader.clone(), read: shards(read), held: shards(held) };
            let Due { whole, others } = known.due(is_trusted);
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

    /// It runs its program for as many of them as ask at the same time.
    #[test]
    fn rows_that_come_later_ask_the_same_store_for_their_secrets() {
        let text = format!("{TEXT}[secrets.store]\nexec = [\"/bin/store\"]\n");
        let row = |id: &str| format!("{id}\t{{\"password\": {{\"secret\": \"store:{id}\"}}}}\n");
        let settings = from_texts("t.toml", &text, &[(PLACE, &row("u1"))]).unwrap().0;
        let config = row("u2").split_once('\t').unwrap().1.to_owned();
        let later = Stored { id: "u2".to_owned(), config, secret: None };
        let later = settings.table.unwrap().reader.read(&[later]).accounts;
        let stores: Vec<_> = settings
            .accounts
            .iter()
            .chain(&later)
            .filter_map(|account| match &account.login {
                LoginMeans::Password(SecretSource::Backend(store, _)) => Some(store),
                _ => None,
            })
            .collect();
        assert!(matches!(stores.as_slice(), [one, other] if Arc::ptr_eq(one, other)));
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
