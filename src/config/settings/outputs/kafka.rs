//! `type = "kafka"`

use std::time::Duration;

use super::super::TlsOptions;
use crate::secrets::SecretSource;

/// Which topic, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `host:port` of those that are asked for all others; at least one.
    pub brokers: Vec<String>,
    /// Whether TLS is spoken, with all brokers.
    pub is_tls: bool,
    /// What each event is a record of.
    pub topic: String,
    /// How records are compressed.
    pub compression: KafkaCompression,
    /// Who we are.
    pub login: Option<SaslLogin>,
    /// The TLS policy: roots, and a certificate of our own.
    pub tls_options: TlsOptions,
    /// TCP, TLS and the login.
    pub connect_timeout: Duration,
    /// How long a batch is waited for before that is called a failure.
    pub timeout: Duration,
}

/// `user`, `password` and `sasl`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslLogin {
    /// How.
    pub mechanism: SaslMechanism,
    /// Who.
    pub user: String,
    /// The password.
    pub password: SecretSource,
}

/// `sasl`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// The password itself is sent.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

/// `compression`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaCompression {
    /// None.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
}
