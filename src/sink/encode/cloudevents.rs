//! CloudEvents 1.0, structured JSON: an envelope whose data is the ECS object.

use std::fmt::Write;

use super::{EncoderSettings, ecs};
use crate::event::{Event, EventBody, MailboxName};
use crate::text::{cap, json_string};

/// No mailbox's name takes more of the envelope.
const MOST_NAME: usize = 256;

/// Between the attributes and the data.
const DATA: &[u8] = b",\"data\":";

pub(super) fn line(settings: &EncoderSettings, sequence: u64, event: &Event, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.push(b'{');
    for (at, (name, value)) in attributes(settings, sequence, event).into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json_string(name, out);
        out.push(b':');
        json_string(&value, out);
    }
    out.extend_from_slice(DATA);
    let room = settings.max_bytes.saturating_sub(out.len() - start + 1);
    let within = EncoderSettings { max_bytes: room, ..settings.clone() };
    let shortened = ecs::line(&within, sequence, event, out);
    out.push(b'}');
    shortened
}

/// Of a line, its attributes as one object, and its data.
pub(in crate::sink) fn parts(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    // Within a value its quotes would be escaped.
    let at = line.windows(DATA.len()).position(|part| part == DATA)?;
    let (attributes, data) = line.split_at_checked(at)?;
    let data = data.get(DATA.len()..)?.strip_suffix(b"}")?;
    Some(([attributes, b"}"].concat(), data))
}

/// Names as CloudEvents and its extensions (`partitionkey`, `sequence`) have them.
fn attributes(settings: &EncoderSettings, sequence: u64, event: &Event) -> Vec<(&'static str, String)> {
    let instance = segment(&settings.instance);
    let account = event.account.as_ref().map(|account| account.id.as_str());
    let source = match account {
        Some(account) => format!("/idlewatch/{instance}/accounts/{}", segment(account)),
        None => format!("/idlewatch/{instance}"),
    };
    let mut attributes = vec![
        ("specversion", "1.0".to_owned()),
        ("id", event.id.clone()),
        ("source", source),
        ("type", format!("io.idlewatch.{}.v1", event.body.action())),
        ("time", event.at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()),
        ("datacontenttype", "application/json".to_owned()),
        ("sequence", sequence.to_string()),
    ];
    attributes.extend(subject(&event.body).map(|subject| ("subject", subject)));
    attributes.extend(account.map(|account| ("partitionkey", account.to_owned())));
    attributes
}

/// As an IMAP URL names it (RFC 5092).
fn subject(body: &EventBody) -> Option<String> {
    #[allow(clippy::wildcard_enum_match_arm, reason = "what has no mailbox")]
    match body {
        EventBody::MessageNew(message) => {
            Some(of_message(&message.mailbox, message.uid_validity, message.uid))
        }
        EventBody::MessageFlags(change) => Some(of_message(&change.mailbox, change.uid_validity, change.uid)),
        EventBody::MessageExpunged(gone) => Some(of_message(&gone.mailbox, gone.uid_validity, gone.uid)),
        EventBody::MailboxReset(reset) => {
            Some(format!("{};UIDVALIDITY={}", cap(reset.mailbox.as_str(), MOST_NAME), reset.uid_validity))
        }
        EventBody::MailboxGap(gap) => {
            Some(format!("{};UIDVALIDITY={}", cap(gap.mailbox.as_str(), MOST_NAME), gap.uid_validity))
        }
        _ => None,
    }
}

fn of_message(mailbox: &MailboxName, uid_validity: u32, uid: u32) -> String {
    format!("{};UIDVALIDITY={uid_validity}/;UID={uid}", cap(mailbox.as_str(), MOST_NAME))
}

/// One segment of a URI's path (RFC 3986).
fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' | b'+' => {
                segment.push(char::from(byte));
            }
            byte => {
                let _ = write!(segment, "%{byte:02X}");
            }
        }
    }
    segment
}
