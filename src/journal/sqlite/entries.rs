//! One entry of a commit: cursor, events and notes in the transaction that is open.

use jiff::Timestamp;
use rusqlite::{Connection, Statement, ToSql, Transaction, params};

use crate::event::{Cursor, MailboxKey};
use crate::journal::checksum::{crc, cursor_crc};
use crate::journal::{Configured, Encoded, Entry, Receipt, Unstored};
use crate::memory::{self, Told};
use crate::messages::{Checkpoint, Note, Replaces};
use crate::uid_set::UidSet;

/// In place of a message's fingerprint: the moment of the first contact.
pub(super) const FIRST_CONTACT: i64 = 0;

/// Its receipt; or nothing of it, where the cursor is not what it was made from.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    entry: &Entry,
) -> rusqlite::Result<Result<Receipt, Unstored>> {
    if let Some(checkpoint) = &entry.checkpoint
        && !store(transaction, checkpoint)?
    {
        return Ok(Err(Unstored::Superseded));
    }
    let mut statement =
        transaction.prepare_cached("INSERT INTO events (action, payload, crc) VALUES (?1, ?2, ?3)")?;
    let mut sequences: Option<(u64, u64)> = None;
    for Encoded { event, payload } in &entry.events {
        statement.execute(params![event.body.action().as_str(), payload, crc(&[payload.as_bytes()])])?;
        let sequence = u64::try_from(transaction.last_insert_rowid()).unwrap_or_default();
        sequences = Some(sequences.map_or((sequence, sequence), |(first, _)| (first, sequence)));
    }
    for note in &entry.notes {
        keep(transaction, note)?;
    }
    let checkpoint = entry.checkpoint.as_ref().map(|stored| (stored.key.clone(), stored.cursor.clone()));
    Ok(Ok(Receipt { checkpoint, sequences: sequences.map(|(first, last)| first..=last) }))
}

/// Moves the cursor of a mailbox, or begins another epoch of it. Whether it was where the checkpoint was made from.
fn store(transaction: &Transaction<'_>, checkpoint: &Checkpoint) -> rusqlite::Result<bool> {
    let Checkpoint { key, cursor, replaces } = checkpoint;
    match replaces {
        Replaces::Cursor(before) if before.uid_validity == cursor.uid_validity => {
            return Ok(advance(transaction, checkpoint, before)? > 0);
        }
        Replaces::Cursor(before) if !stands(transaction, key, before)? => return Ok(false),
        Replaces::Nothing if is_known(transaction, key)? => return Ok(false),
        Replaces::Aside => return Ok(true),
        Replaces::Cursor(_) | Replaces::Nothing | Replaces::Anything => {}
    }
    begin_epoch(transaction, checkpoint).map(|()| true)
}

/// Nearly always the cursor is of the same epoch, and merely moves: one statement.
fn advance(
    transaction: &Transaction<'_>,
    checkpoint: &Checkpoint,
    before: &Cursor,
) -> rusqlite::Result<usize> {
    let (account, mailbox) = (checkpoint.key.account.as_str(), checkpoint.key.mailbox.as_str());
    let sum = cursor_crc(account, mailbox, before);
    let mut update = transaction.prepare_cached(
        "UPDATE cursors SET uid_next = ?4, seen = ?5, modseq = ?6, updated_at = ?7, crc = ?8, blind_since = ?9, look_back = ?10,
             changes = ?11, gone = ?12, gone_since = NULL
         WHERE account = ?1 AND mailbox = ?2 AND uid_validity = ?3 AND uid_next = ?13 AND crc = ?14",
    )?;
    write_cursor(&mut update, checkpoint, params![before.uid_next, sum])
}

