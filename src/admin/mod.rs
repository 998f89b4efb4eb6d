//! For those who look after the monitor: status, health and wishes over HTTP, on a Unix socket, on loopback, and with a
//! token from elsewhere.

pub mod access;
pub mod client;
mod members;
mod page;
mod query;
mod routes;
pub mod server;
pub mod token;
