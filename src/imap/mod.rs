//! The conversation with an IMAP server as a pure state machine: no I/O, no clock, no actors.

pub mod reply;
