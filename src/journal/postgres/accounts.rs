//! The table `accounts`: read as a whole, written in one statement.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::failure::Failure;
use super::link::{Link, Parameter};
use super::schema;
use crate::accounts_table::{Mark, Put, Stored, TableError};
use crate::config::settings::DatabaseSettings;

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

    /// What it is now: another, once anything changed.
    ///
    /// # Errors
    /// Where the database is away, or refuses it.
    pub fn mark(&mut self) -> Result<Mark, TableError> {
        if !self.is_there()? {
            return Ok(Mark::default());
        }
        let rows = self.link.query(&format!("SELECT {MARK} AS mark FROM accounts"), &[])?;
        rows.first().map_or(Ok(Mark::default()), |row| row.try_get("mark").map(Mark)).map_err(damaged)
    }

    /// All rows that are not deleted, and what the table was at that moment. There are none where there is no table.
    ///
    /// # Errors
    /// Where the database is away, or refuses it.
    pub fn rows(&mut self) -> Result<(Mark, Vec<Stored>), TableError> {
        if !self.is_there()? {
            return Ok((Mark::default(), Vec::new()));
        }
        // One statement: one moment.
        let sql = format!(
            "WITH now AS (SELECT {MARK} AS mark FROM accounts)
             SELECT now.mark, a.id, a.config::text AS config, a.secret
             FROM now LEFT JOIN accounts a ON NOT a.deleted ORDER BY a.id COLLATE \"C\""
        );
        let rows = self.link.query_all(&sql, &[])?;
        let mark = rows.first().map_or(Ok(Mark::default()), |row| row.try_get("mark").map(Mark));
        let stored: Result<Vec<_>, _> = rows.iter().map(stored).collect();
        Ok((mark.map_err(damaged)?, stored.map_err(damaged)?.into_iter().flatten().collect()))
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

/// Each change raises the version of its row: the sum tells them apart, in whatever order they are committed.
const MARK: &str = "count(*) || ' ' || coalesce(sum(version), 0)";

/// None stands where the table is empty.
fn stored(row: &Row) -> Result<Option<Stored>, tokio_postgres::Error> {
    let Some(id) = row.try_get("id")? else { return Ok(None) };
    Ok(Some(Stored { id, config: row.try_get("config")?, secret: row.try_get("secret")? }))
}

fn damaged(error: tokio_postgres::Error) -> TableError {
    TableError(format!("a row is not what was written: {error}"))
}

impl From<Failure> for TableError {
    fn from(failure: Failure) -> Self {
        Self(format!("the journal's database: {failure}"))
    }
}
