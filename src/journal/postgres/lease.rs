//! Whose the journal is: claimed when it is free or its owner is dead, released at the end. A row, and never a lock.

use std::thread::sleep;
use std::time::{Duration, Instant};

use log::{info, warn};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::link::{Link, Parameter};
use super::round::Rounds;
use super::standby::{Lease, Verdict, Watched};
use super::{PostgresJournal, damaged, number, schema, signed};
use crate::config::settings::DatabaseSettings;
use crate::journal::{JournalError, OpenError, StateOrigin};
use crate::text;

/// Between two tries to reach a database at the start.
const RETRY: Duration = Duration::from_secs(1);

/// How a journal is to be opened.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// What others are told of us.
    pub owner: String,
    /// Where the files of outputs are.
    pub home: String,
    /// Refuse to start without state.
    pub require_state: bool,
    /// Wait, for as long as it takes, while another monitor has it, or the database is away.
    pub waits: bool,
}

impl PostgresJournal {
    /// Connects, makes the tables what they have to be, and claims the lease.
    ///
    /// # Errors
    /// Where the database refuses us or is of another version. Where it is away, or the journal another's, and nobody is to wait.
    pub fn open(settings: &DatabaseSettings, opening: &Opening) -> Result<(Self, StateOrigin), OpenError> {
        let mut told = String::new();
        loop {
            match Self::attempt(settings, opening) {
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

    fn attempt(settings: &DatabaseSettings, opening: &Opening) -> Result<(Self, StateOrigin), OpenError> {
        let mut link = Link::new(settings)?;
        schema::prepare(&mut link)?;
        let mut watched = Watched::default();
        let first = look(&mut link)?;
        let mut holder = String::new();
        loop {
            let lease = look(&mut link)?;
            if opening.require_state && lease.epoch == 0 {
                let cause = "there is no state in it, and monitor.require_state is set";
                return Err(OpenError::Database(cause.to_owned()));
            }
            if lease.owner != holder && !lease.owner.is_empty() && opening.waits {
                info!("standing by: the journal is {}'s", lease.owner);
            }
            holder.clone_from(&lease.owner);
            match watched.look(lease.clone(), settings.ttl, Instant::now()) {
                Verdict::Take => {
                    if let Some(row) = claim(&mut link, &lease, &opening.owner, settings.ttl)? {
                        return Self::begun(link, &row, &lease, settings.ttl, opening);
                    }
                }
                Verdict::Wait if lease != first && !opening.waits => {
                    return Err(OpenError::Held { by: lease.owner });
                }
                // Only time tells whether its owner lives.
                Verdict::Wait => sleep(settings.ttl / 5),
            }
        }
    }

    fn begun(
        link: Link,
        row: &Row,
        before: &Lease,
        ttl: Duration,
        opening: &Opening,
    ) -> Result<(Self, StateOrigin), OpenError> {
        let failed = |error: JournalError| OpenError::Database(error.to_string());
        let column = |name| row.try_get::<_, i64>(name).map_err(|error| failed(damaged(error)));
        let rounds = Rounds::of(column("round")?);
        let mut journal = Self {
            epoch: column("epoch")?,
            last: number(column("last")?),
            rounds,
            bytes: 0,
            counted_by: 0,
            rhythm: ttl / 5,
            home: opening.home.clone(),
            link,
        };
        journal.count().map_err(failed)?;
        let origin = if before.epoch == 0 { StateOrigin::New } else { StateOrigin::Existing };
        Ok((journal, origin))
    }

    /// Others need not wait until we look dead.
    pub(super) fn release(&mut self) {
        let sql =
            "UPDATE lease SET owner = '', epoch = epoch + 1 WHERE id = 0 AND epoch = $1 RETURNING epoch";
        if let Err(failure) = self.as_holder(sql, &[]) {
            warn!("the journal is not released, others wait until its journal.ttl is over: {failure}");
        }
    }
}

fn look(link: &mut Link) -> Result<Lease, OpenError> {
    let asked = "SELECT owner, epoch, seen::text AS seen, ttl FROM lease WHERE id = 0";
    let rows = link.query(asked, &[])?;
    let lease = |row: &Row| -> Result<Lease, tokio_postgres::Error> {
        let owner: String = row.try_get("owner")?;
        Ok(Lease {
            owner: text::line(&owner, 200),
            epoch: row.try_get("epoch")?,
            seen: row.try_get("seen")?,
            ttl: Duration::from_millis(number(row.try_get("ttl")?)),
        })
    };
    match rows.first().map(lease) {
        Some(Ok(lease)) => Ok(lease),
        Some(Err(error)) => Err(OpenError::Database(damaged(error).to_string())),
        None => Err(OpenError::Database("the lease is missing from its table".to_owned())),
    }
}

/// Ours, unless somebody was faster: the epoch is compared, and moves on.
fn claim(link: &mut Link, lease: &Lease, owner: &str, ttl: Duration) -> Result<Option<Row>, OpenError> {
    let sql = "UPDATE lease SET owner = $1, epoch = epoch + 1, seen = clock_timestamp(), ttl = $2
        WHERE id = 0 AND epoch = $3 AND seen::text = $4 RETURNING epoch, round, last";
    let ttl = signed(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let parameters: [Parameter<'_>; 4] =
        [(&owner, Type::TEXT), (&ttl, Type::INT8), (&lease.epoch, Type::INT8), (&lease.seen, Type::TEXT)];
    Ok(link.query(sql, &parameters)?.pop())
}
