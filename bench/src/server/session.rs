//! One client's conversation, without I/O.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use data_encoding::BASE64;
use tokio::sync::watch;

use super::fetch::{Items, parse_set};
use super::mail::Mail;
use super::world::World;

/// What a client may say before it is cut off.
const MOST_INPUT: usize = 64 << 10;

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    /// The messages whose EXISTS it holds.
    pub(super) told: Option<RangeInclusive<u32>>,
}

/// One client.
#[derive(Debug)]
pub(super) struct Session {
    world: Arc<World>,
    input: Vec<u8>,
    mode: Mode,
    user: Option<u32>,
    /// EXISTS of the open mailbox.
    exists: Option<watch::Receiver<u32>>,
    /// EXISTS as the client knows it.
    known: u32,
    /// What NOTIFY tells of new mail.
    notify: Option<Box<Items>>,
    closed: bool,
}

/// What the next line is, or what is still to be answered.
#[derive(Debug)]
enum Mode {
    Commands,
    Authenticating { tag: String },
    Idling { tag: String },
    Fetching(Box<Fetching>),
}

#[derive(Debug)]
struct Fetching {
    tag: String,
    ranges: Vec<(u32, u32)>,
    items: Items,
}

impl Session {
    pub(super) fn new(world: Arc<World>) -> Self {
        Self {
            world,
            input: Vec::new(),
            mode: Mode::Commands,
            user: None,
            exists: None,
            known: 0,
            notify: None,
            closed: false,
        }
    }

    pub(super) fn greeting(&self) -> Output {
        let line = format!("* OK [CAPABILITY {}] bench\r\n", self.capabilities());
        Output { bytes: line.into_bytes(), told: None }
    }

