//! Reads complete frames that the parser cannot take: what can be known of them is kept, the rest is named.
//!
//! Never recursive, linear in the frame's length.

use super::parse::header;
use super::reply::{Code, FetchItems, ListEntry, MailboxStatus, Reply, Status, StatusText, cap_flags};
use crate::text::{cap, excerpt};

/// The reply that `frame` is: one response, its literals inline, with its line end.
pub fn read(frame: &[u8]) -> Reply {
    let line = frame.strip_suffix(b"\r\n").unwrap_or(frame);
    let reply = match line.split_first() {
        Some((b'+', text)) => Some(Reply::Continue(lossy(text).trim_start().to_owned())),
        Some((b'*', rest)) => untagged(rest.trim_ascii_start()),
        _ => tagged(line),
    };
    reply.unwrap_or_else(|| Reply::Unreadable { excerpt: excerpt(line, 80) })
}

fn lossy(bytes: &[u8]) -> String {
    let bytes = bytes.get(..bytes.len().min(4096)).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|&byte| byte == b' ').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_ascii_start())
}

fn tagged(line: &[u8]) -> Option<Reply> {
    let (tag, rest) = word(line);
    let (status, rest) = word(rest);
    let sane = !tag.is_empty() && tag.len() <= 64 && tag.iter().all(u8::is_ascii_alphanumeric);
    let status =
        status_of(status).filter(|status| matches!(status, Status::Ok | Status::No | Status::Bad))?;
    sane.then(|| Reply::Tagged { tag: lossy(tag), status, text: StatusText::parse(&lossy(rest)) })
}

fn status_of(word: &[u8]) -> Option<Status> {
    let known: [(&[u8], Status); 5] = [
        (b"OK", Status::Ok),
        (b"NO", Status::No),
        (b"BAD", Status::Bad),
        (b"PREAUTH", Status::PreAuth),
        (b"BYE", Status::Bye),
    ];
    known.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, status)| status)
}

fn untagged(line: &[u8]) -> Option<Reply> {
    let (first, rest) = word(line);
    if let Some(status) = status_of(first) {
        return Some(Reply::Untagged { status, text: StatusText::parse(&lossy(rest)) });
    }
    if let Some(number) = number(first) {
        return numbered(number, rest);
    }
    match first.to_ascii_uppercase().as_slice() {
        b"CAPABILITY" => match Code::parse(&format!("CAPABILITY {}", lossy(rest))) {
            Code::Capability(tokens) => Some(Reply::Capability(tokens)),
            _ => None,
        },
        b"LIST" | b"LSUB" | b"XLIST" => list(rest).map(Reply::List),
        b"SEARCH" => Some(search(rest)),
        b"STATUS" => mailbox_status(rest).map(|status| Reply::MailboxStatus(Box::new(status))),
        b"FLAGS" | b"ESEARCH" | b"SORT" | b"THREAD" | b"NAMESPACE" | b"ENABLED" | b"ID" | b"QUOTA"
        | b"QUOTAROOT" | b"ACL" | b"MYRIGHTS" | b"METADATA" | b"ANNOTATION" | b"LANGUAGE" | b"JMAPACCESS"
        | b"COMPARATOR" | b"CONVERSION" | b"URLFETCH" | b"GENURLAUTH" => Some(Reply::Other("data")),
        _ => None,
    }
}

/// Numbers, and with CONDSTORE a MODSEQ behind them (RFC 7162 section 3.1.5).
fn search(line: &[u8]) -> Reply {
    let words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let words: Vec<&[u8]> = words.take_while(|word| !word.eq_ignore_ascii_case(b"(MODSEQ")).collect();
    let numbers: Vec<u32> = words.iter().filter_map(|word| number(word).filter(|&n| n > 0)).collect();
    Reply::Search { whole: numbers.len() == words.len(), numbers }
}

fn number(word: &[u8]) -> Option<u32> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn numbered(n: u32, rest: &[u8]) -> Option<Reply> {
    let (kind, rest) = word(rest);
    match kind.to_ascii_uppercase().as_slice() {
        b"EXISTS" => Some(Reply::Exists(n)),
        b"EXPUNGE" => Some(Reply::Expunge(n)),
        b"RECENT" => Some(Reply::Other("RECENT")),
        b"FETCH" => Some(Reply::Fetch(Box::new(fetch(n, rest)))),
        _ => None,
    }
}

/// Reads one value after the other from a frame.
struct Values<'a> {
    rest: &'a [u8],
}

/// `{18446744073709551615+}`
const LONGEST_ANNOUNCEMENT: usize = 23;

/// One value: a string's bytes, or a parenthesised list's.
enum Value<'a> {
    Nil,
    Text(Vec<u8>),
    List(&'a [u8]),
}

