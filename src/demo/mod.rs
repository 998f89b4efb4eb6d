//! A small in-memory IMAP server: `idlewatch demo` and the tests use this one.

pub mod mail;
pub mod samples;
mod search;
pub mod server;
mod session;
pub mod store;
pub mod visits;
