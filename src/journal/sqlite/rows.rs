//! Rows as values, and whether they are what was written.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use crate::event::{Cursor, Event, MailboxName};
use crate::journal::checksum::{crc, cursor_crc, lane_crc};
use crate::journal::{FileEnd, LanePosition};
use crate::uid_set::UidSet;

pub(super) const EVENT_COLUMNS: &str = "sequence, payload, crc";

/// An event's number, and the event unless it is damaged.
pub(super) fn event_at(row: &Row<'_>) -> rusqlite::Result<(u64, Option<Event>)> {
    let (payload, sum): (String, u32) = (row.get("payload")?, row.get("crc")?);
    let event = serde_json::from_str(&payload).ok().filter(|_| sum == crc(&[payload.as_bytes()]));
    Ok((row.get("sequence")?, event))
}

/// A cursor, and whether it is what was written.
pub(super) fn cursor_at(row: &Row<'_>, account: &str) -> rusqlite::Result<(MailboxName, Cursor, bool)> {
    let mailbox: String = row.get("mailbox")?;
    let seen: String = row.get("seen")?;
    let modseq: Option<i64> = row.get("modseq")?;
    let blind_since: Option<i64> = row.get("blind_since")?;
    let changes: Option<i64> = row.get("changes")?;
    let gone: Option<String> = row.get("gone")?;
    let cursor = Cursor {
        uid_validity: row.get("uid_validity")?,
        uid_next: row.get("uid_next")?,
        seen: seen.parse().unwrap_or_else(|_| UidSet::new()),
        modseq: modseq.and_then(|modseq| u64::try_from(modseq).ok()),
        blind_since: blind_since.and_then(|at| Timestamp::from_millisecond(at).ok()),
        look_back: row.get("look_back")?,
        changes: changes.and_then(|modseq| u64::try_from(modseq).ok()),
        gone: gone.map(|gone| gone.parse().unwrap_or_else(|_| UidSet::new())),
    };
    let sound = row.get::<_, u32>("crc")? == cursor_crc(account, &mailbox, &cursor);
    Ok((MailboxName::new(mailbox), cursor, sound))
}

pub(super) const LANE_COLUMNS: &str = "name, position, generation, offset, crc";

/// A lane's name and position, and whether they are what was written; those of older versions have no sum.
pub(super) fn lane_at(row: &Row<'_>) -> rusqlite::Result<(String, LanePosition, bool)> {
    let name: String = row.get("name")?;
    let (generation, offset): (Option<String>, Option<u64>) = (row.get("generation")?, row.get("offset")?);
    let file = generation.zip(offset).map(|(generation, offset)| FileEnd { generation, offset });
    let position = LanePosition { sequence: row.get("position")?, file };
    let sum: Option<u32> = row.get("crc")?;
    let sound = sum.is_none_or(|sum| sum == lane_crc(&name, &position));
    Ok((name, position, sound))
}

/// An output that stands there.
pub(super) fn insert_lane(db: &Connection, name: &str, position: &LanePosition) -> rusqlite::Result<()> {
    let (generation, offset) = position.file.as_ref().map(|end| (&end.generation, end.offset)).unzip();
    let insert = "INSERT INTO lanes (name, position, generation, offset, crc) VALUES (?1, ?2, ?3, ?4, ?5)";
    db.execute(insert, params![name, position.sequence, generation, offset, lane_crc(name, position)])
        .map(drop)
}
