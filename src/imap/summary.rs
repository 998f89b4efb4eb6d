//! FETCH items -> what an event tells of a message: decoded by mail-parser, capped, made harmless.

use jiff::Timestamp;
use jiff::civil::date;
use jiff::tz::Offset;
use mail_parser::{Addr, DateTime, HeaderName, HeaderValue, Message, MessageParser};

use super::command::MAX_HEADER;
use super::reply::{AttachmentPart, FetchItems};
use crate::event::{Address, Attachment, MessageSummary};
use crate::text::{cap, harmless};

/// What is fetched of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// BODYSTRUCTURE.
    pub attachments: bool,
    /// Further headers, lower case.
    pub headers: Vec<String>,
    /// The longest address list.
    pub max_addresses: usize,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { attachments: true, headers: Vec::new(), max_addresses: 20 }
    }
}

const SUBJECT_CHARS: usize = 1_000;
const ADDRESS: usize = 320;
const NAME: usize = 256;
const ID: usize = 256;
const VALUE: usize = 1_000;
const MOST_IDS: usize = 20;

/// The header fields that a FETCH asks for.
pub fn fetch_header_fields(wanted: &Wanted) -> Vec<&str> {
    let own = [
        "FROM",
        "SENDER",
        "REPLY-TO",
        "TO",
        "CC",
        "BCC",
        "SUBJECT",
        "DATE",
        "MESSAGE-ID",
        "IN-REPLY-TO",
        "REFERENCES",
        "LIST-ID",
    ];
    let further = wanted.headers.iter().map(String::as_str);
    own.into_iter()
        .chain(further.filter(|name| !own.iter().any(|own| own.eq_ignore_ascii_case(name))))
        .collect()
}

/// A message of which nothing but its UID could be had.
pub fn unreadable_message() -> MessageSummary {
    MessageSummary { decode_errors: vec!["message".to_owned()], ..MessageSummary::default() }
}

/// What `items` tell.
pub fn summarize(items: &FetchItems, wanted: &Wanted) -> MessageSummary {
    let mut summary = MessageSummary {
        flags: items
            .flags
            .as_ref()
            .map(|flags| flags.iter().map(|flag| harmless(flag).into_owned()).collect()),
        modseq: items.modseq,
        email_id: items.email_id.as_deref().map(|id| harmless(id).into_owned()),
        thread_id: items.thread_id.as_deref().map(|id| harmless(id).into_owned()),
        size: items.size,
        ..MessageSummary::default()
    };
    match items.internal_date.as_deref().map(internal_date) {
        Some(None) => failed(&mut summary, "email.delivery_timestamp"),
        Some(at) => summary.received_at = at,
        None => {}
    }
    for item in &items.unreadable {
        failed(&mut summary, unreadable_field(item));
    }
    if let Some(structure) = &items.structure {
        summary.content_type = Some(harmless(&structure.content_type).into_owned());
        summary.attachments = structure.attachments.iter().map(attachment).collect();
    }
    if let Some(header) = &items.header {
        Headers::new(header, wanted).tell(&mut summary);
    }
    summary
}

fn unreadable_field(item: &str) -> &'static str {
    match item {
        "BODYSTRUCTURE" => "email.attachments",
        "INTERNALDATE" => "email.delivery_timestamp",
        "RFC822.SIZE" => "idlewatch.message.size",
        _ => "message",
    }
}

fn failed(summary: &mut MessageSummary, field: &str) {
    if !summary.decode_errors.iter().any(|known| known == field) {
        summary.decode_errors.push(field.to_owned());
    }
}

fn cut(summary: &mut MessageSummary, field: &str) {
    if !summary.truncated.iter().any(|known| known == field) {
        summary.truncated.push(field.to_owned());
    }
}

fn attachment(part: &AttachmentPart) -> Attachment {
    let name = part.name.as_deref().map(decoded).filter(|name| !name.is_empty());
    Attachment { name, mime_type: harmless(&part.mime_type).into_owned(), size: part.size }
}

