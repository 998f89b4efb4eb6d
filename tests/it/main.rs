//! The whole program as a black box, and its parts against real bytes. One binary, so that it links once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

#[cfg(feature = "postgres")]
mod accounts_table;
mod admin;
mod alerts_and_dashboard;
mod changes;
mod check;
mod client_certificates;
#[cfg(feature = "postgres")]
mod cluster;
mod contract;
mod docs;
mod exec;
mod faults;
mod filters;
mod fuzz;
mod headers;
mod http;
mod init;
#[cfg(feature = "nats")]
mod joint;
mod journald;
mod journals;
#[cfg(feature = "kafka")]
mod kafka;
mod limits;
mod lists;
mod local_faults;
mod log_stores;
mod mailboxes;
mod names;
#[cfg(feature = "nats")]
mod nats;
mod network;
mod oauth;
mod once;
mod page;
mod pipelines;
#[cfg(feature = "postgres")]
mod postgres;
mod privacy;
mod program;
mod proofs;
mod proxies;
mod real_servers;
mod redis;
mod reload;
mod replay;
mod rotation;
mod round_trips;
#[cfg(feature = "postgres")]
mod shared_tokens;
mod state;
mod support;
mod syslog;
mod titles;
mod tls_floods;
mod transcripts;
mod virtual_time;
mod webhook;
mod wire_log;
