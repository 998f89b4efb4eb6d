//! All accounts: started, spread over the arbiters, paced, and stopped.

pub mod actor;
pub mod clock;
pub mod gate;
pub mod reconcile;
pub mod reload;
