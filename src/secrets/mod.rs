//! Where a password comes from, and how it is held.

use std::path::PathBuf;

/// Where a secret comes from. Its `Debug` never shows an inline value.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// `{ env = "NAME" }`
    Env(String),
    /// `{ file = "path" }`
    File(PathBuf),
    /// `{ command = ["argv", ...] }`
    Command(Vec<String>),
    /// `{ credential = "name" }`: `$CREDENTIALS_DIRECTORY/name`
    Credential(String),
    /// `{ inline = "..." }`
    Inline(secrecy::SecretString),
}
