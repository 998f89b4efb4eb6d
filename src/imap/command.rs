//! The typed commands that we send. There is none that changes a mailbox: EXAMINE and BODY.PEEK only.

use std::collections::VecDeque;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::capability::Capabilities;
use super::sasl::Mechanism;
use super::search::{Criteria, Key, Scope};
use crate::uid_set::UidSet;

/// The most header bytes asked for of one message.
pub const MAX_HEADER: u32 = 65_536;

/// What says whether a mailbox moved.
pub(super) const STATUS_MOVED: &str = "(MESSAGES UIDNEXT UIDVALIDITY)";

/// The same, and whether its messages changed (RFC 7162 section 3.1.7).
pub(super) const STATUS_CHANGED: &str = "(MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ)";

/// Of the open mailbox: up to where there are changes.
pub(super) const STATUS_HIGHEST: &str = "(HIGHESTMODSEQ)";

/// Of the open mailbox as in IDLE; of all others their STATUS, now and whenever they change; and their names.
const NOTIFY_SET: &str = "NOTIFY SET STATUS (selected-delayed (MessageNew MessageExpunge)) \
                          (personal (MessageNew MessageExpunge MailboxName))";

/// One command. Its text is made by [`Command::encode`] only.
#[derive(Debug)]
pub enum Command<'a> {
    /// CAPABILITY
    Capability,
    /// STARTTLS (RFC 9051 section 6.2.1)
    StartTls,
    /// LOGIN
    Login(&'a Credentials),
    /// AUTHENTICATE, with an initial response where SASL-IR (RFC 4959) is offered.
    Authenticate(Mechanism, &'a Credentials),
    /// ID (RFC 2971): our name and version, nothing of the host or the user.
    Id,
    /// ENABLE of these (RFC 5161)
    Enable(&'a [&'static str]),
    /// LIST of one pattern; the name is encoded as on the wire.
    List {
        /// The mailbox pattern.
        pattern: &'a [u8],
        /// `RETURN (SPECIAL-USE)`
        special_use: bool,
        /// `RETURN (STATUS (...))` (RFC 5819): which items
        statuses: Option<&'static str>,
    },
    /// STATUS of a mailbox.
    Status {
        /// The name as on the wire.
        mailbox: &'a [u8],
        /// What.
        items: &'static str,
    },
    /// NOTIFY SET: tell of all mailboxes of the user (RFC 5465).
    Notify,
    /// EXAMINE: opens a mailbox so that nothing in it can change.
    Examine {
        /// The name as on the wire.
        mailbox: &'a [u8],
        /// `(CONDSTORE)` (RFC 7162 section 3.1.8)
        condstore: bool,
    },
    /// UID FETCH
    UidFetch {
        /// Which.
        uids: UidRange<'a>,
        /// What.
        items: &'a str,
        /// `(CHANGEDSINCE n)` (RFC 7162 section 3.1.4.1)
        changed_since: Option<u64>,
        /// `VANISHED` beside it: of expunged messages too (RFC 7162 section 3.2.6)
        vanished: bool,
    },
    /// FETCH by sequence numbers.
    Fetch {
        /// The first sequence number.
        first: u32,
        /// The last.
        last: u32,
        /// What.
        items: &'a str,
    },
    /// UID SEARCH (RFC 3501 section 6.4.4)
    UidSearch {
        /// Where.
        scope: Scope,
        /// For what.
        criteria: &'a Criteria,
    },
    /// NOOP
    Noop,
    /// IDLE (RFC 2177)
    Idle,
    /// NOTIFY SET for the open mailbox (RFC 5465): new messages, with these items, and expunged ones.
    NotifySelected {
        /// What to push of a new message.
        items: &'a str,
    },
    /// LOGOUT
    Logout,
}

/// The messages of a UID FETCH.
#[derive(Clone, Copy, Debug)]
pub enum UidRange<'a> {
    /// These.
    Set(&'a UidSet),
    /// `n:*`: always answers with the last message too (RFC 9051 section 6.4.9).
    From(u32),
}

/// A login name and what proves it. `Debug` shows neither.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The login name.
    pub user: String,
    /// What proves it.
    pub proof: Proof,
}

/// What is shown to log in.
#[derive(Clone)]
pub enum Proof {
    /// A password.
    Password(SecretString),
    /// An OAuth 2.0 bearer token (RFC 6750).
    AccessToken(SecretString),
    /// What TLS has shown already: our certificate (SASL EXTERNAL, RFC 4422 appendix A).
    Certificate,
}