/// A parameter with encoded words in it (RFC 2047; not allowed there, and done by everybody).
fn decoded(raw: &[u8]) -> String {
    let header = [b"Subject: ", raw, b"\r\n\r\n"].concat();
    let text = MessageParser::new()
        .header_text(HeaderName::Subject)
        .parse_headers(header.as_slice())
        .and_then(|message| message.subject().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(raw).into_owned());
    harmless(cap(&text, NAME)).into_owned()
}

/// `"17-Jul-1996 02:44:25 -0700"` (RFC 9051 section 9, `date-time`; the day may begin with a space).
pub fn internal_date(text: &str) -> Option<Timestamp> {
    let mut parts = text.trim().split(' ').filter(|part| !part.is_empty());
    let (day, time, zone) = (parts.next()?, parts.next()?, parts.next()?);
    let mut day = day.split('-');
    let (day, month, year) = (day.next()?.parse().ok()?, month(day.next()?)?, day.next()?.parse().ok()?);
    let mut time = time.split(':').map(|part| part.parse::<i8>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let (sign, zone) = (if zone.starts_with('-') { -1 } else { 1 }, zone.get(1..5)?.parse::<i32>().ok()?);
    let offset = Offset::from_seconds(sign * (zone / 100 * 3600 + zone % 100 * 60)).ok()?;
    let at = jiff::civil::DateTime::new(year, month, day, hour, minute, second.min(59), 0).ok()?;
    offset.to_timestamp(at).ok().filter(|at| is_plausible(*at))
}

fn month(name: &str) -> Option<i8> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let at = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
    i8::try_from(at + 1).ok()
}

/// 1970 to 2100: what lies outside is a fault, and breaks consumers.
fn is_plausible(at: Timestamp) -> bool {
    let end = date(2101, 1, 1).at(0, 0, 0, 0);
    let end = Offset::UTC.to_timestamp(end).unwrap_or(Timestamp::MAX);
    at >= Timestamp::UNIX_EPOCH && at < end
}

fn timestamp(at: &DateTime) -> Option<Timestamp> {
    let small = |n: u8| i8::try_from(n).ok();
    let at_local = jiff::civil::DateTime::new(
        i16::try_from(at.year).ok()?,
        small(at.month)?,
        small(at.day)?,
        small(at.hour)?,
        small(at.minute)?,
        small(at.second.min(59))?,
        0,
    )
    .ok()?;
    let seconds = i32::from(at.tz_hour) * 3600 + i32::from(at.tz_minute) * 60;
    let offset = Offset::from_seconds(if at.tz_before_gmt { -seconds } else { seconds }).ok()?;
    offset.to_timestamp(at_local).ok().filter(|at| is_plausible(*at))
}

/// The header section of one message.
struct Headers<'a> {
    message: Option<Message<'a>>,
    raw_len: usize,
    wanted: &'a Wanted,
}

impl<'a> Headers<'a> {
    fn new(header: &'a [u8], wanted: &'a Wanted) -> Self {
        // Cap first, decode afterwards.
        let header_bytes = header.get(..header.len().min(MAX_HEADER as usize)).unwrap_or_default();
        let further = wanted.headers.iter().fold(MessageParser::default(), |parser, name| {
            match HeaderName::parse(name.clone()) {
                Some(name @ HeaderName::Other(_)) => parser.header_text(name),
                _ => parser,
            }
        });
        Self { message: further.parse_headers(header_bytes), raw_len: header.len(), wanted }
    }

    fn tell(&self, summary: &mut MessageSummary) {
        let Some(message) = &self.message else {
            // Nothing in it that looks like a header.
            if self.raw_len > 2 {
                failed(summary, "message");
            }
            return;
        };
        self.subject(message, summary);
        self.addresses(message, summary);
        self.ids(message, summary);
        match message.header(HeaderName::Date) {
            Some(HeaderValue::DateTime(at)) if timestamp(at).is_some() => summary.sent_at = timestamp(at),
            Some(_) => failed(summary, "email.origination_timestamp"),
            None => {}
        }
        self.further(message, summary);
        if self.raw_len >= MAX_HEADER as usize {
            cut(summary, "message");
        }
    }

