//! Syslog messages (RFC 5424), and how they lie in a stream (RFC 6587 section 3.4.1, RFC 5425 section 4.3). Pure.

use crate::sink::batch::Item;
use crate::sink::encode;

/// HOSTNAME (RFC 5424 section 6.2.4).
const HOSTNAME: usize = 255;

/// What is the same in the header of every message.
#[derive(Debug)]
pub(super) struct Header {
    facility: u8,
    /// HOSTNAME, APP-NAME and PROCID.
    sender: String,
}

impl Header {
    pub(super) fn new(facility: u8, instance: &str, app_name: &str, process: u32) -> Self {
        Self { facility, sender: format!("{} {app_name} {process}", hostname(instance)) }
    }

    /// Appends one message. No byte order mark stands before the text, since JSON has none (RFC 8259 section 8.1).
    pub(super) fn message(&self, item: &Item, text: &[u8], out: &mut Vec<u8>) {
        let Self { facility, sender } = self;
        let priority = facility * 8 + encode::severity(&item.event);
        let (at, action) = (encode::time(item.event.at), item.event.body.action());
        out.extend_from_slice(format!("<{priority}>1 {at} {sender} {action} - ").as_bytes());
        out.extend_from_slice(text);
    }

    /// Appends one message with its length before it.
    pub(super) fn frame(&self, item: &Item, text: &[u8], out: &mut Vec<u8>) {
        let mut message = Vec::with_capacity(text.len() + 128);
        self.message(item, text, &mut message);
        out.extend_from_slice(format!("{} ", message.len()).as_bytes());
        out.extend_from_slice(&message);
    }
}

/// The most bytes that a header has.
pub(in crate::sink) fn most_header_bytes(instance: &str, app_name: &str) -> usize {
    let fixed = "<191>1 2026-11-25T16:00:00.000Z   4294967295 mailbox.expunged - ".len();
    fixed + hostname(instance).len() + app_name.len()
}

/// PRINTUSASCII.
fn hostname(instance: &str) -> String {
    let printable = instance.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' });
    let name: String = printable.take(HOSTNAME).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventBody, GapReason, MailboxGap, MailboxName, MailboxReset, MonitorState};
    use crate::sink::batch::tests::{batch, journalled};

    #[test]
    fn a_message_is_what_rfc_5424_asks_for() {
        let batch = batch(7..8);
        let header = Header::new(3, "mon 1", "idlewatch", 4711);
        let mut framed = Vec::new();
        for (item, line) in batch.lines() {
            header.frame(item, line, &mut framed);
        }
        let framed = String::from_utf8(framed).unwrap();
        let (length, message) = framed.split_once(' ').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), message.len());
        let (header, body) = message.split_once(" - ").unwrap();
        assert_eq!(header, "<30>1 1970-01-01T00:00:00.000Z mon_1 idlewatch 4711 monitor.state");
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["event"]["sequence"], 7);
    }

    #[test]
    fn no_header_is_longer_than_it_is_said_to_be() {
        for instance in ["", "m", "Mön\n1", &"x".repeat(1000)] {
            let batch = batch(1..2);
            let mut message = Vec::new();
            Header::new(23, instance, "idlewatch", u32::MAX).message(&batch.items()[0], b"", &mut message);
            let most = most_header_bytes(instance, "idlewatch");
            assert!((message.len()..message.len() + 8).contains(&most), "{most} {}", message.len());
            let fields = String::from_utf8(message).unwrap();
            assert_eq!(fields.split(' ').count(), 8, "{fields}");
        }
    }

    #[test]
    fn what_went_wrong_is_a_warning_or_an_error() {
        let event = |body| Event { body, ..(*journalled(1).event).clone() };
        let reset = MailboxReset {
            mailbox: MailboxName::inbox(),
            role: None,
            uid_validity: 2,
            uid_validity_previous: 1,
            uid_next: 1,
        };
        let gap = MailboxGap {
            mailbox: MailboxName::inbox(),
            role: None,
            uid_validity: 1,
            uid_first: None,
            uid_last: None,
            since: None,
            until: None,
            recovered: None,
            lost: Some(0),
            reason: GapReason::Offline,
        };
        for (body, severity) in [
            (EventBody::MonitorState(MonitorState::Started), 6),
            (EventBody::MailboxReset(reset), 4),
            (EventBody::MailboxGap(gap.clone()), 6),
            (EventBody::MailboxGap(MailboxGap { lost: None, ..gap }), 4),
        ] {
            assert_eq!(encode::severity(&event(body.clone())), severity, "{body:?}");
        }
    }
}
