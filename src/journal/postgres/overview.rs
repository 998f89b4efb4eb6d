//! The members of a cluster as a person sees them, and what a person may want of them. Whoever asks is no member.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::link::Link;
use super::{damaged, number, schema};
use crate::cluster::report::{MemberReport, MemberState};
use crate::cluster::shard::Shard;
use crate::config::settings::DatabaseSettings;
use crate::journal::OpenError;
use crate::text;

/// A look at the journal's database.
#[derive(Debug)]
pub struct Overview(Link);

impl Overview {
    /// Connects.
    ///
    /// # Errors
    /// Where the database is away or refuses us, or no monitor of this version has used it.
    pub fn open(settings: &DatabaseSettings) -> Result<Self, OpenError> {
        let mut link = Link::new(settings)?;
        schema::check(&mut link)?;
        Ok(Self(link))
    }

    /// All members, by name, those who were there and may come again too.
    ///
    /// # Errors
    /// Where the database is away.
    pub fn members(&mut self) -> Result<Vec<MemberReport>, OpenError> {
        let sql = "SELECT name, owner, draining, (info - 'served')::text AS info,
                clock_timestamp() - seen > ttl * interval '1 millisecond' AS is_silent,
                clock_timestamp() - since < ttl * interval '1 millisecond' AS is_new,
                greatest(0, extract(epoch FROM clock_timestamp() - seen) * 1000)::bigint AS ago,
                (SELECT count(*) FROM shards WHERE shards.owner = nodes.name) AS shards,
                (SELECT count(*) FROM pins WHERE pins.node = nodes.name) AS placed,
                (SELECT count(*) FROM events WHERE events.node = nodes.name) AS events
            FROM nodes WHERE name <> '' ORDER BY name";
        let members: Result<_, _> = self.0.query(sql, &[])?.iter().map(member_at).collect();
        members.map_err(|error| OpenError::Database(damaged(error).to_string()))
    }

    /// Others are to have all that a member has, or no longer; whether there is such a member.
    ///
    /// # Errors
    /// Where the database is away.
    pub fn drain(&mut self, name: &str, drains: bool) -> Result<bool, OpenError> {
        let sql = "UPDATE nodes SET draining = $2 WHERE name = $1 AND owner <> '' RETURNING name";
        Ok(!self.0.query(sql, &[(&name, Type::TEXT), (&drains, Type::BOOL)])?.is_empty())
    }

    /// Shards are to be at a member whenever it is there; `None`: wherever they fall. Whether there is such a member.
    ///
    /// # Errors
    /// Where the database is away.
    pub fn place(&mut self, shards: &[Shard], name: Option<&str>) -> Result<bool, OpenError> {
        let ids: Vec<i32> = shards.iter().filter_map(|shard| i32::try_from(shard.number()).ok()).collect();
        let Some(name) = name else {
            self.0.query("DELETE FROM pins WHERE shard = ANY ($1)", &[(&ids, Type::INT4_ARRAY)])?;
            return Ok(true);
        };
        let sql = "INSERT INTO pins (shard, node) SELECT id, nodes.name FROM unnest($1) AS id, nodes WHERE nodes.name = $2
            ON CONFLICT (shard) DO UPDATE SET node = excluded.node RETURNING shard";
        Ok(!self.0.query(sql, &[(&ids, Type::INT4_ARRAY), (&name, Type::TEXT)])?.is_empty())
    }
}

fn member_at(row: &Row) -> Result<MemberReport, tokio_postgres::Error> {
    let count = |column| row.try_get::<_, i64>(column).map(number);
    let (owner, info): (String, String) = (row.try_get("owner")?, row.try_get("info")?);
    let shards = count("shards")?;
    let state = match () {
        () if owner.is_empty() => MemberState::Left,
        () if row.try_get("is_silent")? => MemberState::Silent,
        () if row.try_get("draining")? => MemberState::Draining,
        () if row.try_get("is_new")? && shards == 0 => MemberState::Joining,
        () => MemberState::Alive,
    };
    Ok(MemberReport {
        name: text::line(&row.try_get::<_, String>("name")?, 128),
        state,
        shards,
        placed: count("placed")?,
        accounts: serde_json::from_str(&info).unwrap_or_default(),
        events: count("events")?,
        seen_ms_ago: count("ago")?,
        process: text::line(&owner, 200),
    })
}
