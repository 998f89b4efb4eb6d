//! What was told of a mailbox lately, to be known again when the server gives its UIDs anew.

use std::cmp::Reverse;
use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::event::MessageSummary;

/// How far back messages are remembered, before the newest one.
pub const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The most messages of one mailbox that are remembered, and looked at again.
pub const MOST: u32 = 1_000;

/// The messages of the last day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Messages that were received before are old; `None` where nothing is remembered.
    pub from: Option<Timestamp>,
    /// Those that were told.
    pub known: HashSet<Fingerprint>,
}

impl Memory {
    /// Of the messages told, and of the moment of the first contact: what was there before it was not to be told.
    pub fn new(first_contact: Option<Timestamp>, told: &[Told]) -> Self {
        let newest = told.iter().map(|message| message.received_at).max();
        let mut told = told.to_vec();
        told.retain(|message| newest.is_none_or(|newest| newest.duration_since(message.received_at) <= DAY));
        told.sort_by_key(|message| Reverse(message.received_at));
        told.truncate(MOST as usize);
        // Behind what is remembered nothing is known again.
        let oldest =
            told.iter().map(|message| message.received_at).min().filter(|_| told.len() + 1 >= MOST as usize);
        let day = newest.map(|newest| newest.saturating_sub(DAY).unwrap_or(newest)).max(oldest);
        let from = match (day, first_contact) {
            (Some(day), Some(met)) if newest.is_some_and(|newest| met <= newest) => Some(day.max(met)),
            (Some(day), _) => Some(day),
            (None, met) => met,
        };
        Self { from, known: told.iter().map(|message| message.fingerprint).collect() }
    }
}

/// A message that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// By which it is known again.
    pub fingerprint: Fingerprint,
    /// INTERNALDATE, or now where it has none that can be used.
    pub received_at: Timestamp,
}

impl Told {
    /// Of what FETCH told. A date in the future would make all that comes until then old.
    pub fn new(summary: &MessageSummary, now: Timestamp) -> Option<Self> {
        let received_at = summary.received_at.map_or(now, |at| at.min(now));
        Some(Self { fingerprint: Fingerprint::of(summary)?, received_at })
    }
}

/// Once in 64 messages of a mailbox what is to be forgotten of it goes, by the bits of a digest: whoever reads them leaves
/// out what is too old or too much anyway.
pub fn is_to_be_trimmed(messages: &[Told]) -> bool {
    messages.iter().any(|message| message.fingerprint.0 & 63 == 0)
}

/// What of a message stays the same when a server copies its mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub i64);

impl Fingerprint {
    /// Message-ID, size and Date; where there is no Message-ID, INTERNALDATE, sender and subject besides. `None` where
    /// nothing tells it from another one: rather tell such a message twice than not at all.
    pub fn of(summary: &MessageSummary) -> Option<Self> {
        let mut hash = Sha256::new();
        hash.update(format!("{:?} {:?} {:?}", summary.message_id, summary.size, summary.sent_at));
        if summary.message_id.is_none() {
            let received_at = summary.received_at?;
            let from = summary.from.first().map(|address| &address.address);
            hash.update(format!("{received_at} {from:?} {:?}", summary.subject));
        }
        let digest = hash.finalize();
        let head = digest.first_chunk().copied().unwrap_or_default();
        Some(Self(i64::from_be_bytes(head)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    fn told(hours: i64) -> Told {
        Told { fingerprint: Fingerprint(hours), received_at: at(hours) }
    }

    #[test]
    fn the_last_day_is_looked_at_but_never_what_was_there_before_the_first_contact() {
        let from = |met: Option<i64>, messages: &[i64]| {
            let messages: Vec<_> = messages.iter().map(|&hours| told(hours)).collect();
            Memory::new(met.map(at), &messages).from
        };
        assert_eq!(from(None, &[]), None);
        assert_eq!(from(Some(5), &[]), Some(at(5)));
        assert_eq!(from(None, &[1, 100]), Some(at(76)));
        assert_eq!(from(Some(90), &[100]), Some(at(90)));
        assert_eq!(from(Some(1), &[100]), Some(at(76)));
        assert_eq!(from(Some(200), &[100]), Some(at(76)), "the server's clock is behind ours");
    }

    #[test]
    fn a_message_is_known_by_what_a_copy_keeps() {
        let summary = MessageSummary {
            message_id: Some("a@b".to_owned()),
            size: Some(10),
            subject: Some("x".to_owned()),
            ..MessageSummary::default()
        };
        let copy = MessageSummary {
            flags: Some(vec!["\\Seen".to_owned()]),
            received_at: Some(at(1)),
            ..summary.clone()
        };
        assert_eq!(Fingerprint::of(&summary), Fingerprint::of(&copy));
        let other = MessageSummary { size: Some(11), ..summary.clone() };
        assert_ne!(Fingerprint::of(&summary), Fingerprint::of(&other));
        let nameless = |subject: &str| {
            Fingerprint::of(&MessageSummary {
                message_id: None,
                subject: Some(subject.to_owned()),
                ..summary.clone()
            })
        };
        assert_eq!(
            (nameless("x"), Fingerprint::of(&MessageSummary::default())),
            (None, None),
            "nothing tells them apart"
        );
    }
}
