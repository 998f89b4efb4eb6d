//! What to do about known troubles. Pure.

use jiff::Timestamp;

use crate::account::lifecycle::SessionEnd;
use crate::config::settings::{Account, LoginMeans, TlsMode};
use crate::imap::ending::{Ending, ProtocolError, TlsUnavailable};
use crate::imap::refusal::{Refusal, Why};
use crate::wire::dial::DialError;
use crate::wire::tls::TlsError;

/// A refusal that is known: who refuses, with which words, and what helps. The first that fits is taken.
struct Known {
    /// The host ends with one of these; any host where there is none.
    hosts: &'static [&'static str],
    /// The code, or the text in lower case, has one of these in it; anything where there is none.
    says: &'static [&'static str],
    hint: &'static str,
}

const fn known(hosts: &'static [&'static str], says: &'static [&'static str], hint: &'static str) -> Known {
    Known { hosts, says, hint }
}

const GMAIL: &[&str] = &["gmail.com", "googlemail.com"];
const MICROSOFT: &[&str] = &["office365.com", "outlook.com", "hotmail.com", "live.com"];
const YAHOO: &[&str] = &["yahoo.com", "aol.com", "yahoo.co.jp"];
const ICLOUD: &[&str] = &["mail.me.com", "icloud.com"];
const ZOHO: &[&str] = &["zoho.com", "zoho.eu", "zoho.in", "zoho.com.au", "zoho.jp"];
const COREMAIL: &[&str] = &["qq.com", "163.com", "126.com"];
const RUSSIAN: &[&str] = &["mail.ru", "yandex.com", "yandex.ru"];

/// Refused logins.
const LOGINS: &[Known] = &[
    known(
        GMAIL,
        &["not enabled for imap", "imap access is disabled"],
        "IMAP is switched off for this account: an administrator of the domain, or the settings of Gmail (Forwarding and POP/IMAP), can switch it on",
    ),
    known(
        GMAIL,
        &[],
        "Gmail needs OAuth2 or an app password (https://myaccount.google.com/apppasswords); the account's own password is never accepted",
    ),
    known(
        MICROSOFT,
        &["not connected", "imap is disabled", "imap4 is disabled"],
        "the login is right, but the mailbox does not take IMAP: an administrator can switch it on (Set-CASMailbox -ImapEnabled $true)",
    ),
    known(
        MICROSOFT,
        &[],
        "Microsoft takes no passwords over IMAP any more (basic authentication is off); it needs OAuth2",
    ),
    known(YAHOO, &[], "Yahoo and AOL need OAuth2 or an app password (account settings, Security)"),
    known(
        ICLOUD,
        &[],
        "iCloud needs an app-specific password (https://account.apple.com); the user is the part before the @ or the whole address",
    ),
    known(
        &["fastmail.com"],
        &[],
        "Fastmail needs an app password with access to IMAP (Settings, Privacy & Security)",
    ),
    known(
        ZOHO,
        &["yet to enable imap", "imap access"],
        "IMAP is switched off: Zoho Mail, Settings, Mail Accounts, IMAP",
    ),
    known(
        ZOHO,
        &[],
        "with two-factor authentication Zoho needs an app password; accounts of other regions have other hosts (imap.zoho.eu, imap.zoho.in)",
    ),
    known(
        COREMAIL,
        &[],
        "QQ, 163 and 126 need an authorization code in place of the password, and IMAP switched on in the web settings",
    ),
    known(RUSSIAN, &[], "mail.ru and Yandex need an app password, and IMAP switched on in the web settings"),
    known(
        &["gmx.net", "gmx.com", "gmx.at", "gmx.ch", "web.de"],
        &[],
        "GMX and web.de refuse IMAP until it is switched on in the web settings (POP3/IMAP), and need an app password with two-factor authentication; the user of web.de is the part before the @",
    ),
    known(
        &["t-online.de"],
        &[],
        "t-online has a password of its own for e-mail programs (Kundencenter, Passwörter)",
    ),
    known(
        &[],
        &["expired"],
        "the password has expired: set a new one, then put it where the configuration says",
    ),
    known(
        &[],
        &["privacyrequired"],
        "the server takes no login without TLS: set tls = \"implicit\" or \"starttls\"",
    ),
    known(
        &[],
        &["contactadmin", "disabled", "locked", "blocked", "suspended"],
        "the account seems to be closed or locked: its administrator has to look",
    ),
    known(
        &[],
        &["application-specific", "app password", "web login", "two-factor", "2fa"],
        "the server wants an app password, which is made in its web settings",
    ),
    known(
        &[],
        &["unknown user", "user unknown", "no such user", "user not found"],
        "the server does not know this user: is it the whole address, or only the part before the @?",
    ),
    known(
        &[],
        &["authorizationfailed"],
        "the password is right, but this user may not log in as the one that is asked for",
    ),
    known(
        &[],
        &[],
        "is `user` right (the whole address, or the part before the @), and is it the password for IMAP rather than for the web?",
    ),
];

