//! The table `tokens`: what is kept of OAuth grants, for monitors that share the accounts. A grant is used by one at a time, since
//! a provider that rotates refresh tokens takes each of them once.

use std::io;
use std::sync::{Mutex, PoisonError};

use tokio_postgres::types::Type;

use super::link::{Link, Parameter};
use super::{damaged, schema};
use crate::config::settings::DatabaseSettings;
use crate::journal::{JournalError, OpenError};

/// What is kept of a grant, as it stands in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// JSON.
    pub kept: Vec<u8>,
    /// Whether it is sealed.
    pub is_sealed: bool,
}

/// The table, over a connection of its own that is made when it is needed.
#[derive(Debug)]
pub struct TokensTable {
    settings: DatabaseSettings,
    /// Whose turns are ours: no two processes have the same.
    own: String,
    link: Mutex<Option<Link>>,
}

impl TokensTable {
    /// Nothing is asked yet.
    pub fn new(settings: &DatabaseSettings) -> Self {
        let own = format!("{}-{:016x}", std::process::id(), rand::random::<u64>());
        Self { settings: settings.clone(), own, link: Mutex::new(None) }
    }

    /// What is kept of a grant.
    ///
    /// # Errors
    /// Where the database refuses it; [`io::ErrorKind::NotConnected`] where it is away.
    pub fn read(&self, name: &str) -> io::Result<Option<Stored>> {
        let sql = "SELECT kept, is_sealed FROM tokens WHERE name = $1";
        self.ask(sql, &[(&name, Type::TEXT)]).map(Option::flatten)
    }

    /// As [`Self::read`], and from now on it is our turn; `None` while it is another's. One that is older than two
    /// minutes is over: a request waits for a minute at most, and is answered within 20 s.
    ///
    /// # Errors
    /// Where the database is away, or refuses it.
    pub fn take(&self, name: &str) -> io::Result<Option<Option<Stored>>> {
        let sql = "INSERT INTO tokens AS known (name, taken_by) VALUES ($1, $2)
            ON CONFLICT (name) DO UPDATE SET taken_by = excluded.taken_by, taken_at = clock_timestamp()
                WHERE known.taken_by IN ('', excluded.taken_by) OR known.taken_at < clock_timestamp() - interval '2 minutes'
            RETURNING kept, is_sealed";
        self.ask(sql, &[(&name, Type::TEXT), (&self.own, Type::TEXT)])
    }

    /// Keeps what came of our turn, which ends with it. Whether it was ours still.
    ///
    /// # Errors
    /// Where the database is away, or refuses it.
    pub fn write(&self, name: &str, stored: &Stored) -> io::Result<bool> {
        let sql = "UPDATE tokens SET kept = $3, is_sealed = $4, taken_by = ''
            WHERE name = $1 AND taken_by = $2 RETURNING kept, is_sealed";
        let parameters: [Parameter<'_>; 4] = [
            (&name, Type::TEXT),
            (&self.own, Type::TEXT),
            (&stored.kept, Type::BYTEA),
            (&stored.is_sealed, Type::BOOL),
        ];
        self.ask(sql, &parameters).map(|row| row.is_some())
    }

    /// Nothing came of our turn.
    ///
    /// # Errors
    /// Where the database is away, or refuses it.
    pub fn put_back(&self, name: &str) -> io::Result<()> {
        let sql =
            "UPDATE tokens SET taken_by = '' WHERE name = $1 AND taken_by = $2 RETURNING kept, is_sealed";
        self.ask(sql, &[(&name, Type::TEXT), (&self.own, Type::TEXT)]).map(drop)
    }

    /// The first row: what it keeps.
    fn ask(&self, sql: &str, parameters: &[Parameter<'_>]) -> io::Result<Option<Option<Stored>>> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match link.take() {
            Some(open) => open,
            None => {
                let mut new = Link::new(&self.settings).map_err(JournalError::from).map_err(failed)?;
                // `check` and `oauth login` may be here before any monitor.
                schema::prepare(&mut new).map_err(not_prepared)?;
                new
            }
        };
        let rows = link.insert(open).query(sql, parameters).map_err(JournalError::from).map_err(failed)?;
        let Some(row) = rows.first() else { return Ok(None) };
        let column = || -> Result<_, tokio_postgres::Error> {
            let kept: Option<Vec<u8>> = row.try_get("kept")?;
            let is_sealed = row.try_get("is_sealed")?;
            Ok(kept.map(|kept| Stored { kept, is_sealed }))
        };
        column().map(Some).map_err(|error| failed(damaged(error)))
    }
}

/// What passes is told from what does not by [`io::ErrorKind::NotConnected`].
fn failed(error: JournalError) -> io::Error {
    match error.passes() {
        true => io::Error::new(io::ErrorKind::NotConnected, error.to_string()),
        false => io::Error::other(error.to_string()),
    }
}

fn not_prepared(error: OpenError) -> io::Error {
    match error {
        OpenError::Away(_) => io::Error::new(io::ErrorKind::NotConnected, error.to_string()),
        error => io::Error::other(error.to_string()),
    }
}
