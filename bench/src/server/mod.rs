//! A load server: tens of thousands of IMAP connections, whose mail is made up from its UIDs.

pub mod connection;
pub mod control;
mod fetch;
mod mail;
mod session;
pub mod world;