impl Proof {
    /// The password or token.
    pub fn secret(&self) -> Option<&SecretString> {
        match self {
            Self::Password(secret) | Self::AccessToken(secret) => Some(secret),
            Self::Certificate => None,
        }
    }

    /// It as text; empty where there is none.
    pub(super) fn exposed(&self) -> &str {
        self.secret().map(ExposeSecret::expose_secret).unwrap_or_default()
    }
}

impl Default for Proof {
    fn default() -> Self {
        Self::Password(SecretString::default())
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials([redacted])")
    }
}

/// A text that cannot be sent: it holds CR, LF or NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the user name, password or a text to search for holds CR, LF or NUL")]
pub struct Unsendable;

/// A command as bytes: what leaves now, and what follows after each `+` of the server.
///
/// Every piece is one write. The bytes may hold a password, so they are wiped when dropped.
pub struct Encoded {
    /// Leaves at once.
    pub first: Line,
    /// Each leaves after one continuation request.
    pub rest: VecDeque<Line>,
}

/// Bytes for one write, wiped when dropped. `Debug` shows how many.
pub struct Line(Zeroizing<Vec<u8>>);

impl Line {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Line {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Line({} bytes)", self.0.len())
    }
}

/// What ends IDLE; it has no tag.
pub fn done() -> Line {
    b"DONE\r\n".to_vec().into()
}

impl Command<'_> {
    /// The command's name, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Capability => "CAPABILITY",
            Self::StartTls => "STARTTLS",
            Self::Login(_) => "LOGIN",
            Self::Authenticate(..) => "AUTHENTICATE",
            Self::Id => "ID",
            Self::Enable(_) => "ENABLE",
            Self::List { .. } => "LIST",
            Self::Status { .. } => "STATUS",
            Self::Notify => "NOTIFY",
            Self::Examine { .. } => "EXAMINE",
            Self::UidFetch { .. } => "UID FETCH",
            Self::Fetch { .. } => "FETCH",
            Self::UidSearch { .. } => "UID SEARCH",
            Self::Noop => "NOOP",
            Self::Idle => "IDLE",
            Self::NotifySelected { .. } => "NOTIFY",
            Self::Logout => "LOGOUT",
        }
    }

    /// The bytes of the command.
    ///
    /// # Errors
    /// Where a text holds CR, LF or NUL: nothing of them is ever sent.
    pub fn encode(&self, tag: &str, capabilities: Capabilities) -> Result<Encoded, Unsendable> {
        let mut text = Pieces::new(capabilities);
        text.push(tag.as_bytes());
        text.push(b" ");
        match self {
            Self::Login(credentials) => {
                text.push(b"LOGIN ");
                text.astring(credentials.user.as_bytes())?;
                text.push(b" ");
                text.astring(credentials.proof.exposed().as_bytes())?;
            }
            Self::Authenticate(mechanism, credentials) => {
                text.push(b"AUTHENTICATE ");
                text.push(mechanism.name().as_bytes());
                text.initial_response(&mechanism.response(credentials)?);
            }
            Self::Id => {
                text.push(b"ID (\"name\" \"idlewatch\" \"version\" \"");
                text.push(env!("CARGO_PKG_VERSION").as_bytes());
                text.push(b"\")");
            }
            Self::Enable(extensions) => text.push(format!("ENABLE {}", extensions.join(" ")).as_bytes()),
            Self::List { pattern, special_use, statuses } => {
                text.push(b"LIST \"\" ");
                text.astring(pattern)?;
                let special_use = special_use.then_some("SPECIAL-USE");
                let statuses = statuses.map(|items| format!("STATUS {items}"));
                let returned: Vec<_> = special_use.into_iter().chain(statuses.as_deref()).collect();
                if !returned.is_empty() {
                    text.push(format!(" RETURN ({})", returned.join(" ")).as_bytes());
                }
            }
            Self::Status { mailbox, items } => {
                text.push(b"STATUS ");
                text.astring(mailbox)?;
                text.push(format!(" {items}").as_bytes());
            }
            Self::Notify => text.push(NOTIFY_SET.as_bytes()),
            Self::Examine { mailbox, condstore } => {
                text.push(b"EXAMINE ");
                text.astring(mailbox)?;
                text.push(if *condstore { b" (CONDSTORE)" } else { b"" });
            }
            Self::UidFetch { uids, items, changed_since, vanished } => {
                let set = match uids {
                    UidRange::Set(set) => set.to_string(),
                    UidRange::From(first) => format!("{first}:*"),
                };
                text.push(format!("UID FETCH {set} {items}").as_bytes());
                if let Some(modseq) = changed_since {
                    let vanished = if *vanished { " VANISHED" } else { "" };
                    text.push(format!(" (CHANGEDSINCE {modseq}{vanished})").as_bytes());
                }
            }
            Self::Fetch { first, last, items } => {
                text.push(format!("FETCH {first}:{last} {items}").as_bytes())
            }
            Self::NotifySelected { items } => {
                let set = format!("NOTIFY SET (selected (MessageNew {items} MessageExpunge))");
                text.push(set.as_bytes());
            }
            Self::UidSearch { scope, criteria } => {
                text.push(b"UID SEARCH ");
                let needs_charset = !criteria.is_ascii() && !capabilities.needs_utf8();
                text.push(if needs_charset { b"CHARSET UTF-8 " } else { b"" });
                text.push(
                    match scope {
                        Scope::Uids(first, last) => format!("UID {first}:{last}"),
                        Scope::From(first) => format!("{first}:*"),
                    }
                    .as_bytes(),
                );
                criteria.keys().iter().try_for_each(|key| text.search_key(key))?;
            }
            Self::Capability | Self::StartTls | Self::Noop | Self::Idle | Self::Logout => {
                text.push(self.name().as_bytes());
            }
        }
        Ok(text.finish())
    }
}

