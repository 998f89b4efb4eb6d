//! How a name of the journal becomes ours: when nobody has it, or only somebody who is dead. A row, and never a lock.

use std::thread::sleep;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::{info, warn};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::link::{Link, Parameter};
use super::members::{Members, lease_at};
use super::round::Rounds;
use super::standby::Lease;
use super::{PostgresJournal, damaged, number, schema, signed};
use crate::cluster::shard::{Holding, ShardSet};
use crate::config::settings::DatabaseSettings;
use crate::journal::{Damage, JournalError, OpenError, StateOrigin};

/// Between two tries to reach a database at the start.
const RETRY: Duration = Duration::from_secs(1);

/// How a journal is to be opened.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// Under which name: two monitors of one name do not work side by side.
    pub name: String,
    /// What others are told of us.
    pub owner: String,
    /// Where the files of outputs are.
    pub home: String,
    /// Refuse to start without state.
    pub require_state: bool,
    /// Wait, for as long as it takes, while another monitor has the name, or the database is away; then share the accounts
    /// with those of other names. Else there is to be nobody beside us, and everything is ours.
    pub waits: bool,
}

impl PostgresJournal {
    /// Connects, makes the tables what they have to be, and claims the lease.
    ///
    /// # Errors
    /// Where the database refuses us or is of another version. Where it is away, or the journal another's, and nobody is to wait.
    pub fn open(settings: &DatabaseSettings, opening: &Opening) -> Result<(Self, StateOrigin), OpenError> {
        let mut told = String::new();
        let life = format!("{:032x}", rand::random::<u128>());
        loop {
            match Self::attempt(settings, opening, &life) {
                Err(OpenError::Away(words)) if opening.waits => {
                    if told != words {
                        warn!("the journal's database: {words}; waiting for it");
                        told = words;
                    }
                    sleep(RETRY);
                }
                done => return done,
            }
        }
    }

    /// `life` tells this start from all others.
    fn attempt(
        settings: &DatabaseSettings,
        opening: &Opening,
        life: &str,
    ) -> Result<(Self, StateOrigin), OpenError> {
        let mut link = Link::new(settings)?;
        schema::prepare(&mut link)?;
        give_name(&mut link, &opening.name)?;
        let mut members = Members::new(settings.ttl);
        let first = look(&mut link)?;
        let origin = origin(&mut link)?;
        if opening.require_state && origin == StateOrigin::New {
            let cause = "there is no state in it, and monitor.require_state is set";
            return Err(OpenError::Database(cause.to_owned()));
        }
        let mut holder = String::new();
        loop {
            let known = look(&mut link)?;
            let now = Instant::now();
            let in_the_way =
                known.iter().filter(|known| known.life != life && known.is_in_the_way_of(opening));
            let lives = |known: &&Known| members.lives(&known.name, &known.lease, now);
            let Some(other) = in_the_way.filter(lives).last() else {
                let own = known.iter().find(|known| known.name == opening.name);
                if let Some(row) = join(&mut link, own.map(|own| &own.lease), opening, life, settings.ttl)? {
                    return Self::begun(link, &row, members, opening).map(|journal| (journal, origin));
                }
                continue;
            };
            if other.lease.owner != holder && opening.waits {
                info!("standing by: the journal is {}'s", other.lease.owner);
            }
            holder.clone_from(&other.lease.owner);
            if !opening.waits && !first.contains(other) {
                return Err(OpenError::Held { by: holder });
            }
            // Only time tells whether it lives.
            sleep(settings.ttl / 5);
        }
    }

    fn begun(link: Link, row: &Row, members: Members, opening: &Opening) -> Result<Self, OpenError> {
        let failed = |error: JournalError| match error.passes() {
            true => OpenError::Away(error.to_string()),
            false => OpenError::Database(error.to_string()),
        };
        let column = |name| row.try_get::<_, i64>(name).map_err(|error| failed(damaged(error)));
        let rounds = Rounds::of(column("round")?);
        let mut journal = Self {
            name: opening.name.clone(),
            epoch: column("epoch")?,
            last: number(column("last")?),
            members,
            holding: Holding::default(),
            rounds,
            bytes: 0,
            counted_by: 0,
            damage: Damage::default(),
            home: opening.home.clone(),
            link,
        };
        journal.count().map_err(failed)?;
        if !opening.waits
            && let Some(by) = journal.take_all().map_err(failed)?
        {
            journal.leave();
            return Err(OpenError::Held { by });
        }
        Ok(journal)
    }

