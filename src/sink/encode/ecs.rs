//! The canonical line: one nested ECS object, keys in a fixed order, absent rather than null.

use std::mem::take;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

use super::{EncoderSettings, words};
use crate::event::{
    AccountState, Address, Event, EventBody, Expunged, Filtered, FlagsChange, MailboxGap, MailboxName,
    MailboxReset, NewMessage, Role, StateChange, Trouble,
};
use crate::event_id;
use crate::text::{json_string, shortened};

/// Returns whether something of the event was left out for its length.
pub(super) fn line(settings: &EncoderSettings, sequence: u64, event: &Event, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let writer = Writer { settings, sequence, event };
    writer.whole(event, &[], out);
    if out.len() - start <= settings.max_bytes {
        return matches!(&event.body, EventBody::MessageNew(message) if !message.summary.truncated.is_empty());
    }
    let mut smaller = event.clone();
    let mut cut = Vec::new();
    for shorten in SHORTENING {
        let before = cut.len();
        shorten(&mut smaller, &mut cut);
        if cut.len() > before {
            out.truncate(start);
            writer.whole(&smaller, &cut, out);
            if out.len() - start <= settings.max_bytes {
                return true;
            }
        }
    }
    out.truncate(start);
    writer.ids_only(out);
    true
}

/// What is given up, in this order; each names what it cut.
const SHORTENING: [fn(&mut Event, &mut Vec<&'static str>); 7] = [
    |event, cut| {
        with(event, cut, |m| named(!take(&mut m.summary.headers).is_empty(), "idlewatch.message.headers"))
    },
    |event, cut| with(event, cut, |m| named(truncate(&mut m.summary.attachments, 5), "email.attachments")),
    |event, cut| with(event, cut, |m| lists(m, 20)),
    |event, cut| with(event, cut, |m| lists(m, 5)),
    |event, cut| {
        with(event, cut, |m| named(truncate(&mut m.summary.in_reply_to, 0), "idlewatch.message.in_reply_to"))
    },
    |event, cut| {
        with(event, cut, |m| named(m.summary.subject.as_mut().is_some_and(shorten_subject), "email.subject"))
    },
    // The configuration's own words go last before everything goes.
    |event, cut| {
        let labels =
            event.account.as_mut().map(|account| take(&mut std::sync::Arc::make_mut(account).labels));
        cut.extend(named(labels.is_some_and(|labels| !labels.is_empty()), "labels"));
        cut.extend(named(event.filtered.take().is_some(), "idlewatch.filter"));
    },
];

fn with(
    event: &mut Event,
    cut: &mut Vec<&'static str>,
    shorten: impl FnOnce(&mut NewMessage) -> Vec<&'static str>,
) {
    if let EventBody::MessageNew(message) = &mut event.body {
        cut.extend(shorten(message));
    }
}

fn named(cut: bool, field: &'static str) -> Vec<&'static str> {
    if cut { vec![field] } else { Vec::new() }
}

fn shorten_subject(subject: &mut String) -> bool {
    let long = subject.len() > 256;
    if long {
        *subject = shortened(subject, 256);
    }
    long
}

fn truncate<T>(list: &mut Vec<T>, most: usize) -> bool {
    let longer = list.len() > most;
    list.truncate(most);
    longer
}

fn lists(message: &mut NewMessage, most: usize) -> Vec<&'static str> {
    let summary = &mut message.summary;
    let lists = [
        (&mut summary.from, "email.from.address"),
        (&mut summary.reply_to, "email.reply_to.address"),
        (&mut summary.to, "email.to.address"),
        (&mut summary.cc, "email.cc.address"),
        (&mut summary.bcc, "email.bcc.address"),
    ];
    lists.into_iter().filter_map(|(list, field)| truncate(list, most).then_some(field)).collect()
}

/// Writes one JSON object.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    fn key(&mut self, key: &str) {
        if !std::mem::replace(&mut self.empty, false) {
            self.out.push(b',');
        }
        json_string(key, self.out);
        self.out.push(b':');
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        json_string(text, self.out);
    }

    /// Absent where there is nothing to say.
    fn maybe(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.text(key, text);
        }
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        self.out.extend_from_slice(number.to_string().as_bytes());
    }

    fn maybe_number(&mut self, key: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.number(key, number);
        }
    }

    fn time(&mut self, key: &str, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.text(key, &time(at));
        }
    }

    /// The caller decides whether an empty list says something.
    fn texts<'t>(&mut self, key: &str, texts: impl IntoIterator<Item = &'t str>) {
        self.key(key);
        self.out.push(b'[');
        for (i, text) in texts.into_iter().enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            json_string(text, self.out);
        }
        self.out.push(b']');
    }

    fn some_texts(&mut self, key: &str, texts: &[String]) {
        if !texts.is_empty() {
            self.texts(key, texts.iter().map(String::as_str));
        }
    }

    /// Absent where nothing is in it.
    fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) {
        let (start, was_empty) = (self.out.len(), self.empty);
        self.key(key);
        let mut object = Object::new(self.out);
        fill(&mut object);
        let nothing = object.empty;
        object.end();
        if nothing {
            self.out.truncate(start);
            self.empty = was_empty;
        }
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

/// RFC 3339, UTC, three decimals.
pub(in crate::sink) fn time(at: Timestamp) -> String {
    const MILLISECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
    MILLISECONDS.timestamp_to_string(&at)
}

struct Writer<'a> {
    settings: &'a EncoderSettings,
    sequence: u64,
    event: &'a Event,
}