impl<'a> Values<'a> {
    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    /// The next value, however deep a list is.
    fn next(&mut self) -> Option<Value<'a>> {
        self.skip_spaces();
        match self.rest.first()? {
            b'(' => self.list(),
            b'"' | b'{' => self.string().map(Value::Text),
            _ => {
                let atom = self.atom();
                let nil = atom.eq_ignore_ascii_case(b"NIL");
                (!atom.is_empty()).then(|| if nil { Value::Nil } else { Value::Text(atom.to_vec()) })
            }
        }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn atom(&mut self) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| matches!(byte, b' ' | b'(' | b')' | b'"' | b'\r' | b'\n'));
        self.take(end.unwrap_or(self.rest.len())).unwrap_or_default()
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        if self.rest.first() == Some(&b'"') { self.quoted() } else { self.literal() }
    }

    fn quoted(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let mut escaped = false;
        for (at, &byte) in self.rest.iter().enumerate().skip(1) {
            match byte {
                b'\\' if !escaped => escaped = true,
                b'"' if !escaped => {
                    self.take(at + 1);
                    return Some(text);
                }
                byte => {
                    escaped = false;
                    text.push(byte);
                }
            }
        }
        // Whatever follows has been looked at: to look again for each further quote would be quadratic.
        self.rest = &[];
        None
    }

    fn literal(&mut self) -> Option<Vec<u8>> {
        let near = self.rest.get(..self.rest.len().min(LONGEST_ANNOUNCEMENT)).unwrap_or_default();
        let close = near.iter().position(|&byte| byte == b'}')?;
        let digits = std::str::from_utf8(near.get(1..close)?).ok()?;
        let length = digits.trim_end_matches('+').parse().ok()?;
        let behind = self.rest.get(close + 1..).unwrap_or_default();
        let content = behind.strip_prefix(b"\r\n").or_else(|| behind.strip_prefix(b"\n"))?;
        self.rest = content;
        self.take(length).map(<[u8]>::to_vec)
    }

    /// The inside of a list; nested ones are stepped over.
    fn list(&mut self) -> Option<Value<'a>> {
        let whole = self.rest;
        let mut depth = 0_u32;
        loop {
            match self.rest.first()? {
                b'(' => {
                    depth += 1;
                    self.take(1);
                }
                b')' => {
                    depth -= 1;
                    self.take(1);
                    if depth == 0 {
                        let length = whole.len() - self.rest.len();
                        return Some(Value::List(whole.get(1..length - 1).unwrap_or_default()));
                    }
                }
                b'"' | b'{' => {
                    if self.string().is_none() {
                        self.take(1);
                    }
                }
                _ => {
                    self.take(1);
                }
            }
        }
    }
}

fn list(rest: &[u8]) -> Option<ListEntry> {
    let mut values = Values { rest };
    let Some(Value::List(attributes)) = values.next() else { return None };
    let attributes =
        lossy(attributes).split_ascii_whitespace().take(32).map(|a| cap(a, 64).to_owned()).collect();
    let delimiter = match values.next()? {
        Value::Text(text) => lossy(&text).chars().next(),
        _ => None,
    };
    let Some(Value::Text(name)) = values.next() else { return None };
    Some(ListEntry { attributes, delimiter, name: name.into_iter().take(1024).collect() })
}

/// Items that are not known, or whose value is no number, are stepped over.
fn mailbox_status(rest: &[u8]) -> Option<MailboxStatus> {
    let mut values = Values { rest };
    let Some(Value::Text(name)) = values.next() else { return None };
    let Some(Value::List(items)) = values.next() else { return None };
    let mut status =
        MailboxStatus { name: name.into_iter().take(1024).collect(), ..MailboxStatus::default() };
    let mut items = Values { rest: items };
    while let Some(name) = items.next() {
        if let (Value::Text(name), Some(Value::Text(value))) = (name, items.next())
            && let Some(value) = std::str::from_utf8(&value).ok().and_then(|value| value.parse().ok())
        {
            status.item(&lossy(&name), value);
        }
    }
    Some(status)
}

fn fetch(seq: u32, rest: &[u8]) -> FetchItems {
    let mut items = FetchItems { seq, ..FetchItems::default() };
    let inside = match (Values { rest }).next() {
        Some(Value::List(inside)) => inside,
        // Cut off: what stands there is still read.
        _ => rest.strip_prefix(b"(").unwrap_or(rest),
    };
    let mut values = Values { rest: inside };
    while let Some(name) = item_name(&mut values) {
        let value = values.next();
        item(&mut items, &name, value);
    }
    items
}

/// `UID`, `BODY[HEADER.FIELDS (FROM)]<0>`: a section may hold spaces and parentheses.
fn item_name(values: &mut Values<'_>) -> Option<String> {
    values.skip_spaces();
    let end = values.rest.iter().position(|byte| matches!(byte, b' ' | b'['));
    let mut name = values.take(end.unwrap_or(values.rest.len()))?.to_ascii_uppercase();
    if values.rest.first() == Some(&b'[') {
        let end = values.rest.iter().position(|&byte| byte == b']')?;
        values.take(end + 1);
        values.atom();
        name.extend_from_slice(b"[]");
    }
    (!name.is_empty()).then(|| lossy(&name))
}