/// Requests for patience.
const LIMITS: &[Known] = &[
    known(GMAIL, &[], "Gmail takes 15 connections per account, other programs of the same user included"),
    known(
        &[],
        &["too many", "maximum number", "connections", "limit"],
        "the server limits connections per user or address: name fewer mailboxes, lower connections.max_total or connections.per_host.rate, or end other mail programs of this user",
    ),
    known(&[], &[], "the server asks for patience; try again in some minutes"),
];

/// What helps, where that is known; one line.
pub fn hint(account: &Account, end: &SessionEnd, now: Timestamp) -> Option<String> {
    match end {
        SessionEnd::Conversation(ending) => of_ending(account, ending),
        SessionEnd::Tls(error) => of_tls(account, error, now),
        SessionEnd::Dial(error) => Some(of_dial(error)),
        SessionEnd::Secret(_) => Some(
            "the server was not asked; the password has to be there, and readable by this user".to_owned(),
        ),
        SessionEnd::Link { awaiting: "the greeting", .. } => of_silence(account),
        _ => None,
    }
}

/// What helps against a mailbox that cannot be opened.
pub fn mailbox_hint(refusal: &Refusal) -> &'static str {
    match (refusal.why, refusal.code.as_deref()) {
        (Why::Patience, _) => "the server asks for patience; try again in some minutes",
        (_, Some("NOPERM")) => "this user may not read it",
        (_, Some("NOUIDVALIDITY")) => {
            "it has no UIDs that last (RFC 9051 section 2.3.1.1), and cannot be watched"
        }
        _ => "`idlewatch mailboxes` lists the names as they are here",
    }
}

fn of_ending(account: &Account, ending: &Ending) -> Option<String> {
    let host = account.identity.host.as_ref();
    match ending {
        Ending::LoginRefused(refusal) => {
            let table = if refusal.why == Why::Patience { LIMITS } else { LOGINS };
            lookup(table, host, refusal)
        }
        Ending::Bye(refusal) | Ending::CommandRefused { refusal, .. } if refusal.why == Why::Patience => {
            lookup(LIMITS, host, refusal)
        }
        Ending::TlsUnavailable(TlsUnavailable::NotOffered | TlsUnavailable::Refused) => {
            Some("try port = 993 with tls = \"implicit\"; no password is sent in clear".to_owned())
        }
        Ending::TlsUnavailable(_) => Some("somebody may be tampering with the connection".to_owned()),
        Ending::NoMechanism if account.tls == TlsMode::None => Some(
            "the server takes no password in clear (LOGINDISABLED): set tls = \"starttls\", or port = 993 with tls = \"implicit\""
                .to_owned(),
        ),
        Ending::NoMechanism if matches!(account.login, LoginMeans::Certificate(_)) => Some(
            "the server does not offer AUTH=EXTERNAL: it did not ask for the certificate, or takes none to log in"
                .to_owned(),
        ),
        Ending::NoMechanism => {
            Some("the server takes no passwords at all here; it may want OAuth2".to_owned())
        }
        Ending::Protocol(ProtocolError::NotImap) => {
            Some("something else answers on this port; IMAP is at 993 (implicit) or 143 (starttls)".to_owned())
        }
        Ending::TimedOut { awaiting: "the greeting" } => of_silence(account),
        _ => None,
    }
}

