//! "It ended; now what?" The one place that answers: blame, then verdict. Pure.

use std::time::Duration;

use crate::backoff::full_jitter;
use crate::event::{AccountState, ErrorType, Trouble};
use crate::imap::ending::{Ending, ProtocolError, TlsUnavailable};
use crate::imap::refusal::{Refusal, Why};
use crate::messages::Undelivered;
use crate::oauth::endpoint::EndpointError;
use crate::oauth::exchange::TokenError;
use crate::refusals::NextLogin;
use crate::secrets::SecretError;
use crate::text;
use crate::wire::dial::DialError;
use crate::wire::link::LinkError;
use crate::wire::tls::TlsError;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// The conversation came to its end.
    #[error("the conversation ended")]
    Conversation(Ending),
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The connection broke.
    #[error("while awaiting {awaiting}: {error}")]
    Link {
        /// How.
        error: LinkError,
        /// What was being waited for.
        awaiting: &'static str,
    },
    /// The password could not be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// There is no access token.
    #[error(transparent)]
    NoToken(#[from] TokenError),
    /// The login was refused with an access token that may have been too old: not yet a refusal that counts.
    #[error("{0}")]
    StaleToken(Box<SessionEnd>),
    /// The journal could not be asked for the checkpoint, or takes nothing any more.
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
    /// A bug of ours.
    #[error("panic: {0}")]
    Panicked(String),
}

/// Whose fault it is: decides how long to wait, and who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// Nobody: we were asked to stop.
    Nobody,
    /// What lies between.
    Network,
    /// The server.
    Server,
    /// The server asks for patience.
    Limit,
    /// An access token that has ended its life: a matter of course, another one is fetched.
    Token,
    /// The server says more than any bound allows: an attack, or a bug that will not be gone soon.
    Excess,
    /// User name or password.
    Credentials,
    /// One mailbox of the account.
    Mailbox,
    /// A person has to change something.
    Operator(Setup),
    /// Us.
    Ourselves,
    /// Another connection of ours had not finished with the mailbox: a matter of moments.
    Handover,
}

impl Blame {
    /// Whether it may be the fault of the mailbox that was being visited.
    pub const fn may_be_of_a_mailbox(self) -> bool {
        matches!(self, Self::Network | Self::Server | Self::Excess | Self::Limit | Self::Ourselves)
    }

    /// `reason` in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "stopped",
            Self::Network => "network",
            Self::Server => "server",
            Self::Limit => "limit",
            Self::Token => "token",
            Self::Excess => "excess",
            Self::Credentials => "credentials",
            Self::Mailbox => "mailbox",
            Self::Operator(_) => "configuration",
            Self::Ourselves => "internal",
            Self::Handover => "handover",
        }
    }
}

/// What a person has to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setup {
    /// TLS, or a certificate.
    Tls,
    /// The secret, or how to log in.
    Login,
}

/// What is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing more.
    Stopped,
    /// Try again, as this state, after this time.
    Retry {
        /// The account's state meanwhile.
        state: AccountState,
        /// The wait.
        after: Duration,
    },
    /// The login was refused: nobody of the account tries before the refusals allow it.
    RetryLogin,
    /// Only this mailbox is in trouble: look again after this time.
    RetryMailbox {
        /// The wait.
        after: Duration,
    },
    /// Wait for a person.
    Suspend,
}

const OPERATOR_WAIT: Duration = Duration::from_secs(15 * 60);
const EXCESS_WAIT: Duration = Duration::from_secs(60 * 60);
const MAILBOX_WAIT: Duration = Duration::from_secs(5 * 60);
const MOST_PANICS: u32 = 5;

/// Whose fault it is.
pub fn blame(end: &SessionEnd) -> Blame {
    match end {
        SessionEnd::Conversation(ending) => blame_ending(ending),
        SessionEnd::Dial(_) => Blame::Network,
        SessionEnd::Tls(error) if error.needs_operator() => Blame::Operator(Setup::Tls),
        SessionEnd::Tls(_) => Blame::Network,
        SessionEnd::Link { error: LinkError::Closed | LinkError::Io(_), .. } => Blame::Network,
        SessionEnd::Link { error: LinkError::CertificateRefused, .. } => Blame::Operator(Setup::Tls),
        SessionEnd::Link { error: LinkError::Limit(_), .. } => Blame::Excess,
        SessionEnd::Secret(_) => Blame::Operator(Setup::Login),
        SessionEnd::NoToken(error) => blame_token(error),
        SessionEnd::StaleToken(_) => Blame::Token,
        SessionEnd::Undelivered(Undelivered::Stopping) => Blame::Nobody,
        SessionEnd::Undelivered(Undelivered::Superseded) => Blame::Handover,
        SessionEnd::Undelivered(Undelivered::JournalFailed) | SessionEnd::Panicked(_) => Blame::Ourselves,
    }
}

