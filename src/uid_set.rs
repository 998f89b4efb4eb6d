//! Sets of message UIDs as sorted, disjoint ranges: small however many messages they name.

use std::fmt;
use std::str::FromStr;

/// A set of UIDs. Never holds 0 (RFC 9051 section 2.3.1.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UidSet {
    /// Sorted, disjoint and not adjacent; both ends belong to the range.
    ranges: Vec<(u32, u32)>,
}

impl UidSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// All UIDs from `first` to `last`; empty where `first > last`. A `first` of 0 counts as 1.
    pub fn range(first: u32, last: u32) -> Self {
        let mut set = Self::new();
        set.insert_range(first, last);
        set
    }

    /// Whether no UID is in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many UIDs it holds.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|&(first, last)| u64::from(last - first) + 1).sum()
    }

    /// Whether `uid` is in it.
    pub fn contains(&self, uid: u32) -> bool {
        let after = self.ranges.partition_point(|&(first, _)| first <= uid);
        after.checked_sub(1).and_then(|i| self.ranges.get(i)).is_some_and(|&(_, last)| uid <= last)
    }

    /// Adds one UID; `false` where it was there (or is 0).
    pub fn insert(&mut self, uid: u32) -> bool {
        if uid == 0 || self.contains(uid) {
            return false;
        }
        self.insert_range(uid, uid);
        true
    }

    /// Adds `first..=last`; nothing where `first > last`. A `first` of 0 counts as 1.
    pub fn insert_range(&mut self, first: u32, last: u32) {
        let first = first.max(1);
        if first > last {
            return;
        }
        // All ranges that overlap or touch the new one melt into it.
        let from = self.ranges.partition_point(|&(_, l)| l.saturating_add(1) < first);
        let to = self.ranges.partition_point(|&(f, _)| f <= last.saturating_add(1));
        let touched = self.ranges.get(from..to).unwrap_or_default();
        let low = touched.first().map_or(first, |&(f, _)| f.min(first));
        let high = touched.last().map_or(last, |&(_, l)| l.max(last));
        self.ranges.splice(from..to.max(from), [(low, high)]);
    }

    /// Adds every UID of `other`.
    pub fn extend(&mut self, other: &Self) {
        for &(first, last) in &other.ranges {
            self.insert_range(first, last);
        }
    }

    /// Takes out every UID of `other`.
    pub fn subtract(&mut self, other: &Self) {
        let mut kept = Vec::with_capacity(self.ranges.len());
        let mut holes = other.ranges.iter().peekable();
        for &(mut first, last) in &self.ranges {
            let mut used_up = false;
            while let Some(&&(from, to)) = holes.peek() {
                if to < first {
                    holes.next();
                    continue;
                }
                if from > last {
                    break;
                }
                if from > first {
                    kept.push((first, from - 1));
                }
                if to >= last {
                    used_up = true;
                    break;
                }
                first = to + 1;
            }
            if !used_up {
                kept.push((first, last));
            }
        }
        self.ranges = kept;
    }

    /// Keeps what is in `other` too.
    pub fn intersect(&mut self, other: &Self) {
        let mut beside = self.clone();
        beside.subtract(other);
        self.subtract(&beside);
    }

    /// Takes out and returns the `most` lowest UIDs.
    pub fn take_lowest(&mut self, most: u32) -> Self {
        let mut taken = Self::new();
        let mut left = most;
        while left > 0 {
            let Some(&(first, last)) = self.ranges.first() else { break };
            let end = last.min(first.saturating_add(left - 1));
            taken.insert_range(first, end);
            left -= end - first + 1;
            if end == last {
                self.ranges.remove(0);
            } else if let Some(range) = self.ranges.first_mut() {
                range.0 = end + 1;
            }
        }
        taken
    }

    /// The lowest UID.
    pub fn first(&self) -> Option<u32> {
        self.ranges.first().map(|&(first, _)| first)
    }

    /// The highest UID.
    pub fn last(&self) -> Option<u32> {
        self.ranges.last().map(|&(_, last)| last)
    }

    /// The ranges, ascending, both ends included.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (u32, u32)> + '_ {
        self.ranges.iter().copied()
    }

    /// The UIDs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|&(first, last)| first..=last)
    }

    /// Forgets the lowest UIDs, so that at most `most` ranges are left.
    pub fn keep_highest(&mut self, most: usize) {
        let excess = self.ranges.len().saturating_sub(most);
        self.ranges.drain(..excess);
    }

    /// Forgets the highest UIDs, so that at most `most` ranges are left. The lowest that was forgotten.
    pub fn keep_lowest(&mut self, most: usize) -> Option<u32> {
        let forgotten = self.ranges.get(most).map(|&(first, _)| first);
        self.ranges.truncate(most);
        forgotten
    }

    /// Fills every hole below `uid`, then the lowest holes below `limit` until at most `most` ranges are left, if that
    /// is enough: what keeps a set of years small.
    pub fn collapse(&mut self, uid: u32, limit: u32, most: usize) {
        if let Some(first) = self.first()
            && first < uid
        {
            let below = self.ranges.iter().take_while(|&&(f, _)| f < uid).last().map_or(first, |&(_, l)| l);
            self.insert_range(first, below);
        }
        while self.ranges.len() > most.max(1) {
            match (self.ranges.first(), self.ranges.get(1)) {
                (Some(&(low, _)), Some(&(next, high))) if next <= limit => self.insert_range(low, high),
                _ => break,
            }
        }
    }
}