fn lookup(table: &[Known], host: &str, refusal: &Refusal) -> Option<String> {
    let host = host.to_lowercase();
    let said = format!("{} {}", refusal.code.as_deref().unwrap_or_default(), refusal.text).to_lowercase();
    let is_host =
        |known: &Known| known.hosts.is_empty() || known.hosts.iter().any(|end| is_below(&host, end));
    let is_said = |known: &Known| known.says.is_empty() || known.says.iter().any(|word| said.contains(word));
    table.iter().find(|known| is_host(known) && is_said(known)).map(|known| known.hint.to_owned())
}

/// Whether a host is this domain, or lies in it.
fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn of_tls(account: &Account, error: &TlsError, now: Timestamp) -> Option<String> {
    let hint = match error {
        TlsError::Expired { not_after, .. } => {
            let ended = not_after.as_ref().and_then(|at| at.parse::<Timestamp>().ok());
            let days = ended.map(|at| now.duration_since(at).as_hours() / 24).filter(|days| *days > 0);
            let since = days.map(|days| format!(" {days} days ago")).unwrap_or_default();
            format!("it expired{since}: whoever runs the server has to renew it; if the clock of this machine is right")
        }
        TlsError::NotYetValid { .. } => "is the clock of this machine right?".to_owned(),
        TlsError::WrongHost { .. } => {
            "`host` must be a name that the certificate has; an alias or an address will not do".to_owned()
        }
        TlsError::UnknownIssuer { .. } => {
            "for a private authority: tls_options = { ca_file = \"its certificate.pem\" } (of `init`: --ca-file); on a public server somebody may be in between"
                .to_owned()
        }
        TlsError::NotTls { .. } if account.identity.port == 143 => {
            "port 143 begins without TLS: set tls = \"starttls\", or port = 993".to_owned()
        }
        TlsError::NotTls { .. } => "set tls = \"starttls\" if the server begins without TLS".to_owned(),
        TlsError::Version { .. } => {
            "the server's TLS is too old; tls_options = { backend = \"native\", min_version = \"1.0\" } takes it, at a risk".to_owned()
        }
        _ => return None,
    };
    Some(hint)
}

fn of_dial(error: &DialError) -> String {
    match error {
        DialError::Dns { .. } => "is `host` spelled right, and does this machine have a resolver?".to_owned(),
        DialError::Connect { attempts, .. } if attempts.contains("refused") => {
            "nobody listens there: is `port` right (993 implicit, 143 starttls), and is the server up?"
                .to_owned()
        }
        DialError::Source { .. } => "`ip addr` shows the addresses of this machine".to_owned(),
        DialError::Proxy { .. } => {
            "is `proxy` right, does the proxy let this port through, and does it know us?".to_owned()
        }
        DialError::Connect { .. } => {
            "a firewall may be in between; port 993 has to be open to the outside".to_owned()
        }
    }
}