/// A token endpoint that is down or wants patience says nothing of the grant.
fn blame_token(error: &TokenError) -> Blame {
    match error {
        TokenError::Endpoint { error: EndpointError::Throttled(_), .. } => Blame::Limit,
        TokenError::Endpoint { .. } | TokenError::Away(_) => Blame::Network,
        TokenError::Refused { .. } | TokenError::NotPermitted(_) => Blame::Credentials,
        TokenError::Secret(_) | TokenError::Key(_) | TokenError::Store(_) => Blame::Operator(Setup::Login),
        TokenError::Broken => Blame::Ourselves,
    }
}

/// For how long it was asked to wait at least.
pub fn asked_pause(end: &SessionEnd) -> Duration {
    match end {
        SessionEnd::NoToken(TokenError::Endpoint { error: EndpointError::Throttled(pause), .. }) => *pause,
        _ => Duration::ZERO,
    }
}

impl Verdict {
    /// The same, but not before `least`.
    pub fn not_before(self, least: Duration) -> Self {
        match self {
            Self::Retry { state, after } => Self::Retry { state, after: after.max(least) },
            other => other,
        }
    }
}

fn blame_ending(ending: &Ending) -> Blame {
    match ending {
        Ending::LoggedOut => Blame::Nobody,
        Ending::Bye(refusal) | Ending::CommandRefused { refusal, .. } => match refusal.why {
            Why::Patience => Blame::Limit,
            Why::Token => Blame::Token,
            Why::Credentials | Why::Mailbox | Why::Unsaid => Blame::Server,
        },
        Ending::LoginRefused(refusal) => match refusal.why {
            Why::Patience => Blame::Limit,
            Why::Credentials | Why::Token | Why::Mailbox | Why::Unsaid => Blame::Credentials,
        },
        Ending::TlsUnavailable(_) => Blame::Operator(Setup::Tls),
        Ending::NoMechanism | Ending::Unsendable | Ending::Protocol(ProtocolError::PreAuth) => {
            Blame::Operator(Setup::Login)
        }
        Ending::Protocol(ProtocolError::Flood) => Blame::Excess,
        Ending::Protocol(_) => Blame::Server,
        Ending::MailboxRefused(_) | Ending::NoUidValidity | Ending::EndsConnections => Blame::Mailbox,
        Ending::TimedOut { .. } => Blame::Network,
    }
}

/// What follows; `failures` counts the ends of this blame in a row, this one included, and is at least 1.
/// `next_login` is what the refused logins allow.
pub fn verdict(blame: Blame, failures: u32, next_login: NextLogin, random: f64) -> Verdict {
    let retry = |state, base| Verdict::Retry {
        state,
        after: full_jitter(Duration::from_secs(base), failures, random),
    };
    match blame {
        Blame::Nobody => Verdict::Stopped,
        Blame::Network | Blame::Token | Blame::Handover => retry(AccountState::Backoff, 1),
        Blame::Server => retry(AccountState::Backoff, 5),
        Blame::Excess => {
            Verdict::Retry { state: AccountState::Backoff, after: EXCESS_WAIT.mul_f64(0.5 + random / 2.0) }
        }
        // Patience has a lower bound: half of the range is waited for at least.
        Blame::Limit => Verdict::Retry {
            state: AccountState::Throttled,
            after: full_jitter(Duration::from_secs(60), failures, 0.5 + random / 2.0),
        },
        Blame::Credentials => match next_login {
            NextLogin::After(_) => Verdict::RetryLogin,
            NextLogin::Never => Verdict::Suspend,
        },
        Blame::Mailbox => Verdict::RetryMailbox { after: MAILBOX_WAIT },
        Blame::Operator(Setup::Tls) => {
            Verdict::Retry { state: AccountState::TlsFailed, after: OPERATOR_WAIT }
        }
        Blame::Operator(Setup::Login) => {
            Verdict::Retry { state: AccountState::AuthFailed, after: OPERATOR_WAIT }
        }
        Blame::Ourselves if failures > MOST_PANICS => Verdict::Suspend,
        Blame::Ourselves => retry(AccountState::Backoff, 60),
    }
}