    /// Waits until everything is ours; or until somebody lives who came in the same moment, and saw nobody in the way either.
    fn take_all(&mut self) -> Result<Option<String>, JournalError> {
        loop {
            let now = Timestamp::now();
            let mut others = self.look(now)?.into_iter().filter(|one| one.member.name != self.name);
            if let Some(other) = others.find(|one| one.member.alive) {
                return Ok(Some(other.lease.owner));
            }
            self.turn(now)?;
            if self.holding.held == ShardSet::ALL {
                return Ok(None);
            }
            sleep(self.members.rhythm());
        }
    }
}

/// A name, and who has it.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    name: String,
    lease: Lease,
    /// It wants nobody beside it.
    is_alone: bool,
    /// Which start it is of; ours, where we did not hear that we got the name.
    life: String,
}

impl Known {
    fn is_in_the_way_of(&self, opening: &Opening) -> bool {
        self.name == opening.name || self.is_alone || !opening.waits
    }
}

/// Before monitors had names there was one.
fn give_name(link: &mut Link, name: &str) -> Result<(), OpenError> {
    let sql = "WITH named AS (UPDATE nodes SET name = $1
                WHERE name = '' AND NOT EXISTS (SELECT FROM nodes WHERE name = $1) RETURNING name),
            stream AS (UPDATE events SET node = named.name FROM named WHERE node = ''),
            places AS (UPDATE lanes SET node = named.name FROM named WHERE node = '')
        SELECT FROM named";
    link.query_all(sql, &[(&name, Type::TEXT)])?;
    Ok(())
}

fn origin(link: &mut Link) -> Result<StateOrigin, OpenError> {
    let sql = "SELECT EXISTS (SELECT FROM nodes WHERE epoch > 0) OR EXISTS (SELECT FROM shards WHERE epoch > 0) AS known";
    let rows = link.query(sql, &[])?;
    let known = rows.first().map_or(Ok(false), |row| row.try_get("known"));
    let known: bool = known.map_err(|error| OpenError::Database(damaged(error).to_string()))?;
    Ok(if known { StateOrigin::Existing } else { StateOrigin::New })
}

fn look(link: &mut Link) -> Result<Vec<Known>, OpenError> {
    let sql = "SELECT name, owner, epoch, seen::text AS seen, ttl, alone, life FROM nodes ORDER BY name";
    let known = |row: &Row| {
        let (name, is_alone, life) = (row.try_get("name")?, row.try_get("alone")?, row.try_get("life")?);
        Ok(Known { name, lease: lease_at(row)?, is_alone, life })
    };
    let known: Result<_, _> = link.query(sql, &[])?.iter().map(known).collect();
    known.map_err(|error| OpenError::Database(damaged(error).to_string()))
}

/// Ours, unless somebody was faster: what was known of the name is compared. An epoch is not given twice, even where the
/// database has forgotten the last ones.
fn join(
    link: &mut Link,
    known: Option<&Lease>,
    opening: &Opening,
    life: &str,
    ttl: Duration,
) -> Result<Option<Row>, OpenError> {
    let sql = "INSERT INTO nodes (name, owner, epoch, ttl, alone, life)
        VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, $3, $4, $7)
        ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, epoch = greatest(nodes.epoch + 1, excluded.epoch),
            seen = clock_timestamp(), since = clock_timestamp(), ttl = excluded.ttl, alone = excluded.alone, life = excluded.life, draining = false
            WHERE nodes.epoch = $5 AND nodes.seen::text = $6
        RETURNING epoch, round, last";
    let ttl = signed(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let alone = !opening.waits;
    let (epoch, seen) = known.map_or((0, ""), |lease| (lease.epoch, lease.seen.as_str()));
    let parameters: [Parameter<'_>; 7] = [
        (&opening.name, Type::TEXT),
        (&opening.owner, Type::TEXT),
        (&ttl, Type::INT8),
        (&alone, Type::BOOL),
        (&epoch, Type::INT8),
        (&seen, Type::TEXT),
        (&life, Type::TEXT),
    ];
    Ok(link.query(sql, &parameters)?.pop())
}
