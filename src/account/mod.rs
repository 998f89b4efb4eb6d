//! One account: its connections, how they end, and what follows from that.

pub mod actor;
pub mod findings;
pub mod idle_period;
pub mod lifecycle;
mod login;
pub mod milestone;
pub mod outlet;
pub mod pipelining;
pub mod pulse;
pub mod pump;
pub mod recall;
pub mod schedule;
pub mod session;
pub mod sharing;
pub mod standing;