    fn capabilities(&self) -> &'static str {
        if self.world.notify {
            "IMAP4rev1 IDLE ID NAMESPACE UIDPLUS LITERAL+ SASL-IR AUTH=PLAIN NOTIFY"
        } else {
            "IMAP4rev1 IDLE ID NAMESPACE UIDPLUS LITERAL+ SASL-IR AUTH=PLAIN"
        }
    }

    /// What the client says.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.closed |= self.input.len() > MOST_INPUT;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn user(&self) -> u32 {
        self.user.unwrap_or_default()
    }

    /// Whether the client waits for news, and nothing else.
    pub(super) fn is_resting(&self) -> bool {
        match self.mode {
            Mode::Idling { .. } => true,
            Mode::Commands => self.notify.is_some() && self.exists.is_some(),
            _ => false,
        }
    }

    /// The number of messages, to be waited for.
    pub(super) fn news(&mut self) -> Option<&mut watch::Receiver<u32>> {
        if self.is_resting() { self.exists.as_mut() } else { None }
    }

    /// Answers the next thing there is to answer, if any.
    pub(super) fn step(&mut self, out: &mut Output) -> bool {
        if self.closed {
            return false;
        }
        if let Mode::Fetching(fetching) = &mut self.mode {
            match fetching.next() {
                Some(uid) => self.answer_message(uid, out),
                None => self.fetched(out),
            }
            return true;
        }
        if let Some(line) = self.take_command(out) {
            self.line(&line, out);
            return true;
        }
        let has_news = self.is_resting() && self.count() > self.known;
        if has_news {
            self.tell_news(out);
        }
        has_news
    }

    fn answer_message(&mut self, uid: u32, out: &mut Output) {
        let mail = Mail { user: self.user(), uid };
        if let Mode::Fetching(fetching) = &self.mode {
            fetching.items.answer(mail, &mut out.bytes);
            self.world.counters.fetched.fetch_add(1, Relaxed);
        }
    }

    fn fetched(&mut self, out: &mut Output) {
        if let Mode::Fetching(fetching) = std::mem::replace(&mut self.mode, Mode::Commands) {
            self.ok(&fetching.tag, "FETCH", out);
        }
    }

    /// A whole line, with the literals in it; a literal that waits for leave gets it.
    fn take_command(&mut self, out: &mut Output) -> Option<String> {
        let mut from = 0;
        loop {
            let rest = self.input.get(from..)?;
            let end = from + rest.iter().position(|&byte| byte == b'\n')? + 1;
            match literal(self.input.get(..end)?) {
                Some((length, waits)) => {
                    from = end + length;
                    if self.input.len() == end && waits {
                        out.bytes.extend_from_slice(b"+ go on\r\n");
                        return None;
                    }
                }
                None => {
                    let line: Vec<u8> = self.input.drain(..end).collect();
                    if self.input.is_empty() {
                        self.input = Vec::new();
                    }
                    return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
                }
            }
        }
    }

    fn line(&mut self, line: &str, out: &mut Output) {
        match std::mem::replace(&mut self.mode, Mode::Commands) {
            Mode::Authenticating { tag } => self.authenticate(&tag, line, out),
            Mode::Idling { tag } => self.ok(&tag, "IDLE", out),
            _ => self.command(line, out),
        }
    }

    fn command(&mut self, line: &str, out: &mut Output) {
        let (tag, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match (name.to_ascii_uppercase().as_str(), self.user) {
            ("CAPABILITY", _) => {
                out.say(&format!("* CAPABILITY {}", self.capabilities()));
                self.ok(tag, name, out);
            }
            ("ID", _) => {
                out.say("* ID (\"name\" \"idlewatch-bench\")");
                self.ok(tag, name, out);
            }
            ("NOOP" | "CHECK" | "ENABLE", _) => self.ok(tag, name, out),
            ("LOGOUT", _) => {
                out.say("* BYE bye");
                self.ok(tag, name, out);
                self.closed = true;
            }
            ("LOGIN", None) => {
                let words = words(rest);
                let word = |nth: usize| words.get(nth).map_or("", String::as_str);
                self.log_in(tag, word(0), word(1), out);
            }
            ("AUTHENTICATE", None) => self.begin_authenticate(tag, rest, out),
            (name, Some(_)) => self.command_of_user(tag, name, rest, out),
            (name, None) => out.say(&format!("{tag} BAD {name} before login")),
        }
    }

    fn command_of_user(&mut self, tag: &str, name: &str, rest: &str, out: &mut Output) {
        match name {
            "EXAMINE" | "SELECT" => self.examine(tag, rest, out),
            "LIST" | "LSUB" => {
                let root = words(rest).get(1).is_some_and(String::is_empty);
                let line = if root { "(\\Noselect) \"/\" \"\"" } else { "(\\HasNoChildren) \"/\" INBOX" };
                out.say(&format!("* {name} {line}"));
                self.ok(tag, name, out);
            }
            "NAMESPACE" => {
                out.say("* NAMESPACE ((\"\" \"/\")) NIL NIL");
                self.ok(tag, name, out);
            }
            "STATUS" => self.status(tag, out),
            "NOTIFY" if self.world.notify => self.begin_notify(tag, rest, out),
            "IDLE" => {
                out.say("+ idling");
                self.mode = Mode::Idling { tag: tag.to_owned() };
            }
            _ if self.exists.is_some() => self.command_of_mailbox(tag, name, rest, out),
            _ => out.say(&format!("{tag} BAD {name} is not known here")),
        }
    }

    fn command_of_mailbox(&mut self, tag: &str, name: &str, rest: &str, out: &mut Output) {
        let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
        match (name, first.to_ascii_uppercase().as_str()) {
            ("FETCH", _) => self.fetch(tag, rest, out),
            ("UID", "FETCH") => self.fetch(tag, after, out),
            ("SEARCH", _) => self.search(tag, rest, out),
            ("UID", "SEARCH") => self.search(tag, after, out),
            ("CLOSE" | "UNSELECT", _) => {
                self.exists = None;
                self.ok(tag, name, out);
            }
            _ => out.say(&format!("{tag} BAD {name} {first} is not known here")),
        }
    }

    fn log_in(&mut self, tag: &str, user: &str, password: &str, out: &mut Output) {
        let number = user.split('@').next().and_then(|user| user.strip_prefix("user")?.parse().ok());
        let known = number.filter(|&user| self.world.mailbox(user).is_some());
        self.user = known.filter(|_| self.world.takes(password));
        if self.user.is_some() {
            self.world.counters.login();
            out.say(&format!("{tag} OK [CAPABILITY {}] logged in", self.capabilities()));
        } else {
            out.say(&format!("{tag} NO [AUTHENTICATIONFAILED] no such user, or another password"));
        }
    }

    fn begin_authenticate(&mut self, tag: &str, rest: &str, out: &mut Output) {
        match rest.split_once(' ') {
            Some((_, response)) => self.authenticate(tag, response, out),
            None => {
                out.say("+ ");
                self.mode = Mode::Authenticating { tag: tag.to_owned() };
            }
        }
    }

    fn authenticate(&mut self, tag: &str, response: &str, out: &mut Output) {
        let clear = BASE64.decode(response.as_bytes()).unwrap_or_default();
        let mut parts = clear.split(|&byte| byte == 0).skip(1).map(String::from_utf8_lossy);
        let (user, password) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        self.log_in(tag, &user, &password, out);
    }

    fn examine(&mut self, tag: &str, rest: &str, out: &mut Output) {
        let is_inbox = words(rest).first().is_some_and(|name| name.eq_ignore_ascii_case("INBOX"));
        let mailbox = self.world.mailbox(self.user()).filter(|_| is_inbox);
        self.exists = mailbox.map(watch::Sender::subscribe);
        if self.exists.is_none() {
            return out.say(&format!("{tag} NO [NONEXISTENT] there is only INBOX"));
        }
        self.known = self.count();
        out.say("* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)");
        out.say("* OK [PERMANENTFLAGS ()] read-only");
        out.say(&format!("* {} EXISTS\r\n* 0 RECENT", self.known));
        out.say("* OK [UIDVALIDITY 1763942400] ok");
        out.say(&format!("* OK [UIDNEXT {}] ok", self.known.saturating_add(1)));
        out.say(&format!("{tag} OK [READ-ONLY] done"));
    }

    fn status(&mut self, tag: &str, out: &mut Output) {
        let count = self.world.mailbox(self.user()).map_or(0, |mailbox| *mailbox.borrow());
        out.say(&format!(
            "* STATUS INBOX (MESSAGES {count} UIDNEXT {} UIDVALIDITY 1763942400 UNSEEN {count})",
            count.saturating_add(1)
        ));
        self.ok(tag, "STATUS", out);
    }

    /// `NOTIFY SET (selected (MessageNew (items) MessageExpunge))` (RFC 5465), or NOTIFY NONE.
    fn begin_notify(&mut self, tag: &str, rest: &str, out: &mut Output) {
        let upper = rest.to_ascii_uppercase();
        let items = upper.split_once("MESSAGENEW").map(|(_, items)| Box::new(Items::parse(items)));
        self.notify = items;
        self.ok(tag, "NOTIFY", out);
    }

    fn fetch(&mut self, tag: &str, rest: &str, out: &mut Output) {
        self.tell_news(out);
        let (set, items) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut ranges = parse_set(set, self.known);
        ranges.reverse();
        let items = Items::parse(items);
        self.mode = Mode::Fetching(Box::new(Fetching { tag: tag.to_owned(), ranges, items }));
    }

    /// Only `UID set` narrows it.
    fn search(&mut self, tag: &str, rest: &str, out: &mut Output) {
        let mut words = rest.split_whitespace();
        let set = words.find(|word| word.eq_ignore_ascii_case("UID")).and_then(|_| words.next());
        let ranges = parse_set(set.unwrap_or("1:*"), self.known);
        let uids = ranges.into_iter().flat_map(|(low, high)| low..=high);
        let uids: String = uids.map(|uid| format!(" {uid}")).collect();
        out.say(&format!("* SEARCH{uids}"));
        self.ok(tag, "SEARCH", out);
    }

    fn ok(&mut self, tag: &str, name: &str, out: &mut Output) {
        self.tell_news(out);
        out.say(&format!("{tag} OK {name} done"));
    }

    fn count(&self) -> u32 {
        self.exists.as_ref().map_or(0, |exists| *exists.borrow())
    }

    /// EXISTS, where there is more than the client knows; with NOTIFY the messages too.
    fn tell_news(&mut self, out: &mut Output) {
        let (known, count) = (self.known, self.count());
        if count <= known {
            return;
        }
        self.known = count;
        out.tells(known + 1, count);
        out.say(&format!("* {count} EXISTS"));
        let Some(items) = &self.notify else { return };
        for uid in known + 1..=count {
            items.answer(Mail { user: self.user(), uid }, &mut out.bytes);
        }
        self.world.counters.fetched.fetch_add(u64::from(count - known), Relaxed);
    }
}

