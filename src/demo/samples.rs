//! One event of each kind, with made-up content: to write pipelines without mail.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::event::{
    AccountIdentity, AccountState, Address, Attachment, ErrorType, Event, EventBody, Expunged, FlagsChange,
    GapReason, MailboxGap, MailboxName, MailboxReset, MessageSummary, MonitorState, NewMessage, Role, Source,
    StateChange, Trouble,
};
use crate::event_id;

const UID_VALIDITY: u32 = 1_700_000_001;

/// They happened at `at`.
pub fn samples(at: Timestamp) -> Vec<Event> {
    let account = Arc::new(AccountIdentity {
        id: "work".into(),
        user: "bob@example.com".to_owned(),
        host: "imap.example.com".into(),
        port: 993,
        labels: Arc::new([("team".to_owned(), "support".to_owned())].into()),
    });
    let inbox = MailboxName::inbox();
    let message = message(at);
    let of_message = event_id::message_new(&account.id, &inbox, UID_VALIDITY, message.uid);
    let flags = flags();
    let of_flags = event_id::message_flags(&account.id, &inbox, UID_VALIDITY, flags.uid, flags.modseq);
    let of_expunge = event_id::message_expunged(&account.id, &inbox, UID_VALIDITY, flags.uid);
    let gap = gap(at);
    let bodies = [
        (event_id::fresh(), EventBody::MonitorState(MonitorState::Started)),
        (of_message, EventBody::MessageNew(Box::new(message))),
        (of_flags, EventBody::MessageFlags(Box::new(flags))),
        (of_expunge, EventBody::MessageExpunged(expunged())),
        (event_id::fresh(), EventBody::AccountState(Box::new(refused(at)))),
        (event_id::reset(&account.id, &inbox, UID_VALIDITY + 1), EventBody::MailboxReset(reset())),
        (event_id::fresh(), EventBody::MailboxGap(gap)),
    ];
    let event = |(id, body): (String, EventBody)| {
        let of_account = !matches!(body, EventBody::MonitorState(_));
        Event {
            at,
            id,
            account: of_account.then(|| account.clone()),
            body,
            filtered: None,
            redacted: Vec::new(),
        }
    };
    bodies.into_iter().map(event).collect()
}

fn ago(at: Timestamp, seconds: i64) -> Option<Timestamp> {
    at.checked_sub(SignedDuration::from_secs(seconds)).ok()
}

fn address(name: &str, address: &str) -> Address {
    Address { name: Some(name.to_owned()), address: address.to_owned() }
}

fn message(at: Timestamp) -> NewMessage {
    NewMessage {
        mailbox: MailboxName::inbox(),
        role: Some(Role::Inbox),
        messages: Some(1_874),
        uid_validity: UID_VALIDITY,
        uid: 4_242,
        source: Source::Idle,
        epoch_changed: false,
        summary: MessageSummary {
            flags: Some(Vec::new()),
            size: Some(48_213),
            received_at: ago(at, 1),
            sent_at: ago(at, 4),
            message_id: Some("20261125.4242@example.org".to_owned()),
            subject: Some("Ré: facture n° 17".to_owned()),
            from: vec![address("Zoë Example", "zoe@example.org")],
            to: vec![address("Bob", "bob@example.com")],
            recipient_count: 1,
            content_type: Some("multipart/mixed".to_owned()),
            attachments: vec![Attachment {
                name: Some("facture.pdf".to_owned()),
                mime_type: "application/pdf".to_owned(),
                size: Some(41_002),
            }],
            ..MessageSummary::default()
        },
    }
}

fn refused(at: Timestamp) -> StateChange {
    StateChange {
        state: AccountState::AuthFailed,
        previous: AccountState::Online,
        attempt: 1,
        retry_in_ms: Some(300_000),
        last_proven_alive: ago(at, 30),
        mailbox: None,
        trouble: Some(Trouble {
            error_type: ErrorType::Auth,
            code: Some("AUTHENTICATIONFAILED".to_owned()),
            message: "Invalid credentials".to_owned(),
        }),
    }
}

fn flags() -> FlagsChange {
    FlagsChange {
        mailbox: MailboxName::inbox(),
        role: Some(Role::Inbox),
        uid_validity: UID_VALIDITY,
        uid: 4_242,
        flags: vec!["\\Seen".to_owned()],
        modseq: 715_194_045_011,
        source: Source::Idle,
    }
}

fn expunged() -> Expunged {
    Expunged {
        mailbox: MailboxName::inbox(),
        role: Some(Role::Inbox),
        uid_validity: UID_VALIDITY,
        uid: 4_242,
        source: Source::Idle,
    }
}

fn reset() -> MailboxReset {
    MailboxReset {
        mailbox: MailboxName::inbox(),
        role: Some(Role::Inbox),
        uid_validity: UID_VALIDITY + 1,
        uid_validity_previous: UID_VALIDITY,
        uid_next: 1_875,
    }
}

fn gap(at: Timestamp) -> MailboxGap {
    MailboxGap {
        mailbox: MailboxName::inbox(),
        role: Some(Role::Inbox),
        uid_validity: UID_VALIDITY,
        since: ago(at, 3_600),
        until: Some(at),
        uid_first: None,
        uid_last: None,
        recovered: Some(3),
        lost: Some(0),
        reason: GapReason::Offline,
    }
}
