//! The members of the cluster, asked of the database by whichever of them is asked.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::cluster::report::{MemberReport, all_are_held};
use crate::config::settings::DatabaseSettings;
use crate::journal::OpenError;
use crate::journal::overview::Overview;

/// Whoever asks waits so long for those who asked before.
const TURN: Duration = Duration::from_secs(10);

/// What is answered.
#[derive(Debug, Serialize)]
pub(super) struct Members {
    /// Whether every shard is of a member that lives.
    well: bool,
    pub(super) members: Vec<MemberReport>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    /// Whoever asked before waits for the database still.
    #[error("others have asked, and the database takes its time; try again")]
    Busy,
    /// It is away, or of another version.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The thread that was to ask is gone.
    #[error("the monitor is stopping")]
    Stopping,
}

/// The database, and whose turn it is: there is one connection more at most, and none while nobody asks.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    database: Arc<DatabaseSettings>,
    turn: Arc<Semaphore>,
}

impl Registry {
    pub(super) fn new(database: DatabaseSettings) -> Self {
        Self { database: database.into(), turn: Semaphore::new(1).into() }
    }

    /// Asks the database, on a thread that may wait for it.
    ///
    /// # Errors
    /// Where it does not answer.
    pub(super) async fn look(&self) -> Result<Members, LookError> {
        let turn = in_turn(&self.turn).await?;
        let database = self.database.clone();
        let asked = web::block(move || {
            // Over only when the database has answered, whether somebody still waits for it or not.
            let _turn = turn;
            Overview::open(&database)?.members()
        });
        let members = asked.await.map_err(|_| LookError::Stopping)??;
        Ok(Members { well: all_are_held(&members), members })
    }
}

async fn in_turn(turn: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, LookError> {
    let turn = timeout(TURN, turn.clone().acquire_owned()).await;
    turn.map_err(|_| LookError::Busy)?.map_err(|_| LookError::Stopping)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_behind_another_who_waits() {
        let turn = Semaphore::new(1).into();
        let first = in_turn(&turn).await;
        assert!(matches!(in_turn(&turn).await, Err(LookError::Busy)));
        drop(first);
        assert!(in_turn(&turn).await.is_ok());
    }
}
