//! The conversation with an IMAP server as a pure state machine: no I/O, no clock, no actors.

pub mod budget;
pub mod capability;
pub mod command;
pub mod conversation;
pub mod ending;
mod fetch;
mod header_text;
mod headers;
mod idle;
pub mod listing;
mod login;
pub mod one_shot;
pub mod parse;
mod pipelining;
pub mod refusal;
pub mod reply;
pub mod rules;
pub mod sasl;
pub mod search;
mod select;
pub mod summary;
pub mod survey;
pub mod tally;
pub mod titles;
pub mod tolerant;
pub mod utf7;
mod watch;
