//! NOTIFY (RFC 5465) for the open mailbox: the server pushes what an event needs of each new message, and nothing is asked.
//!
//! A push tells its own message only. It counts where it is the very next one, by sequence number and by UID; else, and
//! where a push stays away, what is new is asked for as without NOTIFY.

use std::time::Instant;

use super::command::{Command, event_items};
use super::conversation::{Phase, Shared};
use super::reply::{FetchItems, Status};
use super::summary::fetch_header_fields;
use super::watch::Selected;

/// Pushes that may stay away before the server is asked as without NOTIFY.
const MOST_MISSED: u8 = 2;

/// How far the server's pushes are to be trusted, in this session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pushes {
    /// NOTIFY was not asked for yet.
    #[default]
    Unasked,
    /// They are expected.
    Expected {
        /// What was pushed does not follow what is known: it has to be asked for.
        gap: bool,
        /// Pushes in a row that stayed away.
        missed: u8,
    },
    /// Refused, overflowed, or they stay away.
    Off,
}

impl Pushes {
    pub(super) const EXPECTED: Self = Self::Expected { gap: false, missed: 0 };

    /// Whether what EXISTS told of is worth waiting for.
    pub(super) fn are_awaited(self) -> bool {
        matches!(self, Self::Expected { gap: false, .. })
    }

    /// The next message came.
    pub(super) fn came(&mut self) {
        if let Self::Expected { missed, .. } = self {
            *missed = 0;
        }
    }

    /// One came that is not the next.
    pub(super) fn skipped(&mut self) {
        if let Self::Expected { gap, .. } = self {
            *gap = true;
        }
    }

    /// It stayed away.
    pub(super) fn stayed_away(&mut self) {
        match self {
            Self::Expected { missed, .. } if *missed + 1 >= MOST_MISSED => *self = Self::Off,
            Self::Expected { gap, missed } => (*gap, *missed) = (true, *missed + 1),
            Self::Unasked | Self::Off => {}
        }
    }

    /// All that is new is asked for.
    pub(super) fn asked(&mut self) {
        if let Self::Expected { gap, .. } = self {
            *gap = false;
        }
    }
}

/// Whether `items` may be the push of a new message, and not of a change.
pub(super) fn is_of_new_message(items: &FetchItems) -> bool {
    items.header.is_some() || items.unreadable.contains(&"BODY")
}

/// Awaits the answer to NOTIFY.
#[derive(Debug)]
pub(super) struct Notifying(Box<Selected>);

impl Notifying {
    pub(super) fn begin(selected: Box<Selected>, shared: &mut Shared, now: Instant) -> Phase {
        let fields = fetch_header_fields(&shared.plan.wanted);
        let items = event_items(shared.capabilities, &fields, shared.plan.wanted.attachments);
        shared.send_then(&Command::NotifySelected { items: &items }, now, Phase::Notifying(Self(selected)))
    }

    pub(super) fn selected(&mut self) -> &mut Selected {
        &mut self.0
    }

    /// Refused (`NO [BADEVENT]`, BAD) is as good: IDLE tells all the same.
    pub(super) fn completed(mut self, shared: &mut Shared, status: Status, now: Instant) -> Phase {
        self.0.notified(status == Status::Ok);
        self.0.proceed(shared, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_asked_for_once_and_silence_ends_it() {
        let mut pushes = Pushes::EXPECTED;
        pushes.skipped();
        assert!(!pushes.are_awaited());
        pushes.asked();
        assert!(pushes.are_awaited());
        pushes.stayed_away();
        pushes.asked();
        pushes.came();
        pushes.stayed_away();
        pushes.asked();
        assert!(pushes.are_awaited(), "not in a row");
        pushes.stayed_away();
        assert_eq!(pushes, Pushes::Off);
        pushes.asked();
        pushes.came();
        assert_eq!(pushes, Pushes::Off);
    }
}