impl Fetching {
    /// The next UID; the ranges lie in reverse.
    fn next(&mut self) -> Option<u32> {
        let (low, high) = self.ranges.pop()?;
        if low < high {
            self.ranges.push((low + 1, high));
        }
        Some(low)
    }
}

impl Output {
    fn say(&mut self, line: &str) {
        self.bytes.extend_from_slice(line.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn tells(&mut self, first: u32, last: u32) {
        let first = self.told.as_ref().map_or(first, |told| *told.start());
        self.told = Some(first..=last);
    }
}

/// The length of the literal that a line announces at its end, and whether the client waits for leave to send it.
fn literal(line: &[u8]) -> Option<(usize, bool)> {
    let line = std::str::from_utf8(line).ok()?.trim_end().strip_suffix('}')?;
    let (_, length) = line.rsplit_once('{')?;
    let digits = length.trim_end_matches('+');
    Some((digits.parse().ok()?, digits.len() == length.len()))
}

/// Atoms, quoted strings and literals.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = word(rest);
        words.push(word);
        rest = after.trim_start();
    }
    words
}

fn word(text: &str) -> (String, &str) {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted_word(quoted);
    }
    if let Some((length, after)) = text.strip_prefix('{').and_then(|text| text.split_once("}\r\n")) {
        let length = length.trim_end_matches('+').parse().unwrap_or(0);
        return after
            .split_at_checked(length)
            .map_or((String::new(), ""), |(word, rest)| (word.into(), rest));
    }
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    (word.to_owned(), rest)
}

