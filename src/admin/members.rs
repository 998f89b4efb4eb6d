//! The members of the cluster, asked of the database by whichever of them is asked.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::cluster::report::{MemberReport, all_are_held};
use crate::config::settings::DatabaseSettings;
use crate::journal::OpenError;
use crate::journal::overview::Overview;

/// What is answered.
#[derive(Debug, Serialize)]
pub(super) struct Members {
    /// Whether every shard is of a member that lives.
    well: bool,
    members: Vec<MemberReport>,
}

/// The database, and whose turn it is: there is one connection more at most, and none while nobody asks.
#[derive(Clone, Debug)]
pub(super) struct Registry(Arc<(DatabaseSettings, Mutex<()>)>);

impl Registry {
    pub(super) fn new(database: DatabaseSettings) -> Self {
        Self(Arc::new((database, Mutex::default())))
    }

    /// Waits for the database, and for those who asked before.
    ///
    /// # Errors
    /// Where the database is away.
    pub(super) fn look(&self) -> Result<Members, OpenError> {
        let (database, turn) = &*self.0;
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let members = Overview::open(database)?.members()?;
        Ok(Members { well: all_are_held(&members), members })
    }
}
