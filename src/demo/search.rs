//! SEARCH on the in-memory server: the keys that a monitor needs, on the raw text of messages.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::session::sequence_set;
use super::store::{Mailbox, Message};
use crate::uid_set::UidSet;

/// The UIDs that `words` find; `None` where one of them is no key that is known here.
pub(super) fn search(words: &[String], mailbox: &Mailbox) -> Option<Vec<u32>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let words = match words.as_slice() {
        [charset, _, rest @ ..] if charset.eq_ignore_ascii_case("CHARSET") => rest,
        all => all,
    };
    let keys = keys(words, mailbox)?;
    let found =
        (1..).zip(&mailbox.messages).filter(|(seq, message)| keys.iter().all(|key| key.finds(*seq, message)));
    Some(found.map(|(_, message)| message.uid).collect())
}

enum Key {
    Uids(UidSet),
    Sequence(UidSet),
    Header(String, String),
    Text(String),
    Larger(usize),
    Smaller(usize),
    Since(Date),
    All,
    Not(Box<Key>),
}

fn keys<'w>(mut words: &'w [&'w str], mailbox: &Mailbox) -> Option<Vec<Key>> {
    let mut keys = Vec::new();
    while !words.is_empty() {
        let (key, rest) = key(words, mailbox)?;
        keys.push(key);
        words = rest;
    }
    Some(keys)
}

fn key<'w>(words: &'w [&'w str], mailbox: &Mailbox) -> Option<(Key, &'w [&'w str])> {
    let (name, rest) = words.split_first()?;
    let name = name.to_ascii_uppercase();
    if name == "NOT" {
        let (key, rest) = key(rest, mailbox)?;
        return Some((Key::Not(Box::new(key)), rest));
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        let last = u32::try_from(mailbox.messages.len()).ok()?;
        return Some((Key::Sequence(sequence_set(&name, last)), rest));
    }
    let last = mailbox.messages.last().map_or(0, |message| message.uid);
    match (name.as_str(), rest) {
        // Nothing was ever read here, or flagged.
        ("UNSEEN", rest) => Some((Key::All, rest)),
        ("FLAGGED", rest) => Some((Key::Not(Box::new(Key::All)), rest)),
        ("UID", [set, rest @ ..]) => Some((Key::Uids(sequence_set(set, last)), rest)),
        ("HEADER", [field, text, rest @ ..]) => {
            Some((Key::Header(field.to_ascii_lowercase(), text.to_lowercase()), rest))
        }
        ("FROM" | "TO" | "CC" | "SUBJECT", [text, rest @ ..]) => {
            Some((Key::Header(name.to_ascii_lowercase(), text.to_lowercase()), rest))
        }
        ("TEXT" | "BODY", [text, rest @ ..]) => Some((Key::Text(text.to_lowercase()), rest)),
        ("LARGER", [size, rest @ ..]) => Some((Key::Larger(size.parse().ok()?), rest)),
        ("SMALLER", [size, rest @ ..]) => Some((Key::Smaller(size.parse().ok()?), rest)),
        ("SINCE", [day, rest @ ..]) => Some((Key::Since(Date::strptime("%d-%b-%Y", day).ok()?), rest)),
        _ => None,
    }
}

impl Key {
    fn finds(&self, seq: u32, message: &Message) -> bool {
        match self {
            Self::All => true,
            Self::Not(key) => !key.finds(seq, message),
            Self::Uids(set) => set.contains(message.uid),
            Self::Sequence(set) => set.contains(seq),
            Self::Larger(size) => message.bytes.len() > *size,
            Self::Smaller(size) => message.bytes.len() < *size,
            Self::Since(day) => self::day(message.received) >= *day,
            Self::Text(text) => lower(message).contains(text),
            Self::Header(field, text) => {
                let whole = lower(message);
                let header = whole.split("\r\n\r\n").next().unwrap_or_default();
                let mut fields = header.lines().filter_map(|line| line.split_once(':'));
                fields.any(|(name, value)| name == field && value.contains(text))
            }
        }
    }
}

fn lower(message: &Message) -> String {
    String::from_utf8_lossy(&message.bytes).to_lowercase()
}

fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}
