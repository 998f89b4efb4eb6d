//! The benchmark of idlewatch: a load server, a floor to compare with, and what measures them.

pub mod clock;
pub mod drive;
pub mod server;
pub mod tls;
