//! All accounts: started, spread over the arbiters, paced, and stopped.

pub mod actor;
mod answers;
pub mod clock;
pub mod file_changes;
pub mod gate;
pub mod heartbeat;
pub mod outages;
pub mod reconcile;
pub mod reload;
mod replaying;
mod rows;
mod serving;
pub mod table;