impl FromIterator<u32> for UidSet {
    fn from_iter<I: IntoIterator<Item = u32>>(uids: I) -> Self {
        let mut set = Self::new();
        for uid in uids {
            set.insert(uid);
        }
        set
    }
}

/// As IMAP's `sequence-set` (RFC 9051 section 9): `1:4,7`. Empty text for the empty set.
impl fmt::Display for UidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, &(first, last)) in self.ranges.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}:{last}")?;
            }
        }
        Ok(())
    }
}

/// A text that is no set of UIDs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a set of UIDs")]
pub struct NotAUidSet;

impl FromStr for UidSet {
    type Err = NotAUidSet;

    fn from_str(text: &str) -> Result<Self, NotAUidSet> {
        let mut set = Self::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once(':').unwrap_or((part, part));
            let first: u32 = first.parse().map_err(|_| NotAUidSet)?;
            let last: u32 = last.parse().map_err(|_| NotAUidSet)?;
            if first == 0 || last < first {
                return Err(NotAUidSet);
            }
            set.insert_range(first, last);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn model(set: &UidSet) -> BTreeSet<u32> {
        set.iter().collect()
    }

    fn is_canonical(set: &UidSet) -> bool {
        set.ranges.iter().all(|&(f, l)| f >= 1 && f <= l)
            && set.ranges.windows(2).all(|w| w[0].1.checked_add(1).is_some_and(|next| next < w[1].0))
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(steps in prop::collection::vec((any::<bool>(), 0u32..60, 0u32..12), 0..40)) {
            let (mut set, mut expected) = (UidSet::new(), BTreeSet::new());
            for (add, first, length) in steps {
                let last = first + length;
                if add {
                    set.insert_range(first, last);
                    expected.extend(first.max(1)..=last);
                } else {
                    set.subtract(&UidSet::range(first, last));
                    expected.retain(|uid| !(first.max(1)..=last).contains(uid));
                }
                prop_assert!(is_canonical(&set), "{set:?}");
                prop_assert_eq!(&model(&set), &expected);
            }
            prop_assert_eq!(set.len(), expected.len() as u64);
            for uid in 0..80 {
                prop_assert_eq!(set.contains(uid), expected.contains(&uid));
            }
            prop_assert_eq!(set.to_string().parse::<UidSet>(), Ok(set));
        }

        #[test]
        fn the_lowest_are_taken_in_order(uids in prop::collection::btree_set(1u32..500, 0..80), most in 0u32..50) {
            let mut set: UidSet = uids.iter().copied().collect();
            let taken = set.take_lowest(most);
            let split = uids.iter().copied().take(most as usize).collect::<BTreeSet<_>>();
            prop_assert_eq!(model(&taken), split.clone());
            prop_assert_eq!(model(&set), uids.difference(&split).copied().collect::<BTreeSet<_>>());
        }

        #[test]
        fn what_both_hold_is_kept(one in prop::collection::btree_set(1u32..60, 0..40), other in prop::collection::btree_set(1u32..60, 0..40)) {
            let mut set: UidSet = one.iter().copied().collect();
            set.intersect(&other.iter().copied().collect());
            prop_assert!(is_canonical(&set));
            prop_assert_eq!(model(&set), one.intersection(&other).copied().collect::<BTreeSet<_>>());
        }

        #[test]
        fn collapsing_only_adds(uids in prop::collection::btree_set(1u32..500, 0..80), below in 0u32..500, more in 0u32..500, most in 1usize..9) {
            let mut set: UidSet = uids.iter().copied().collect();
            let limit = below.saturating_add(more);
            set.collapse(below, limit, most);
            prop_assert!(is_canonical(&set));
            prop_assert!(uids.iter().all(|&uid| set.contains(uid)));
            let holes = set.ranges.windows(2).filter(|pair| pair[1].0 <= limit).count();
            prop_assert!(set.ranges.len() <= most || holes == 0, "{set}");
            let above: BTreeSet<u32> = uids.range(limit..).copied().collect();
            prop_assert_eq!(model(&set).range(limit..).copied().collect::<BTreeSet<_>>(), above, "none is added there");
            prop_assert_eq!(set.last(), uids.last().copied());
        }
    }

    #[test]
    fn the_highest_ranges_are_forgotten() {
        let mut set: UidSet = [1, 2, 5, 8, 9].into_iter().collect();
        assert_eq!((set.keep_lowest(3), set.len()), (None, 5));
        assert_eq!((set.keep_lowest(1), set.to_string().as_str()), (Some(5), "1:2"));
    }

    #[test]
    fn the_lowest_ranges_are_forgotten() {
        let mut set: UidSet = [1, 2, 4, 6, 9].into_iter().collect();
        set.keep_highest(4);
        assert_eq!(set.to_string(), "1:2,4,6,9");
        set.keep_highest(2);
        assert_eq!(set.to_string(), "6,9");
    }

    #[test]
    fn the_highest_uid_does_not_overflow() {
        let mut set = UidSet::range(u32::MAX - 1, u32::MAX);
        set.insert_range(1, u32::MAX);
        assert_eq!(set.to_string(), "1:4294967295");
        set.subtract(&UidSet::range(u32::MAX, u32::MAX));
        assert_eq!(set.to_string(), "1:4294967294");
    }

    #[test]
    fn text_that_is_no_set_is_refused() {
        for text in ["0", "2:1", "a", "1:", ":1", "1:2:3", "-1", "4294967296"] {
            assert_eq!(text.parse::<UidSet>(), Err(NotAUidSet), "{text}");
        }
    }
}