    /// The first of several; more than one is worth telling (RFC 5322 section 3.6).
    fn first<'m>(
        message: &'m Message<'a>,
        name: HeaderName<'static>,
        field: &str,
        summary: &mut MessageSummary,
    ) -> Option<&'m HeaderValue<'a>> {
        let mut values =
            message.headers().iter().filter(|header| header.name == name).map(|header| &header.value);
        let first = values.next();
        if values.next().is_some() {
            failed(summary, field);
        }
        first
    }

    fn subject(&self, message: &Message<'a>, summary: &mut MessageSummary) {
        let Some(HeaderValue::Text(text)) =
            Self::first(message, HeaderName::Subject, "email.subject", summary)
        else {
            return;
        };
        let (subject, whole) = capped_chars(text.trim(), SUBJECT_CHARS);
        if !whole {
            cut(summary, "email.subject");
        }
        if subject.contains(char::REPLACEMENT_CHARACTER) {
            failed(summary, "email.subject");
        }
        summary.subject = Some(harmless(subject).into_owned()).filter(|subject| !subject.is_empty());
    }

    fn addresses(&self, message: &Message<'a>, summary: &mut MessageSummary) {
        summary.from = self.list(message, HeaderName::From, "email.from.address", summary).0;
        summary.reply_to = self.list(message, HeaderName::ReplyTo, "email.reply_to.address", summary).0;
        summary.sender =
            self.list(message, HeaderName::Sender, "email.sender.address", summary).0.into_iter().next();
        let mut recipients = 0;
        for (name, field) in [
            (HeaderName::To, "email.to.address"),
            (HeaderName::Cc, "email.cc.address"),
            (HeaderName::Bcc, "email.bcc.address"),
        ] {
            let (list, count) = self.list(message, name, field, summary);
            recipients += count;
            match field {
                "email.to.address" => summary.to = list,
                "email.cc.address" => summary.cc = list,
                _ => summary.bcc = list,
            }
        }
        summary.recipient_count = u32::try_from(recipients).unwrap_or(u32::MAX);
    }

    /// At most as many as are wanted, groups flattened, and how many there were.
    fn list(
        &self,
        message: &Message<'a>,
        name: HeaderName<'static>,
        field: &str,
        summary: &mut MessageSummary,
    ) -> (Vec<Address>, usize) {
        let Some(value) = Self::first(message, name, field, summary) else { return (Vec::new(), 0) };
        let Some(addresses) = value.as_address() else {
            if !matches!(value, HeaderValue::Empty) {
                failed(summary, field);
            }
            return (Vec::new(), 0);
        };
        let mut count = 0;
        let mut kept = Vec::new();
        for addr in addresses.iter() {
            let Some(address) = address(addr) else {
                // A phrase without an address is no recipient, but the header is not what it should be.
                failed(summary, field);
                continue;
            };
            count += 1;
            if kept.len() < self.wanted.max_addresses {
                kept.push(address);
            }
        }
        if count > kept.len() {
            cut(summary, field);
        }
        (kept, count)
    }

    fn ids(&self, message: &Message<'a>, summary: &mut MessageSummary) {
        let first = Self::first(message, HeaderName::MessageId, "email.message_id", summary);
        summary.message_id = first.and_then(|value| id_list(value).into_iter().next());
        summary.in_reply_to = id_list(message.in_reply_to());
        let references = match message.references() {
            HeaderValue::Text(_) => 1,
            HeaderValue::TextList(list) => list.len(),
            _ => 0,
        };
        summary.references_count = u32::try_from(references).ok().filter(|&count| count > 0);
        summary.list_id = text_of(message.list_id()).map(|text| {
            let inner = text.rsplit_once('<').map_or(text.as_str(), |(_, id)| id.trim_end_matches('>'));
            harmless(cap(inner.trim(), ID)).into_owned()
        });
        summary.list_id.take_if(|id| id.is_empty());
    }

    fn further(&self, message: &Message<'a>, summary: &mut MessageSummary) {
        for name in &self.wanted.headers {
            let raw = message.headers_raw().filter(|(known, _)| known.eq_ignore_ascii_case(name));
            let values: Vec<String> = raw
                .take(10)
                .map(|(_, value)| harmless(cap(decoded_value(value).trim(), VALUE)).into_owned())
                .filter(|value| !value.is_empty())
                .collect();
            if !values.is_empty() {
                summary.headers.insert(name.to_ascii_lowercase(), values);
            }
        }
    }
}

