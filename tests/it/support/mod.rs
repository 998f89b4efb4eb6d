//! What the tests share: the monitor as a process, a real Dovecot, and the schema that every line must match.

pub mod browser;
pub mod certificates;
pub mod consumers;
pub mod cyrus;
pub mod disk;
pub mod dovecot;
pub mod faults;
pub mod filter;
pub mod fuse;
pub mod imap4d;
pub mod isolated;
pub mod journald;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod limits;
pub mod monitor;
pub mod name_server;
#[cfg(feature = "postgres")]
pub mod namespace;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod receiver;
pub mod redis;
pub mod relay;
pub mod rotel;
pub mod rsyslog;
pub mod scripted;
pub mod token_endpoint;

use std::sync::OnceLock;

use serde_json::Value;

/// An event line: valid against the published schema, or the test fails.
pub fn event(line: &str) -> Value {
    static SCHEMA: OnceLock<jsonschema::Validator> = OnceLock::new();
    let validator = SCHEMA.get_or_init(|| {
        let schema: Value = serde_json::from_str(include_str!("../../../schema/event-1.json")).unwrap();
        jsonschema::validator_for(&schema).unwrap()
    });
    assert!(line.len() <= 8000, "{} bytes", line.len());
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    if let Some(error) = validator.iter_errors(&value).next() {
        panic!("{error}: {line}");
    }
    value
}

pub fn action(event: &Value) -> &str {
    event["event"]["action"].as_str().unwrap()
}