/// The end in the words of `error.*`: no secret, and the server's text made harmless.
pub fn trouble(end: &SessionEnd) -> Option<Trouble> {
    let trouble = match end {
        SessionEnd::Conversation(ending) => return ending_trouble(ending),
        SessionEnd::Dial(error) => {
            let (error_type, code) = match error {
                DialError::Dns { .. } => (ErrorType::Dns, None),
                DialError::Connect { .. } => (ErrorType::Connect, None),
                DialError::Source { .. } => (ErrorType::Connect, Some("source_address")),
                DialError::Proxy { .. } => (ErrorType::Connect, Some("proxy")),
            };
            tell(error_type, code, error.to_string())
        }
        SessionEnd::Tls(error) => tell(ErrorType::Tls, Some(error.code()), error.to_string()),
        SessionEnd::Link { error: LinkError::Limit(_), .. } => {
            tell(ErrorType::Protocol, Some("limit"), end.to_string())
        }
        SessionEnd::Link { error: LinkError::CertificateRefused, .. } => {
            tell(ErrorType::Tls, Some("client_certificate"), end.to_string())
        }
        SessionEnd::Link { .. } => tell(ErrorType::Connect, None, end.to_string()),
        SessionEnd::Secret(error) => tell(ErrorType::Config, Some("secret"), error.to_string()),
        SessionEnd::NoToken(error) => token_trouble(error),
        SessionEnd::StaleToken(end) => return trouble(end),
        SessionEnd::Undelivered(Undelivered::Stopping) => return None,
        SessionEnd::Undelivered(error) => tell(ErrorType::Io, None, error.to_string()),
        SessionEnd::Panicked(message) => tell(ErrorType::Internal, None, format!("panic: {message}")),
    };
    Some(Trouble { message: text::line(&trouble.message, MESSAGE), ..trouble })
}

fn token_trouble(error: &TokenError) -> Trouble {
    let (error_type, code) = match error {
        TokenError::Endpoint { error: EndpointError::Down(_), .. } => (ErrorType::Connect, "token_endpoint"),
        TokenError::Endpoint { error: EndpointError::TimedOut, .. } => (ErrorType::Timeout, "token_endpoint"),
        TokenError::Endpoint { error: EndpointError::Throttled(_), .. } => {
            (ErrorType::Throttled, "token_endpoint")
        }
        TokenError::Refused { code, .. } => (ErrorType::Auth, code.as_str()),
        TokenError::NotPermitted(_) => (ErrorType::Auth, "no_refresh_token"),
        TokenError::Secret(_) | TokenError::Key(_) => (ErrorType::Config, "secret"),
        TokenError::Store(_) | TokenError::Away(_) => (ErrorType::Io, "token_state"),
        TokenError::Broken => (ErrorType::Internal, "token"),
    };
    tell(error_type, Some(code), error.to_string())
}

/// The longest `error.message`, bytes.
const MESSAGE: usize = 512;

fn tell(error_type: ErrorType, code: Option<&str>, message: String) -> Trouble {
    Trouble { error_type, code: code.map(str::to_owned), message }
}

fn ending_trouble(ending: &Ending) -> Option<Trouble> {
    let trouble = match ending {
        Ending::LoggedOut => return None,
        Ending::Bye(refusal) => refused(refusal, ErrorType::Protocol, "the server said BYE"),
        Ending::LoginRefused(refusal) => refused(refusal, ErrorType::Auth, "the login was refused"),
        Ending::MailboxRefused(refusal) => Trouble {
            code: Some("mailbox_missing".to_owned()),
            ..refused(refusal, ErrorType::Mailbox, "the mailbox cannot be opened")
        },
        Ending::CommandRefused { command, refusal } => {
            refused(refusal, ErrorType::Protocol, &format!("{command} was refused"))
        }
        Ending::NoMechanism => tell(
            ErrorType::Auth,
            Some("auth_mechanism"),
            "the server allows no login of this kind here: LOGINDISABLED, or no mechanism in common; use TLS"
                .to_owned(),
        ),
        Ending::Unsendable => tell(
            ErrorType::Config,
            Some("secret"),
            "the user name or password holds CR, LF or NUL".to_owned(),
        ),
        Ending::NoUidValidity => {
            tell(ErrorType::Mailbox, Some("no_uidvalidity"), "the mailbox has no UIDVALIDITY".to_owned())
        }
        Ending::EndsConnections => tell(
            ErrorType::Mailbox,
            Some("ends_connections"),
            "connections ended while it was looked into, again and again: it is left alone for a while"
                .to_owned(),
        ),
        Ending::TlsUnavailable(why) => {
            tell(ErrorType::Tls, Some("tls_unavailable"), starttls(*why).to_owned())
        }
        Ending::Protocol(error) => protocol(error),
        Ending::TimedOut { awaiting } => {
            let hint = if *awaiting == "the greeting" { "; does tls fit the port?" } else { "" };
            tell(ErrorType::Timeout, None, format!("no answer in time while awaiting {awaiting}{hint}"))
        }
    };
    Some(Trouble {
        message: text::line(&trouble.message, MESSAGE),
        code: trouble.code.map(|code| text::line(&code, 64)),
        ..trouble
    })
}

