//! What every message goes through, each as a closure that does it once.

use std::sync::Arc;

use idlewatch::event::{
    AccountIdentity, Cursor, Event, EventBody, MailboxKey, MailboxName, NewMessage, Source,
};
use idlewatch::imap::reply::{FetchItems, Reply};
use idlewatch::imap::summary::{Wanted, summarize};
use idlewatch::journal::sqlite::SqliteJournal;
use idlewatch::journal::{Entry, Journal};
use idlewatch::messages::{Batch, Checkpoint, Replaces};
use idlewatch::sink::encode::{Encoder, EncoderSettings, Format};
use idlewatch::wire::frame::{Frame, Framer, Limits};
use idlewatch::wire::guard;

/// A name, and what is measured under it.
pub(crate) type Path = (&'static str, Box<dyn FnMut()>);

const HEADER: &str = "From: =?utf-8?q?J=C3=BCrgen?= Example <juergen@Example.ORG>\r\nTo: Bob <bob@example.com>, \
    \"Smith, Ann\" <ann@example.com>\r\nCc: team@example.com\r\nSubject: =?utf-8?b?UmVjaG51bmcgZsO8ciBOb3ZlbWJlcg==?=\r\n\
    Date: Mon, 24 Nov 2025 09:30:00 +0100\r\nMessage-ID: <1234.5678@example.org>\r\nIn-Reply-To: <1@example.com>\r\n\
    References: <0@example.com> <1@example.com>\r\n\r\n";

const STRUCTURE: &str = "((\"TEXT\" \"PLAIN\" (\"CHARSET\" \"utf-8\") NIL NIL \"QUOTED-PRINTABLE\" 1830 41 NIL NIL NIL NIL)\
    (\"APPLICATION\" \"PDF\" (\"NAME\" \"report.pdf\") NIL NIL \"BASE64\" 45210 NIL (\"ATTACHMENT\" (\"FILENAME\" \
    \"report.pdf\")) NIL NIL) \"MIXED\" (\"BOUNDARY\" \"=-b7Q1\") NIL NIL NIL)";

fn response() -> Vec<u8> {
    format!(
        "* 7 FETCH (UID 7 FLAGS (\\Seen) INTERNALDATE \"24-Nov-2025 09:30:01 +0100\" RFC822.SIZE 48213 BODYSTRUCTURE {STRUCTURE} \
         BODY[HEADER.FIELDS (FROM TO)] {{{}}}\r\n{HEADER})\r\n",
        HEADER.len()
    )
    .into_bytes()
}

fn frame(bytes: &[u8]) -> Frame {
    let (_, frame) = Framer::default().feed(bytes, &Limits::LOGGED_IN).expect("within the limits");
    frame.expect("a whole response")
}

fn items() -> FetchItems {
    match guard::read(&frame(&response())) {
        Reply::Fetch(items) => *items,
        other => panic!("no FETCH: {other:?}"),
    }
}

fn event(uid: u32) -> Event {
    let identity = AccountIdentity {
        id: "work".into(),
        user: "bob@example.com".to_owned(),
        host: "imap.example.com".into(),
        port: 993,
        labels: Arc::default(),
    };
    let message = NewMessage {
        mailbox: MailboxName::inbox(),
        role: None,
        messages: Some(7),
        uid_validity: 1,
        uid,
        source: Source::Idle,
        epoch_changed: false,
        summary: summarize(&items(), &Wanted::default()),
    };
    Event {
        at: "2025-11-24T08:30:02Z".parse().expect("a time"),
        id: format!("id-{uid}.new"),
        account: Some(Arc::new(identity)),
        body: EventBody::MessageNew(Box::new(message)),
        filtered: None,
        redacted: Vec::new(),
    }
}

fn encode() -> impl FnMut() {
    let settings = EncoderSettings { instance: Arc::from("bench"), max_bytes: 8_000, format: Format::Ecs };
    let (encoder, event, mut line) = (Encoder::new(settings), event(7), Vec::new());
    move || {
        line.clear();
        encoder.line(1, &event, &mut line);
        std::hint::black_box(&line);
    }
}

/// One message of one mailbox, in a journal that is in memory: without the disk.
fn commit() -> impl FnMut() {
    let mut journal = SqliteJournal::in_memory().expect("memory");
    let (mut uid, event, mut replaces) = (1, event(7), Replaces::Nothing);
    move || {
        uid += 1;
        let key = MailboxKey { account: "work".into(), mailbox: MailboxName::inbox() };
        let cursor = Cursor::baseline(1, uid, None);
        let next = Replaces::Cursor(Box::new(cursor.clone()));
        let replaces = std::mem::replace(&mut replaces, next);
        let checkpoint = Some(Checkpoint { key, cursor, replaces });
        let entry = Entry::new(Batch { events: vec![event.clone()], checkpoint, notes: Vec::new() });
        assert!(journal.commit(&[entry], &[]).is_ok_and(|stored| stored.iter().all(Result::is_ok)));
        if uid % 1_000 == 0 {
            journal.forget(u64::from(uid)).expect("it is there");
        }
    }
}

/// All of them.
pub(crate) fn paths() -> Vec<Path> {
    let (bytes, cut, fetched) = (response(), frame(&response()), items());
    let wanted = Wanted::default();
    vec![
        ("frame", Box::new(move || drop(std::hint::black_box(frame(&bytes))))),
        ("guard_and_parse", Box::new(move || drop(std::hint::black_box(guard::read(&cut))))),
        ("header", Box::new(move || drop(std::hint::black_box(summarize(&fetched, &wanted))))),
        ("event", Box::new(encode())),
        ("journal", Box::new(commit())),
    ]
}
