//! The journal in PostgreSQL: the same promises in another dialect. One connection, one statement for each commit, and no
//! transaction that waits for us. Whoever holds the lease is told apart by its epoch, which every statement names.

pub mod accounts;
mod failure;
pub mod lease;
mod link;
mod members;
pub mod overview;
mod round;
mod schema;
mod secured;
mod standby;
mod step;
pub mod tokens;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use log::error;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use self::failure::Failure;
use self::link::{Link, Parameter};
use self::members::Members;
use self::round::Rounds;
use self::step::storable;
use super::checksum::{crc, cursor_crc, lane_crc};
use super::{
    Configured, Damage, Entry, FileEnd, Journal, JournalError, JournalledEvent, KEPT, LanePosition, Receipt,
    Unstored,
};
use crate::cluster::shard::{Holding, Shard, ShardSet};
use crate::event::{AccountId, Cursor, MailboxKey};
use crate::memory::{Fingerprint, Memory, Told};
use crate::refusals::Refusals;
use crate::text;
use crate::uid_set::UidSet;

/// In place of a message's fingerprint: the moment of the first contact.
const FIRST_CONTACT: i64 = 0;

/// Shards whose accounts are compared with the configuration in one step: of a million accounts, eight thousand.
const COMPARED: usize = 8;

/// A journal in which a name is ours, and some of the shards.
#[derive(Debug)]
pub struct PostgresJournal {
    link: Link,
    name: String,
    members: Members,
    holding: Holding,
    /// Where the files of outputs are: those of another machine are none of ours.
    home: String,
    epoch: i64,
    rounds: Rounds,
    /// The last sequence given.
    last: u64,
    bytes: u64,
    /// By which connection the bytes were counted.
    counted_by: u64,
    damage: Damage,
}

/// What is asked of our name's row in the same statement: without a row, it is not ours any more.
fn ours(rows: Vec<Row>) -> Result<Vec<Row>, JournalError> {
    if rows.is_empty() { Err(JournalError::TakenOver) } else { Ok(rows) }
}

/// A row that is not what was written, of a person's making perhaps, must not end us by surprise.
fn damaged(error: tokio_postgres::Error) -> JournalError {
    Failure::Rejected(format!("a row is not what was written: {error}")).into()
}

