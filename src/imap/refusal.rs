//! NO, BAD and BYE with their codes and texts -> why the server refuses (RFC 9051 section 7.1, RFC 5530).

use super::reply::StatusText;

/// Why a server refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The user name or the password.
    Credentials,
    /// A limit, an overload, a failure behind the server: patience helps, another password does not.
    Patience,
    /// The access token of the connection has ended its life: a matter of course.
    Token,
    /// The mailbox does not exist or may not be opened.
    Mailbox,
    /// It is not said.
    Unsaid,
}

/// A refusal as the server worded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub why: Why,
    /// The response code in capitals.
    pub code: Option<String>,
    /// The server's text: hostile until made harmless.
    pub text: String,
}

/// RFC 5530 codes, and those that servers use besides.
const PATIENCE_CODES: &[&str] =
    &["UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "THROTTLED", "OVERQUOTA", "CORRUPTION"];
const CREDENTIALS_CODES: &[&str] =
    &["AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED", "CONTACTADMIN", "PRIVACYREQUIRED"];
const MAILBOX_CODES: &[&str] = &["NONEXISTENT", "TRYCREATE", "NOPERM", "CANNOT", "NOTFOUND"];

/// Those of [`PATIENCE_CODES`] that may be meant of one mailbox only.
const MAILBOX_TROUBLE_CODES: &[&str] = &["UNAVAILABLE", "INUSE", "SERVERBUG", "CORRUPTION"];

/// Texts of servers that answer a limit or an outage with a bare NO or BYE, in lower case.
const PATIENCE_TEXTS: &[&str] = &[
    "too many",                      // Gmail, Cyrus, Courier
    "maximum number of connections", // Dovecot: mail_max_userip_connections
    "simultaneous connections",      // Gmail, Yahoo
    "connection limit",              // Courier
    "limit exceeded",                // mailbox.org
    "rate limit",                    // Yahoo
    "throttled",                     // Exchange
    "not connected",                 // Outlook: "User is authenticated but not connected."
    "try again later",               // many
    "temporar",                      // temporary, temporarily
    "unavailable",                   // many
    "server busy",                   // Exchange
    "system error",                  // Cyrus
    "internal error",                // Dovecot
    "backend",                       // proxies
];

/// Of servers that end connections with their tokens, in lower case.
const TOKEN_TEXTS: &[&str] = &[
    "accesstokenexpired",  // Exchange: "Session invalidated - AccessTokenExpired"
    "session invalidated", // Exchange, with other reasons
    "token expired",
    "token has expired",
];

impl Refusal {
    /// A refusal of a login.
    pub fn of_login(text: &StatusText) -> Self {
        Self::new(text, Why::Credentials)
    }

    /// A refusal of anything else.
    pub fn of(text: &StatusText) -> Self {
        Self::new(text, Why::Unsaid)
    }

    /// Whether patience may be asked for because of the one mailbox that was to be opened.
    pub fn may_be_of_a_mailbox(&self) -> bool {
        self.code.as_deref().is_some_and(|code| MAILBOX_TROUBLE_CODES.contains(&code))
    }

    /// The same, of a mailbox that is known not to be there.
    pub(super) fn nonexistent(self) -> Self {
        Self { code: Some("NONEXISTENT".to_owned()), why: Why::Mailbox, ..self }
    }

    /// Whether there is no such mailbox (RFC 5530 section 3).
    pub fn says_nonexistent(&self) -> bool {
        self.code.as_deref() == Some("NONEXISTENT")
    }

    fn new(text: &StatusText, unless_told: Why) -> Self {
        let code = text.code.as_ref().map(|code| code.name().to_owned());
        let why = code.as_deref().and_then(by_code).or_else(|| by_text(&text.text)).unwrap_or(unless_told);
        Self { why, code, text: text.text.clone() }
    }
}

fn by_code(code: &str) -> Option<Why> {
    let table = [
        (PATIENCE_CODES, Why::Patience),
        (CREDENTIALS_CODES, Why::Credentials),
        (MAILBOX_CODES, Why::Mailbox),
    ];
    table.into_iter().find(|(codes, _)| codes.contains(&code)).map(|(_, why)| why)
}

fn by_text(text: &str) -> Option<Why> {
    let text = text.to_lowercase();
    let has = |known: &[&str]| known.iter().any(|known| text.contains(known));
    match () {
        () if has(TOKEN_TEXTS) => Some(Why::Token),
        () if has(PATIENCE_TEXTS) => Some(Why::Patience),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::Code;
    use super::*;

    fn text(code: &str, text: &str) -> StatusText {
        let code = (!code.is_empty()).then(|| Code::Named(code.to_owned()));
        StatusText { code, text: text.to_owned() }
    }

    #[test]
    fn a_limit_is_never_called_a_wrong_password() {
        let table = [
            ("AUTHENTICATIONFAILED", "Invalid credentials (Failure)", Why::Credentials),
            ("AUTHENTICATIONFAILED", "too many failures", Why::Credentials),
            ("ALERT", "Too many simultaneous connections. (Failure)", Why::Patience),
            ("", "User is authenticated but not connected.", Why::Patience),
            ("UNAVAILABLE", "Temporary authentication failure.", Why::Patience),
            ("INUSE", "mailbox in use", Why::Patience),
            ("LIMIT", "slow down", Why::Patience),
            ("", "Login failed: authentication failure", Why::Credentials),
            ("", "LOGIN failed.", Why::Credentials),
            ("CONTACTADMIN", "Account-closed", Why::Credentials),
            ("", "Maximum number of connections from user+IP exceeded", Why::Patience),
        ];
        for (code, words, why) in table {
            assert_eq!(Refusal::of_login(&text(code, words)).why, why, "{code} {words}");
        }
    }

    #[test]
    fn a_missing_mailbox_is_told_apart() {
        assert_eq!(Refusal::of(&text("NONEXISTENT", "Unknown Mailbox")).why, Why::Mailbox);
        assert_eq!(Refusal::of(&text("", "Mailbox does not exist")).why, Why::Unsaid);
        assert_eq!(Refusal::of(&text("UNAVAILABLE", "down")).why, Why::Patience);
    }
}
