//! Access tokens (OAuth 2.0, RFC 6749): where they come from, how long they are kept, and when they are renewed.

pub mod assertion;
pub mod device;
pub mod endpoint;
pub mod exchange;
pub mod grant;
pub mod life;
mod shown;
pub mod store;
pub mod tokens;
