//! `type = "syslog"`

use std::path::PathBuf;
use std::time::Duration;

use super::super::TlsOptions;

/// Where and how syslog messages (RFC 5424) go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogSettings {
    /// Where to.
    pub transport: SyslogTransport,
    /// The TLS policy; rustls.
    pub tls_options: TlsOptions,
    /// The number of the facility: 0 to 23.
    pub facility: u8,
    /// APP-NAME: 1 to 48 printable ASCII characters.
    pub app_name: String,
    /// The longest message, its header included, in bytes.
    pub max_bytes: usize,
    /// TCP and TLS.
    pub connect_timeout: Duration,
    /// Writing a batch.
    pub timeout: Duration,
    /// How long events are kept after they were written to a stream.
    pub hold: Duration,
}

/// How messages travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTransport {
    /// A datagram socket of this machine.
    Unix(PathBuf),
    /// RFC 5426.
    Udp(SyslogServer),
    /// RFC 6587, with octet counting.
    Tcp(SyslogServer),
    /// RFC 5425.
    Tls(SyslogServer),
}

impl SyslogTransport {
    /// Whether it is a stream, which may end before everything that was written to it was read.
    pub const fn is_stream(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Tls(_))
    }
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogServer {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}
