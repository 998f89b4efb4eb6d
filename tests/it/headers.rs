//! Malformed and hostile mail headers: what an event tells of them.

use idlewatch::event::MessageSummary;
use idlewatch::imap::reply::{AttachmentPart, FetchItems, Structure};
use idlewatch::imap::summary::{Wanted, summarize};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

proptest! {
    #[test]
    fn whatever_a_sender_writes_is_told_harmless_and_capped(
        lines in vec((prop::sample::select(NAMES.to_vec()), vec(any::<u8>(), 0..600)), 0..12),
        rest in vec(any::<u8>(), 0..200),
    ) {
        let mut header = Vec::new();
        for (name, value) in &lines {
            header.extend_from_slice(name.as_bytes());
            header.extend_from_slice(b": ");
            header.extend_from_slice(value);
            header.extend_from_slice(b"\r\n");
        }
        header.extend_from_slice(&rest);
        let told = serde_json::to_value(told(&header)).unwrap();
        assert_harmless(&told);
    }

    #[test]
    fn whatever_looks_like_a_header_is_told_harmless_and_capped(
        name in prop::sample::select(NAMES.to_vec()),
        value in "([ -~]|=\\?|\\?=|utf-8|\\?[qQbB]\\?|[<>@(),;:\"\\\\]|[\\x00-\\x1f]|\r\n |ü|\u{202e}){0,400}",
    ) {
        assert_harmless(&serde_json::to_value(told(format!("{name}: {value}").as_bytes())).unwrap());
    }
}

const NAMES: [&str; 13] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "List-Id",
    "X-Other",
];

fn assert_harmless(told: &Value) {
    match told {
        Value::String(text) => {
            assert!(!text.chars().any(char::is_control), "{text:?}");
            assert!(!text.is_empty() && text.chars().count() <= 1000, "{text:?}");
        }
        Value::Array(values) => {
            assert!(values.len() <= 20);
            values.iter().for_each(assert_harmless);
        }
        Value::Object(entries) => entries.values().for_each(assert_harmless),
        _ => {}
    }
}

fn told(header: &[u8]) -> MessageSummary {
    summarize(&FetchItems { header: Some(header.to_vec()), ..FetchItems::default() }, &Wanted::default())
}

/// Header bytes, the subject that is told, and the fields named in `decode_errors`.
pub type Case = (&'static [u8], Option<&'static str>, &'static [&'static str]);

pub const SUBJECTS: &[Case] = &[
    (b"Subject: plain\r\n\r\n", Some("plain"), &[]),
    (b"Subject:\r\n\r\n", None, &[]),
    (b"Subject: \t \r\n\r\n", None, &[]),
    (b"Subject: only LF\nFrom: a@b.example\n\n", Some("only LF"), &[]),
    // No header end, no line end: cut by the server or by the partial FETCH.
    (b"Subject: no end of the header\r\n", Some("no end of the header"), &[]),
    (b"Subject: no end of the line", Some("no end of the line"), &[]),
    // Folding, and text that imitates it.
    (b"Subject: a\r\n b\r\n\tc\r\n\r\n", Some("a b c"), &[]),
    (b"Subject: a\r\n {\"fake\":\"event\"}\r\n\r\n", Some("a {\"fake\":\"event\"}"), &[]),
    (b"Subject: a\rb\r\n\r\n", Some("a b"), &[]),
    // Controls.
    (b"Subject: a\x1b[2Jb\r\n\r\n", Some("a\u{fffd}[2Jb"), &[]),
    (b"Subject: a\x1b]52;c;x\x07b\x7f\r\n\r\n", Some("a\u{fffd}]52;c;x\u{fffd}b\u{fffd}"), &[]),
    (b"Subject: a\0b\r\n\r\n", Some("a\u{fffd}b"), &[]),
    (b"Subject: a\xc2\x9b2Jb\r\n\r\n", Some("a\u{fffd}2Jb"), &[]),
    (b"Subject: =?utf-8?q?a=00=1b=0d=0ab?=\r\n\r\n", Some("a\u{fffd}\u{fffd}  b"), &[]),
    // Bidirectional controls stay in values.
    (b"Subject: x\xe2\x80\xaefdp.exe\r\n\r\n", Some("x\u{202e}fdp.exe"), &[]),
    // Raw 8-bit: UTF-8, else windows-1252.
    (b"Subject: \xc3\x9cbersicht\r\n\r\n", Some("Übersicht"), &[]),
    (b"Subject: \xdcbersicht \x80 5\r\n\r\n", Some("Übersicht € 5"), &[]),
    (b"Subject: \xdcbersicht \x81\r\n\r\n", Some("Übersicht \u{fffd}"), &["email.subject"]),
    (b"From: J\xf6rg <j@x.example>\r\nSubject: \xc3\xb6\r\n\r\n", Some("ö"), &[]),
    // RFC 2047, right and wrong.
    (b"Subject: =?utf-8?q?=C3=B6?= =?utf-8?b?w7w=?=\r\n\r\n", Some("öü"), &[]),
    (b"Subject: =?iso-8859-1?q?=F6?=\r\n\r\n", Some("ö"), &[]),
    (b"Subject: =?iso-2022-jp?B?GyRCRnxLXBsoQg==?=\r\n\r\n", Some("日本"), &[]),
    (b"Subject: =?UTF-8?Q?_=E2=80?=\r\n\r\n", Some("\u{fffd}"), &["email.subject"]),
    (b"Subject: =?x-nobody-knows?q?a=F6?=\r\n\r\n", Some("a\u{fffd}"), &["email.subject"]),
    (b"Subject: =?utf-8?q?unterminated\r\n\r\n", Some("=?utf-8?q?unterminated"), &["email.subject"]),
    (b"Subject: =?utf-8?b?####?=\r\n\r\n", Some("=?utf-8?b?####?="), &["email.subject"]),
    (b"Subject: =?utf-8?z?abc?=\r\n\r\n", Some("=?utf-8?z?abc?="), &["email.subject"]),
    (b"Subject: 1 =? 2\r\n\r\n", Some("1 =? 2"), &[]),
    // Several of what may stand once: the first.
    (b"Subject: one\r\nSubject: two\r\n\r\n", Some("one"), &["email.subject"]),
    // Not a header at all.
    (b"", None, &[]),
    (b"\r\n", None, &[]),
    (b"\0\0\0\0\0\0\0\0", None, &["message"]),
    (b"\xff\xfeS\0u\0b\0j\0e\0c\0t\0:\0 \0a\0\r\0\n\0", None, &["message"]),
    (b"this is no header\r\n\r\n", None, &["message"]),
    (b"a5 OK done\r\nSubject: still told\r\n\r\n", Some("still told"), &[]),
    (b")\r\na5 OK FETCH completed\r\n\r\n", None, &["message"]),
];

