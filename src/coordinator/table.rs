//! The accounts of the database's table: read as their shards come, and followed as they change. The table is looked at by a
//! thread of its own, over a connection of its own: a database that does not answer delays nobody.

use std::collections::HashSet;
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
use super::rows::{Change, Due, merged};
use crate::accounts_table::{AccountsTable, Mark, PLACE, Rows, TableError};
use crate::cluster::shard::ShardSet;
use crate::config::rows::{RowReader, RowsRead};
use crate::config::settings::{DatabaseSettings, TableReading};
use crate::config::{Issue, Severity, shown};
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
    let Due { whole, others } = Due::of(&known.held, &known.read, trusted.is_some());
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
            let (count, meant) = (change.accounts.len(), loader.narrow(change.accounts.clone()));
            if change.keep_only(meant) {
                info!("of {} of the table, none is meant by --account or --mailbox", counted(count, "row"));
            }
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
