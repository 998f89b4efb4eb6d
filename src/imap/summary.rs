//! FETCH items -> what an event tells of a message: decoded by mail-parser, capped, made harmless.

use jiff::Timestamp;
use jiff::civil::date;
use jiff::tz::Offset;

use super::header_text::{decoded, is_undecoded};
use super::headers;
use super::reply::{AttachmentPart, FetchItems, Structure};
use crate::event::{Attachment, MessageSummary};
use crate::text::{cap, harmless};

/// What is fetched of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// BODYSTRUCTURE.
    pub attachments: bool,
    /// Further headers that are told, lower case.
    pub headers: Vec<String>,
    /// Headers that filters ask for, lower case.
    pub asked_headers: Vec<String>,
    /// The longest address list.
    pub max_addresses: usize,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { attachments: true, headers: Vec::new(), asked_headers: Vec::new(), max_addresses: 20 }
    }
}

/// The longest name of an attachment, bytes.
const NAME: usize = 256;

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
    let mut fields = own.to_vec();
    for name in wanted.headers.iter().chain(&wanted.asked_headers) {
        if !fields.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            fields.push(name);
        }
    }
    fields
}

/// A message of which nothing but its UID could be had.
pub fn unreadable_message() -> MessageSummary {
    MessageSummary { decode_errors: vec!["message".to_owned()], ..MessageSummary::default() }
}

/// As events show them.
pub(super) fn harmless_flags(flags: &[String]) -> Vec<String> {
    flags.iter().map(|flag| harmless(flag).into_owned()).collect()
}

/// What `items` tell.
pub fn summarize(items: &FetchItems, wanted: &Wanted) -> MessageSummary {
    let mut summary = MessageSummary {
        flags: items.flags.as_deref().map(harmless_flags),
        modseq: items.modseq,
        email_id: items.email_id.as_deref().map(|id| harmless(id).into_owned()),
        thread_id: items
            .thread_id
            .as_deref()
            .filter(|id| !id.eq_ignore_ascii_case("NIL"))
            .map(|id| harmless(id).into_owned()),
        size: items.size,
        ..MessageSummary::default()
    };
    match items.internal_date.as_deref().map(internal_date) {
        Some(None) => failed(&mut summary, "email.delivery_timestamp"),
        Some(at) => summary.received_at = at,
        None => {}
    }
    for field in items.unreadable.iter().flat_map(|item| unreadable_fields(item)) {
        failed(&mut summary, field);
    }
    if let Some(structure) = &items.structure {
        self::structure(structure, &mut summary);
    }
    if let Some(header) = &items.header {
        headers::tell(header, wanted, &mut summary);
    }
    summary
}

/// The event fields that an item is the source of.
fn unreadable_fields(item: &str) -> &'static [&'static str] {
    match item {
        "BODYSTRUCTURE" => &["email.attachments", "email.content_type"],
        "INTERNALDATE" => &["email.delivery_timestamp"],
        "RFC822.SIZE" => &["idlewatch.message.size"],
        "FLAGS" => &["idlewatch.imap.flags"],
        "MODSEQ" => &["idlewatch.imap.modseq"],
        _ => &["message"],
    }
}

/// Names `field` in `decode_errors`, once.
pub(super) fn failed(summary: &mut MessageSummary, field: &str) {
    if !summary.decode_errors.iter().any(|known| known == field) {
        summary.decode_errors.push(field.to_owned());
    }
}

/// Names `field` in `truncated`, once.
pub(super) fn cut(summary: &mut MessageSummary, field: &str) {
    if !summary.truncated.iter().any(|known| known == field) {
        summary.truncated.push(field.to_owned());
    }
}

fn structure(structure: &Structure, summary: &mut MessageSummary) {
    summary.content_type = Some(harmless(&structure.content_type).into_owned());
    summary.attachments = structure.attachments.iter().map(|part| attachment(part, summary)).collect();
}

/// Encoded words (RFC 2047) are not allowed in parameters, and there nevertheless.
fn attachment(part: &AttachmentPart, summary: &mut MessageSummary) -> Attachment {
    let name = part.name.as_deref().map(decoded).unwrap_or_default();
    if name.contains(char::REPLACEMENT_CHARACTER) || is_undecoded(&name) {
        failed(summary, "email.attachments");
    }
    if name.len() > NAME {
        cut(summary, "email.attachments");
    }
    let name = harmless(cap(&name, NAME)).into_owned();
    let name = Some(name).filter(|name| !name.is_empty());
    Attachment { name, mime_type: harmless(&part.mime_type).into_owned(), size: part.size }
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
pub(super) fn is_plausible(at: Timestamp) -> bool {
    let end = date(2101, 1, 1).at(0, 0, 0, 0);
    let end = Offset::UTC.to_timestamp(end).unwrap_or(Timestamp::MAX);
    at >= Timestamp::UNIX_EPOCH && at < end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Address;

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
            ["email.delivery_timestamp", "email.attachments", "email.content_type", "idlewatch.message.size"]
        );
    }

    #[test]
    fn further_headers_are_told() {
        let wanted = Wanted { headers: vec!["x-spam".to_owned()], ..Wanted::default() };
        let header = b"X-Spam: =?utf-8?q?n=C3=B6?=\r\nX-Spam: two\r\n\r\n".to_vec();
        let told = summarize(&FetchItems { header: Some(header), ..FetchItems::default() }, &wanted);
        assert_eq!(told.headers.get("x-spam"), Some(&vec!["nö".to_owned(), "two".to_owned()]));
    }

    #[test]
    fn what_only_filters_ask_for_is_known_and_not_told() {
        let asked = ["x-spam", "list-unsubscribe", "from"].map(str::to_owned);
        let wanted = Wanted { asked_headers: asked.to_vec(), ..Wanted::default() };
        assert_eq!(
            fetch_header_fields(&wanted).iter().filter(|name| name.eq_ignore_ascii_case("from")).count(),
            1
        );
        let header =
            format!("List-Unsubscribe:\r\nX-Spam: {}\r\nFrom: Al <al@x>\r\n\r\n", "y\u{fffd}".repeat(2000));
        let items = FetchItems { header: Some(header.into_bytes()), ..FetchItems::default() };
        let told = summarize(&items, &wanted);
        let asked = |name: &str| &told.asked_headers[name];
        assert_eq!(
            (asked("list-unsubscribe").values.as_slice(), asked("from").cut),
            (&[String::new()][..], false)
        );
        assert_eq!(asked("from").values, ["Al <al@x>"]);
        assert!(asked("x-spam").values[0].len() <= 1000 && asked("x-spam").cut);
        assert!(told.headers.is_empty() && told.truncated.is_empty() && told.decode_errors.is_empty());
        let alone = FetchItems { header: Some(b"X-Spam: yes\r\n\r\n".to_vec()), ..FetchItems::default() };
        assert!(summarize(&alone, &wanted).decode_errors.is_empty(), "a header that was asked for is one");
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
