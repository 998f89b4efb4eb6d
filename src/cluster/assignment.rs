//! Which monitor is to have which shard: rendezvous hashing with a bound. Whoever knows the same members comes to the same
//! answer, and a member that comes or goes moves little more than its own part.

use std::cmp::Reverse;
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::shard::{SHARDS, Shard, ShardSet};

/// The shards of each of these members. `pinned` are those that a person has placed; where it names nobody of these, it
/// does not count.
pub fn assign(members: &[&str], pinned: &HashMap<Shard, String>) -> Vec<ShardSet> {
    let mut assigned = vec![ShardSet::default(); members.len()];
    let most = SHARDS.div_ceil(members.len().max(1));
    let pin = |shard| pinned.get(&shard).and_then(|name| members.iter().position(|member| member == name));
    for shard in Shard::all() {
        let chosen = pin(shard).or_else(|| favourite(shard, members, &assigned, most));
        if let Some(its) = chosen.and_then(|member| assigned.get_mut(member)) {
            its.insert(shard);
        }
    }
    assigned
}

/// The member that the shard likes best, of those that have room.
fn favourite(shard: Shard, members: &[&str], assigned: &[ShardSet], most: usize) -> Option<usize> {
    let room = assigned.iter().enumerate().filter(|(_, its)| its.len() < most);
    let liking =
        |(member, _): &(usize, &ShardSet)| Reverse(members.get(*member).map(|name| score(name, shard)));
    room.min_by_key(liking).map(|(member, _)| member)
}

fn score(member: &str, shard: Shard) -> [u8; 32] {
    let hash =
        Sha256::new().chain_update(member).chain_update([0]).chain_update(shard.number().to_be_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(members: &[&str]) -> Vec<ShardSet> {
        assign(members, &HashMap::new())
    }

    fn lengths(sets: &[ShardSet]) -> Vec<usize> {
        sets.iter().map(ShardSet::len).collect()
    }

    #[test]
    fn every_shard_has_one_member_and_nobody_has_more_than_its_part() {
        assert_eq!(lengths(&assigned(&["a"])), [1024]);
        for count in 2..=30 {
            let names: Vec<_> = (0..count).map(|n| format!("node-{n}")).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let sets = assigned(&names);
            assert!(lengths(&sets).iter().all(|len| *len <= SHARDS.div_ceil(count)), "{:?}", lengths(&sets));
            assert_eq!(lengths(&sets).iter().sum::<usize>(), SHARDS);
        }
        assert!(assigned(&[]).is_empty());
    }

    #[test]
    fn whoever_comes_takes_its_part_and_little_else_moves() {
        let (three, four) = (assigned(&["a", "b", "c"]), assigned(&["a", "b", "c", "d"]));
        let moved: usize = three.iter().zip(&four).map(|(before, after)| before.without(after).len()).sum();
        assert!((256..320).contains(&moved), "{moved}");
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        let (one, other) = (assigned(&["a", "b"]), assigned(&["b", "a"]));
        assert_eq!((one.first(), one.last()), (other.last(), other.first()));
    }

    #[test]
    fn what_a_person_placed_is_there_while_that_member_is() {
        let shard = Shard::numbered(7).unwrap();
        for name in ["a", "b"] {
            let pinned = HashMap::from([(shard, name.to_owned())]);
            let sets = assign(&["a", "b"], &pinned);
            assert_eq!(sets.iter().map(|set| set.has(shard)).collect::<Vec<_>>(), [name == "a", name == "b"]);
            assert_eq!(assign(&["c"], &pinned), [ShardSet::ALL]);
        }
    }
}
