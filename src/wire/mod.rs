//! The I/O below the core: from a host name to replies, with every length bounded and every step under a deadline.

pub mod allowance;
pub mod dial;
pub mod frame;
pub mod guard;
pub mod http;
pub mod link;
pub mod peer;
mod pin;
mod proxy;
pub mod records;
pub mod tls;
pub mod transcript;
mod verified;
