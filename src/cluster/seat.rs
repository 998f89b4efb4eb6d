//! What a member of a cluster does when it has looked: what it claims, and what others are to have. Everybody decides for
//! itself only; two who see different things can race for a shard, and the journal lets one of them win.

use std::collections::HashMap;

use super::assignment::assign;
use super::pace::Wait;
use super::shard::{Shard, ShardSet};

/// A monitor, as the journal knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Whether it shows life.
    pub alive: bool,
    /// Whether it has done so for a while. One that comes and goes is to move nothing.
    pub settled: bool,
    /// Whether a person wants others to have what it has.
    pub draining: bool,
    /// Whether accounts of its shards have not had their turn to log in yet.
    pub busy: bool,
    /// Its shards.
    pub held: ShardSet,
}

/// What is to change hands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Nobody's, or of one that is dead: ours now.
    pub claim: ShardSet,
    /// Ours, and to be another's.
    pub leave: ShardSet,
    /// How many are to be ours in the end.
    pub part: usize,
    /// More is to change hands between others and us: whoever looks sooner leaves it with nobody for less long.
    pub under_way: bool,
}

/// What `me` does, who is one of the members that live. At most `most` shards are left; none to those of whom it `waits` for
/// something.
pub fn moves(
    me: &str,
    members: &[Member],
    pinned: &HashMap<Shard, String>,
    most: usize,
    waits: Wait,
) -> Moves {
    let names = takers(members);
    let assigned = assign(&names, pinned);
    let Some(own) = members.iter().find(|member| member.name == me) else { return Moves::default() };
    let mine = names.iter().position(|name| *name == me).and_then(|place| assigned.get(place));
    let mine = mine.copied().unwrap_or_default();
    let living = members.iter().filter(|member| member.alive);
    let claim = living.fold(mine, |mine, member| mine.without(&member.held));
    let free = members.iter().fold(ShardSet::ALL, |free, member| free.without(&member.held));
    // What was let go is taken before more is, and watched: nobody's shards are nobody's for long. One who is slow keeps up
    // no other.
    let is_quick = |name: &str, its: &ShardSet| match waits {
        Wait::Watched => its.and(&free).is_empty() && !is_busy(members, name),
        Wait::Taken => its.and(&free).is_empty(),
        Wait::Over => true,
    };
    let quick = names.iter().zip(&assigned).filter(|(name, its)| is_quick(name, its));
    let takeable = quick.fold(ShardSet::default(), |takeable, (_, its)| takeable.or(its)).without(&mine);
    let comes = mine.without(&claim).without(&own.held);
    let goes =
        own.held.and(&assigned.iter().fold(ShardSet::default(), |all, its| all.or(its)).without(&mine));
    Moves {
        claim,
        leave: own.held.and(&takeable).iter().take(most).collect(),
        part: mine.len(),
        under_way: !comes.or(&goes).is_empty(),
    }
}

fn is_busy(members: &[Member], name: &str) -> bool {
    members.iter().any(|member| member.name == name && member.busy)
}

