//! What is wrong with a configuration, and where.

use std::fmt;

use crate::text::escape;

/// Whether the program can run with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can; somebody should look.
    Warning,
}

/// One problem. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// How bad it is.
    pub severity: Severity,
    /// `file:line:col`, an environment variable, or a flag; empty where there is no place.
    pub origin: String,
    /// `accounts[2].tls`
    pub path: String,
    /// What, and what to do.
    pub message: String,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.origin.is_empty() {
            write!(f, "{}: ", escape(&self.origin))?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", escape(&self.path))?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&escape(&self.message))
    }
}

impl Issue {
    /// What sorts issues as a reader meets them: by file, then by line.
    pub fn order(&self) -> (String, u64, u64) {
        let mut parts = self.origin.rsplitn(3, ':');
        let (column, line) = (parts.next(), parts.next());
        let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
        (parts.next().unwrap_or(&self.origin).to_owned(), number(line), number(column))
    }
}
