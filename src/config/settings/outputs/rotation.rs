//! `rotate` of a file.

use std::time::Duration;

/// When a file ends and the next one begins, and what becomes of those that ended. At least one bound is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationSettings {
    /// It has so many bytes.
    pub max_bytes: Option<u64>,
    /// It is so old.
    pub max_age: Option<Duration>,
    /// So many that ended are kept; at least one.
    pub keep: usize,
    /// All that ended but the last one are compressed.
    pub gzip: bool,
}
