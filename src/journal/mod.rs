//! Where events and cursors become durable in one transaction, and where the lanes keep their positions.

use std::ops::RangeInclusive;

use crate::event::{Cursor, MailboxKey};

/// Proof that a batch is durable. Only the journal makes one, and only one of these moves an account's cursor.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    checkpoint: Option<(MailboxKey, Cursor)>,
    sequences: Option<RangeInclusive<u64>>,
}

impl Receipt {
    /// The cursor as it was stored.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.checkpoint.as_ref().map(|(_, cursor)| cursor)
    }

    /// The `event.sequence` numbers of the batch's events.
    pub fn sequences(&self) -> Option<RangeInclusive<u64>> {
        self.sequences.clone()
    }
}
