//! The other monitors of the journal: who lives, what they have, and what changes hands between them and us.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::{info, warn};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::link::Parameter;
use super::standby::{Lease, Verdict, Watched};
use super::{PostgresJournal, damaged, number, signed};
use crate::cluster::pace::Pace;
use crate::cluster::seat::{self, Member};
use crate::cluster::shard::{Holding, Shard, ShardSet};
use crate::journal::JournalError;
use crate::text;

/// How often it is looked, at least: so long what others leave is nobody's.
const LOOK: Duration = Duration::from_millis(500);

/// And while shards change hands.
const CLOSE_LOOK: Duration = Duration::from_millis(100);

/// Shards that are claimed by one statement: all their cursors and events take part in it. Where that takes too long, fewer.
const CLAIMED: usize = 64;

/// How long what could not be claimed is left alone.
const UNREADABLE: Duration = Duration::from_secs(5);

/// Those whom we know, and how fast what is ours goes to them.
#[derive(Debug)]
pub(super) struct Members {
    /// Our promise to show life.
    ttl: Duration,
    /// Each by its name.
    watched: HashMap<String, Watched>,
    pace: Pace,
    /// More is to change hands.
    under_way: bool,
    /// How many shards are claimed by one statement.
    claimed: usize,
    /// Those that could not be claimed, since a page cannot be read, and when that was tried.
    unreadable: ShardSet,
    unreadable_at: Instant,
    /// What we say of our accounts, as JSON.
    said: String,
}

/// What was found of one.
pub(super) struct Found {
    pub(super) member: Member,
    pub(super) lease: Lease,
    pinned: ShardSet,
    /// The last number that it gave.
    last: u64,
    /// Whether what it said of itself waits for outputs, where it is not there any more, as it seems.
    has_own_events: bool,
}

impl Members {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            watched: HashMap::new(),
            pace: Pace::new(ttl),
            under_way: false,
            claimed: CLAIMED,
            unreadable: ShardSet::default(),
            unreadable_at: Instant::now(),
            said: "{}".to_owned(),
        }
    }

    pub(super) fn rhythm(&self) -> Duration {
        if self.under_way { CLOSE_LOOK } else { LOOK.min(self.ttl / 5) }
    }

    /// All but those that were tried a moment ago.
    fn claimable(&mut self, wanted: &ShardSet) -> ShardSet {
        if self.unreadable_at.elapsed() >= UNREADABLE {
            (self.unreadable, self.unreadable_at) = (ShardSet::default(), Instant::now());
        }
        wanted.without(&self.unreadable)
    }

    pub(super) fn describe(&mut self, accounts: String) {
        self.said = accounts;
    }

    /// Whether somebody of this name lives, as far as can be told yet.
    pub(super) fn lives(&mut self, name: &str, lease: &Lease, now: Instant) -> bool {
        let watched = self.watched.entry(name.to_owned()).or_default();
        watched.look(lease.clone(), self.ttl, now) == Verdict::Wait
    }
}

impl PostgresJournal {
    /// Shows life, looks at the others, claims what is to be ours, and says what is to be theirs.
    pub(super) fn turn(&mut self, now: Timestamp) -> Result<(), JournalError> {
        self.look_back()?;
        let found = self.look(now)?;
        let pinned: HashMap<Shard, String> = found
            .iter()
            .flat_map(|one| one.pinned.iter().map(|shard| (shard, one.member.name.clone())))
            .collect();
        let members: Vec<Member> = found.iter().map(|one| one.member.clone()).collect();
        let own = found.iter().find(|one| one.member.name == self.name);
        let (held, draining) =
            own.map_or_else(Default::default, |own| (own.member.held, own.member.draining));
        // The database went back: what it has of ours gets numbers that no output has passed.
        let mends = own.is_some_and(|own| own.last < self.last);
        // A claim whose answer was lost may have moved events.
        self.last = own.map_or(self.last, |own| own.last.max(self.last));
        self.note_losses(&held);
        self.holding.held = held;
        self.holding.leaving = self.holding.leaving.and(&held);
        self.count_what_is_left(&members)?;
        let looked = Instant::now();
        let most = self.members.pace.allows(looked, held.len(), draining);
        let waits = self.members.pace.waits(looked, draining);
        let moves = seat::moves(&self.name, &members, &pinned, most, waits);
        self.holding.part = moves.part;
        self.members.under_way = moves.under_way;
        if self.holding.leaving.is_empty() && !moves.leave.is_empty() {
            self.members.pace.left(moves.leave.len(), looked);
            self.holding.leaving = moves.leave;
        }
        // One that was drained leaves no shards to come with.
        let inherits = found.iter().any(|one| one.has_own_events && !one.member.alive);
        self.claim(&moves.claim, mends || inherits, &found)
    }