fn number(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl PostgresJournal {
    fn count(&mut self) -> Result<(), JournalError> {
        let sum =
            "SELECT coalesce(sum(octet_length(payload)), 0)::bigint AS bytes FROM events WHERE node = $1";
        let rows = match self.link.query_all(sum, &[(&self.name, Type::TEXT)]) {
            // How much there is bounds what comes, no more.
            Err(Failure::Unreadable(_)) => {
                self.counted_by = self.link.generation();
                return Ok(());
            }
            rows => rows?,
        };
        self.bytes = rows.first().map_or(Ok(0), |row| row.try_get("bytes")).map(number).map_err(damaged)?;
        self.counted_by = self.link.generation();
        Ok(())
    }

    fn of_mailbox(&mut self, sql: &str, key: &MailboxKey) -> Result<Vec<Row>, JournalError> {
        let (account, mailbox) = (storable(key.account.as_str()), storable(key.mailbox.as_str()));
        let parameters: [Parameter<'_>; 2] = [(&&*account, Type::TEXT), (&&*mailbox, Type::TEXT)];
        Ok(self.link.query(sql, &parameters)?)
    }

    /// The next events that are what was written, and those among them that are not. Those of shards that were let go are
    /// whoever's who claims them; no place of an output may pass them until then.
    fn read(
        &mut self,
        after: u64,
        most: usize,
    ) -> Result<(Vec<JournalledEvent>, Vec<Damaged>), JournalError> {
        let sql = "SELECT sequence, action, payload, crc, had,
                shard IS NULL OR EXISTS (SELECT FROM shards WHERE id = events.shard AND owner = $1) AS is_ours
            FROM events WHERE node = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
        let (after, most) = (signed(after), signed(most as u64));
        let parameters: [Parameter<'_>; 3] =
            [(&self.name, Type::TEXT), (&after, Type::INT8), (&most, Type::INT8)];
        let (mut whole, mut bad) = (Vec::new(), Vec::new());
        for row in self.link.query(sql, &parameters)? {
            if !row.try_get::<_, bool>("is_ours").map_err(damaged)? {
                break;
            }
            match event_at(&row).map_err(damaged)? {
                Ok(event) => whole.push(event),
                Err(event) => bad.push(event),
            }
        }
        Ok((whole, bad))
    }

    /// One row must not end every monitor that inherits it. Nobody can be told what it was; it is kept aside.
    fn bury(&mut self, events: &[Damaged]) -> Result<(), JournalError> {
        let sql = "WITH held AS (SELECT name FROM nodes WHERE name = $1 AND epoch = $2 FOR SHARE),
                gone AS (DELETE FROM events USING held WHERE node = held.name AND sequence = ANY ($3)
                    RETURNING node, sequence, shard, action, payload, crc),
                kept AS (INSERT INTO damaged (node, sequence, shard, action, payload, crc) SELECT * FROM gone)
            SELECT name FROM held";
        let sequences: Vec<i64> = events.iter().map(|event| signed(event.sequence)).collect();
        self.as_holder(sql, &[(&sequences, Type::INT8_ARRAY)])?;
        for Damaged { sequence, known } in events {
            error!(
                "event {sequence} ({known}) is damaged, and told to nobody: the table idlewatch.damaged has it"
            );
        }
        self.damage.events += events.len() as u64;
        self.count()
    }

    /// One row must not end every monitor that comes to have the mailbox. Its UIDs are taken for given anew, from a
    /// UIDVALIDITY that no server has: what of the last day is not remembered is told, and that there is a gap.
    fn replace_damaged(
        &mut self,
        key: &MailboxKey,
        blind_since: Option<Timestamp>,
    ) -> Result<Cursor, JournalError> {
        let cursor = Cursor { blind_since, ..Cursor::baseline(0, 1, None) };
        let sql = "WITH held AS (SELECT name FROM nodes WHERE name = $1 AND epoch = $2 FOR SHARE),
                ours AS MATERIALIZED (SELECT id, name FROM held, shards WHERE owner = $1 AND id = $3 FOR SHARE OF shards),
                kept AS (INSERT INTO damaged (node, sequence, shard, action, payload, crc)
                    SELECT name, 0, shard, 'cursor', row_to_json(cursors)::text, crc FROM ours, cursors
                    WHERE shard = ours.id AND account = $4 AND mailbox = $5),
                anew AS (UPDATE cursors SET uid_validity = 0, uid_next = 1, seen = $6, modseq = NULL, look_back = NULL,
                        changes = NULL, gone = NULL, crc = $7
                    FROM ours WHERE shard = ours.id AND account = $4 AND mailbox = $5)
            SELECT name FROM held";
        let (account, mailbox) = (storable(key.account.as_str()), storable(key.mailbox.as_str()));
        let shard = i32::try_from(Shard::of(&key.account).number()).unwrap_or(i32::MAX);
        let (seen, sum) = (
            cursor.seen.to_string(),
            i64::from(cursor_crc(key.account.as_str(), key.mailbox.as_str(), &cursor)),
        );
        let beside: [Parameter<'_>; 5] = [
            (&shard, Type::INT4),
            (&&*account, Type::TEXT),
            (&&*mailbox, Type::TEXT),
            (&seen, Type::TEXT),
            (&sum, Type::INT8),
        ];
        self.as_holder(sql, &beside)?;
        self.damage.cursors += 1;
        let name = text::line(&format!("{}/{}", key.account, key.mailbox), 200);
        error!(
            "the cursor of {name} is damaged: the mailbox begins anew; the table idlewatch.damaged has it"
        );
        Ok(cursor)
    }

    /// Lets go what an earlier life left, since cursors of it cannot be read, and is claimed with what was noted of it.
    fn begin_without(&mut self, now: Timestamp) -> Result<(), JournalError> {
        let sql = "WITH held AS (SELECT alive_at FROM nodes WHERE name = $1 AND epoch = $2 FOR UPDATE),
                freed AS (UPDATE shards SET owner = '', epoch = epoch + 1, alive_at = coalesce(held.alive_at, shards.alive_at)
                    FROM held WHERE owner = $1)
            UPDATE nodes SET alive_at = $3, seen = clock_timestamp() FROM held WHERE name = $1 RETURNING epoch";
        self.as_holder(sql, &[(&now.as_millisecond(), Type::INT8)]).map(drop)
    }

    /// The accounts of these shards that have left the configuration, or are back, and are not noted so.
    fn changed(
        &mut self,
        configured: &Configured,
        shards: &[i32],
    ) -> Result<(Vec<String>, Vec<String>), JournalError> {
        let sql = "SELECT account, bool_or(absent_since IS NULL) AS is_there, bool_or(absent_since IS NOT NULL) AS is_absent
            FROM cursors JOIN shards ON shards.id = shard AND owner = $1 WHERE shard = ANY ($2) GROUP BY account";
        let (mut gone, mut back) = (Vec::new(), Vec::new());
        for row in self.link.query(sql, &[(&self.name, Type::TEXT), (&shards, Type::INT4_ARRAY)])? {
            let account: String = row.try_get("account").map_err(damaged)?;
            let (there, absent) = (row.try_get("is_there"), row.try_get("is_absent"));
            match configured.has(&account) {
                false if there.map_err(damaged)? => gone.push(account),
                true if absent.map_err(damaged)? => back.push(account),
                _ => {}
            }
        }
        Ok((gone, back))
    }

    /// `$1` and `$2` are our name and its epoch.
    fn as_holder(&mut self, sql: &str, beside: &[Parameter<'_>]) -> Result<Vec<Row>, JournalError> {
        let parameters = with([(&self.name, Type::TEXT), (&self.epoch, Type::INT8)], beside);
        ours(self.link.query(sql, &parameters)?)
    }

    /// The same, of one that goes through all our events.
    fn as_holder_of_all(&mut self, sql: &str, beside: &[Parameter<'_>]) -> Result<Vec<Row>, JournalError> {
        let parameters = with([(&self.name, Type::TEXT), (&self.epoch, Type::INT8)], beside);
        ours(self.link.query_all(sql, &parameters)?)
    }
}

fn with<'a>(holder: [Parameter<'a>; 2], beside: &[Parameter<'a>]) -> Vec<Parameter<'a>> {
    holder.into_iter().chain(beside.iter().cloned()).collect()
}

/// The cursor, and whether it is what was written.
fn cursor_at(row: &Row, key: &MailboxKey) -> Result<(Cursor, bool), tokio_postgres::Error> {
    let small = |name| row.try_get(name).map(|value: i64| u32::try_from(value).unwrap_or_default());
    let large = |name| row.try_get(name).map(|value: Option<i64>| value.and_then(|n| u64::try_from(n).ok()));
    let uids = |text: String| text.parse().unwrap_or_else(|_| UidSet::new());
    let blind_since: Option<i64> = row.try_get("blind_since")?;
    let look_back: Option<i64> = row.try_get("look_back")?;
    let cursor = Cursor {
        uid_validity: small("uid_validity")?,
        uid_next: small("uid_next")?,
        seen: uids(row.try_get("seen")?),
        modseq: large("modseq")?,
        blind_since: blind_since.and_then(|at| Timestamp::from_millisecond(at).ok()),
        look_back: look_back.and_then(|uid| u32::try_from(uid).ok()),
        changes: large("changes")?,
        gone: row.try_get::<_, Option<String>>("gone")?.map(uids),
    };
    let sum = i64::from(cursor_crc(key.account.as_str(), key.mailbox.as_str(), &cursor));
    Ok((cursor, row.try_get::<_, i64>("crc")? == sum))
}

impl Journal for PostgresJournal {
    fn commit(
        &mut self,
        entries: &[Entry],
        positions: &[(String, LanePosition)],
    ) -> Result<Vec<Result<Receipt, Unstored>>, JournalError> {
        self.commit_rounds(entries, positions)
    }

    fn cursor(&mut self, key: &MailboxKey) -> Result<Option<Cursor>, JournalError> {
        let rows = self.of_mailbox("SELECT * FROM cursors WHERE account = $1 AND mailbox = $2", key)?;
        match rows.first().map(|row| cursor_at(row, key)).transpose().map_err(damaged)? {
            Some((Cursor { blind_since, .. }, false)) => self.replace_damaged(key, blind_since).map(Some),
            found => Ok(found.map(|(cursor, _)| cursor)),
        }
    }

    fn memory(&mut self, key: &MailboxKey) -> Result<Memory, JournalError> {
        let asked = "SELECT received_at, fingerprint FROM told WHERE account = $1 AND mailbox = $2";
        let (mut first_contact, mut told) = (None, Vec::new());
        for row in self.of_mailbox(asked, key)? {
            let at: i64 = row.try_get("received_at").map_err(damaged)?;
            let Ok(received_at) = Timestamp::from_millisecond(at) else { continue };
            match row.try_get("fingerprint").map_err(damaged)? {
                FIRST_CONTACT => first_contact = Some(received_at),
                fingerprint => told.push(Told { fingerprint: Fingerprint(fingerprint), received_at }),
            }
        }
        Ok(Memory::new(first_contact, &told))
    }

    fn refusals(&mut self, account: &AccountId) -> Result<Refusals, JournalError> {
        let name = storable(account.as_str());
        let asked = "SELECT logins FROM refusals WHERE account = $1";
        let rows = self.link.query(asked, &[(&&*name, Type::TEXT)])?;
        let Some(row) = rows.first() else { return Ok(Refusals::default()) };
        let logins: String = row.try_get("logins").map_err(damaged)?;
        let known = serde_json::from_str(&logins);
        if known.is_err() {
            error!("the refused logins of {account} are damaged: they are counted anew");
            self.damage.refusals += 1;
        }
        Ok(known.unwrap_or_default())
    }

    fn idle_periods(&mut self) -> Result<Vec<(String, Duration)>, JournalError> {
        let period = |row: &Row| {
            let milliseconds: i64 = row.try_get("idle_period")?;
            Ok((row.try_get("host")?, Duration::from_millis(number(milliseconds))))
        };
        let rows = self.link.query("SELECT host, idle_period FROM hosts", &[])?;
        rows.iter().map(period).collect::<Result<_, _>>().map_err(damaged)
    }

    fn unpipelined(&mut self) -> Result<Vec<String>, JournalError> {
        let rows = self.link.query("SELECT host FROM unpipelined", &[])?;
        rows.iter().map(|row| row.try_get("host")).collect::<Result<_, _>>().map_err(damaged)
    }

    fn begin(&mut self, now: Timestamp) -> Result<(), JournalError> {
        let sql = "WITH held AS (SELECT alive_at FROM nodes WHERE name = $1 AND epoch = $2 FOR UPDATE),
                blind AS (UPDATE cursors SET blind_since = held.alive_at FROM held, shards
                    WHERE shards.id = cursors.shard AND shards.owner = $1
                        AND cursors.blind_since IS NULL AND held.alive_at IS NOT NULL)
            UPDATE nodes SET alive_at = $3, seen = clock_timestamp() FROM held WHERE name = $1 RETURNING epoch";
        let (epoch, now_in_ms) = (self.epoch, now.as_millisecond());
        let parameters: [Parameter<'_>; 3] =
            [(&self.name, Type::TEXT), (&epoch, Type::INT8), (&now_in_ms, Type::INT8)];
        match self.link.query_all(sql, &parameters) {
            Err(Failure::Unreadable(_)) => self.begin_without(now)?,
            rows => drop(ours(rows?)?),
        }
        match self.turn(now) {
            // It begins with what can be read.
            Err(JournalError::Unreadable) => Ok(()),
            done => done,
        }
    }

    fn alive(&mut self, now: Timestamp) -> Result<(), JournalError> {
        self.turn(now)
    }

    fn forgotten(&mut self) -> Vec<AccountId> {
        self.rounds.forgotten()
    }

    fn compare(&mut self, configured: &mut Configured) -> Result<bool, JournalError> {
        let first = configured.place.parse().unwrap_or(0);
        let mine = self.holding.held.and(&configured.shards);
        let mine = mine.iter().filter(|shard| shard.number() >= first);
        let shards: Vec<i32> =
            mine.take(COMPARED).filter_map(|shard| i32::try_from(shard.number()).ok()).collect();
        let (gone, back) = self.changed(configured, &shards)?;
        if !gone.is_empty() || !back.is_empty() {
            // Under their locks it is asked once more whose they are.
            let sql = "WITH held AS (SELECT epoch FROM nodes WHERE name = $1 AND epoch = $2 FOR SHARE),
                    ours AS MATERIALIZED (SELECT id FROM held, shards WHERE owner = $1 AND id = ANY ($3) ORDER BY id FOR SHARE OF shards),
                    gone AS (UPDATE cursors SET absent_since = $4 FROM ours
                        WHERE shard = ours.id AND account = ANY ($5) AND absent_since IS NULL),
                    back AS (UPDATE cursors SET absent_since = NULL FROM ours
                        WHERE shard = ours.id AND account = ANY ($6) AND absent_since IS NOT NULL)
                SELECT FROM held";
            let at = configured.at.as_millisecond();
            let beside: [Parameter<'_>; 4] = [
                (&shards, Type::INT4_ARRAY),
                (&at, Type::INT8),
                (&gone, Type::TEXT_ARRAY),
                (&back, Type::TEXT_ARRAY),
            ];
            self.as_holder(sql, &beside)?;
        }
        let last = shards.last().filter(|_| shards.len() == COMPARED);
        Ok(configured.goes_on(last.map(|last| (last + 1).to_string())))
    }

    fn forget_gone(&mut self, now: Timestamp) -> Result<usize, JournalError> {
        // Under their locks it is asked once more whose they are, and whether they are still gone.
        let sql = "WITH held AS (SELECT epoch FROM nodes WHERE name = $1 AND epoch = $2 FOR SHARE),
                old AS MATERIALIZED (SELECT account, mailbox, absent_since <= $3 AS is_absent
                    FROM held, cursors JOIN shards ON shards.id = shard
                    WHERE owner = $1 AND (gone_since <= $3 OR absent_since <= $3)
                    ORDER BY shards.id, account, mailbox FOR SHARE OF shards FOR UPDATE OF cursors),
                logins AS (DELETE FROM refusals USING old WHERE old.is_absent AND refusals.account = old.account),
                memory AS (DELETE FROM told USING old WHERE told.account = old.account AND told.mailbox = old.mailbox),
                places AS (DELETE FROM cursors USING old
                    WHERE cursors.account = old.account AND cursors.mailbox = old.mailbox RETURNING 1)
            SELECT (SELECT count(*) FROM places) AS forgotten FROM held";
        let Ok(since) = now.checked_sub(KEPT) else { return Ok(0) };
        let rows = self.as_holder(sql, &[(&since.as_millisecond(), Type::INT8)])?;
        let forgotten = rows.first().map_or(Ok(0), |row| row.try_get("forgotten")).map_err(damaged)?;
        self.forget_members()?;
        Ok(usize::try_from(number(forgotten)).unwrap_or(usize::MAX))
    }

    fn pending(&mut self, after: u64, most: usize) -> Result<Vec<JournalledEvent>, JournalError> {
        loop {
            let (whole, damaged) = self.read(after, most)?;
            if damaged.is_empty() {
                return Ok(whole);
            }
            self.bury(&damaged)?;
            if !whole.is_empty() {
                return Ok(whole);
            }
        }
    }

    fn has_after(&mut self, sequence: u64) -> Result<bool, JournalError> {
        let sql = "SELECT EXISTS (SELECT FROM events WHERE node = $1 AND sequence > $2) AS found";
        let rows = self.link.query(sql, &[(&self.name, Type::TEXT), (&signed(sequence), Type::INT8)])?;
        rows.first().map_or(Ok(false), |row| row.try_get("found")).map_err(damaged)
    }

    fn lanes(&mut self, names: &[String]) -> Result<Vec<LanePosition>, JournalError> {
        // An output that is configured no more holds nothing back.
        let sql = "WITH held AS (SELECT name AS node FROM nodes WHERE name = $1 AND epoch = $2 FOR SHARE),
                made AS (INSERT INTO lanes (node, name, position) SELECT node, name, 0 FROM unnest($3) AS name, held ON CONFLICT DO NOTHING),
                gone AS (DELETE FROM lanes USING held WHERE lanes.node = held.node AND name <> ALL ($3))
            SELECT lanes.* FROM held LEFT JOIN lanes ON lanes.node = held.node AND name = ANY ($3)";
        let names: Vec<_> = names.iter().map(|name| storable(name).into_owned()).collect();
        let rows = self.as_holder(sql, &[(&names, Type::TEXT_ARRAY)])?;
        let known: Result<Vec<_>, _> = rows.iter().map(|row| lane_at(row, &self.home)).collect();
        let known: Vec<_> = known?.into_iter().flatten().collect();
        for (name, _) in known.iter().filter(|(_, position)| position.is_none()) {
            error!("the position of output {} is damaged: it may get events twice", text::line(name, 100));
            self.damage.positions += 1;
        }
        let place = |name| known.iter().find(|(known, _)| known == name)?.1.clone();
        Ok(names.iter().map(|name| place(name).unwrap_or_default()).collect())
    }

    fn forget(&mut self, sequence: u64) -> Result<(), JournalError> {
        // Where the database went back, what it has waits for new numbers.
        let sql = "WITH held AS (SELECT name, last FROM nodes WHERE name = $1 AND epoch = $2 FOR SHARE),
                gone AS (DELETE FROM events USING held WHERE node = held.name AND sequence <= $3 AND held.last >= $4
                    RETURNING octet_length(payload) AS bytes)
            SELECT (SELECT coalesce(sum(bytes), 0)::bigint FROM gone) AS bytes FROM held";
        let (sequence, last) = (signed(sequence), signed(self.last));
        let rows = self.as_holder(sql, &[(&sequence, Type::INT8), (&last, Type::INT8)])?;
        let gone = rows.first().map_or(Ok(0), |row| row.try_get("bytes")).map_err(damaged)?;
        self.bytes = self.bytes.saturating_sub(number(gone));
        // What an answer that was lost would have said is not known, nor what another server has.
        if self.counted_by == self.link.generation() { Ok(()) } else { self.count() }
    }

    fn describe(&mut self, accounts: String) {
        self.members.describe(accounts);
    }

    fn holding(&self) -> Holding {
        self.holding
    }

    fn hand_over(&mut self, shards: &ShardSet, now: Timestamp) -> Result<(), JournalError> {
        self.release_shards(shards, now)
    }

    fn tidy(&mut self) {
        self.leave();
    }

    fn rhythm(&self) -> Duration {
        self.members.rhythm()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn damage(&self) -> Damage {
        Damage { pages: self.link.unreadable(), ..self.damage }
    }

    fn last(&mut self) -> Result<u64, JournalError> {
        Ok(self.last)
    }
}

/// An event that is not what was written.
#[derive(Debug)]
struct Damaged {
    sequence: u64,
    /// What can be said of it.
    known: String,
}

fn event_at(row: &Row) -> Result<Result<JournalledEvent, Damaged>, tokio_postgres::Error> {
    let sequence = number(row.try_get("sequence")?);
    let payload: &str = row.try_get("payload")?;
    let (sum, had): (i64, _) = (row.try_get("crc")?, row.try_get("had")?);
    let event = serde_json::from_str(payload).ok().filter(|_| sum == i64::from(crc(&[payload.as_bytes()])));
    let action: &str = row.try_get("action")?;
    Ok(match event {
        Some(event) => Ok(JournalledEvent { sequence, event: Arc::new(event), had }),
        None => Err(Damaged { sequence, known: known_of(action, payload) }),
    })
}

/// Its action, and its id where that can be read. No more: it may be about a mail.
fn known_of(action: &str, payload: &str) -> String {
    let payload: serde_json::Value = serde_json::from_str(payload).unwrap_or_default();
    let id = payload.get("id").and_then(|id| id.as_str()).unwrap_or("unknown");
    format!("{}, id {}", text::line(action, 50), text::line(id, 100))
}

/// A lane's name, and where it stands, unless that is damaged.
type Lane = (String, Option<LanePosition>);

/// A lane that stood there already; of its file, what is said of one that is here.
fn lane_at(row: &Row, home: &str) -> Result<Option<Lane>, JournalError> {
    let Some(name) = row.try_get::<_, Option<String>>("name").map_err(damaged)? else { return Ok(None) };
    let generation: Option<String> = row.try_get("generation").map_err(damaged)?;
    let offset: Option<i64> = row.try_get("offset").map_err(damaged)?;
    let file =
        generation.zip(offset).map(|(generation, offset)| FileEnd { generation, offset: number(offset) });
    let sequence = number(row.try_get("position").map_err(damaged)?);
    let position = LanePosition { sequence, file };
    let sum: Option<i64> = row.try_get("crc").map_err(damaged)?;
    if sum.is_some_and(|sum| sum != i64::from(lane_crc(&name, &position))) {
        return Ok(Some((name, None)));
    }
    let known: Option<&str> = row.try_get("home").map_err(damaged)?;
    let file = position.file.filter(|_| known == Some(home));
    Ok(Some((name, Some(LanePosition { file, ..position }))))
}
