//! All accounts: started, spread over the arbiters, paced, and stopped.

pub mod actor;
pub mod clock;
pub mod gate;
pub mod heartbeat;
pub mod reconcile;
pub mod reload;
