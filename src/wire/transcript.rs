//! What was said on one connection, line by line in the log, for those who look for the cause of a trouble.
//!
//! Nothing that is sent before the login is done is shown but the names of commands, and a secret that a server
//! repeats is taken out wherever it stands.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use globset::GlobMatcher;
use log::debug;
use memchr::memmem;
use secrecy::{ExposeSecret, SecretString};

use crate::config::settings::Settings;
use crate::event::AccountId;
use crate::imap::command::Credentials;
use crate::imap::sasl::{self, SHORTEST_SECRET};
use crate::privacy::Rules;
use crate::text;

/// Where its lines are: `[log] level` may name it.
pub const TARGET: &str = "idlewatch::wire";

/// Bytes of a response or command that are shown.
const MOST_SHOWN: usize = 2000;

/// Bytes of a literal that are shown.
const MOST_OF_A_LITERAL: usize = 200;

/// Commands that may leave before a login, and say nothing of anybody.
const HARMLESS: [&str; 6] = ["CAPABILITY", "STARTTLS", "ID", "NOOP", "LOGOUT", "ENABLE"];

/// Connections so far: each has a number, so that those of an account can be told from each other.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// The accounts whose connections are recorded.
#[derive(Clone, Debug)]
pub struct Recorded {
    accounts: GlobMatcher,
    /// Also what is fetched of messages.
    messages: bool,
}

impl Recorded {
    /// As `[log] wire` names them. What some output may not know of messages is not in the log either.
    pub fn of(settings: &Settings) -> Option<Self> {
        let accounts = settings.log.wire.as_ref()?.compile_matcher();
        let messages = settings.outputs.iter().all(|output| output.privacy.rules == Rules::default());
        Some(Self { accounts, messages })
    }

    /// The record of a new connection, if it is one of theirs.
    pub fn transcript(&self, account: &AccountId, credentials: &Credentials) -> Option<Box<Transcript>> {
        let is_theirs = self.accounts.is_match(account.as_str());
        is_theirs.then(|| Box::new(Transcript::new(account.clone(), sasl::forms(credentials), self.messages)))
    }
}

/// The record of one connection.
#[derive(Debug)]
pub struct Transcript {
    account: AccountId,
    connection: u64,
    messages: bool,
    logged_in: bool,
    /// As they are, and as they travel.
    secrets: Vec<SecretString>,
}

impl Transcript {
    fn new(account: AccountId, secrets: Vec<SecretString>, messages: bool) -> Self {
        let secrets = secrets.into_iter().filter(|secret| secret.expose_secret().len() >= SHORTEST_SECRET);
        Self {
            account,
            connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            messages,
            logged_in: false,
            secrets: secrets.collect(),
        }
    }

    /// From now on no command holds a secret.
    pub fn logged_in(&mut self) {
        self.logged_in = true;
    }

    /// Ours.
    pub fn sent(&self, bytes: &[u8]) {
        self.tell("C", &self.ours(bytes));
    }

    fn ours(&self, bytes: &[u8]) -> String {
        // A password that is sent by itself may look like one of the commands that may be shown.
        let bytes = without(bytes, &self.secrets);
        if self.logged_in { shown(&bytes) } else { before_login(&bytes) }
    }

    /// Theirs.
    pub fn received(&self, bytes: &[u8]) {
        if self.messages || !is_fetched(bytes) {
            self.tell("S", &shown(&without(bytes, &self.secrets)));
        } else {
            self.tell("S", &format!("* FETCH [{} bytes, not shown]", bytes.len()));
        }
    }

    /// What happened beside it.
    pub fn note(&self, what: &str) {
        self.tell("-", what);
    }

    fn tell(&self, who: &str, words: &str) {
        debug!(target: TARGET, account:% = self.account, connection = self.connection; "{who}: {words}");
    }
}

/// The name of a command whose arguments may be secret; of anything else, nothing.
fn before_login(bytes: &[u8]) -> String {
    let hidden = || format!("[{} bytes, not shown]", bytes.len());
    let Ok(line) = std::str::from_utf8(bytes) else { return hidden() };
    let mut words = line.trim_end().splitn(3, ' ');
    let (Some(tag), Some(name)) = (words.next(), words.next()) else { return hidden() };
    match (name, words.next()) {
        (name, _) if HARMLESS.contains(&name) => shown(bytes),
        ("AUTHENTICATE", Some(rest)) => {
            let mechanism = rest.split(' ').next().unwrap_or_default();
            let response = if rest.contains(' ') { " [not shown]" } else { "" };
            format!("{tag} AUTHENTICATE {mechanism}{response}")
        }
        ("LOGIN", Some(_)) => format!("{tag} LOGIN [not shown]"),
        _ => hidden(),
    }
}

/// A command or response on one line: literals shortened, control characters escaped, never longer than its bound.
fn shown(bytes: &[u8]) -> String {
    let mut words = String::new();
    let mut rest = bytes;
    while !rest.is_empty() && words.len() < MOST_SHOWN {
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, behind) = rest.split_at(end);
        let room = MOST_SHOWN.saturating_sub(words.len());
        words.push_str(&text::excerpt(line.trim_ascii_end(), room));
        let literal = literal_length(line).map_or(0, |length| length.min(behind.len()));
        let (literal, behind) = behind.split_at(literal);
        if !literal.is_empty() {
            let _ = write!(words, " <{}> ", text::excerpt(literal, MOST_OF_A_LITERAL));
        }
        rest = behind;
    }
    if !rest.is_empty() {
        let _ = write!(words, " [{} bytes in all]", bytes.len());
    }
    words
}