/// A server that awaits TLS says nothing, or hangs up, before it gets any.
fn of_silence(account: &Account) -> Option<String> {
    (account.tls != TlsMode::Implicit).then(|| {
        "the server may expect TLS from the first byte: set tls = \"implicit\" (port 993)".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn account(host: &str, port: u16, tls: &str) -> std::sync::Arc<Account> {
        let text = format!(
            "[[accounts]]\nid = \"a\"\nhost = \"{host}\"\nport = {port}\ntls = \"{tls}\"\nallow_plaintext = true\nuser = \"bob\"\npassword = {{ env = \"PW\" }}\n"
        );
        config::from_text("t", &text).unwrap().0.accounts[0].clone()
    }

    fn refused(why: Why, code: &str, text: &str) -> SessionEnd {
        let code = (!code.is_empty()).then(|| code.to_owned());
        SessionEnd::Conversation(Ending::LoginRefused(Refusal { why, code, text: text.to_owned() }))
    }

    #[test]
    fn each_known_refusal_has_its_hint() {
        use Why::{Credentials, Patience};
        for (host, why, code, text, wanted) in [
            (
                "imap.gmail.com",
                Credentials,
                "AUTHENTICATIONFAILED",
                "Invalid credentials (Failure)",
                "app password",
            ),
            (
                "IMAP.GMAIL.COM",
                Credentials,
                "ALERT",
                "Your account is not enabled for IMAP use.",
                "switched off",
            ),
            (
                "imap.gmail.com",
                Patience,
                "ALERT",
                "Too many simultaneous connections. (Failure)",
                "15 connections",
            ),
            ("outlook.office365.com", Credentials, "", "LOGIN failed.", "basic authentication is off"),
            (
                "outlook.office365.com",
                Credentials,
                "",
                "User is authenticated but not connected.",
                "-ImapEnabled",
            ),
            ("imap.mail.yahoo.com", Credentials, "AUTHENTICATIONFAILED", "x", "app password"),
            ("imap.web.de", Credentials, "AUTHENTICATIONFAILED", "x", "web settings"),
            ("imap.qq.com", Credentials, "", "Login fail. Password is wrong", "authorization code"),
            ("mail.example", Credentials, "EXPIRED", "x", "has expired"),
            ("mail.example", Credentials, "", "Unknown user", "does not know this user"),
            (
                "mail.example",
                Credentials,
                "AUTHENTICATIONFAILED",
                "Authentication failed.",
                "is `user` right",
            ),
            ("mail.example", Credentials, "PRIVACYREQUIRED", "x", "without TLS"),
            ("mail.example", Patience, "LIMIT", "Too many connections", "fewer mailboxes"),
            // Whoever is only called like a provider is none.
            ("notgmail.com", Credentials, "AUTHENTICATIONFAILED", "x", "is `user` right"),
        ] {
            let hint = hint(&account(host, 993, "implicit"), &refused(why, code, text), Timestamp::now());
            assert!(
                hint.as_deref().is_some_and(|hint| hint.contains(wanted)),
                "{host} {code} {text}: {hint:?}"
            );
        }
    }

    #[test]
    fn ports_and_certificates_have_their_hints() {
        let host = || "h".to_owned();
        let now = "2026-11-25T00:00:00Z".parse().unwrap();
        let not_after = Some("2026-11-12T00:00:00Z".to_owned());
        let timed_out = || SessionEnd::Conversation(Ending::TimedOut { awaiting: "the greeting" });
        for (port, tls, end, wanted) in [
            (
                143,
                "implicit",
                SessionEnd::Tls(TlsError::NotTls { host: host() }),
                "port 143 begins without TLS",
            ),
            (993, "implicit", SessionEnd::Tls(TlsError::Expired { host: host(), not_after }), "13 days ago"),
            (
                993,
                "implicit",
                SessionEnd::Tls(TlsError::WrongHost { host: host() }),
                "a name that the certificate has",
            ),
            (993, "implicit", SessionEnd::Tls(TlsError::UnknownIssuer { host: host() }), "ca_file"),
            (993, "starttls", timed_out(), "TLS from the first byte"),
            (
                143,
                "starttls",
                SessionEnd::Conversation(Ending::TlsUnavailable(TlsUnavailable::NotOffered)),
                "port = 993",
            ),
            (143, "none", SessionEnd::Conversation(Ending::NoMechanism), "LOGINDISABLED"),
            (993, "implicit", SessionEnd::Conversation(Ending::NoMechanism), "OAuth2"),
            (
                25,
                "none",
                SessionEnd::Conversation(Ending::Protocol(ProtocolError::NotImap)),
                "something else",
            ),
        ] {
            let hint = hint(&account("h", port, tls), &end, now);
            assert!(
                hint.as_deref().is_some_and(|hint| hint.contains(wanted)),
                "{port} {tls} {end:?}: {hint:?}"
            );
        }
        assert_eq!(hint(&account("h", 993, "implicit"), &timed_out(), now), None);
    }
}
