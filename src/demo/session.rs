//! One client of the in-memory server: as much of IMAP4rev1 as a monitor and a curious user need.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::BASE64;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::search;
use super::server::Behaviour;
use super::store::{Mailbox, Message, Store};
use super::visits::Visitor;
use crate::text::escape;
use crate::uid_set::UidSet;

/// The longest line that a client may say.
const MOST_LINE: u64 = 64 << 10;

pub(super) struct Session {
    store: Store,
    behaviour: Behaviour,
    changing: Arc<AtomicU64>,
    visitor: Visitor,
    user: Option<String>,
    selected: Option<Selected>,
}

/// What the client was told of the open mailbox.
struct Selected {
    name: String,
    uids: Vec<u32>,
}

struct Wire {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// A line that came in part: reading it may be cancelled by news.
    partial: Vec<u8>,
}

impl Wire {
    async fn line(&mut self) -> io::Result<Option<String>> {
        let room = MOST_LINE.saturating_sub(self.partial.len() as u64);
        (&mut self.reader).take(room).read_until(b'\n', &mut self.partial).await?;
        let line = std::mem::take(&mut self.partial);
        if !line.ends_with(b"\n") {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
    }

    async fn say(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(text.as_bytes()).await
    }
}

/// Splits a command into its words: atoms, quoted strings, parenthesised lists.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut depth, mut quoted, mut escaped) =
        (Vec::new(), String::new(), 0, false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' if depth == 0 => quoted = !quoted,
            ' ' if depth == 0 && !quoted => words.push(std::mem::take(&mut word)),
            c => {
                depth += i32::from(matches!(c, '(' | '[')) - i32::from(matches!(c, ')' | ']'));
                word.push(c);
            }
        }
    }
    words.push(word);
    words
}

impl Session {
    pub(super) fn new(
        store: Store,
        behaviour: Behaviour,
        changing: Arc<AtomicU64>,
        visitor: Visitor,
    ) -> Self {
        Self { store, behaviour, changing, visitor, user: None, selected: None }
    }