impl Writer<'_> {
    fn whole(&self, event: &Event, cut: &[&'static str], out: &mut Vec<u8>) {
        let level = words::level(event);
        let mut line = Object::new(out);
        line.text("@timestamp", &time(event.at));
        line.text("level", level);
        line.text("message", &words::message(event));
        line.object("ecs", |ecs| ecs.text("version", "8.17.0"));
        line.object("event", |o| self.event(event, o));
        line.object("service", |service| service.text("name", "idlewatch"));
        line.object("idlewatch", |o| self.idlewatch(event, cut, o));
        if let Some(account) = &event.account {
            line.object("user", |user| user.maybe("name", Some(&account.user)));
            line.object("server", |server| {
                server.text("address", &account.host);
                server.number("port", u64::from(account.port));
            });
        }
        match &event.body {
            EventBody::MessageNew(message) => line.object("email", |email| self.email(event, message, email)),
            EventBody::MessageFlags(change) => {
                let FlagsChange { mailbox, uid_validity, uid, .. } = &**change;
                line.object("email", |email| local_id(event, mailbox, *uid_validity, *uid, email));
            }
            EventBody::MessageExpunged(Expunged { mailbox, uid_validity, uid, .. }) => {
                line.object("email", |email| local_id(event, mailbox, *uid_validity, *uid, email));
            }
            EventBody::AccountState(change) => {
                if let Some(trouble) = &change.trouble {
                    line.object("error", |error| self::error(trouble, error));
                }
            }
            _ => {}
        }
        if let Some(account) = event.account.as_ref().filter(|account| !account.labels.is_empty()) {
            line.object("labels", |labels| {
                for (key, value) in account.labels.iter() {
                    labels.text(key, value);
                }
            });
        }
        line.object("log", |log| log.text("level", level));
        line.end();
    }

    /// The last resort: who, where, which.
    fn ids_only(&self, out: &mut Vec<u8>) {
        let mut event = self.event.clone();
        if let EventBody::MessageNew(message) = &mut event.body {
            message.summary = crate::event::MessageSummary {
                size: message.summary.size,
                received_at: message.summary.received_at,
                ..Default::default()
            };
            message.mailbox = shortened(message.mailbox.as_str(), 256).as_str().into();
        }
        event.filtered = None;
        if let Some(account) = event.account.as_mut() {
            let account = std::sync::Arc::make_mut(account);
            account.labels = Default::default();
            account.user = shortened(&account.user, 64);
            account.host = shortened(&account.host, 128).into();
        }
        self.whole(&event, &["message"], out);
    }

    fn event(&self, event: &Event, o: &mut Object<'_>) {
        o.text("kind", "event");
        let (categories, dataset): (&[&str], _) = match &event.body {
            EventBody::MessageNew(_) | EventBody::MessageFlags(_) | EventBody::MessageExpunged(_) => {
                (&["email"], "idlewatch.message")
            }
            EventBody::AccountState(change) if is_auth(change) => {
                (&["email", "authentication"], "idlewatch.account")
            }
            EventBody::AccountState(_) => (&["email"], "idlewatch.account"),
            EventBody::MailboxReset(_) | EventBody::MailboxGap(_) => (&["email"], "idlewatch.mailbox"),
            EventBody::MonitorState(_) => (&["email"], "idlewatch.monitor"),
        };
        o.texts("category", categories.iter().copied());
        o.texts("type", ["info"]);
        o.text("action", event.body.action().as_str());
        o.text("id", &event.id);
        o.text("module", "idlewatch");
        o.text("dataset", dataset);
        o.number("sequence", self.sequence);
        if let EventBody::AccountState(change) = &event.body
            && change.trouble.is_some()
        {
            o.text("outcome", "failure");
        }
    }

    fn idlewatch(&self, event: &Event, cut: &[&'static str], o: &mut Object<'_>) {
        o.text("schema", "1.0");
        o.text("instance", &self.settings.instance);
        if let Some(account) = &event.account {
            o.object("account", |o| {
                o.text("id", account.id.as_str());
                if let EventBody::AccountState(change) = &event.body {
                    state(change, o);
                }
            });
        }
        match &event.body {
            EventBody::MessageNew(message) => self::message(message, cut, o),
            EventBody::MessageFlags(change) => flags(change, cut, o),
            EventBody::MessageExpunged(gone) => expunged(gone, cut, o),
            EventBody::AccountState(change) => {
                if let Some(name) = &change.mailbox {
                    o.object("mailbox", |o| o.text("name", name.as_str()));
                }
            }
            EventBody::MailboxReset(reset) => self::reset(reset, o),
            EventBody::MailboxGap(gap) => self::gap(gap, o),
            EventBody::MonitorState(state) => o.object("monitor", |o| o.text("state", state.as_str())),
        }
        o.some_texts("redacted", &event.redacted);
        // What is offered again by hand has a route, and no filter gave it.
        if let Some(filtered) = event.filtered.as_ref().filter(|filtered| !filtered.by.is_empty()) {
            o.object("filter", |o| self::filter(filtered, o));
        }
    }

    fn email(&self, event: &Event, message: &NewMessage, o: &mut Object<'_>) {
        let summary = &message.summary;
        local_id(event, &message.mailbox, message.uid_validity, message.uid, o);
        o.maybe("message_id", summary.message_id.as_deref());
        o.maybe("subject", summary.subject.as_deref());
        addresses("from", &summary.from, o);
        if let Some(sender) = &summary.sender {
            o.object("sender", |o| o.text("address", &sender.address));
        }
        addresses("reply_to", &summary.reply_to, o);
        addresses("to", &summary.to, o);
        addresses("cc", &summary.cc, o);
        addresses("bcc", &summary.bcc, o);
        o.maybe("content_type", summary.content_type.as_deref());
        o.time("origination_timestamp", summary.sent_at);
        o.time("delivery_timestamp", summary.received_at);
        o.text("direction", if message.role == Some(Role::Sent) { "outbound" } else { "inbound" });
        if summary.attachments.is_empty() {
            return;
        }
        o.key("attachments");
        o.out.push(b'[');
        for (i, attachment) in summary.attachments.iter().enumerate() {
            if i > 0 {
                o.out.push(b',');
            }
            let mut entry = Object::new(o.out);
            entry.object("file", |file| {
                let name = attachment.name.as_deref();
                file.maybe("name", name);
                let extension = name.and_then(|name| name.rsplit_once('.')).map(|(_, extension)| extension);
                file.maybe(
                    "extension",
                    extension.filter(|e| e.len() <= 16).map(str::to_lowercase).as_deref(),
                );
                file.maybe("mime_type", Some(&attachment.mime_type));
                file.maybe_number("size", attachment.size);
            });
            entry.end();
        }
        o.out.push(b']');
    }
}

/// By which the events of one message are known.
fn local_id(event: &Event, mailbox: &MailboxName, uid_validity: u32, uid: u32, o: &mut Object<'_>) {
    if let Some(account) = &event.account {
        o.text("local_id", &event_id::local_id(&account.id, mailbox, uid_validity, uid));
    }
}

fn is_auth(change: &StateChange) -> bool {
    change.state == AccountState::AuthFailed
}

fn addresses(key: &str, list: &[Address], o: &mut Object<'_>) {
    if !list.is_empty() {
        o.object(key, |o| o.texts("address", list.iter().map(|address| address.address.as_str())));
    }
}

fn error(trouble: &Trouble, o: &mut Object<'_>) {
    o.text("type", trouble.error_type.as_str());
    o.maybe("code", trouble.code.as_deref());
    o.maybe("message", Some(&trouble.message));
}

fn state(change: &StateChange, o: &mut Object<'_>) {
    o.text("state", change.state.as_str());
    o.text("previous_state", change.previous.as_str());
    o.maybe_number("attempt", Some(u64::from(change.attempt)).filter(|&n| n > 0));
    o.maybe_number("retry_in_ms", change.retry_in_ms);
    o.time("last_proven_alive", change.last_proven_alive);
}

fn filter(filtered: &Filtered, o: &mut Object<'_>) {
    o.some_texts("names", &filtered.by);
    o.some_texts("outputs", &filtered.outputs);
    if filtered.dropped {
        o.key("dropped");
        o.out.extend_from_slice(b"true");
    }
}

fn mailbox(name: &str, role: Option<Role>, messages: Option<u32>, o: &mut Object<'_>) {
    o.object("mailbox", |o| {
        o.text("name", name);
        o.maybe("role", role.map(Role::as_str));
        o.maybe_number("messages", messages.map(u64::from));
    });
}

fn message(message: &NewMessage, cut: &[&'static str], o: &mut Object<'_>) {
    let summary = &message.summary;
    mailbox(message.mailbox.as_str(), message.role, message.messages, o);
    o.object("imap", |o| {
        o.number("uid_validity", u64::from(message.uid_validity));
        o.number("uid", u64::from(message.uid));
        if let Some(flags) = &summary.flags {
            o.texts("flags", flags.iter().map(String::as_str));
        }
        o.maybe("modseq", summary.modseq.map(|modseq| modseq.to_string()).as_deref());
        o.maybe("email_id", summary.email_id.as_deref());
        o.maybe("thread_id", summary.thread_id.as_deref());
    });
    o.text("source", message.source.as_str());
    if message.epoch_changed {
        o.key("epoch_changed");
        o.out.extend_from_slice(b"true");
    }
    o.maybe_number("recipient_count", Some(u64::from(summary.recipient_count)).filter(|&n| n > 0));
    let mut truncated: Vec<&str> = summary.truncated.iter().map(String::as_str).collect();
    for field in cut {
        if !truncated.contains(field) {
            truncated.push(field);
        }
    }
    if !truncated.is_empty() {
        o.texts("truncated", truncated);
    }
    o.some_texts("decode_errors", &summary.decode_errors);
    o.object("message", |o| {
        o.maybe_number("size", summary.size);
        o.some_texts("in_reply_to", &summary.in_reply_to);
        o.maybe_number("references_count", summary.references_count.map(u64::from));
        let names: Vec<_> = summary.from.iter().filter_map(|from| from.name.clone()).collect();
        o.some_texts("from_name", &names);
        o.maybe("list_id", summary.list_id.as_deref());
        if !summary.headers.is_empty() {
            o.object("headers", |o| {
                for (name, values) in &summary.headers {
                    o.some_texts(name, values);
                }
            });
        }
    });
    o.maybe("from", summary.from.first().map(|from| from.address.as_str()));
}

fn flags(change: &FlagsChange, cut: &[&'static str], o: &mut Object<'_>) {
    mailbox(change.mailbox.as_str(), change.role, None, o);
    o.object("imap", |o| {
        o.number("uid_validity", u64::from(change.uid_validity));
        o.number("uid", u64::from(change.uid));
        o.texts("flags", change.flags.iter().map(String::as_str));
        o.text("modseq", &change.modseq.to_string());
    });
    o.text("source", change.source.as_str());
    truncated(cut, o);
}

fn expunged(gone: &Expunged, cut: &[&'static str], o: &mut Object<'_>) {
    mailbox(gone.mailbox.as_str(), gone.role, None, o);
    o.object("imap", |o| {
        o.number("uid_validity", u64::from(gone.uid_validity));
        o.number("uid", u64::from(gone.uid));
    });
    o.text("source", gone.source.as_str());
    truncated(cut, o);
}

fn truncated(cut: &[&'static str], o: &mut Object<'_>) {
    if !cut.is_empty() {
        o.texts("truncated", cut.iter().copied());
    }
}

fn reset(reset: &MailboxReset, o: &mut Object<'_>) {
    mailbox(reset.mailbox.as_str(), reset.role, None, o);
    o.object("imap", |o| {
        o.number("uid_validity", u64::from(reset.uid_validity));
        o.number("uid_validity_previous", u64::from(reset.uid_validity_previous));
        o.number("uid_next", u64::from(reset.uid_next));
    });
}

fn gap(gap: &MailboxGap, o: &mut Object<'_>) {
    mailbox(gap.mailbox.as_str(), gap.role, None, o);
    o.object("imap", |o| o.number("uid_validity", u64::from(gap.uid_validity)));
    o.object("gap", |o| {
        o.time("since", gap.since);
        o.time("until", gap.until);
        o.maybe_number("uid_first", gap.uid_first.map(u64::from));
        o.maybe_number("uid_last", gap.uid_last.map(u64::from));
        o.maybe_number("recovered", gap.recovered);
        o.maybe_number("lost", gap.lost);
        o.text("reason", gap.reason.as_str());
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::Format;
    use super::*;
    use crate::event::{AccountIdentity, Attachment, ErrorType, MessageSummary, Source};

    fn settings() -> EncoderSettings {
        EncoderSettings { instance: "mon-1".into(), max_bytes: 8000, format: Format::Ecs }
    }

    fn identity() -> Arc<AccountIdentity> {
        Arc::new(AccountIdentity {
            id: "work".into(),
            user: "bob@example.com".to_owned(),
            host: "imap.example.com".into(),
            port: 993,
            labels: Default::default(),
        })
    }

    fn encoded(sequence: u64, event: &Event) -> String {
        let mut out = Vec::new();
        line(&settings(), sequence, event, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn new_message(summary: MessageSummary) -> Event {
        let message = NewMessage {
            mailbox: "INBOX".into(),
            role: Some(Role::Inbox),
            messages: Some(1873),
            uid_validity: 1_700_000_001,
            uid: 4242,
            source: Source::Idle,
            epoch_changed: false,
            summary,
        };
        Event {
            at: "2026-11-22T21:25:03.412Z".parse().unwrap(),
            id: "ge7pxnd5fixdtlfn5xhh6uvixu.new".to_owned(),
            account: Some(identity()),
            body: EventBody::MessageNew(Box::new(message)),
            filtered: None,
            redacted: Vec::new(),
        }
    }

    #[test]
    fn a_state_is_written_to_the_letter() {
        let trouble = Trouble {
            error_type: ErrorType::Auth,
            code: Some("AUTHENTICATIONFAILED".to_owned()),
            message: "Invalid credentials (Failure)".to_owned(),
        };
        let change = StateChange {
            state: AccountState::AuthFailed,
            previous: AccountState::Online,
            attempt: 1,
            retry_in_ms: Some(300_000),
            last_proven_alive: None,
            mailbox: None,
            trouble: Some(trouble),
        };
        let event = Event {
            at: "2026-11-22T21:25:06.100Z".parse().unwrap(),
            id: "0192f3c1-5b7e-7d2a-9c7e-3f1d2a4b5c6d".to_owned(),
            account: Some(identity()),
            body: EventBody::AccountState(Box::new(change)),
            filtered: None,
            redacted: Vec::new(),
        };
        assert_eq!(
            encoded(1044, &event),
            r#"{"@timestamp":"2026-11-22T21:25:06.100Z","level":"error","message":"account work: online -> auth_failed (AUTHENTICATIONFAILED Invalid credentials (Failure)), next attempt in 300 s","ecs":{"version":"8.17.0"},"event":{"kind":"event","category":["email","authentication"],"type":["info"],"action":"account.state","id":"0192f3c1-5b7e-7d2a-9c7e-3f1d2a4b5c6d","module":"idlewatch","dataset":"idlewatch.account","sequence":1044,"outcome":"failure"},"service":{"name":"idlewatch"},"idlewatch":{"schema":"1.0","instance":"mon-1","account":{"id":"work","state":"auth_failed","previous_state":"online","attempt":1,"retry_in_ms":300000}},"user":{"name":"bob@example.com"},"server":{"address":"imap.example.com","port":993},"error":{"type":"auth","code":"AUTHENTICATIONFAILED","message":"Invalid credentials (Failure)"},"log":{"level":"error"}}"#
        );
    }

    #[test]
    fn a_bare_message_says_only_what_is_known() {
        let line = encoded(7, &new_message(MessageSummary::default()));
        assert!(line.contains("from (unknown sender): (no subject)"));
        for absent in ["null", "\"\"", "[]", "{}", "\"subject\"", "\"flags\"", "\"truncated\""] {
            assert!(!line.contains(absent), "{absent}: {line}");
        }
        let flags = MessageSummary { flags: Some(Vec::new()), ..Default::default() };
        assert!(encoded(7, &new_message(flags)).contains("\"flags\":[]"), "no flags is information");
    }

    #[test]
    fn what_filters_say_is_told() {
        let by = vec!["vip".to_owned(), "to-hook".to_owned()];
        let filtered = Filtered { by, outputs: vec!["hook".to_owned()], dropped: false };
        let event = Event { filtered: Some(Box::new(filtered)), ..new_message(MessageSummary::default()) };
        let filter = r#""filter":{"names":["vip","to-hook"],"outputs":["hook"]}"#;
        assert!(encoded(1, &event).contains(filter), "{}", encoded(1, &event));
    }

    #[test]
    fn what_is_cut_to_fit_is_named() {
        let list =
            |n: usize| vec![Address { name: None, address: format!("{}@example.org", "x".repeat(300)) }; n];
        let summary = MessageSummary { cc: list(20), bcc: list(20), ..Default::default() };
        let value: serde_json::Value = serde_json::from_str(&encoded(1, &new_message(summary))).unwrap();
        assert_eq!(
            value["idlewatch"]["truncated"],
            serde_json::json!(["email.cc.address", "email.bcc.address"])
        );
    }

    proptest! {
        /// Whatever is in it: one line, JSON, at most so long.
        #[test]
        fn a_line_is_never_too_long_nor_broken(
            subject in "\\PC{0,1000}", words in prop::collection::vec("\\PC{0,320}", 0..40), labels in 0usize..60,
        ) {
            let list: Vec<_> = words.iter().map(|word| Address { name: Some(word.clone()), address: format!("{word}@x") }).collect();
            let attachment = |word: &String| Attachment { name: Some(word.clone()), mime_type: "a/b".to_owned(), size: Some(1) };
            let summary = MessageSummary {
                subject: Some(subject),
                from: list.clone(), to: list.clone(), cc: list.clone(), bcc: list,
                in_reply_to: words.clone(),
                attachments: words.iter().map(attachment).collect(),
                headers: [("x".to_owned(), words.clone())].into(),
                ..MessageSummary::default()
            };
            let mut event = new_message(summary);
            if let Some(account) = &mut event.account {
                Arc::make_mut(account).labels = std::sync::Arc::new((0..labels).map(|n| (format!("label{n}"), "v".repeat(200))).collect());
            }
            event.filtered = Some(Box::new(Filtered { by: words.clone(), outputs: words, dropped: false }));
            let line = encoded(1, &event);
            prop_assert!(line.len() <= 8000 && !line.contains('\n'), "{}", line.len());
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(&value["idlewatch"]["imap"]["uid"], 4242);
        }
    }
}