/// A header value with encoded words and folding undone.
fn decoded_value(raw: &str) -> String {
    let header = format!("Subject: {}\r\n\r\n", cap(raw, 4 * VALUE).trim_end());
    MessageParser::new()
        .header_text(HeaderName::Subject)
        .parse_headers(header.as_bytes())
        .and_then(|message| message.subject().map(str::to_owned))
        .unwrap_or_default()
}

fn text_of(value: &HeaderValue<'_>) -> Option<String> {
    match value {
        HeaderValue::Text(text) => Some(text.to_string()),
        HeaderValue::TextList(list) => list.first().map(ToString::to_string),
        HeaderValue::Address(addresses) => {
            addresses.first().and_then(|addr| addr.address.as_ref()).map(ToString::to_string)
        }
        _ => None,
    }
}

fn id_list(value: &HeaderValue<'_>) -> Vec<String> {
    let ids: Vec<&str> = match value {
        HeaderValue::Text(text) => vec![text.as_ref()],
        HeaderValue::TextList(list) => list.iter().map(AsRef::as_ref).collect(),
        _ => Vec::new(),
    };
    let bare = |id: &&str| harmless(cap(id.trim_matches(['<', '>', ' ']), ID)).into_owned();
    ids.iter().take(MOST_IDS).map(bare).filter(|id| !id.is_empty()).collect()
}

fn capped_chars(text: &str, most: usize) -> (&str, bool) {
    match text.char_indices().nth(most) {
        Some((end, _)) => (cap(text, end), false),
        None => (text, true),
    }
}

