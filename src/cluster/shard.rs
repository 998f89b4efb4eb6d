//! The accounts by shards, which are what changes hands: there are always as many, however many accounts there are.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::event::AccountId;

/// How many shards there are. Databases hold it: it never changes.
pub const SHARDS: usize = 1024;

/// Words of a set.
const WORDS: usize = SHARDS / 64;

/// One of them, below [`SHARDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u16);

impl Shard {
    /// The shard of an account, for ever: databases hold it.
    pub fn of(account: &AccountId) -> Self {
        let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(account.as_str()));
        Self((u32::from_be_bytes([a, b, c, d]) % SHARDS as u32) as u16)
    }

    /// From its number, where there is such a shard.
    pub fn numbered(number: usize) -> Option<Self> {
        u16::try_from(number).ok().filter(|_| number < SHARDS).map(Self)
    }

    /// Its number.
    pub fn number(self) -> usize {
        usize::from(self.0)
    }

    /// All of them, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).filter_map(Self::numbered)
    }
}

/// Some of the shards.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardSet([u64; WORDS]);

impl ShardSet {
    /// All there are.
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    /// None of them.
    pub const NONE: Self = Self([0; WORDS]);

    /// Whether it is one of them.
    pub fn has(&self, shard: Shard) -> bool {
        self.0.get(shard.number() / 64).is_some_and(|word| word >> (shard.number() % 64) & 1 == 1)
    }

    /// One more.
    pub fn insert(&mut self, shard: Shard) {
        if let Some(word) = self.0.get_mut(shard.number() / 64) {
            *word |= 1 << (shard.number() % 64);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those of these that are not among the others.
    pub fn without(self, others: &Self) -> Self {
        self.each(others, |one, other| one & !other)
    }

    /// Those that are among both.
    pub fn and(self, others: &Self) -> Self {
        self.each(others, |one, other| one & other)
    }

    /// Those that are among either.
    pub fn or(self, others: &Self) -> Self {
        self.each(others, |one, other| one | other)
    }

    /// Each, in order.
    pub fn iter(&self) -> impl Iterator<Item = Shard> + '_ {
        Shard::all().filter(|shard| self.has(*shard))
    }

    fn each(self, others: &Self, what: impl Fn(u64, u64) -> u64) -> Self {
        let mut words = [0; WORDS];
        for (word, (one, other)) in words.iter_mut().zip(self.0.into_iter().zip(others.0)) {
            *word = what(one, other);
        }
        Self(words)
    }
}

impl Extend<Shard> for ShardSet {
    fn extend<T: IntoIterator<Item = Shard>>(&mut self, shards: T) {
        shards.into_iter().for_each(|shard| self.insert(shard));
    }
}

impl FromIterator<Shard> for ShardSet {
    fn from_iter<T: IntoIterator<Item = Shard>>(shards: T) -> Self {
        let mut set = Self::default();
        set.extend(shards);
        set
    }
}

impl fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Shard::number)).finish()
    }
}

/// What a monitor has of the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Those whose events and cursors it may store.
    pub held: ShardSet,
    /// Those of them that others are to have: their accounts are not to be watched here any more.
    pub leaving: ShardSet,
    /// How many it is to have in the end.
    pub part: usize,
    /// Those that it let go, as long as nobody is known to have taken them: what of them waits for outputs is with it still,
    /// and told by whoever takes it.
    pub given: ShardSet,
}

impl Holding {
    /// All of them, for good: there is nobody else.
    pub const ALONE: Self =
        Self { held: ShardSet::ALL, leaving: ShardSet::NONE, part: SHARDS, given: ShardSet::NONE };

    /// Whether an account is to be watched here.
    pub fn has(&self, account: &AccountId) -> bool {
        let shard = Shard::of(account);
        self.held.has(shard) && !self.leaving.has(shard)
    }

    /// Which share of all accounts that is, about: while its part comes by and by, the share of the whole part.
    pub fn share(&self) -> f64 {
        self.held.len().max(self.part) as f64 / SHARDS as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(numbers: &[usize]) -> ShardSet {
        numbers.iter().filter_map(|number| Shard::numbered(*number)).collect()
    }

    /// As PostgreSQL computes it for cursors that had none.
    #[test]
    fn an_account_has_its_shard_for_ever() {
        let shard = |account: &str| Shard::of(&account.into()).number();
        assert_eq!(["", "a", "work", "bücher"].map(shard), [66, 274, 727, 447]);
    }

    #[test]
    fn there_is_no_shard_beyond_the_last() {
        assert_eq!((Shard::numbered(1023).map(Shard::number), Shard::numbered(1024)), (Some(1023), None));
        assert_eq!((ShardSet::ALL.len(), Shard::all().count()), (SHARDS, SHARDS));
    }

    #[test]
    fn what_leaves_is_not_watched_though_it_is_held() {
        let account: AccountId = "work".into();
        let its = set(&[Shard::of(&account).number()]);
        let holding = |held, leaving| Holding { held, leaving, ..Holding::default() }.has(&account);
        assert!(Holding::ALONE.has(&account) && holding(its, ShardSet::default()));
        assert!(!holding(its, its) && !holding(ShardSet::default(), ShardSet::default()));
    }

    /// Else the first of them would log in at a crawl.
    #[test]
    fn whoever_gets_its_part_by_and_by_has_its_share_of_the_pace_at_once() {
        let held: ShardSet = Shard::all().take(16).collect();
        let share = |part| Holding { held, part, ..Holding::default() }.share();
        assert_eq!((share(256), share(0), Holding::ALONE.share()), (0.25, 16.0 / 1024.0, 1.0));
    }

    proptest! {
        #[test]
        fn sets_are_sets(one in prop::collection::btree_set(0..SHARDS, 0..50), two in prop::collection::btree_set(0..SHARDS, 0..50)) {
            let of = |numbers: &std::collections::BTreeSet<usize>| set(&numbers.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(of(&one).and(&of(&two)), of(&(&one & &two)));
            prop_assert_eq!(of(&one).or(&of(&two)), of(&(&one | &two)));
            prop_assert_eq!(of(&one).without(&of(&two)), of(&(&one - &two)));
            prop_assert_eq!(of(&one).iter().map(Shard::number).collect::<Vec<_>>(), one.into_iter().collect::<Vec<_>>());
        }
    }
}