    fn capabilities(&self) -> &'static str {
        if self.behaviour.idle {
            "IMAP4rev1 SASL-IR LITERAL+ ID IDLE AUTH=PLAIN"
        } else {
            "IMAP4rev1 SASL-IR LITERAL+ ID AUTH=PLAIN"
        }
    }

    pub(super) async fn serve(mut self, tcp: TcpStream) -> io::Result<()> {
        let (reader, writer) = tcp.into_split();
        let mut wire = Wire { reader: BufReader::with_capacity(512, reader), writer, partial: Vec::new() };
        wire.say(&format!("* OK [CAPABILITY {}] a small server in memory\r\n", self.capabilities())).await?;
        while let Some(line) = self.command(&mut wire).await? {
            let words = words(&line);
            let (Some(tag), Some(name)) = (words.first(), words.get(1)) else {
                wire.say("* BAD what?\r\n").await?;
                continue;
            };
            let arguments = words.get(2..).unwrap_or_default();
            let name = name.to_ascii_uppercase();
            let answer = match name.as_str() {
                "IDLE" => self.idle(&mut wire, tag).await?,
                "AUTHENTICATE" => self.authenticate(&mut wire, tag, arguments).await?,
                _ => self.answer(tag, &name, arguments),
            };
            wire.say(&answer).await?;
            if name == "LOGOUT" {
                break;
            }
        }
        Ok(())
    }

    /// One command, its literals put in as quoted strings.
    async fn command(&self, wire: &mut Wire) -> io::Result<Option<String>> {
        let mut whole = String::new();
        loop {
            let Some(line) = wire.line().await? else { return Ok(None) };
            let literal = line.strip_suffix('}').and_then(|head| head.rsplit_once('{'));
            let sized =
                literal.and_then(|(head, n)| Some((head, n, n.trim_end_matches('+').parse::<u64>().ok()?)));
            let Some((head, digits, size)) = sized.filter(|(_, _, size)| *size <= MOST_LINE) else {
                return Ok(Some(whole + &line));
            };
            if !digits.ends_with('+') {
                wire.say("+ go on\r\n").await?;
            }
            let mut bytes = Vec::new();
            (&mut wire.reader).take(size).read_to_end(&mut bytes).await?;
            let text = String::from_utf8_lossy(&bytes).replace('\\', "\\\\").replace('"', "\\\"");
            whole.push_str(&format!("{head}\"{text}\""));
        }
    }

    fn answer(&mut self, tag: &str, name: &str, arguments: &[String]) -> String {
        let argument = |i: usize| arguments.get(i).map(String::as_str).unwrap_or_default();
        match name {
            "CAPABILITY" => format!("* CAPABILITY {}\r\n{tag} OK done\r\n", self.capabilities()),
            "NOOP" => format!("{}{tag} OK done\r\n", self.news()),
            "ID" => format!("* ID (\"name\" \"idlewatch-demo\")\r\n{tag} OK done\r\n"),
            "LOGOUT" => {
                self.visitor.leaves();
                format!("* BYE see you\r\n{tag} OK done\r\n")
            }
            "LOGIN" => self.login(tag, argument(0), argument(1)),
            _ if self.user.is_none() => format!("{tag} BAD log in first\r\n"),
            "LIST" | "LSUB" => self.list(tag, argument(1)),
            "EXAMINE" => self.examine(tag, argument(0)),
            "FETCH" => self.fetch(tag, false, arguments),
            "UID" if argument(0).eq_ignore_ascii_case("FETCH") => {
                self.fetch(tag, true, arguments.get(1..).unwrap_or_default())
            }
            "UID" if argument(0).eq_ignore_ascii_case("SEARCH") => {
                self.search(tag, arguments.get(1..).unwrap_or_default())
            }
            _ => {
                self.changing.fetch_add(1, Ordering::Relaxed);
                format!("{tag} BAD {} is not for this server\r\n", escape(name))
            }
        }
    }

    fn login(&mut self, tag: &str, user: &str, password: &str) -> String {
        if !self.store.accepts(user, password) {
            return format!("{tag} NO [AUTHENTICATIONFAILED] wrong user name or password\r\n");
        }
        self.user = Some(user.to_owned());
        self.visitor.logs_in(user);
        format!("{tag} OK [CAPABILITY {}] welcome\r\n", self.capabilities())
    }

    async fn authenticate(&mut self, wire: &mut Wire, tag: &str, arguments: &[String]) -> io::Result<String> {
        let response = match arguments.get(1) {
            Some(response) => response.clone(),
            None => {
                wire.say("+ \r\n").await?;
                wire.line().await?.unwrap_or_default()
            }
        };
        let clear = BASE64.decode(response.as_bytes()).unwrap_or_default();
        let clear = String::from_utf8_lossy(&clear).into_owned();
        let mut parts = clear.split('\0').skip(1);
        Ok(self.login(tag, parts.next().unwrap_or_default(), parts.next().unwrap_or_default()))
    }

    fn list(&self, tag: &str, pattern: &str) -> String {
        let user = self.user.as_deref().unwrap_or_default();
        let names = self.store.names(user).into_iter().filter(|name| pattern == "*" || name == pattern);
        let mut text: String =
            names.map(|name| format!("* LIST () \"/\" \"{}\"\r\n", escape(&name))).collect();
        if pattern.is_empty() {
            text = "* LIST (\\Noselect) \"/\" \"\"\r\n".to_owned();
        }
        text + &format!("{tag} OK done\r\n")
    }

    fn examine(&mut self, tag: &str, name: &str) -> String {
        let user = self.user.as_deref().unwrap_or_default();
        let Some(mailbox) = self.store.mailbox(user, name) else {
            self.selected = None;
            return format!("{tag} NO [NONEXISTENT] there is no such mailbox\r\n");
        };
        let uids: Vec<u32> = mailbox.messages.iter().map(|message| message.uid).collect();
        let told = format!(
            "* FLAGS (\\Seen)\r\n* {} EXISTS\r\n* OK [UIDVALIDITY {}] ok\r\n* OK [UIDNEXT {}] ok\r\n{tag} OK [READ-ONLY] done\r\n",
            uids.len(),
            mailbox.uid_validity,
            mailbox.uid_next
        );
        self.selected = Some(Selected { name: name.to_owned(), uids });
        told
    }

    fn mailbox(&self) -> Option<Mailbox> {
        self.store.mailbox(self.user.as_deref()?, &self.selected.as_ref()?.name)
    }

    /// EXPUNGE and EXISTS for what changed since the client was told last.
    fn news(&mut self) -> String {
        let Some(mailbox) = self.mailbox() else { return String::new() };
        let Some(selected) = &mut self.selected else { return String::new() };
        let now: Vec<u32> = mailbox.messages.iter().map(|message| message.uid).collect();
        let mut text = String::new();
        for seq in (0..selected.uids.len()).rev() {
            if selected.uids.get(seq).is_some_and(|uid| !now.contains(uid)) {
                selected.uids.remove(seq);
                text.push_str(&format!("* {} EXPUNGE\r\n", seq + 1));
            }
        }
        if now.len() > selected.uids.len() {
            text.push_str(&format!("* {} EXISTS\r\n", now.len()));
        }
        selected.uids = now;
        text
    }

    async fn idle(&mut self, wire: &mut Wire, tag: &str) -> io::Result<String> {
        if !self.behaviour.idle || self.user.is_none() {
            return Ok(format!("{tag} BAD no IDLE here\r\n"));
        }
        wire.say("+ idling\r\n").await?;
        self.visitor.watches();
        let mut changes = self.store.changes();
        loop {
            if self.behaviour.pushes {
                changes.mark_unchanged();
                let news = self.news();
                wire.say(&news).await?;
            }
            tokio::select! {
                line = wire.line() => {
                    let done = line?.is_some_and(|line| line.eq_ignore_ascii_case("DONE"));
                    let news = self.news();
                    let status = if done { "OK done" } else { "BAD only DONE ends IDLE" };
                    return Ok(format!("{news}{tag} {status}\r\n"));
                }
                _ = changes.changed() => {}
            }
        }
    }

    fn search(&self, tag: &str, words: &[String]) -> String {
        let Some(mailbox) = self.mailbox() else { return format!("{tag} BAD open a mailbox first\r\n") };
        match search::search(words, &mailbox).filter(|_| self.behaviour.searches) {
            Some(uids) => {
                let uids: String = uids.iter().map(|uid| format!(" {uid}")).collect();
                format!("* SEARCH{uids}\r\n{tag} OK done\r\n")
            }
            None => format!("{tag} NO there is no such search here\r\n"),
        }
    }

    fn fetch(&mut self, tag: &str, by_uid: bool, arguments: &[String]) -> String {
        let (Some(set), Some(items), Some(mailbox)) = (arguments.first(), arguments.get(1), self.mailbox())
        else {
            return format!("{tag} BAD open a mailbox first\r\n");
        };
        let items = items.to_ascii_uppercase();
        if items.contains("BODY[") || items.contains("RFC822 ") {
            self.changing.fetch_add(1, Ordering::Relaxed);
        }
        let last = match by_uid {
            true => mailbox.messages.last().map_or(0, |message| message.uid),
            false => u32::try_from(mailbox.messages.len()).unwrap_or(u32::MAX),
        };
        let set = sequence_set(set, last);
        let mut text = self.news();
        for (seq, message) in (1..).zip(&mailbox.messages) {
            let number = if by_uid { message.uid } else { seq };
            if set.contains(number) {
                text.push_str(&told(seq, message, &items));
            }
        }
        text + &format!("{tag} OK done\r\n")
    }
}

