//! The whole program as a black box, and its parts against real bytes. One binary, so that it links once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod admin;
mod check;
mod client_certificates;
mod docs;
mod faults;
mod filters;
mod fuzz;
mod headers;
mod init;
mod limits;
mod lists;
mod local_faults;
mod mailboxes;
#[cfg(feature = "nats")]
mod nats;
mod network;
mod oauth;
mod once;
mod privacy;
mod program;
mod proofs;
mod proxies;
mod real_servers;
mod reload;
mod round_trips;
mod support;
mod titles;
mod tls_floods;
mod transcripts;
mod virtual_time;
mod webhook;