/// Of a line that announces a literal (RFC 9051 section 4.3).
fn literal_length(line: &[u8]) -> Option<usize> {
    let announced = line.trim_ascii_end().strip_suffix(b"}")?;
    let digits = announced.get(memchr::memrchr(b'{', announced)? + 1..)?;
    let digits = digits.strip_suffix(b"+").unwrap_or(digits);
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `* 7 FETCH (...)`, with any blanks that are read past.
fn is_fetched(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.strip_prefix(b"*") else { return false };
    let mut words = rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let name = words.nth(1).and_then(|word| word.get(..5));
    name.is_some_and(|name| name.eq_ignore_ascii_case(b"FETCH"))
}

/// Before it is shortened, which could leave half of one.
fn without<'b>(bytes: &'b [u8], secrets: &[SecretString]) -> Cow<'b, [u8]> {
    let mut left = Cow::Borrowed(bytes);
    for secret in secrets.iter().map(|secret| secret.expose_secret().as_bytes()) {
        let found: Vec<_> = memmem::find_iter(&left, secret).collect();
        if found.is_empty() {
            continue;
        }
        let mut kept = Vec::with_capacity(left.len());
        let mut from = 0;
        for at in found {
            kept.extend_from_slice(left.get(from..at).unwrap_or_default());
            kept.extend_from_slice(b"[secret]");
            from = at + secret.len();
        }
        kept.extend_from_slice(left.get(from..).unwrap_or_default());
        left = Cow::Owned(kept);
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_of_a_login_is_shown_but_its_name() {
        for (sent, told) in [
            ("a1 LOGIN bob CANARY\r\n", "a1 LOGIN [not shown]"),
            ("a1 LOGIN \"bob\" {6}\r\n", "a1 LOGIN [not shown]"),
            ("CANARY\r\n", "[8 bytes, not shown]"),
            ("CAN ARY x\r\n", "[11 bytes, not shown]"),
            ("a1 AUTHENTICATE PLAIN Q0FOQVJZ\r\n", "a1 AUTHENTICATE PLAIN [not shown]"),
            ("a1 AUTHENTICATE XOAUTH2\r\n", "a1 AUTHENTICATE XOAUTH2"),
            ("Q0FOQVJZ\r\n", "[10 bytes, not shown]"),
            ("a0 ID (\"name\" \"idlewatch\")\r\n", "a0 ID (\"name\" \"idlewatch\")"),
        ] {
            assert_eq!(before_login(sent.as_bytes()), told);
        }
    }

    #[test]
    fn a_password_that_looks_like_a_harmless_command_is_not_shown() {
        let transcript = Transcript::new("a".into(), vec!["my ID CANARY".into()], true);
        let told = transcript.ours(b"my ID CANARY\r\n");
        assert!(!told.contains("CANARY"), "{told}");
    }

    #[test]
    fn literals_are_short_and_controls_are_seen() {
        let header = "Subject: \x1b[2J\r\n".to_owned() + &"x".repeat(1000);
        let said = format!("* 1 FETCH (UID 7 BODY[HEADER] {{{}}}\r\n{header} FLAGS ())\r\n", header.len());
        let told = shown(said.as_bytes());
        assert!(
            told.starts_with("* 1 FETCH (UID 7 BODY[HEADER] {1015} <Subject: \\x1b[2J\\r\\nxxx"),
            "{told}"
        );
        assert!(told.ends_with("x…>  FLAGS ())") && told.len() < 300, "{told}");
        assert!(shown(&vec![b'a'; 100_000]).len() < 2100);
        assert!(shown(b"* BYE {99999999999999999999}\r\n").starts_with("* BYE {9"));
    }

    #[test]
    fn a_secret_that_a_server_repeats_is_taken_out() {
        let secrets = ["CANARY-\u{1}x".into(), "Q0FO".into()];
        let said = without(b"* NO bob/CANARY-\x01x (Q0FO)Q0FO\r\n", &secrets);
        assert_eq!(shown(&said), "* NO bob/[secret] ([secret])[secret]");
    }

    #[test]
    fn only_messages_are_hidden_where_they_may_not_be_known() {
        assert!(is_fetched(b"* 7 FETCH (UID 7)\r\n") && is_fetched(b"* 7 fetch (UID 7)\r\n"));
        assert!(!is_fetched(b"* OK FETCH x\r\n".get(..5).unwrap()) && !is_fetched(b"* 7 EXISTS\r\n"));
        for odd in [
            "*  7 FETCH (UID 7)\r\n",
            "*7 FETCH (UID 7)\r\n",
            "* 7  \tfetch (UID 7)\r\n",
            "* 7 FETCH(UID 7)\r\n",
        ] {
            assert!(is_fetched(odd.as_bytes()), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_one_harmless_line(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let told = shown(&bytes);
            prop_assert!(!told.contains(char::is_control) && told.len() < 4000);
            let _ = before_login(&bytes);
        }
    }
}
