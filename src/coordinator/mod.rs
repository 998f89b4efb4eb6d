//! All accounts: started, spread over the arbiters, paced, and stopped.

pub mod actor;
mod answers;
pub mod clock;
pub mod gate;
pub mod heartbeat;
pub mod reconcile;
pub mod reload;
