//! Entries of the journal in its native protocol (systemd, "Native Journal Protocol"). Pure.

use serde_json::{Map, Value};

use crate::event::Action;
use crate::sink::batch::Item;
use crate::sink::encode;

/// The longest name of a field.
const NAME: usize = 64;

/// Said by other fields, or the same in every event.
const LEFT_OUT: [&str; 6] = ["message", "level", "log_level", "ecs_version", "event_kind", "service_name"];

/// An event, made of its flat line.
pub(super) fn entry(item: &Item, line: &[u8], identifier: &str) -> Vec<u8> {
    let fields: Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
    let mut entry = Vec::with_capacity(2 * line.len());
    let message = fields.get("message").and_then(Value::as_str).unwrap_or(&item.event.id);
    field("MESSAGE", message, &mut entry);
    field("MESSAGE_ID", message_id(item.event.body.action()), &mut entry);
    field("PRIORITY", &encode::severity(&item.event).to_string(), &mut entry);
    field("SYSLOG_IDENTIFIER", identifier, &mut entry);
    for (key, value) in fields.iter().filter(|(key, _)| !LEFT_OUT.contains(&key.as_str())) {
        match value {
            Value::String(text) => field(&name(key), text, &mut entry),
            plain => field(&name(key), &plain.to_string(), &mut entry),
        }
    }
    entry
}

/// `IDLEWATCH_ACCOUNT_ID` of `idlewatch_account_id`, `IDLEWATCH_EVENT_ACTION` of `event_action`.
fn name(key: &str) -> String {
    let key = key.strip_prefix("idlewatch_").unwrap_or(key.trim_start_matches('@'));
    let letters = key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    "IDLEWATCH_".chars().chain(letters).take(NAME).collect()
}

fn field(name: &str, value: &str, entry: &mut Vec<u8>) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// Never to be changed: people look for them.
const fn message_id(action: Action) -> &'static str {
    match action {
        Action::MessageNew => "14f6a72d48ce4539b4c9fe8a987a2287",
        Action::MessageFlags => "2f246dc09e494ae3a9263b3768ca1c94",
        Action::MessageExpunged => "290f88f259bc482ca5d05c17ad85f6fa",
        Action::AccountState => "f84477507b5a4c3f8c09f7e535ccbf72",
        Action::MailboxReset => "064fc01f3c2647389c6208d68c3c7a4a",
        Action::MailboxGap => "a6829ac6c2604a9eabfccdf24c7af09f",
        Action::MonitorState => "6719a2e8dfdd4b3ca6d198cb7b5526d0",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sink::batch::tests::batch;

    #[test]
    fn an_entry_has_the_fields_that_journald_knows_and_ours() {
        let batch = batch(7..8);
        let line = br#"{"@timestamp":"t","message":"monitor started","level":"info","event_sequence":7,"labels_a-\u00e4":"x","idlewatch_account_id":"work"}"#;
        let entry = entry(&batch.items()[0], line, "mail");
        let wanted = "MESSAGE=monitor started\nMESSAGE_ID=6719a2e8dfdd4b3ca6d198cb7b5526d0\nPRIORITY=6\nSYSLOG_IDENTIFIER=mail\n";
        let entry = String::from_utf8(entry).unwrap();
        let ours: BTreeSet<_> = entry.strip_prefix(wanted).unwrap().lines().collect();
        let wanted = [
            "IDLEWATCH_TIMESTAMP=t",
            "IDLEWATCH_EVENT_SEQUENCE=7",
            "IDLEWATCH_LABELS_A__=x",
            "IDLEWATCH_ACCOUNT_ID=work",
        ];
        assert_eq!(ours, wanted.into());
    }

    #[test]
    fn a_name_is_one_that_journald_takes() {
        for (key, wanted) in [
            ("@timestamp", "IDLEWATCH_TIMESTAMP"),
            ("idlewatch_imap_uid", "IDLEWATCH_IMAP_UID"),
            ("email_from_address", "IDLEWATCH_EMAIL_FROM_ADDRESS"),
            ("labels_=\n", "IDLEWATCH_LABELS___"),
        ] {
            assert_eq!(name(key), wanted);
        }
        assert_eq!(name(&"x".repeat(1000)).len(), 64);
    }

    #[test]
    fn a_line_break_stays_within_its_value() {
        let mut entry = Vec::new();
        field("MESSAGE", "a\nPRIORITY=0", &mut entry);
        assert_eq!(entry, b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n");
    }

    #[test]
    fn each_action_has_an_id_of_its_own() {
        let ids: BTreeSet<_> = Action::ALL.map(message_id).into();
        assert_eq!(ids.len(), Action::ALL.len());
        let hex = |id: &&str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(ids.iter().all(hex));
    }
}