fn quoted_word(text: &str) -> (String, &str) {
    let mut word = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (word, text.get(at + 1..).unwrap_or("")),
            '\\' => word.extend(chars.next().map(|(_, c)| c)),
            c => word.push(c),
        }
    }
    (word, "")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn session(notify: bool) -> (Arc<World>, Session) {
        let world = Arc::new(World::new(3, Duration::ZERO, notify));
        (world.clone(), Session::new(world))
    }

    fn say(session: &mut Session, text: &str) -> String {
        session.hear(text.as_bytes());
        let mut out = Output::default();
        while session.step(&mut out) {}
        String::from_utf8_lossy(&out.bytes).into_owned()
    }

    #[test]
    fn commands_in_one_read_are_answered_in_order() {
        let (world, mut session) = session(false);
        say(&mut session, "a LOGIN \"user2\" \"p w\"\r\nb EXAMINE INBOX\r\nc IDLE\r\n");
        assert!(session.is_resting());
        world.deliver(2, 2);
        assert_eq!(say(&mut session, ""), "* 2 EXISTS\r\n");
        let items = "(UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])";
        let answer = say(&mut session, &format!("DONE\r\nd UID FETCH 2:* {items}\r\ne IDLE\r\n"));
        let expected = "c OK IDLE done\r\n* 2 FETCH (UID 2 BODY[HEADER.FIELDS (MESSAGE-ID)] {35}\r\n\
                        Message-ID: <2.2@bench.example>\r\n\r\n)\r\nd OK FETCH done\r\n+ idling\r\n";
        assert_eq!(answer, expected);
    }

    #[test]
    fn a_login_may_be_a_literal_or_plain() {
        let (_, mut literals) = session(false);
        assert_eq!(say(&mut literals, "a LOGIN {5}\r\n"), "+ go on\r\n");
        assert!(say(&mut literals, "user1 {2+}\r\npw\r\n").starts_with("a OK"));
        let response = BASE64.encode(b"\0user3\0pw");
        let (_, mut plain) = session(false);
        assert_eq!(say(&mut plain, "a AUTHENTICATE PLAIN\r\n"), "+ \r\n");
        assert!(say(&mut plain, &format!("{response}\r\n")).starts_with("a OK"));
        let (_, mut initial) = session(false);
        assert!(say(&mut initial, &format!("a AUTHENTICATE PLAIN {response}\r\n")).starts_with("a OK"));
        let (_, mut wrong) = session(false);
        assert!(say(&mut wrong, "a LOGIN user4 pw\r\n").starts_with("a NO"));
    }

    #[test]
    fn a_password_that_is_set_is_the_only_one() {
        let (world, mut session) = session(false);
        world.set_password("new");
        assert!(say(&mut session, "a LOGIN user1 old\r\n").starts_with("a NO [AUTHENTICATIONFAILED]"));
        let old = BASE64.encode(b"\0user1\0old");
        assert!(say(&mut session, &format!("b AUTHENTICATE PLAIN {old}\r\n")).starts_with("b NO"));
        let new = BASE64.encode(b"\0user1\0new");
        assert!(say(&mut session, &format!("c AUTHENTICATE PLAIN {new}\r\n")).starts_with("c OK"));
    }

    #[test]
    fn notify_tells_the_message_itself() {
        let (world, mut session) = session(true);
        let items = "(UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])";
        let set = format!("c NOTIFY SET (selected (MessageNew {items} MessageExpunge))\r\n");
        say(&mut session, &format!("a LOGIN user1 pw\r\nb EXAMINE INBOX\r\n{set}d IDLE\r\n"));
        world.deliver(1, 1);
        let news = say(&mut session, "");
        assert!(news.starts_with("* 1 EXISTS\r\n* 1 FETCH (UID 1 BODY[HEADER"), "{news}");
        assert!(news.contains("<1.1@bench.example>"), "{news}");
    }
}
