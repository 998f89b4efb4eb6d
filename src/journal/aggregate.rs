//! When is a group of batches committed? Pure.
//!
//! There is no waiting window: an idle writer commits at once, and what comes meanwhile is the next group.

/// Events in one transaction.
const MOST_EVENTS: usize = 500;

/// Their bytes.
const MOST_BYTES: u64 = 1 << 20;

/// A group that is being put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group {
    events: usize,
    bytes: u64,
}

impl Group {
    /// A batch of so many events and bytes joins it.
    pub fn add(&mut self, events: usize, bytes: u64) {
        self.events = self.events.saturating_add(events);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Whether it is to be committed before another batch joins.
    pub fn is_full(self) -> bool {
        self.events >= MOST_EVENTS || self.bytes >= MOST_BYTES
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However batches come, a group never grows by more than the one batch that filled it.
        #[test]
        fn a_group_is_bounded(batches in prop::collection::vec((0usize..100, 0u64..800_000), 1..200)) {
            let (mut group, mut before) = (Group::default(), Group::default());
            for (events, bytes) in batches {
                if group.is_full() {
                    prop_assert!(!before.is_full());
                    group = Group::default();
                }
                before = group;
                group.add(events, bytes);
                prop_assert!(group.events < MOST_EVENTS + 100 && group.bytes < MOST_BYTES + 800_000);
            }
        }
    }
}