fn refused(refusal: &Refusal, error_type: ErrorType, unsaid: &str) -> Trouble {
    let error_type = if refusal.why == Why::Patience { ErrorType::Throttled } else { error_type };
    let message = if refusal.text.trim().is_empty() { unsaid.to_owned() } else { refusal.text.clone() };
    Trouble { error_type, code: refusal.code.clone(), message }
}

fn starttls(why: TlsUnavailable) -> &'static str {
    match why {
        TlsUnavailable::NotOffered => "the server does not offer STARTTLS; nothing secret was sent",
        TlsUnavailable::Refused => "the server refused STARTTLS; nothing secret was sent",
        TlsUnavailable::PreAuth => "the server greets with PREAUTH, before TLS; nothing secret was sent",
        TlsUnavailable::Injected => "bytes were injected before the TLS handshake; nothing secret was sent",
    }
}

fn protocol(error: &ProtocolError) -> Trouble {
    let (code, message) = match error {
        ProtocolError::NotImap => (Some("not_imap"), "this is no IMAP server".to_owned()),
        ProtocolError::Unexpected { awaiting, got } => (None, format!("{got} while awaiting {awaiting}")),
        ProtocolError::UnknownTag => (None, "a completion for a command that was not sent".to_owned()),
        ProtocolError::PreAuth => {
            (None, "the server greets with PREAUTH; set allow_preauth = true if that is meant".to_owned())
        }
        ProtocolError::Flood => (Some("limit"), "the server makes only noise".to_owned()),
    };
    tell(ErrorType::Protocol, code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: NextLogin = NextLogin::After(Duration::ZERO);

    fn refusal(why: Why) -> Refusal {
        Refusal { why, code: None, text: "x".to_owned() }
    }

    #[test]
    fn a_limit_at_login_is_no_wrong_password() {
        let end = SessionEnd::Conversation(Ending::LoginRefused(refusal(Why::Patience)));
        assert_eq!(blame(&end), Blame::Limit);
        assert_eq!(trouble(&end).map(|trouble| trouble.error_type), Some(ErrorType::Throttled));
        for random in [0.0, 0.5, 1.0] {
            let Verdict::Retry { state, after } = verdict(Blame::Limit, 1, NOW, random) else { panic!() };
            assert_eq!(state, AccountState::Throttled);
            assert!(after >= Duration::from_secs(30), "{after:?}");
        }
    }

    #[test]
    fn an_unusable_certificate_waits_for_the_operator() {
        let end = SessionEnd::Conversation(Ending::TlsUnavailable(TlsUnavailable::NotOffered));
        assert_eq!(blame(&end), Blame::Operator(Setup::Tls));
        assert_eq!(
            verdict(Blame::Operator(Setup::Tls), 9, NOW, 0.1),
            Verdict::Retry { state: AccountState::TlsFailed, after: OPERATOR_WAIT }
        );
    }

    #[test]
    fn a_secret_that_cannot_be_had_is_no_tls_trouble() {
        let end = SessionEnd::Secret(SecretError::Env("PW".to_owned()));
        let Verdict::Retry { state, .. } = verdict(blame(&end), 1, NOW, 0.5) else { panic!() };
        assert_eq!(state, AccountState::AuthFailed);
        assert_eq!(trouble(&end).map(|trouble| trouble.error_type), Some(ErrorType::Config));
    }

    #[test]
    fn a_hostile_text_is_told_harmless() {
        let text = "\x1b[2J \u{202e}evil\r\nnext".repeat(100);
        let end = SessionEnd::Conversation(Ending::Bye(Refusal { why: Why::Unsaid, code: None, text }));
        let message = trouble(&end).map(|trouble| trouble.message).unwrap_or_default();
        assert!(message.len() <= MESSAGE && !message.contains(['\x1b', '\u{202e}', '\r', '\n']), "{message}");
    }
}
