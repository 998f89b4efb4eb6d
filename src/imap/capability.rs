//! What a server can do, as it says in CAPABILITY (RFC 9051 section 7.2.2).

use std::collections::BTreeSet;

/// The most capabilities that are kept; servers send about 50.
const MOST: usize = 256;

/// A set of capability names, compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(BTreeSet<String>);

impl Capabilities {
    /// From the tokens of one CAPABILITY response or code; what was known before does not count any more.
    pub fn new<S: AsRef<str>>(tokens: impl IntoIterator<Item = S>) -> Self {
        Self(tokens.into_iter().take(MOST).map(|token| token.as_ref().to_ascii_uppercase()).collect())
    }

    /// Whether `name` (in capitals) is offered.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Whether the server speaks IMAP4rev1 or IMAP4rev2 at all.
    pub fn is_imap(&self) -> bool {
        self.has("IMAP4REV1") || self.has("IMAP4REV2")
    }

    /// Whether `LIST ... RETURN (SPECIAL-USE)` is understood (RFC 6154 section 2, RFC 5258).
    pub fn lists_special_use(&self) -> bool {
        self.has("SPECIAL-USE") && self.has("LIST-EXTENDED")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_matter() {
        let capabilities = Capabilities::new(["imap4rev1", "Idle", "AUTH=plain"]);
        assert!(capabilities.is_imap() && capabilities.has("IDLE") && capabilities.has("AUTH=PLAIN"));
        assert!(!capabilities.has("CONDSTORE"));
    }
}
