//! Several monitors that share their accounts by shards, over one journal: who watches what. Pure; the journal keeps it.

pub mod assignment;
pub mod pace;
pub mod report;
pub mod seat;
pub mod shard;