/// The domain in lower case, the local part as it is.
fn address(addr: &Addr<'_>) -> Option<Address> {
    let raw = addr.address.as_deref()?.trim();
    if raw.is_empty() {
        return None;
    }
    let address = match raw.rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.to_lowercase()),
        None => raw.to_owned(),
    };
    let name = addr.name.as_deref().map(|name| harmless(cap(name.trim(), NAME)).into_owned());
    Some(Address {
        name: name.filter(|name| !name.is_empty()),
        address: harmless(cap(&address, ADDRESS)).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn summary(header: &[u8]) -> MessageSummary {
        summarize(&FetchItems { header: Some(header.to_vec()), ..FetchItems::default() }, &Wanted::default())
    }

    #[test]
    fn an_ordinary_header_is_decoded() {
        let told = summary(
            b"From: =?UTF-8?Q?Alice_=C3=84rmel?= <Alice@Example.ORG>\r\nTo: Bob <bob@example.com>, team: carol@example.com, dave@example.net;\r\n\
              Subject: =?UTF-8?B?UXVhcnRhbHNiZXJpY2h0?=\r\n =?UTF-8?Q?_=E2=80=93_=C3=9Cbersicht?=\r\nMessage-ID: <81ce15$8@example.org>\r\n\
              In-Reply-To: <a1@example.org>\r\nReferences: <a0@example.org> <a1@example.org>\r\nList-Id: Reports <reports.example.org>\r\n\
              Date: Sun, 22 Nov 2026 21:24:58 +0000\r\n\r\n",
        );
        assert_eq!(told.subject.as_deref(), Some("Quartalsbericht – Übersicht"));
        let from = Address { name: Some("Alice Ärmel".to_owned()), address: "Alice@example.org".to_owned() };
        assert_eq!(told.from, [from]);
        assert_eq!(
            told.to.iter().map(|a| a.address.as_str()).collect::<Vec<_>>(),
            ["bob@example.com", "carol@example.com", "dave@example.net"]
        );
        assert_eq!((told.recipient_count, told.references_count), (3, Some(2)));
        assert_eq!(told.message_id.as_deref(), Some("81ce15$8@example.org"));
        assert_eq!(told.in_reply_to, ["a1@example.org"]);
        assert_eq!(told.list_id.as_deref(), Some("reports.example.org"));
        assert_eq!(told.sent_at, "2026-11-22T21:24:58Z".parse().ok());
        assert!(told.decode_errors.is_empty() && told.truncated.is_empty(), "{told:?}");
    }

    #[test]
    fn hostile_headers_are_told_harmless() {
        let told = summary(b"Subject: a\x1b[2Jb\0c \x9b\r\n {\"fake\":1}\r\nSubject: two\r\nDate: never\r\nMessage-ID: <>\r\n\r\n");
        let subject = told.subject.unwrap();
        assert!(!subject.chars().any(char::is_control), "{subject:?}");
        assert_eq!(told.message_id, None);
        assert_eq!(told.decode_errors, ["email.subject", "email.origination_timestamp"]);
    }

    #[test]
    fn long_lists_and_subjects_are_cut_and_counted() {
        let to = (0..300).map(|n| format!("user{n}@example.com")).collect::<Vec<_>>().join(",\r\n ");
        let told = summary(format!("To: {to}\r\nSubject: {}\r\n\r\n", "ü".repeat(3000)).as_bytes());
        assert_eq!((told.to.len(), told.recipient_count), (20, 300));
        assert_eq!(told.subject.map(|subject| subject.chars().count()), Some(1000));
        assert_eq!(told.truncated, ["email.subject", "email.to.address"]);
    }

    #[test]
    fn internal_dates_are_read_or_left_out() {
        let at = |text: &str| internal_date(text).map(|at| at.to_string());
        assert_eq!(at("17-Jul-1996 02:44:25 -0700").as_deref(), Some("1996-07-17T09:44:25Z"));
        assert_eq!(at(" 1-Jan-2026 10:00:00 +0130").as_deref(), Some("2026-01-01T08:30:00Z"));
        for bad in
            ["", "x", "01-Jan-0000 00:00:00 +0000", "01-Jan-9999 00:00:00 +0000", "99-Foo-2020 1:2:3 +0000"]
        {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_could_not_be_read_is_named() {
        let items = FetchItems {
            unreadable: vec!["BODYSTRUCTURE", "RFC822.SIZE"],
            internal_date: Some("nonsense".to_owned()),
            ..FetchItems::default()
        };
        let told = summarize(&items, &Wanted::default());
        assert_eq!(
            told.decode_errors,
            ["email.delivery_timestamp", "email.attachments", "idlewatch.message.size"]
        );
    }

    #[test]
    fn further_headers_are_told() {
        let wanted = Wanted { headers: vec!["x-spam".to_owned()], ..Wanted::default() };
        let header = b"X-Spam: =?utf-8?q?n=C3=B6?=\r\nX-Spam: two\r\n\r\n".to_vec();
        let told = summarize(&FetchItems { header: Some(header), ..FetchItems::default() }, &wanted);
        assert_eq!(told.headers.get("x-spam"), Some(&vec!["nö".to_owned(), "two".to_owned()]));
    }

    proptest! {
        #[test]
        fn no_header_panics_and_all_is_harmless(bytes in any::<Vec<u8>>(), text in "(From|To|Subject|Date|Message-ID): [ -~\\x00-\\x1fü<>@;:,=?]{0,80}\r\n\r\n") {
            for header in [bytes, text.into_bytes()] {
                let told = summary(&header);
                let shown = format!("{}{:?}", told.subject.as_deref().unwrap_or_default(), told.from.first().map(|a| a.address.clone()));
                prop_assert!(!shown.chars().any(char::is_control));
            }
        }
    }
}