fn is_unsendable(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

/// Puts the pieces of a command together, cut where the server must say `+` first.
struct Pieces {
    capabilities: Capabilities,
    done: VecDeque<Line>,
    current: Zeroizing<Vec<u8>>,
}

impl Pieces {
    fn new(capabilities: Capabilities) -> Self {
        // Room for any command with credentials: a growing buffer would leave copies of a password behind.
        Self { capabilities, done: VecDeque::new(), current: Zeroizing::new(Vec::with_capacity(2048)) }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.current.extend_from_slice(bytes);
    }

    /// A quoted string where that can hold it, else a literal (RFC 9051 section 4.3): 8-bit text needs one.
    fn astring(&mut self, text: &[u8]) -> Result<(), Unsendable> {
        if is_unsendable(text) {
            return Err(Unsendable);
        }
        if text.is_ascii() && !text.iter().any(u8::is_ascii_control) && text.len() <= 1000 {
            self.quoted(text);
        } else {
            self.literal(text);
        }
        Ok(())
    }

    fn search_key(&mut self, key: &Key) -> Result<(), Unsendable> {
        self.push(format!(" {}", key.name()).as_bytes());
        match key {
            Key::Not(key) => return self.search_key(key),
            Key::Larger(octets) | Key::Smaller(octets) => self.push(format!(" {octets}").as_bytes()),
            // The day's names are English, whatever the locale (RFC 3501 section 9, `date-month`).
            Key::Since(day) => self.push(day.strftime(" %-d-%b-%Y").to_string().as_bytes()),
            key => {
                for text in key.texts() {
                    self.push(b" ");
                    self.astring(text.as_bytes())?;
                }
            }
        }
        Ok(())
    }

    fn quoted(&mut self, text: &[u8]) {
        self.push(b"\"");
        for &byte in text {
            if matches!(byte, b'"' | b'\\') {
                self.push(b"\\");
            }
            self.push(&[byte]);
        }
        self.push(b"\"");
    }

    /// With LITERAL+ or LITERAL- (RFC 7888) all of it stays in one write.
    fn literal(&mut self, text: &[u8]) {
        let needs_no_leave = self.capabilities.has("LITERAL+")
            || (self.capabilities.has("LITERAL-") && text.len() <= 4096)
            || (self.capabilities.has("IMAP4REV2") && text.len() <= 4096);
        if needs_no_leave {
            self.push(format!("{{{}+}}\r\n", text.len()).as_bytes());
        } else {
            self.push(format!("{{{}}}\r\n", text.len()).as_bytes());
            self.cut();
        }
        self.push(text);
    }

    /// A token may be longer than any password: room is made before it is copied.
    fn initial_response(&mut self, response: &str) {
        let mut roomy = Zeroizing::new(Vec::with_capacity(self.current.len() + response.len() + 16));
        roomy.extend_from_slice(&self.current);
        self.current = roomy;
        if self.capabilities.has("SASL-IR") {
            self.push(b" ");
        } else {
            self.push(b"\r\n");
            self.cut();
            self.current = Zeroizing::new(Vec::with_capacity(response.len() + 16));
        }
        // One that is empty has a sign of its own where it stands in the command (RFC 4959 section 3).
        let nothing = response.is_empty() && self.capabilities.has("SASL-IR");
        self.push(if nothing { b"=" } else { response.as_bytes() });
    }

    fn cut(&mut self) {
        let piece = std::mem::replace(&mut self.current, Zeroizing::new(Vec::with_capacity(2048)));
        self.done.push_back(Line(piece));
    }

    fn finish(mut self) -> Encoded {
        self.push(b"\r\n");
        self.cut();
        let first = self.done.pop_front().unwrap_or_else(|| Vec::new().into());
        Encoded { first, rest: self.done }
    }
}

/// The FETCH items for a full event, as the server's capabilities allow.
pub fn event_items(capabilities: Capabilities, header_fields: &[&str], structure: bool) -> String {
    let mut items = String::from("(UID FLAGS INTERNALDATE RFC822.SIZE");
    if structure {
        items.push_str(" BODYSTRUCTURE");
    }
    if capabilities.has("CONDSTORE") {
        items.push_str(" MODSEQ");
    }
    if capabilities.has("OBJECTID") {
        items.push_str(" EMAILID THREADID");
    } else if capabilities.has("X-GM-EXT-1") {
        items.push_str(" X-GM-MSGID X-GM-THRID");
    }
    items.push_str(&format!(" BODY.PEEK[HEADER.FIELDS ({})]<0.{MAX_HEADER}>)", header_fields.join(" ")));
    items
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(command: &Command<'_>, capabilities: &[&str]) -> Result<Vec<String>, Unsendable> {
        let encoded = command.encode("t1", Capabilities::new(capabilities))?;
        let lines = std::iter::once(&encoded.first).chain(&encoded.rest);
        Ok(lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect())
    }

    fn credentials(user: &str, password: &str) -> Credentials {
        Credentials { user: user.into(), proof: Proof::Password(password.into()) }
    }

    #[test]
    fn a_command_is_one_write() {
        let c = credentials("bob", "a \"b\\");
        assert_eq!(text(&Command::Login(&c), &[]).unwrap(), ["t1 LOGIN \"bob\" \"a \\\"b\\\\\"\r\n"]);
        assert_eq!(text(&Command::Idle, &[]).unwrap(), ["t1 IDLE\r\n"]);
        let set = UidSet::range(4, 6);
        let fetch = Command::UidFetch {
            uids: UidRange::Set(&set),
            items: "(UID)",
            changed_since: Some(9),
            vanished: false,
        };
        assert_eq!(text(&fetch, &[]).unwrap(), ["t1 UID FETCH 4:6 (UID) (CHANGEDSINCE 9)\r\n"]);
        let list = |special_use, statuses| Command::List { pattern: b"*", special_use, statuses };
        assert_eq!(text(&list(false, None), &[]).unwrap(), ["t1 LIST \"\" \"*\"\r\n"]);
        assert_eq!(
            text(&list(true, Some(STATUS_MOVED)), &[]).unwrap(),
            ["t1 LIST \"\" \"*\" RETURN (SPECIAL-USE STATUS (MESSAGES UIDNEXT UIDVALIDITY))\r\n"]
        );
        assert_eq!(
            text(&Command::Status { mailbox: b"a \"b", items: STATUS_MOVED }, &[]).unwrap(),
            ["t1 STATUS \"a \\\"b\" (MESSAGES UIDNEXT UIDVALIDITY)\r\n"]
        );
        let examine = Command::Examine { mailbox: b"INBOX", condstore: true };
        assert_eq!(text(&examine, &[]).unwrap(), ["t1 EXAMINE \"INBOX\" (CONDSTORE)\r\n"]);
    }

    fn search(keys: Vec<Key>, capabilities: &[&str]) -> Result<Vec<String>, Unsendable> {
        let criteria = Criteria::new(keys).unwrap();
        text(&Command::UidSearch { scope: Scope::Uids(4, 9), criteria: &criteria }, capabilities)
    }

    #[test]
    fn search_keys_are_made_by_us_and_texts_are_strings() {
        let keys = vec![
            Key::Unseen,
            Key::From("a\" OR ALL \\".to_owned()),
            Key::Not(Box::new(Key::Header { name: "List-Id".to_owned(), contains: String::new() })),
            Key::Larger(5),
            Key::Since(jiff::civil::date(2026, 3, 7)),
        ];
        assert_eq!(
            search(keys, &[]).unwrap(),
            [
                "t1 UID SEARCH UID 4:9 UNSEEN FROM \"a\\\" OR ALL \\\\\" NOT HEADER \"List-Id\" \"\" LARGER 5 SINCE 7-Mar-2026\r\n"
            ]
        );
        let subject = || vec![Key::Subject("Größe".to_owned())];
        assert_eq!(
            search(subject(), &["LITERAL+"]).unwrap(),
            ["t1 UID SEARCH CHARSET UTF-8 UID 4:9 SUBJECT {7+}\r\nGröße\r\n"]
        );
        assert_eq!(
            search(subject(), &["LITERAL+", "UTF8=ONLY"]).unwrap(),
            ["t1 UID SEARCH UID 4:9 SUBJECT {7+}\r\nGröße\r\n"]
        );
        assert_eq!(search(subject(), &[]).unwrap().len(), 2);
        assert_eq!(search(vec![Key::Text("a\r\nb".to_owned())], &[]), Err(Unsendable));
    }

    #[test]
    fn text_beyond_ascii_is_a_literal_and_waits_for_leave() {
        let c = credentials("jürgen", "pä");
        assert_eq!(text(&Command::Login(&c), &[]).unwrap(), ["t1 LOGIN {7}\r\n", "jürgen {3}\r\n", "pä\r\n"]);
        assert_eq!(
            text(&Command::Login(&c), &["LITERAL+"]).unwrap(),
            ["t1 LOGIN {7+}\r\njürgen {3+}\r\npä\r\n"]
        );
    }

    #[test]
    fn plain_uses_the_initial_response_where_it_may() {
        let c = credentials("bob", "pw");
        let response = data_encoding::BASE64.encode(b"\0bob\0pw");
        assert_eq!(
            text(&Command::Authenticate(Mechanism::Plain, &c), &["SASL-IR"]).unwrap(),
            [format!("t1 AUTHENTICATE PLAIN {response}\r\n")]
        );
        assert_eq!(
            text(&Command::Authenticate(Mechanism::Plain, &c), &[]).unwrap(),
            ["t1 AUTHENTICATE PLAIN\r\n".to_owned(), format!("{response}\r\n")]
        );
    }

    #[test]
    fn line_breaks_and_nul_never_leave() {
        for bad in ["a\rb", "a\nb", "a\0b"] {
            for c in [credentials(bad, "x"), credentials("x", bad)] {
                assert_eq!(text(&Command::Login(&c), &[]), Err(Unsendable));
                assert_eq!(text(&Command::Authenticate(Mechanism::Plain, &c), &[]), Err(Unsendable));
            }
            assert!(text(&Command::Examine { mailbox: bad.as_bytes(), condstore: false }, &[]).is_err());
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let c = credentials("bob-canary", "pw-canary");
        let line: Line = b"pw-canary".to_vec().into();
        assert!(!format!("{c:?} {:?} {line:?}", Command::Login(&c)).contains("canary"));
    }

    /// Where a server finds the end of the first command: at the first line break that no literal announces
    /// (RFC 3501, section 4.3).
    fn command_length(sent: &str) -> Option<usize> {
        let mut at = 0;
        loop {
            let line = sent.get(at..)?.split_once("\r\n")?.0;
            at += line.len() + 2;
            let Some(announced) = line.rsplit_once('{').and_then(|(_, count)| count.strip_suffix('}')) else {
                return Some(at);
            };
            at += announced.trim_end_matches('+').parse::<usize>().ok()?;
        }
    }

    proptest! {
        /// Whatever the credentials: no byte after the command's end, so nothing can be smuggled in.
        #[test]
        fn credentials_cannot_start_a_second_command(user in ".*", password in ".*", plus in any::<bool>()) {
            let c = credentials(&user, &password);
            let capabilities: &[&str] = if plus { &["LITERAL+"] } else { &[] };
            if let Ok(lines) = search(vec![Key::From(c.user.clone())], capabilities) {
                prop_assert_eq!(command_length(&lines.concat()), Some(lines.concat().len()));
            }
            if let Ok(lines) = text(&Command::Login(&c), capabilities) {
                prop_assert_eq!(command_length(&lines.concat()), Some(lines.concat().len()));
            }
        }
    }
}
