//! What each type of output adds to `[outputs.X]`.

mod elasticsearch;
mod exec;
mod journald;
mod kafka;
mod loki;
mod otlp;
mod redis;
mod rotation;
mod syslog;

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

pub use self::elasticsearch::ElasticsearchSettings;
pub use self::exec::ExecSettings;
pub use self::journald::JournaldSettings;
pub use self::kafka::{KafkaCompression, KafkaSettings, SaslLogin, SaslMechanism};
pub use self::loki::LokiSettings;
pub use self::otlp::OtlpSettings;
pub use self::redis::RedisSettings;
pub use self::rotation::RotationSettings;
pub use self::syslog::{SyslogServer, SyslogSettings, SyslogTransport};
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
        /// When the monitor itself begins a new one.
        rotation: Option<RotationSettings>,
    },
    /// Events by HTTP POST.
    Webhook(Box<WebhookSettings>),
    /// NATS JetStream.
    Nats(Box<NatsSettings>),
    /// Syslog.
    Syslog(Box<SyslogSettings>),
    /// A program.
    Exec(Box<ExecSettings>),
    /// systemd's journal.
    Journald(Box<JournaldSettings>),
    /// Elasticsearch or OpenSearch.
    Elasticsearch(Box<ElasticsearchSettings>),
    /// Loki.
    Loki(Box<LokiSettings>),
    /// A collector of OpenTelemetry.
    Otlp(Box<OtlpSettings>),
    /// A stream of Redis.
    Redis(Box<RedisSettings>),
    /// A topic of Kafka.
    Kafka(Box<KafkaSettings>),
}

impl OutputKind {
    /// As in `type`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File { .. } => "file",
            Self::Webhook(_) => "webhook",
            Self::Nats(_) => "nats",
            Self::Syslog(_) => "syslog",
            Self::Exec(_) => "exec",
            Self::Journald(_) => "journald",
            Self::Elasticsearch(_) => "elasticsearch",
            Self::Loki(_) => "loki",
            Self::Otlp(_) => "otlp",
            Self::Redis(_) => "redis",
            Self::Kafka(_) => "kafka",
        }
    }

    /// The host that it speaks to, where its errors need that: never a path or a query, which may be secret.
    pub fn target(&self) -> Option<String> {
        let of_url = |url: &Url| {
            let port = url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
            Some(format!("{}{port}", url.host_str().unwrap_or_default()))
        };
        match self {
            // Their errors name a path or a program.
            Self::Stdout | Self::File { .. } | Self::Exec(_) | Self::Journald(_) => None,
            Self::Webhook(webhook) => of_url(&webhook.http.url),
            Self::Elasticsearch(elasticsearch) => of_url(&elasticsearch.http.url),
            Self::Loki(loki) => of_url(&loki.http.url),
            Self::Otlp(otlp) => of_url(&otlp.http.url),
            Self::Nats(nats) => of_url(&nats.url),
            Self::Redis(redis) => Some(format!("{}:{}", redis.host, redis.port)),
            Self::Kafka(kafka) => Some(kafka.brokers.join(", ")),
            Self::Syslog(syslog) => match &syslog.transport {
                SyslogTransport::Unix(_) => None,
                SyslogTransport::Udp(server)
                | SyslogTransport::Tcp(server)
                | SyslogTransport::Tls(server) => Some(format!("{}:{}", server.host, server.port)),
            },
        }
    }

    /// How long what it took is kept for it all the same.
    pub fn hold(&self) -> Duration {
        match self {
            Self::Nats(nats) => nats.hold,
            Self::Syslog(syslog) => syslog.hold,
            _ => Duration::ZERO,
        }
    }
}

/// Where and how to POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSettings {
    /// `http` or `https`; no user in it.
    pub url: Url,
    /// What `Authorization` says.
    pub login: Option<HttpLogin>,
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

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpLogin {
    /// `Bearer`
    Token(SecretSource),
    /// `ApiKey`, of Elasticsearch.
    ApiKey(SecretSource),
    /// `Basic`
    Password {
        /// Without a colon.
        user: String,
        /// The password.
        password: SecretSource,
    },
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
    /// One event a request.
    Single,
    /// One event a request, a CloudEvent in HTTP's binary mode: its attributes are headers.
    Binary,
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
