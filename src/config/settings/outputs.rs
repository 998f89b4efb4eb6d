//! What each type of output adds to `[outputs.X]`.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::TlsOptions;
use crate::secrets::SecretSource;
use crate::sink::output::subject::SubjectTemplate;

/// `type` and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// The process's standard output.
    Stdout,
    /// A file that is appended to.
    File {
        /// Its path.
        path: PathBuf,
    },
    /// Events by HTTP POST.
    Webhook(Box<WebhookSettings>),
    /// NATS JetStream.
    Nats(Box<NatsSettings>),
}

impl OutputKind {
    /// As in `type`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File { .. } => "file",
            Self::Webhook(_) => "webhook",
            Self::Nats(_) => "nats",
        }
    }

    /// How long what it took is kept for it all the same.
    pub fn hold(&self) -> Duration {
        match self {
            Self::Nats(nats) => nats.hold,
            _ => Duration::ZERO,
        }
    }
}

/// Where and how to POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSettings {
    /// `http` or `https`; no user in it.
    pub url: Url,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<SecretSource>,
    /// Further headers; their names and values are sound.
    pub headers: Vec<(String, String)>,
    /// The TLS policy; rustls.
    pub tls_options: TlsOptions,
    /// `http`, `https`, `socks5` or `socks5h`.
    pub proxy: Option<Url>,
    /// TCP and TLS.
    pub connect_timeout: Duration,
    /// A whole exchange.
    pub timeout: Duration,
}

/// `type = "webhook"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Where to.
    pub http: EndpointSettings,
    /// Requests are signed with this.
    pub secret: Option<SecretSource>,
    /// How events lie in a request.
    pub body: WebhookBody,
}

/// `body`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookBody {
    /// One JSON object a line.
    Ndjson,
    /// One JSON array.
    Json,
}

/// `type = "nats"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsSettings {
    /// `nats` or `tls`; no user in it.
    pub url: Url,
    /// What each event is published to.
    pub subject: SubjectTemplate,
    /// The stream; the one that takes the subject where not set.
    pub stream: Option<String>,
    /// The content of a credentials file.
    pub credentials: Option<SecretSource>,
    /// A token.
    pub token: Option<SecretSource>,
    /// The TLS policy; rustls.
    pub tls_options: TlsOptions,
    /// TCP, TLS and the server's greeting.
    pub connect_timeout: Duration,
    /// One request.
    pub timeout: Duration,
    /// How long events are kept after the acknowledgement.
    pub hold: Duration,
}
