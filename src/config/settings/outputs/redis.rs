//! `type = "redis"`

use std::time::Duration;

use super::super::TlsOptions;
use crate::secrets::SecretSource;

/// Which stream, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub is_tls: bool,
    /// The number of the database.
    pub database: u16,
    /// Whose password it is; the default user's where not set.
    pub user: Option<String>,
    /// The password.
    pub password: Option<SecretSource>,
    /// The stream's key.
    pub stream: String,
    /// About how many entries it keeps; all where not set.
    pub max_len: Option<u64>,
    /// The TLS policy; rustls.
    pub tls_options: TlsOptions,
    /// TCP and TLS.
    pub connect_timeout: Duration,
    /// A whole exchange.
    pub timeout: Duration,
}
