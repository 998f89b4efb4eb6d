//! How a conversation ends: the core's part of the answer to "it ended; now what?".

use super::refusal::Refusal;

/// Why there is nothing more to say. `account::lifecycle` decides what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// We said LOGOUT, as we were asked to, or a one-shot conversation has all it wanted.
    LoggedOut,
    /// The server said BYE.
    Bye(Refusal),
    /// NO or BAD to a login.
    LoginRefused(Refusal),
    /// The server offers no login that may be used: LOGINDISABLED, or no mechanism in common.
    NoMechanism,
    /// The user name or the password cannot be sent.
    Unsendable,
    /// NO or BAD to EXAMINE, or the mailbox is not in the LIST.
    MailboxRefused(Refusal),
    /// No UIDVALIDITY: UIDs mean nothing there.
    NoUidValidity,
    /// Connections ended while the mailbox was visited, again and again: it is left alone for a while.
    EndsConnections,
    /// NO or BAD to another command.
    CommandRefused {
        /// The command's name.
        command: &'static str,
        /// What the server said.
        refusal: Refusal,
    },
    /// TLS was required and cannot be had; nothing secret was sent.
    TlsUnavailable(TlsUnavailable),
    /// The server broke the protocol.
    Protocol(ProtocolError),
    /// The server did not answer in time.
    TimedOut {
        /// What was waited for.
        awaiting: &'static str,
    },
}

impl Ending {
    /// Whether the server says that there is no such mailbox.
    pub fn says_nonexistent(&self) -> bool {
        matches!(self, Self::MailboxRefused(refusal) if refusal.says_nonexistent())
    }
}

/// Why STARTTLS did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsUnavailable {
    /// Not in the capabilities.
    NotOffered,
    /// Offered, then refused.
    Refused,
    /// The server greets with PREAUTH, which leaves no room for STARTTLS (RFC 9051 section 6.2.1).
    PreAuth,
    /// Bytes came between the server's OK and the handshake: somebody injects (CVE-2011-0411).
    Injected,
}

/// How a server broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The greeting is none.
    NotImap,
    /// A response that the state does not accept.
    Unexpected {
        /// What was waited for.
        awaiting: &'static str,
        /// What kind of response came.
        got: &'static str,
    },
    /// A completion for a command that was not sent.
    UnknownTag,
    /// PREAUTH where it is not allowed.
    PreAuth,
    /// More noise than any server has reason for.
    Flood,
}