/// Those who are to have shards, in an order that everybody sees alike.
fn takers(members: &[Member]) -> Vec<&str> {
    let willing: Vec<_> = members.iter().filter(|member| member.alive && !member.draining).collect();
    let settled = |member: &&&Member| member.settled || !member.held.is_empty();
    let mut names: Vec<_> = willing.iter().filter(settled).map(|member| member.name.as_str()).collect();
    if names.is_empty() {
        names = willing.iter().map(|member| member.name.as_str()).collect();
    }
    // Where all are drained there is nobody else.
    if names.is_empty() {
        names = members.iter().filter(|member| member.alive).map(|member| member.name.as_str()).collect();
    }
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, held: ShardSet) -> Member {
        Member { name: name.to_owned(), alive: true, settled: true, draining: false, busy: false, held }
    }

    fn decided(me: &str, members: &[Member], most: usize) -> Moves {
        moves(me, members, &HashMap::new(), most, Wait::Watched)
    }

    fn part(of: &[&str], place: usize) -> ShardSet {
        assign(of, &HashMap::new())[place]
    }

    #[test]
    fn the_first_one_takes_everything_at_once() {
        let new = Member { settled: false, ..member("a", ShardSet::default()) };
        let all = Moves { claim: ShardSet::ALL, part: 1024, ..Moves::default() };
        assert_eq!(decided("a", &[new], 16), all);
    }

    #[test]
    fn two_that_begin_together_take_their_parts() {
        let new = |name| Member { settled: false, ..member(name, ShardSet::default()) };
        let both = [new("b"), new("a")];
        let claims = ["a", "b"].map(|me| decided(me, &both, 16).claim);
        assert_eq!(claims, [part(&["a", "b"], 0), part(&["a", "b"], 1)]);
    }

    #[test]
    fn whoever_is_new_gets_nothing_before_it_has_lived_for_a_while() {
        let new = Member { settled: false, ..member("b", ShardSet::default()) };
        let old = member("a", ShardSet::ALL);
        let both = [old.clone(), new.clone()];
        assert_eq!(decided("a", &both, 16), Moves { part: 1024, ..Moves::default() });
        assert_eq!(decided("b", &both, 16), Moves::default());
        let both = [old, Member { settled: true, ..new }];
        let left = decided("a", &both, 16).leave;
        assert_eq!((left.len(), left.without(&part(&["a", "b"], 1))), (16, ShardSet::default()));
        let waits = Moves { part: 512, under_way: true, ..Moves::default() };
        assert_eq!(decided("b", &both, 16), waits, "what is held is not claimed, but looked for");
    }

    #[test]
    fn what_nobody_has_is_taken_by_those_it_is_for() {
        let mine = part(&["a", "b"], 0);
        let both = [member("a", ShardSet::default()), member("b", part(&["a", "b"], 1))];
        assert_eq!(decided("a", &both, 16).claim, mine);
        assert_eq!(decided("b", &both, 16), Moves { part: 512, ..Moves::default() });
    }

    #[test]
    fn what_was_let_go_is_taken_before_more_is() {
        let (a, b) = (member("a", ShardSet::ALL), member("b", ShardSet::default()));
        assert_eq!(decided("a", &[a.clone(), b.clone()], 16).leave.len(), 16);
        let first = part(&["a", "b"], 1).iter().take(1).collect();
        let one_is_free = [Member { held: ShardSet::ALL.without(&first), ..a }, b.clone()];
        assert_eq!(decided("a", &one_is_free, 16).leave, ShardSet::default());
        let taken = [one_is_free[0].clone(), Member { held: first, ..b }];
        assert_eq!(decided("a", &taken, 16).leave.len(), 16);
    }

    #[test]
    fn what_was_taken_is_watched_before_more_is_let_go_but_not_for_long() {
        let both = [member("a", ShardSet::ALL), Member { busy: true, ..member("b", ShardSet::default()) }];
        let left = |waits| moves("a", &both, &HashMap::new(), 16, waits);
        assert_eq!(left(Wait::Watched), Moves { part: 512, under_way: true, ..Moves::default() });
        assert_eq!([Wait::Taken, Wait::Over].map(|waits| left(waits).leave.len()), [16, 16]);
    }

    #[test]
    fn it_is_looked_closely_by_those_who_give_and_those_who_get_while_something_moves() {
        let names = ["a", "b", "c"];
        let part = |place| part(&names, place);
        let under_way = |members: &[Member]| names.map(|me| decided(me, members, 0).under_way);
        let mut three: Vec<_> = (0..3).map(|n| member(names[n], part(n))).collect();
        assert_eq!(under_way(&three), [false; 3]);
        let one = part(2).iter().take(1).collect();
        (three[1].held, three[2].held) = (part(1).or(&one), part(2).without(&one));
        assert_eq!(under_way(&three), [false, true, true]);
    }

    #[test]
    fn whoever_is_slow_to_take_keeps_up_no_other_and_nobody_for_long() {
        let names = ["a", "b"];
        let (a, b) = (part(&names, 0), part(&names, 1));
        let slow: ShardSet = b.iter().take(32).collect();
        let drained = Member { draining: true, ..member("z", ShardSet::ALL.without(&slow)) };
        let all = [drained, member("a", ShardSet::default()), member("b", ShardSet::default())];
        let left = decided("z", &all, 9999).leave;
        assert_eq!(left.without(&a), ShardSet::default(), "b has not taken what it was left");
        assert_eq!(left.len(), a.len());
        assert_eq!(moves("z", &all, &HashMap::new(), 9999, Wait::Over).leave, ShardSet::ALL.without(&slow));
        // What is free for ourselves is nobody's business.
        let three = ["a", "b", "z"];
        let own: ShardSet = part(&three, 2).iter().take(1).collect();
        let all = [member("z", ShardSet::ALL.without(&own)), all[1].clone(), all[2].clone()];
        assert_eq!(decided("z", &all, 9999).leave.len(), 1024 - part(&three, 2).len());
    }

    #[test]
    fn the_dead_are_inherited() {
        let names = ["a", "b", "c"];
        let mut three: Vec<_> = (0..3).map(|n| member(names[n], part(&names, n))).collect();
        three[2].alive = false;
        let claims = ["a", "b"].map(|me| decided(me, &three, 0).claim);
        assert_eq!(claims.map(|claim| claim.without(&part(&names, 2))), [ShardSet::default(); 2]);
        assert_eq!(claims[0].len() + claims[1].len(), part(&names, 2).len());
    }

    #[test]
    fn whoever_is_drained_leaves_everything_unless_there_is_nobody_else() {
        let drained = Member { draining: true, ..member("a", ShardSet::ALL) };
        let alone = Moves { part: 1024, ..Moves::default() };
        assert_eq!(decided("a", std::slice::from_ref(&drained), 9999), alone);
        let emptied = Member { held: ShardSet::default(), ..drained.clone() };
        assert_eq!(decided("a", &[emptied], 9999).claim, ShardSet::ALL, "what those left behind who took it");
        let both = [drained, member("b", ShardSet::default())];
        assert_eq!(decided("a", &both, 9999).leave, ShardSet::ALL);
        let free = [Member { held: ShardSet::default(), ..both[0].clone() }, both[1].clone()];
        assert_eq!(decided("a", &free, 9999), Moves::default());
        assert_eq!(decided("b", &free, 9999).claim, ShardSet::ALL);
    }
}