    /// Whoever was taken for dead while it slept has to learn it.
    fn note_losses(&mut self, held: &ShardSet) {
        let lost = self.holding.held.without(held);
        if !lost.is_empty() {
            self.rounds.forget_others(held);
        }
        // A release whose answer was lost is none of this.
        let taken = lost.without(&self.holding.leaving);
        if !taken.is_empty() {
            warn!("{} went to others, who saw no life in us", text::counted(taken.len(), "shard"));
        }
        self.holding.given.extend(lost.iter());
    }

    /// What others have taken, they took with what waits for outputs.
    fn count_what_is_left(&mut self, members: &[Member]) -> Result<(), JournalError> {
        let others = members.iter().filter(|member| member.name != self.name);
        let gone =
            others.fold(ShardSet::default(), |gone, member| gone.or(&member.held.and(&self.holding.given)));
        if !gone.is_empty() {
            self.count()?;
        }
        self.holding.given = self.holding.given.without(&gone).without(&self.holding.held);
        Ok(())
    }

    pub(super) fn look(&mut self, now: Timestamp) -> Result<Vec<Found>, JournalError> {
        let alive_at = now.as_millisecond();
        let said = self.members.said.clone();
        let beside: [Parameter<'_>; 2] = [(&alive_at, Type::INT8), (&said, Type::TEXT)];
        let rows = self.as_holder("SELECT look.*, nodes.info ->> 'served' AS served FROM look($1, $2, $3, $4::jsonb) AS look LEFT JOIN nodes USING (name)", &beside)?;
        let looked = Instant::now();
        let found: Result<Vec<_>, _> = rows.iter().map(found_at).collect();
        let mut found = found.map_err(damaged)?;
        for Found { member, lease, .. } in &mut found {
            member.alive = member.name == self.name || self.members.lives(&member.name, lease, looked);
        }
        self.members.watched.retain(|name, _| found.iter().any(|one| one.member.name == *name));
        Ok(found)
    }

    /// Shards; before them, `with_events`, what is of none.
    fn claim(&mut self, wanted: &ShardSet, with_events: bool, found: &[Found]) -> Result<(), JournalError> {
        let dead = found.iter().filter(|one| !one.member.alive);
        let (dead, seen): (Vec<&str>, Vec<&str>) =
            dead.map(|one| (one.member.name.as_str(), one.lease.seen.as_str())).unzip();
        let (all, wanted) = (*wanted, numbers(&self.members.claimable(wanted)));
        let events_alone: &[i32] = &[];
        let first = with_events.then_some(events_alone);
        let mut open: Vec<&[i32]> = first.into_iter().chain(wanted.chunks(self.members.claimed)).collect();
        // As they came.
        open.reverse();
        while let Some(ids) = open.pop() {
            let last = signed(self.last);
            let beside: [Parameter<'_>; 4] = [
                (&last, Type::INT8),
                (&ids, Type::INT4_ARRAY),
                (&dead, Type::TEXT_ARRAY),
                (&seen, Type::TEXT_ARRAY),
            ];
            let sql = "SELECT * FROM claim_shards($1, $2, $3, $4, $5, $6)";
            // What is of no shard is not to be had by parts.
            let rows = if ids.is_empty() {
                self.as_holder_of_all(sql, &beside)
            } else {
                self.as_holder(sql, &beside)
            };
            if matches!(rows, Err(JournalError::Unreadable)) {
                match ids.split_at(ids.len() / 2) {
                    ([], left) => self.members.unreadable = self.members.unreadable.or(&shards_of(left)),
                    (first, second) => open.extend([second, first]),
                }
                continue;
            }
            self.members.claimed = if rows.is_ok() { CLAIMED } else { self.members.claimed.div_ceil(2) };
            let rows = rows?;
            let Some(row) = rows.first() else { continue };
            let claimed = shards_at(row, "claimed").map_err(damaged)?;
            let moved = number(row.try_get("moved").map_err(damaged)?);
            self.last = self.last.max(number(row.try_get("last_sequence").map_err(damaged)?));
            self.holding.held = self.holding.held.or(&claimed);
            self.holding.given = self.holding.given.without(&claimed);
            if moved > 0 {
                info!(
                    "{} of others, which wait for outputs, are ours now",
                    text::counted(moved as usize, "event")
                );
                self.count()?;
            }
        }
        if self.members.unreadable.and(&all).is_empty() { Ok(()) } else { Err(JournalError::Unreadable) }
    }

    /// Others may have them.
    pub(super) fn release_shards(&mut self, shards: &ShardSet, now: Timestamp) -> Result<(), JournalError> {
        let (ids, alive_at) = (numbers(shards), now.as_millisecond());
        let beside: [Parameter<'_>; 2] = [(&ids, Type::INT4_ARRAY), (&alive_at, Type::INT8)];
        self.as_holder("SELECT * FROM release_shards($1, $2, $3, $4)", &beside)?;
        let Holding { held, leaving, part, given } = self.holding;
        let (held, leaving, given) = (held.without(shards), leaving.without(shards), given.or(shards));
        self.holding = Holding { held, leaving, part, given };
        Ok(())
    }

    /// Those of whom nothing has been seen for a day, and nothing is left.
    pub(super) fn forget_members(&mut self) -> Result<(), JournalError> {
        let sql = "WITH held AS (SELECT name FROM nodes WHERE name = $1 AND epoch = $2 FOR SHARE),
                old AS (DELETE FROM nodes USING held WHERE nodes.name <> held.name AND nodes.seen < clock_timestamp() - interval '1 day'
                    AND NOT EXISTS (SELECT FROM shards WHERE owner = nodes.name)
                    AND NOT EXISTS (SELECT FROM events WHERE node = nodes.name) RETURNING nodes.name),
                places AS (DELETE FROM lanes USING old WHERE lanes.node = old.name),
                -- Whoever has not looked for so long reads all.
                rows AS (DELETE FROM accounts_removed USING held WHERE at < clock_timestamp() - interval '1 day')
            SELECT count(*) FROM held";
        self.as_holder(sql, &[]).map(drop)
    }

    /// Others need not wait until we look dead.
    pub(super) fn leave(&mut self) {
        match self.as_holder("SELECT * FROM leave($1, $2)", &[]) {
            Ok(_) => self.holding = Holding::default(),
            Err(failure) => {
                warn!("the journal is not released, others wait until its journal.ttl is over: {failure}");
            }
        }
    }
}

pub(super) fn numbers(shards: &ShardSet) -> Vec<i32> {
    shards.iter().filter_map(|shard| i32::try_from(shard.number()).ok()).collect()
}

fn shards_of(numbers: &[i32]) -> ShardSet {
    numbers.iter().filter_map(|number| Shard::numbered(usize::try_from(*number).ok()?)).collect()
}

fn shards_at(row: &Row, column: &str) -> Result<ShardSet, tokio_postgres::Error> {
    let numbers: Vec<i32> = row.try_get(column)?;
    Ok(shards_of(&numbers))
}

fn found_at(row: &Row) -> Result<Found, tokio_postgres::Error> {
    let held = shards_at(row, "held")?;
    // Older versions do not say.
    let served: Option<&str> = row.try_get("served")?;
    let served: Option<usize> = served.and_then(|served| served.parse().ok());
    let member = Member {
        name: row.try_get("name")?,
        alive: false,
        settled: row.try_get("is_settled")?,
        draining: row.try_get("is_draining")?,
        busy: served.is_some_and(|served| served < held.len()),
        held,
    };
    let last = number(row.try_get("last_sequence")?);
    let has_own_events = row.try_get("has_own_events")?;
    Ok(Found { member, lease: lease_at(row)?, pinned: shards_at(row, "pinned")?, last, has_own_events })
}

/// What a row says of who has a name.
pub(super) fn lease_at(row: &Row) -> Result<Lease, tokio_postgres::Error> {
    let owner: String = row.try_get("owner")?;
    Ok(Lease {
        owner: text::line(&owner, 200),
        epoch: row.try_get("epoch")?,
        seen: row.try_get("seen")?,
        ttl: Duration::from_millis(number(row.try_get("ttl")?)),
    })
}