#[test]
fn every_subject_is_told_as_far_as_it_can_be_read() {
    let mut wrong = Vec::new();
    for (header, subject, errors) in SUBJECTS {
        let told = told(header);
        if told.subject.as_deref() != *subject || told.decode_errors != *errors {
            let header = String::from_utf8_lossy(header);
            wrong.push(format!("{header:?}: {:?} {:?}", told.subject, told.decode_errors));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn of_every_repeated_header_the_first_is_told() {
    let twice = |name: &str, a: &str, b: &str| told(format!("{name}: {a}\r\n{name}: {b}\r\n\r\n").as_bytes());
    let from = twice("From", "a@one.example", "b@two.example");
    assert_eq!((from.from[0].address.as_str(), from.from.len()), ("a@one.example", 1));
    assert_eq!(from.decode_errors, ["email.from.address"]);
    let date = twice("Date", "Sun, 22 Nov 2026 21:24:58 +0000", "Mon, 23 Nov 2026 21:24:58 +0000");
    assert_eq!(date.sent_at, "2026-11-22T21:24:58Z".parse().ok());
    assert_eq!(date.decode_errors, ["email.origination_timestamp"]);
    let id = twice("Message-ID", "<one@x>", "<two@x>");
    assert_eq!(id.message_id.as_deref(), Some("one@x"));
    assert_eq!(id.decode_errors, ["email.message_id"]);
    let reply = twice("In-Reply-To", "<one@x>", "<two@x>");
    assert_eq!((reply.in_reply_to[0].as_str(), reply.in_reply_to.len()), ("one@x", 1));
    assert_eq!(reply.decode_errors, ["idlewatch.message.in_reply_to"]);
    let references = twice("References", "<one@x> <two@x>", "<three@x>");
    assert_eq!(references.references_count, Some(2));
    assert_eq!(references.decode_errors, ["idlewatch.message.references_count"]);
    let list = twice("List-Id", "<one.example>", "<two.example>");
    assert_eq!(list.list_id.as_deref(), Some("one.example"));
    assert_eq!(list.decode_errors, ["idlewatch.message.list_id"]);
}

#[test]
fn absurd_dates_are_left_out_and_named() {
    for date in [
        "never",
        "Sun, 99 Foo 2026 99:99:99",
        "1 Jan 0000 00:00:00 +0000",
        "1 Jan 9999 00:00:00 +0000",
        "1 Jan 1969 00:00:00 +0000",
        "",
    ] {
        let told = told(format!("Date: {date}\r\n\r\n").as_bytes());
        assert_eq!(told.sent_at, None, "{date}");
        assert_eq!(told.decode_errors, ["email.origination_timestamp"], "{date}");
    }
    assert!(told(b"Date: Thu, 31 Dec 2100 23:59:59 +0000\r\n\r\n").sent_at.is_some());
}

#[test]
fn addresses_are_flattened_lowered_and_counted() {
    let told = told(b"From: \"Doe, \\\"J\\\"\" <John.Doe@EXAMPLE.Com>\r\nTo: undisclosed-recipients:;\r\nCc: a: b@X.example, c@x.example;, d@x.example;;;;\r\n\r\n");
    assert_eq!(told.from[0].address, "John.Doe@example.com");
    assert_eq!(told.from[0].name.as_deref(), Some("Doe, \"J\""));
    assert!(told.to.is_empty());
    let cc: Vec<_> = told.cc.iter().map(|address| address.address.as_str()).collect();
    assert_eq!(cc, ["b@x.example", "c@x.example", "d@x.example"]);
    assert_eq!(told.recipient_count, 3);
}

#[test]
fn every_value_is_capped_and_the_cut_is_named() {
    let long = "x".repeat(40_000);
    let cases: [(&str, String); 6] = [
        ("email.subject", format!("Subject: {long}\r\n\r\n")),
        ("email.message_id", format!("Message-ID: <{long}@x>\r\n\r\n")),
        ("email.from.address", format!("From: {long}@x.example\r\n\r\n")),
        ("idlewatch.message.from_name", format!("From: {long} <a@x.example>\r\n\r\n")),
        ("idlewatch.message.in_reply_to", format!("In-Reply-To: <{long}@x>\r\n\r\n")),
        ("idlewatch.message.list_id", format!("List-Id: <{long}>\r\n\r\n")),
    ];
    for (field, header) in cases {
        let told = told(header.as_bytes());
        assert_eq!(told.truncated, [field]);
        assert!(serde_json::to_string(&told).unwrap().len() < 1_200, "{field}");
    }
}

#[test]
fn a_header_that_the_fetch_cut_is_told_and_named() {
    let told = told(
        format!("From: a@x.example\r\nSubject: {}", "ü".repeat(40_000)).get(..65_536).unwrap().as_bytes(),
    );
    assert_eq!(
        told.subject.map(|subject| (subject.chars().count(), subject.chars().all(|c| c == 'ü'))),
        Some((1000, true))
    );
    assert_eq!(told.from.len(), 1);
    assert!(
        told.truncated.contains(&"message".to_owned()) && told.decode_errors.is_empty(),
        "{:?}",
        told.decode_errors
    );
}

#[test]
fn a_cut_between_the_bytes_of_a_character_spoils_nothing_else() {
    for shift in 0..4 {
        let header = format!("Subject: {}{}", "x".repeat(shift), "📈".repeat(20_000));
        let told = told(&header.as_bytes()[..65_536]);
        assert!(told.subject.unwrap().trim_start_matches('x').chars().all(|c| c == '📈'), "{shift}");
    }
}

#[test]
fn names_of_attachments_are_decoded() {
    let part = |name: &[u8]| AttachmentPart {
        name: Some(name.to_vec()),
        mime_type: "application/pdf".to_owned(),
        size: Some(1),
    };
    let attachments = [
        &b"Bericht.pdf"[..],
        b"=?utf-8?q?=C3=9Cbersicht.pdf?=",
        "Übersicht.pdf".as_bytes(),
        b"\xdcbersicht.pdf",
        b"a\r\nb\x1b.pdf",
    ]
    .map(part)
    .to_vec();
    let structure = Some(Structure { content_type: "multipart/mixed".to_owned(), attachments });
    let told = summarize(&FetchItems { structure, ..FetchItems::default() }, &Wanted::default());
    let names: Vec<_> = told.attachments.iter().map(|a| a.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["Bericht.pdf", "Übersicht.pdf", "Übersicht.pdf", "Übersicht.pdf", "a  b\u{fffd}.pdf"]);
}

/// What would take minutes if anything were quadratic in what a sender sends.
#[test]
fn hostile_sizes_are_bounded() {
    const MANY: usize = 10 << 20;
    let repeated = |start: &str, piece: &str| [start, &piece.repeat(MANY / piece.len())].concat();
    let headers = [
        repeated("Subject: ", "x"),
        repeated("Subject: ", "=?utf-8?q?"),
        repeated("Subject: ", "=?utf-8?b?"),
        repeated("Subject: ", "=?"),
        repeated("Subject: ", "=?utf-8?q?a?= "),
        repeated("Subject: =?utf-8?b?", "QUFB"),
        repeated("Subject: ", "a\r\n "),
        repeated("", "X: y\r\n"),
        repeated("", "Subject: y\r\n"),
        repeated("To: ", "a@x.example, "),
        repeated("To: ", ";:"),
        repeated("To: ", "("),
        repeated("To: ", "\"\\"),
        repeated("To: ", "=?utf-8?q?"),
        repeated("To: ", "<"),
        repeated("From: ", "a@"),
        repeated("References: ", "<a@x> "),
        repeated("Message-ID: ", "<"),
        repeated("Date: ", "9"),
        repeated("List-Id: ", "("),
    ];
    for header in headers {
        let told = told(header.as_bytes());
        assert!(serde_json::to_string(&told).unwrap().len() < 20_000, "{:?}", header.get(..30));
    }
}
