//! For those who look after the monitor: status, health and wishes over HTTP, on loopback and on a Unix socket.

pub mod access;
pub mod client;
mod page;
mod routes;
pub mod server;