/// Whether this is still the cursor of the mailbox.
fn stands(transaction: &Transaction<'_>, key: &MailboxKey, cursor: &Cursor) -> rusqlite::Result<bool> {
    let (account, mailbox) = (key.account.as_str(), key.mailbox.as_str());
    let sum = cursor_crc(account, mailbox, cursor);
    transaction
        .prepare_cached(
            "SELECT 1 FROM cursors WHERE account = ?1 AND mailbox = ?2 AND uid_validity = ?3 AND uid_next = ?4 AND crc = ?5",
        )?
        .exists(params![account, mailbox, cursor.uid_validity, cursor.uid_next, sum])
}

fn is_known(transaction: &Transaction<'_>, key: &MailboxKey) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached("SELECT 1 FROM cursors WHERE account = ?1 AND mailbox = ?2")?
        .exists([key.account.as_str(), key.mailbox.as_str()])
}

fn begin_epoch(transaction: &Transaction<'_>, checkpoint: &Checkpoint) -> rusqlite::Result<()> {
    let Checkpoint { key, cursor, .. } = checkpoint;
    let (account, mailbox) = (key.account.as_str(), key.mailbox.as_str());
    // The first contact is remembered, since nothing is told of what came before it.
    transaction
        .prepare_cached(
            "INSERT INTO told (account, mailbox, received_at, fingerprint) SELECT ?1, ?2, ?3, ?4
             WHERE NOT EXISTS (SELECT 1 FROM cursors WHERE account = ?1 AND mailbox = ?2)",
        )?
        .execute(params![account, mailbox, Timestamp::now().as_millisecond(), FIRST_CONTACT])?;
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO cursors (account, mailbox, uid_validity, uid_next, seen, modseq, updated_at, crc, blind_since, look_back, changes, gone)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )
        .and_then(|mut insert| write_cursor(&mut insert, checkpoint, &[]))?;
    transaction
        .prepare_cached("DELETE FROM cursors WHERE account = ?1 AND mailbox = ?2 AND uid_validity <> ?3")?
        .execute(params![account, mailbox, cursor.uid_validity])?;
    Ok(())
}

/// All columns of a cursor, and what the statement wants beside them.
fn write_cursor(
    statement: &mut Statement<'_>,
    Checkpoint { key, cursor, .. }: &Checkpoint,
    beside: &[&dyn ToSql],
) -> rusqlite::Result<usize> {
    let (account, mailbox) = (key.account.as_str(), key.mailbox.as_str());
    let modseq = cursor.modseq.and_then(|modseq| i64::try_from(modseq).ok());
    let blind_since = cursor.blind_since.map(Timestamp::as_millisecond);
    let columns = params![
        account,
        mailbox,
        cursor.uid_validity,
        cursor.uid_next,
        cursor.seen.to_string(),
        modseq,
        Timestamp::now().as_millisecond(),
        cursor_crc(account, mailbox, cursor),
        blind_since,
        cursor.look_back,
        cursor.changes.and_then(|modseq| i64::try_from(modseq).ok()),
        cursor.gone.as_ref().map(UidSet::to_string),
    ];
    statement.execute(&*[columns, beside].concat())
}

fn keep(transaction: &Transaction<'_>, note: &Note) -> rusqlite::Result<()> {
    match note {
        Note::Refusals { account, refusals } if refusals.is_empty() => transaction
            .prepare_cached("DELETE FROM refusals WHERE account = ?1")?
            .execute([account.as_str()]),
        Note::Refusals { account, refusals } => transaction
            .prepare_cached("INSERT OR REPLACE INTO refusals (account, logins) VALUES (?1, ?2)")?
            .execute([account.as_str(), &serde_json::to_string(refusals).unwrap_or_default()]),
        Note::Told { key, messages } => return remember(transaction, key, messages),
        Note::Blind { key, since } => transaction
            .prepare_cached(
                "UPDATE cursors SET blind_since = ?3 WHERE account = ?1 AND mailbox = ?2 AND blind_since IS NULL",
            )?
            .execute(params![key.account.as_str(), key.mailbox.as_str(), since.as_millisecond()]),
        Note::Gone { key, since } => transaction
            .prepare_cached(
                "UPDATE cursors SET gone_since = ?3 WHERE account = ?1 AND mailbox = ?2 AND gone_since IS NULL",
            )?
            .execute(params![key.account.as_str(), key.mailbox.as_str(), since.as_millisecond()]),
        Note::IdlePeriod { host, period } => transaction
            .prepare_cached("INSERT OR REPLACE INTO hosts (host, idle_period) VALUES (?1, ?2)")?
            .execute(params![host, i64::try_from(period.as_millis()).unwrap_or(i64::MAX)]),
        Note::NoPipelining { host } => {
            transaction.prepare_cached("INSERT OR REPLACE INTO unpipelined (host) VALUES (?1)")?.execute([host])
        }
    }
    .map(drop)
}

