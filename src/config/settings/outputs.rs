//! What each type of output adds to `[outputs.X]`.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::TlsOptions;
use crate::secrets::SecretSource;

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
}

impl OutputKind {
    /// As in `type`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File { .. } => "file",
            Self::Webhook(_) => "webhook",
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
