//! Events in the form that an output asks for: exactly one line each.

pub(in crate::sink) mod cloudevents;
mod ecs;
mod flat;
mod pretty;
mod words;

use std::io::IsTerminal;
use std::sync::Arc;

pub(super) use self::ecs::time;
pub(super) use self::words::level;
use super::SinkOptions;
use super::output::journald;
use super::output::syslog::message::most_header_bytes;
use crate::config::settings::{OutputFormat, OutputKind, OutputSettings};
use crate::event::Event;
use crate::terminal::has_colors;

/// How lines look.
#[derive(Clone, Debug)]
pub struct EncoderSettings {
    /// `idlewatch.instance`
    pub instance: Arc<str>,
    /// The longest line, its end not counted.
    pub max_bytes: usize,
    /// The form.
    pub format: Format,
}

/// The forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One nested ECS object.
    Ecs,
    /// The same, flat.
    Flat,
    /// CloudEvents 1.0, with that as data.
    CloudEvents,
    /// One line for people.
    Pretty {
        /// With colours.
        color: bool,
    },
}

impl EncoderSettings {
    /// For one output.
    pub fn new(options: &SinkOptions, output: &OutputSettings) -> Self {
        let terminal = output.kind == OutputKind::Stdout && std::io::stdout().is_terminal();
        let pretty = Format::Pretty { color: output.kind == OutputKind::Stdout && has_colors(terminal) };
        let format = match output.format {
            OutputFormat::Auto if terminal => pretty,
            OutputFormat::Auto | OutputFormat::Ecs => Format::Ecs,
            OutputFormat::Flat => Format::Flat,
            OutputFormat::CloudEvents => Format::CloudEvents,
            OutputFormat::Pretty => pretty,
        };
        let most = output.max_bytes.unwrap_or(usize::MAX).min(most_bytes(&output.kind, &options.instance));
        let max_bytes = options.events.max_bytes.min(most);
        Self { instance: options.instance.clone(), max_bytes, format }
    }
}

/// The longest line that an output has room for.
fn most_bytes(kind: &OutputKind, instance: &str) -> usize {
    match kind {
        OutputKind::Syslog(syslog) => {
            syslog.max_bytes.saturating_sub(most_header_bytes(instance, &syslog.app_name))
        }
        OutputKind::Journald(_) => journald::MOST_BYTES,
        _ => usize::MAX,
    }
}

/// How serious an event is, as syslog counts (RFC 5424 section 6.2.1).
pub(super) fn severity(event: &Event) -> u8 {
    match words::level(event) {
        "error" => 3,
        "warn" => 4,
        _ => 6,
    }
}

/// Writes events as lines.
#[derive(Clone, Debug)]
pub struct Encoder {
    settings: EncoderSettings,
}

impl Encoder {
    /// With these settings.
    pub fn new(settings: EncoderSettings) -> Self {
        Self { settings }
    }

    /// Appends exactly one line, its end included. Returns whether the event was shortened for it.
    pub fn line(&self, sequence: u64, event: &Event, out: &mut Vec<u8>) -> bool {
        let shortened = match self.settings.format {
            Format::Ecs => ecs::line(&self.settings, sequence, event, out),
            Format::Flat => flat::line(&self.settings, sequence, event, out),
            Format::CloudEvents => cloudevents::line(&self.settings, sequence, event, out),
            Format::Pretty { color } => {
                pretty::line(event, color, out);
                false
            }
        };
        out.push(b'\n');
        shortened
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::tests::journalled;
    use super::*;
    use crate::event::{
        AccountIdentity, Address, EventBody, MailboxName, MessageSummary, NewMessage, Source,
    };

    fn line(format: Format, max_bytes: usize, event: &Event) -> String {
        let mut out = Vec::new();
        Encoder::new(EncoderSettings { instance: "mon 1".into(), max_bytes, format })
            .line(7, event, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn message(subject: &str) -> Event {
        let body = EventBody::MessageNew(Box::new(NewMessage {
            mailbox: MailboxName::inbox(),
            role: None,
            messages: None,
            uid_validity: 1_700_000_001,
            uid: 4_242,
            source: Source::Idle,
            epoch_changed: false,
            summary: MessageSummary {
                subject: Some(subject.to_owned()),
                to: vec![Address { name: None, address: format!("{subject}@example.org") }; 20],
                ..MessageSummary::default()
            },
        }));
        let account = AccountIdentity {
            id: "work".into(),
            user: "bob".to_owned(),
            host: "imap.example.com".into(),
            port: 993,
            labels: Arc::default(),
        };
        Event { body, account: Some(Arc::new(account)), ..(*journalled(1).event).clone() }
    }

    #[test]
    fn every_form_is_one_line_of_json_that_is_never_too_long() {
        for format in [Format::Ecs, Format::Flat, Format::CloudEvents] {
            for length in [1, 100, 300, 1000] {
                for max_bytes in [2000, 4000, 8000] {
                    let event = message(&"\u{202e}\"x".repeat(length));
                    let line = line(format, max_bytes, &event);
                    let text = line.strip_suffix('\n').unwrap();
                    assert!(
                        text.len() <= max_bytes && !text.contains(['\n', '\u{202e}']),
                        "{format:?} {length} {max_bytes}: {}",
                        text.len()
                    );
                    serde_json::from_str::<serde_json::Value>(text).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_cloud_event_is_what_the_specification_asks_for() {
        let event: serde_json::Value =
            serde_json::from_str(&line(Format::CloudEvents, 8000, &message("hi"))).unwrap();
        for (name, value) in [
            ("specversion", "1.0"),
            ("source", "/idlewatch/mon%201/accounts/work"),
            ("type", "io.idlewatch.message.new.v1"),
            ("subject", "INBOX;UIDVALIDITY=1700000001/;UID=4242"),
            ("partitionkey", "work"),
            ("sequence", "7"),
            ("id", "id-1"),
            ("time", "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(event[name], value, "{name}");
        }
        assert_eq!(event["data"]["event"]["id"], event["id"]);
        let names = event.as_object().unwrap().keys();
        assert!(names.into_iter().all(
            |name| name.len() <= 20 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        ));
        let flat: serde_json::Value =
            serde_json::from_str(&line(Format::Flat, 8000, &message("hi"))).unwrap();
        assert_eq!(
            (&flat["event_action"], &flat["idlewatch_imap_uid"]),
            (&"message.new".into(), &4242.into())
        );
        assert!(flat.as_object().unwrap().values().all(|value| !value.is_object() && !value.is_array()));
    }
}
