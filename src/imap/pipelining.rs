//! DONE, UID FETCH and the next IDLE in one write: from EXISTS to the message in one round trip.
//!
//! RFC 9051 section 5.5 allows it, and not every server was ever asked: only those that are known to take it are, by the
//! name that they give themselves. Whatever else happens then ends it for the host.

/// What the servers that take it say of themselves, in their greeting or in ID (RFC 2971); in lower case.
const KNOWN: [&str; 4] = ["dovecot", "cyrus imap", "courier-imap", "idlewatch"];

/// Whether commands are pipelined in this conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pipelining {
    /// It went wrong, here or before.
    refused: bool,
    /// The server is one of those that take it.
    known: bool,
    /// Commands were sent ahead, and the last of them is not answered yet.
    running: bool,
}

impl Pipelining {
    pub(super) fn new(refused: bool) -> Self {
        Self { refused, known: false, running: false }
    }

    /// The server says who it is.
    pub(super) fn introduced(&mut self, words: &str) {
        let words = words.to_ascii_lowercase();
        self.known |= KNOWN.iter().any(|name| words.contains(name));
    }

    pub(super) fn is_trusted(self) -> bool {
        self.known && !self.refused
    }

    pub(super) fn is_running(self) -> bool {
        self.running
    }

    pub(super) fn begin(&mut self) {
        self.running = true;
    }

    /// Whether anything ran: it was answered in order.
    pub(super) fn worked(&mut self) -> bool {
        std::mem::take(&mut self.running)
    }

    /// It was answered otherwise. Whether anything ran that could be.
    pub(super) fn broke(&mut self) -> bool {
        self.refused |= self.running;
        std::mem::take(&mut self.running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_that_are_known_to_take_it_are_trusted() {
        for (words, trusted) in [
            ("Dovecot (Debian) ready.", true),
            ("localhost Cyrus IMAP 3.6.1-Debian-3.6.1-4+deb12u5 server ready", true),
            ("Cyrus IMAPD", true),
            ("Courier-IMAP ready. Copyright 1998-2019 Double Precision, Inc.", true),
            ("IMAP4rev1", false),
            ("Gimap ready for requests from 192.0.2.1", false),
            ("", false),
        ] {
            let mut pipelining = Pipelining::new(false);
            pipelining.introduced(words);
            assert_eq!(pipelining.is_trusted(), trusted, "{words}");
            let mut refused = Pipelining::new(true);
            refused.introduced(words);
            assert!(!refused.is_trusted());
        }
    }

    #[test]
    fn what_breaks_while_nothing_runs_is_no_fault_of_it() {
        let mut pipelining = Pipelining::new(false);
        pipelining.introduced("Dovecot");
        assert!(!pipelining.broke() && pipelining.is_trusted());
        pipelining.begin();
        assert!(pipelining.worked() && !pipelining.is_running());
        assert!(!pipelining.worked(), "nothing ran");
        pipelining.begin();
        assert!(pipelining.broke() && !pipelining.is_trusted());
    }
}
