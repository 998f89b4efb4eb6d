//! idlewatch watches many IMAP mailboxes and turns every new message into one structured event.
//!
//! ARCHITECTURE.md is the map. In short: data flows `config -> coordinator -> account -> sink -> journal -> lanes ->
//! outputs`, a receipt flows back to the account, and imports only point down.

pub mod account;
pub mod accounts_table;
pub mod admin;
pub mod app;
pub mod arrivals;
pub mod backoff;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod coordinator;
pub mod demand;
pub mod demo;
pub mod diagnostics;
pub mod event;
pub mod event_id;
pub mod exit;
pub mod filter;
pub mod imap;
pub mod journal;
pub mod mailbox_choice;
pub mod memory;
pub mod messages;
pub mod metrics;
pub mod oauth;
pub mod once;
pub mod privacy;
mod private_file;
pub mod process;
pub mod refusals;
pub mod secrets;
pub mod service;
pub mod signals;
mod since;
pub mod sink;
pub mod status;
pub mod survey;
pub mod terminal;
pub mod text;
pub mod ticks;
pub mod uid_set;
pub mod wire;