fn item(items: &mut FetchItems, name: &str, value: Option<Value<'_>>) {
    let text = match &value {
        Some(Value::Text(text)) => Some(lossy(text)),
        Some(Value::List(list)) => Some(lossy(list)),
        Some(Value::Nil) | None => None,
    };
    let number = text.as_deref().and_then(|text| text.trim().parse::<u64>().ok());
    match name {
        "UID" => items.uid = number.and_then(|uid| u32::try_from(uid).ok()).filter(|&uid| uid > 0),
        "FLAGS" => items.flags = text.map(|text| cap_flags(text.split_ascii_whitespace())),
        "INTERNALDATE" => keep(&mut items.internal_date, text, "INTERNALDATE", &mut items.unreadable),
        "RFC822.SIZE" => keep(&mut items.size, number, "RFC822.SIZE", &mut items.unreadable),
        "MODSEQ" => items.modseq = number,
        "EMAILID" | "X-GM-MSGID" => items.email_id = text.map(|text| cap(&text, 255).to_owned()),
        "THREADID" | "X-GM-THRID" => items.thread_id = text.map(|text| cap(&text, 255).to_owned()),
        "BODY[]" | "RFC822.HEADER" => match value {
            Some(Value::Text(bytes)) => items.header = Some(header(&bytes)),
            // The guard sheds what is too long, and some servers have nothing to tell.
            _ => items.unreadable.push("BODY"),
        },
        "BODYSTRUCTURE" => items.unreadable.push("BODYSTRUCTURE"),
        _ => {}
    }
}

fn keep<T>(slot: &mut Option<T>, value: Option<T>, name: &'static str, unreadable: &mut Vec<&'static str>) {
    match value {
        Some(value) => *slot = Some(value),
        None => unreadable.push(name),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fetched(frame: &str) -> FetchItems {
        match read(frame.as_bytes()) {
            Reply::Fetch(items) => *items,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_fetch_does_tell_is_kept() {
        let items = fetched(
            "* 4 FETCH (UID 7 BODYSTRUCTURE ((NIL NIL) \"a)\\\"b\" {3}\r\n)((x) INTERNALDATE NIL RFC822.SIZE -1 FLAGS (\\Seen) BODY[HEADER.FIELDS (From To)]<0> {9}\r\nFrom: a\r\n)\r\n",
        );
        assert_eq!((items.seq, items.uid), (4, Some(7)));
        assert_eq!(items.header.as_deref(), Some(b"From: a\r\n".as_slice()));
        assert_eq!(items.flags, Some(vec!["\\Seen".to_owned()]));
        assert_eq!(items.unreadable, ["BODYSTRUCTURE", "INTERNALDATE", "RFC822.SIZE"]);
    }

    /// Each of these was once looked through again from every byte: a minute, where it should be an instant.
    #[test]
    fn strings_without_an_end_are_looked_at_once() {
        for open in ["{", "\"", "\"\"\"", "(\"", "{9", "\\\"", "({9}"] {
            let frame = format!("* 1 FETCH ({}\r\n", open.repeat(250_000 / open.len()));
            assert_eq!(fetched(&frame).uid, None);
            read(format!("* LIST ({}\r\n", open.repeat(250_000 / open.len())).as_bytes());
        }
    }

    #[test]
    fn a_shed_header_is_named() {
        assert_eq!(fetched("* 4 FETCH (UID 7 BODY[HEADER] NIL)\r\n").unreadable, ["BODY"]);
    }

    #[test]
    fn other_lines_are_told_apart() {
        assert_eq!(read(b"* 5 EXISTS  \r\n"), Reply::Exists(5));
        assert_eq!(
            read(b"* CAPABILITY  IMAP4rev2  IDLE\r\n"),
            Reply::Capability(vec!["IMAP4rev2".to_owned(), "IDLE".to_owned()])
        );
        assert!(matches!(read(b"t1 NO [ALERT] x\0y\r\n"), Reply::Tagged { status: Status::No, .. }));
        assert!(matches!(read(b"* LIST () \"/\" a (CHILDINFO (\"x\"))\r\n"), Reply::List(_)));
        assert!(matches!(read(b"* ESEARCH (TAG \"t1\") UID ALL 1:3\r\n"), Reply::Other(_)));
        assert!(matches!(read(b"HTTP/1.1 400 Bad Request\r\n"), Reply::Unreadable { .. }));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>(), line in "[*+t1 ]{0,3}[0-9A-Z(){}\"\\\\ \r\n]{0,60}") {
            read(&bytes);
            read(line.as_bytes());
            read(format!("* 1 FETCH ({line}").as_bytes());
        }
    }
}
