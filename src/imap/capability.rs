//! What a server can do, as it says in CAPABILITY (RFC 9051 section 7.2.2).

/// The most tokens that are looked at; servers send about 50.
const MOST: usize = 256;

/// The names that make a difference, in capitals. Ten thousand connections keep what their servers can do: a bit each.
const KNOWN: [&str; 24] = [
    "IMAP4REV1",
    "IMAP4REV2",
    "STARTTLS",
    "LOGINDISABLED",
    "AUTH=PLAIN",
    "AUTH=OAUTHBEARER",
    "AUTH=XOAUTH2",
    "AUTH=EXTERNAL",
    "SASL-IR",
    "LITERAL+",
    "LITERAL-",
    "ID",
    "IDLE",
    "NOTIFY",
    "CONDSTORE",
    "QRESYNC",
    "OBJECTID",
    "X-GM-EXT-1",
    "SPECIAL-USE",
    "LIST-EXTENDED",
    "LIST-STATUS",
    "ENABLE",
    "UTF8=ACCEPT",
    "UTF8=ONLY",
];

/// The capabilities that we know, compared without regard to case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u32);

impl Capabilities {
    /// From the tokens of one CAPABILITY response or code; what was known before does not count any more.
    pub fn new<S: AsRef<str>>(tokens: impl IntoIterator<Item = S>) -> Self {
        Self(tokens.into_iter().take(MOST).fold(0, |bits, token| bits | bit(token.as_ref())))
    }

    /// Whether `name` (in capitals, one of those that we know) is offered.
    pub fn has(self, name: &str) -> bool {
        debug_assert!(bit(name) != 0, "{name} is not in the table");
        self.0 & bit(name) != 0
    }

    /// The same but for `name`.
    #[must_use]
    pub fn without(self, name: &str) -> Self {
        Self(self.0 & !bit(name))
    }

    /// Those that are offered, in capitals.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        KNOWN.into_iter().filter(move |name| self.has(name))
    }

    /// Whether the server speaks IMAP4rev1 or IMAP4rev2 at all.
    pub fn is_imap(self) -> bool {
        self.has("IMAP4REV1") || self.has("IMAP4REV2")
    }

    /// Whether the server takes nobody who did not ENABLE UTF8=ACCEPT (RFC 6855 section 6), as is done there: names are
    /// UTF-8 then, and SEARCH may name no CHARSET. Elsewhere it is not enabled.
    pub fn needs_utf8(self) -> bool {
        self.has("UTF8=ONLY")
    }

    /// Whether `LIST ... RETURN (SPECIAL-USE)` is understood (RFC 6154 section 2, RFC 5258).
    pub fn lists_special_use(self) -> bool {
        self.has("SPECIAL-USE") && self.has("LIST-EXTENDED")
    }
}

/// None where the name is not known.
fn bit(name: &str) -> u32 {
    KNOWN.iter().position(|known| known.eq_ignore_ascii_case(name)).map_or(0, |index| 1 << index)
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