/// `n:*` names the last message even where `n` is beyond it (RFC 9051 section 6.4.9).
pub(super) fn sequence_set(text: &str, last: u32) -> UidSet {
    let mut set = UidSet::new();
    for part in text.split(',') {
        let (first, end) = part.split_once(':').unwrap_or((part, part));
        let number = |text: &str| if text == "*" { last } else { text.parse().unwrap_or(0) };
        let (first, end) = (number(first), number(end));
        set.insert_range(first.min(end), first.max(end));
    }
    set
}

fn told(seq: u32, message: &Message, items: &str) -> String {
    let mut text = format!("* {seq} FETCH (UID {}", message.uid);
    if items.contains("FLAGS") {
        text.push_str(" FLAGS ()");
    }
    if items.contains("INTERNALDATE") {
        text.push_str(&format!(" INTERNALDATE \"{}\"", message.received.strftime("%d-%b-%Y %H:%M:%S +0000")));
    }
    if items.contains("RFC822.SIZE") {
        text.push_str(&format!(" RFC822.SIZE {}", message.bytes.len()));
    }
    if items.contains("BODYSTRUCTURE") {
        text.push_str(" BODYSTRUCTURE (\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"8bit\" 10 1)");
    }
    if items.contains("HEADER") {
        let whole = String::from_utf8_lossy(&message.bytes);
        let header = whole.split_once("\r\n\r\n").map_or(whole.as_ref(), |(header, _)| header);
        text.push_str(&format!(
            " BODY[HEADER.FIELDS (FROM)]<0> {{{}}}\r\n{header}\r\n\r\n",
            header.len() + 4
        ));
    }
    text + ")\r\n"
}
