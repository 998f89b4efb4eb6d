//! One account: its connections, how they end, and what follows from that.

pub mod actor;
pub mod backoff;
pub mod findings;
pub mod lifecycle;
pub mod one_shot;
pub mod session;
pub mod standing;
