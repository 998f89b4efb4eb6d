//! `type = "journald"`

use std::path::PathBuf;
use std::time::Duration;

/// Where entries go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournaldSettings {
    /// The socket of the native protocol.
    pub socket: PathBuf,
    /// SYSLOG_IDENTIFIER: 1 to 48 printable ASCII characters.
    pub identifier: String,
    /// One datagram, while journald's queue is full.
    pub timeout: Duration,
}
