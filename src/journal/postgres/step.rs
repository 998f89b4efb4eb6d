//! What a round says to the database: the steps of its entries, in their order. Pure.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;

use crate::event::{Cursor, MailboxKey};
use crate::journal::checksum::{cursor_crc, lane_crc};
use crate::journal::{Entry, LanePosition};
use crate::memory::{self, Told};
use crate::messages::{Checkpoint, Note, Replaces};
use crate::uid_set::UidSet;

/// PostgreSQL's text holds no NUL, which a server may well put into a mailbox's name.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains(['\\', '\0']) {
        Cow::Owned(text.replace('\\', "\\\\").replace('\0', "\\0"))
    } else {
        Cow::Borrowed(text)
    }
}

/// One step; what it is of no use to is left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Step<'a> {
    /// Of which entry, from 1: the steps of one that is superseded are passed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<usize>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mailbox: Option<Cow<'a, str>>,
    #[serde(flatten)]
    cursor: Option<Columns>,
    #[serde(flatten)]
    was: Option<Was>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logins: Option<String>,
    #[serde(flatten)]
    told: Option<Messages>,
    /// The host, or the output.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<i64>,
    #[serde(flatten)]
    place: Option<Place<'a>>,
}

/// A cursor, as it is to be.
#[derive(Debug, Serialize)]
struct Columns {
    uid_validity: u32,
    uid_next: u32,
    seen: String,
    modseq: Option<i64>,
    blind_since: Option<i64>,
    look_back: Option<u32>,
    changes: Option<i64>,
    gone: Option<String>,
    crc: u32,
}

/// What of a cursor has to be there still.
#[derive(Debug, Serialize)]
struct Was {
    was_validity: u32,
    was_next: u32,
    was_crc: u32,
}

/// Messages that are remembered, each with its time.
#[derive(Debug, Serialize)]
struct Messages {
    messages: Vec<(i64, i64)>,
    trim: bool,
    day: i64,
    most: u32,
}

/// Where an output stands.
#[derive(Debug, Serialize)]
struct Place<'a> {
    position: u64,
    generation: Option<&'a str>,
    offset: Option<u64>,
    home: Option<&'a str>,
    crc: u32,
}

/// All of them: what the entries say, and where outputs stand; `home` is where their files are.
pub(super) fn steps<'a>(
    entries: &[&'a Entry],
    positions: &'a [(String, LanePosition)],
    home: &'a str,
    now: Timestamp,
) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        let of = |step: Step<'a>| Step { entry: Some(number), ..step };
        steps.extend(entry.checkpoint.as_ref().and_then(|checkpoint| moved(checkpoint, now)).map(of));
        steps.extend(entry.notes.iter().map(noted).map(of));
    }
    steps.extend(positions.iter().map(|(name, position)| placed(name, position, home)));
    steps
}

fn mailbox<'a>(kind: &'static str, key: &'a MailboxKey) -> Step<'a> {
    let (account, mailbox) = (storable(key.account.as_str()), storable(key.mailbox.as_str()));
    Step { kind, account: Some(account), mailbox: Some(mailbox), ..Step::default() }
}

/// Nothing, where the mailbox is to stay where it stands.
fn moved(Checkpoint { key, cursor, replaces }: &Checkpoint, now: Timestamp) -> Option<Step<'_>> {
    let (kind, before) = match replaces {
        Replaces::Cursor(before) => ("replace", Some(before)),
        Replaces::Nothing => ("begin", None),
        Replaces::Anything => ("begin_anew", None),
        Replaces::Aside => return None,
    };
    let crc = |cursor: &Cursor| cursor_crc(key.account.as_str(), key.mailbox.as_str(), cursor);
    Some(Step {
        cursor: Some(Columns {
            uid_validity: cursor.uid_validity,
            uid_next: cursor.uid_next,
            seen: cursor.seen.to_string(),
            modseq: cursor.modseq.and_then(|modseq| i64::try_from(modseq).ok()),
            blind_since: cursor.blind_since.map(Timestamp::as_millisecond),
            look_back: cursor.look_back,
            changes: cursor.changes.and_then(|modseq| i64::try_from(modseq).ok()),
            gone: cursor.gone.as_ref().map(UidSet::to_string),
            crc: crc(cursor),
        }),
        was: before.map(|before| Was {
            was_validity: before.uid_validity,
            was_next: before.uid_next,
            was_crc: crc(before),
        }),
        at: Some(now.as_millisecond()),
        ..mailbox(kind, key)
    })
}

fn noted(note: &Note) -> Step<'_> {
    match note {
        Note::Refusals { account, refusals } => Step {
            kind: "refusals",
            account: Some(storable(account.as_str())),
            logins: (!refusals.is_empty()).then(|| serde_json::to_string(refusals).unwrap_or_default()),
            ..Step::default()
        },
        Note::Told { key, messages } => Step { told: Some(told(messages)), ..mailbox("told", key) },
        Note::Blind { key, since } => Step { at: Some(since.as_millisecond()), ..mailbox("blind", key) },
        Note::Gone { key, since } => Step { at: Some(since.as_millisecond()), ..mailbox("gone", key) },
        Note::IdlePeriod { host, period } => Step {
            kind: "idle_period",
            host: Some(storable(host)),
            period: Some(i64::try_from(period.as_millis()).unwrap_or(i64::MAX)),
            ..Step::default()
        },
        Note::NoPipelining { host } => {
            Step { kind: "no_pipelining", host: Some(storable(host)), ..Step::default() }
        }
    }
}

fn told(messages: &[Told]) -> Messages {
    let pair = |told: &Told| (told.received_at.as_millisecond(), told.fingerprint.0);
    Messages {
        messages: messages.iter().map(pair).collect(),
        trim: memory::is_to_be_trimmed(messages),
        day: i64::try_from(memory::DAY.as_millis()).unwrap_or(i64::MAX),
        most: memory::MOST,
    }
}

fn placed<'a>(name: &'a str, position: &'a LanePosition, home: &'a str) -> Step<'a> {
    let file = position.file.as_ref();
    let place = Place {
        position: position.sequence,
        generation: file.map(|end| end.generation.as_str()),
        offset: file.map(|end| end.offset),
        home: file.map(|_| home),
        crc: lane_crc(name, position),
    };
    Step { kind: "position", host: Some(storable(name)), place: Some(place), ..Step::default() }
}