/// Accounts that are compared in one step.
const COMPARED: usize = 1_000;

/// Whose account has left the configuration is absent from now on, and whose is back is not any more: of those that come
/// next. Where they end, unless they are the last.
pub(super) fn compare(
    transaction: &Transaction<'_>,
    configured: &Configured,
) -> rusqlite::Result<Option<String>> {
    let known: Vec<(String, bool)> = transaction
        .prepare_cached(
            "SELECT account, MAX(absent_since) IS NOT NULL FROM cursors WHERE account > ?1 GROUP BY account ORDER BY account LIMIT ?2",
        )?
        .query_map(params![configured.place, COMPARED], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let at = configured.at.as_millisecond();
    let mut update = transaction.prepare_cached("UPDATE cursors SET absent_since = ?2 WHERE account = ?1")?;
    for (account, was_absent) in &known {
        let is_absent = !configured.has(account);
        if is_absent != *was_absent {
            update.execute(params![account, is_absent.then_some(at)])?;
        }
    }
    let are_last = known.len() < COMPARED;
    Ok(known.into_iter().next_back().map(|(account, _)| account).filter(|_| !are_last))
}

/// In this order: the others go by the cursors.
pub(super) const FORGET_GONE: [&str; 3] = [
    "DELETE FROM refusals WHERE account IN (SELECT account FROM cursors WHERE absent_since <= ?1)",
    "DELETE FROM told WHERE (account, mailbox) IN
         (SELECT account, mailbox FROM cursors WHERE gone_since <= ?1 OR absent_since <= ?1)",
    "DELETE FROM cursors WHERE gone_since <= ?1 OR absent_since <= ?1",
];

/// The monitor was running then.
pub(super) fn keep_alive(db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO monitor (name, value) VALUES ('alive_at', ?1)")?
        .execute([now.as_millisecond()])
        .map(drop)
}

fn remember(transaction: &Transaction<'_>, key: &MailboxKey, messages: &[Told]) -> rusqlite::Result<()> {
    let (account, mailbox) = (key.account.as_str(), key.mailbox.as_str());
    let mut insert = transaction.prepare_cached(
        "INSERT OR IGNORE INTO told (account, mailbox, received_at, fingerprint) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for Told { fingerprint, received_at } in messages {
        insert.execute(params![account, mailbox, received_at.as_millisecond(), fingerprint.0])?;
    }
    // Whoever reads them leaves out what is too old or too much: it need not go at once.
    if !memory::is_to_be_trimmed(messages) {
        return Ok(());
    }
    let day = i64::try_from(memory::DAY.as_millis()).unwrap_or(i64::MAX);
    transaction.prepare_cached(TRIM_TOLD)?.execute(params![account, mailbox, day, memory::MOST]).map(drop)
}

/// Keeps the last day, and the most that are kept of a mailbox.
pub(super) const TRIM_TOLD: &str =
    "DELETE FROM told WHERE account = ?1 AND mailbox = ?2 AND received_at < MAX(
    (SELECT MAX(received_at) FROM told WHERE account = ?1 AND mailbox = ?2 AND fingerprint <> 0) - ?3,
    COALESCE((SELECT received_at FROM told WHERE account = ?1 AND mailbox = ?2
              ORDER BY received_at DESC LIMIT 1 OFFSET ?4 - 1), 0))";
