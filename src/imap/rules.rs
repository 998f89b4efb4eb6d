//! Which replies each state accepts: one table, so that nothing is accepted by accident.

use super::reply::{Reply, Status};

/// The states as far as replies are concerned (RFC 9051 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Before the greeting.
    Greeting,
    /// Greeted, not logged in.
    NotAuthenticated,
    /// STARTTLS was sent, or the handshake runs.
    StartTls,
    /// Logged in, no mailbox open, EXAMINE included.
    Authenticated,
    /// A mailbox is open.
    Selected,
    /// IDLE was sent and not completed.
    Idling,
    /// LOGOUT was sent.
    LoggingOut,
}

/// The kinds of replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A completion.
    Tagged,
    /// Untagged OK.
    Ok,
    /// Untagged NO or BAD.
    NoBad,
    /// PREAUTH.
    PreAuth,
    /// BYE.
    Bye,
    /// `+`
    Continue,
    /// CAPABILITY
    Capability,
    /// EXISTS, EXPUNGE, VANISHED, FETCH.
    Mailbox,
    /// LIST
    List,
    /// STATUS
    MailboxStatus,
    /// SEARCH
    Search,
    /// ID
    Id,
    /// Anything known that nobody needs.
    Other,
    /// What cannot be read.
    Unreadable,
}

/// What is done with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The state looks at it.
    Take,
    /// Counted, and dropped.
    Ignore,
    /// The conversation ends.
    End,
}

impl Kind {
    /// The kind of `reply`.
    pub fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Tagged { .. } => Self::Tagged,
            Reply::Untagged { status, .. } => match status {
                Status::Ok => Self::Ok,
                Status::No | Status::Bad => Self::NoBad,
                Status::PreAuth => Self::PreAuth,
                Status::Bye => Self::Bye,
            },
            Reply::Continue(_) => Self::Continue,
            Reply::Capability(_) => Self::Capability,
            Reply::Exists(_) | Reply::Expunge(_) | Reply::Vanished { .. } | Reply::Fetch(_) => Self::Mailbox,
            Reply::List(_) => Self::List,
            Reply::MailboxStatus(_) => Self::MailboxStatus,
            Reply::Search { .. } => Self::Search,
            Reply::Id(_) => Self::Id,
            Reply::Other(_) => Self::Other,
            Reply::Unreadable { .. } => Self::Unreadable,
        }
    }

    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tagged => "a tagged response",
            Self::Ok => "OK",
            Self::NoBad => "NO or BAD",
            Self::PreAuth => "PREAUTH",
            Self::Bye => "BYE",
            Self::Continue => "a continuation request",
            Self::Capability => "CAPABILITY",
            Self::Mailbox => "mailbox data",
            Self::List => "LIST",
            Self::MailboxStatus => "STATUS",
            Self::Search => "SEARCH",
            Self::Id => "ID",
            Self::Other => "other data",
            Self::Unreadable => "something unreadable",
        }
    }
}

/// The table. BYE is accepted in every state but the greeting's handling of it is its own.
pub const fn rule(state: State, kind: Kind) -> Rule {
    use Rule::{End, Ignore, Take};
    match (state, kind) {
        // One greeting, and nothing before it.
        (State::Greeting, Kind::Ok | Kind::PreAuth | Kind::Bye) => Take,
        (State::Greeting, _) => End,
        // Between STARTTLS and its completion nothing is believed (N18): data there is an attack or a fault.
        (State::StartTls, Kind::Tagged | Kind::Bye) => Take,
        (State::StartTls, Kind::Ok | Kind::NoBad | Kind::Id | Kind::Other | Kind::Capability) => Ignore,
        (State::StartTls, _) => End,
        (_, Kind::Bye | Kind::Tagged) => Take,
        (_, Kind::PreAuth) => End,
        // Information that may come at any time.
        (_, Kind::Ok | Kind::Capability) => Take,
        (State::Authenticated, Kind::Id) => Take,
        (_, Kind::Id | Kind::NoBad | Kind::Other | Kind::Unreadable) => Ignore,
        // `+` only where a command waits for one; the exchange of literals and SASL is handled before this table.
        (State::Idling, Kind::Continue) => Take,
        (_, Kind::Continue) => End,
        // Mailbox data counts only while a mailbox is open, or is being opened.
        (State::Authenticated | State::Selected | State::Idling, Kind::Mailbox) => Take,
        (State::NotAuthenticated | State::LoggingOut, Kind::Mailbox | Kind::List | Kind::MailboxStatus) => {
            Ignore
        }
        (State::Authenticated | State::Selected, Kind::Search) => Take,
        (_, Kind::Search) => Ignore,
        (State::Authenticated, Kind::List | Kind::MailboxStatus) => Take,
        (State::Selected | State::Idling, Kind::List | Kind::MailboxStatus) => Ignore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_status_answers_starttls() {
        for kind in [Kind::Mailbox, Kind::List, Kind::Continue, Kind::PreAuth, Kind::Unreadable] {
            assert_eq!(rule(State::StartTls, kind), Rule::End, "{kind:?}");
        }
    }

    #[test]
    fn mailbox_data_before_login_is_no_mail() {
        assert_eq!(rule(State::NotAuthenticated, Kind::Mailbox), Rule::Ignore);
        assert_eq!(rule(State::Idling, Kind::Mailbox), Rule::Take);
    }

    #[test]
    fn a_second_greeting_ends_it() {
        for state in [State::NotAuthenticated, State::Authenticated, State::Selected, State::Idling] {
            assert_eq!(rule(state, Kind::PreAuth), Rule::End);
        }
    }
}
