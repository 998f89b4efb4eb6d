//! The table `accounts`: read as a whole or by shards, written in one statement.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::failure::Failure;
use super::link::{Link, Parameter};
use super::members::numbers;
use super::schema;
use crate::accounts_table::{Mark, Put, Rows, Stored, TableError};
use crate::cluster::shard::ShardSet;
use crate::config::settings::DatabaseSettings;
use crate::event::AccountId;

/// A connection of its own to the database of the journal.
#[derive(Debug)]
pub struct AccountsTable {
    link: Link,
}

impl AccountsTable {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// Where this machine has no resources for it.
    pub fn new(settings: &DatabaseSettings) -> Result<Self, TableError> {
        Ok(Self { link: Link::new(settings)? })
    }

    /// Makes the table, where there is none.
    ///
    /// # Errors
    /// Where the database is away, or refuses it.
    pub fn prepare(&mut self) -> Result<(), TableError> {
        schema::prepare(&mut self.link).map_err(|error| TableError(error.to_string()))
    }

    /// By which connection it is read: another one may be to another server, which knows less.
    ///
    /// # Errors
    /// Where there is none to be had.
    pub fn connection(&mut self) -> Result<u64, TableError> {
        Ok(self.link.open()?)
    }

    /// All rows that are not deleted. There are none where there is no table.
    ///
    /// # Errors
    /// Where the database is away, or refuses it.
    pub fn all(&mut self) -> Result<Vec<Stored>, TableError> {
        if !self.is_there()? {
            return Ok(Vec::new());
        }
        let sql = "SELECT id, config::text AS config, secret FROM accounts WHERE NOT deleted ORDER BY id COLLATE \"C\"";
        self.link.query_all(sql, &[])?.iter().map(stored).collect::<Result<_, _>>().map_err(damaged)
    }

    /// All of some shards, and of others what changed `since`: as they are at one moment, of a schema that a monitor has prepared.
    ///
    /// # Errors
    /// Where the database is away, or refuses it.
    pub fn read(&mut self, whole: &ShardSet, others: &ShardSet, since: &Mark) -> Result<Rows, TableError> {
        let sql = "WITH read AS (
                SELECT id, deleted, config, secret FROM accounts WHERE shard = ANY ($1) AND NOT deleted
                UNION ALL
                SELECT id, deleted, config, secret FROM accounts WHERE shard = ANY ($2) AND changed >= $3::xid8
                UNION ALL
                SELECT DISTINCT id, true, NULL::jsonb, NULL::bytea FROM accounts_removed AS removed
                WHERE shard = ANY ($2) AND changed >= $3::xid8 AND NOT EXISTS (SELECT FROM accounts WHERE id = removed.id))
            SELECT mark, id, deleted, config::text AS config, secret
            FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS mark) AS now LEFT JOIN read ON true ORDER BY id COLLATE \"C\"";
        let [whole, others] = [whole, others].map(numbers);
        let parameters: [Parameter<'_>; 3] =
            [(&whole, Type::INT4_ARRAY), (&others, Type::INT4_ARRAY), (&since.0, Type::TEXT)];
        let found = self.link.query_all(sql, &parameters)?;
        let mut rows = Rows::default();
        for row in &found {
            rows.mark = row.try_get("mark").map(Mark).map_err(damaged)?;
            // Nothing stands beside the mark where there is no row.
            match row.try_get("deleted").map_err(damaged)? {
                None => {}
                Some(false) => rows.stored.push(stored(row).map_err(damaged)?),
                Some(true) => {
                    let id: String = row.try_get("id").map_err(damaged)?;
                    rows.deleted.push(AccountId::new(id));
                }
            }
        }
        Ok(rows)
    }

    /// All of it, or nothing.
    ///
    /// # Errors
    /// Where the database is away, or refuses it.
    pub fn write(&mut self, put: &[Put], deleted: &[String]) -> Result<(), TableError> {
        let sql = "WITH given AS (SELECT * FROM unnest($1, $2, $3) AS given (id, config, secret)),
                put AS (INSERT INTO accounts (id, config, secret) SELECT id, config::jsonb, secret FROM given
                    ON CONFLICT (id) DO UPDATE SET config = excluded.config, secret = excluded.secret, deleted = false)
            UPDATE accounts SET deleted = true, config = '{}', secret = NULL WHERE id = ANY ($4)";
        let ids: Vec<&str> = put.iter().map(|put| put.id.as_str()).collect();
        let configs: Vec<&str> = put.iter().map(|put| put.config.as_str()).collect();
        let secrets: Vec<Option<&[u8]>> = put.iter().map(|put| put.secret.as_deref()).collect();
        let parameters: [Parameter<'_>; 4] = [
            (&ids, Type::TEXT_ARRAY),
            (&configs, Type::TEXT_ARRAY),
            (&secrets, Type::BYTEA_ARRAY),
            (&deleted, Type::TEXT_ARRAY),
        ];
        self.link.query_all(sql, &parameters)?;
        Ok(())
    }

    /// A database that no monitor has used yet, or an older one, has no such table.
    fn is_there(&mut self) -> Result<bool, TableError> {
        let rows = self.link.query("SELECT to_regclass('idlewatch.accounts') IS NOT NULL AS made", &[])?;
        rows.first().map_or(Ok(false), |row| row.try_get("made")).map_err(damaged)
    }
}

fn stored(row: &Row) -> Result<Stored, tokio_postgres::Error> {
    Ok(Stored { id: row.try_get("id")?, config: row.try_get("config")?, secret: row.try_get("secret")? })
}

fn damaged(error: tokio_postgres::Error) -> TableError {
    TableError(format!("a row is not what was written: {error}"))
}

impl From<Failure> for TableError {
    fn from(failure: Failure) -> Self {
        Self(format!("the journal's database: {failure}"))
    }
}
