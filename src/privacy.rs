//! What an output may not know is taken out of an event before it is encoded. Pure.

use std::sync::{Arc, LazyLock};

use regex::{Captures, Regex};
use ring::hmac;

use crate::event::{Address, Event, EventBody, NewMessage};

/// What becomes of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// Told as it is.
    #[default]
    Include,
    /// Its domain alone.
    Domain,
    /// A pseudonym that is the same for the same value, and that nobody without the key can try values on.
    Hash,
    /// Not told.
    Omit,
}

/// The rules of one output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The subject.
    pub subject: Rule,
    /// All addresses, with the names beside them, and the login name.
    pub addresses: Rule,
    /// Message-ID and In-Reply-To.
    pub message_id: Rule,
    /// The names of attachments.
    pub attachment_names: Rule,
}

impl Rules {
    /// Whether any of them changes anything.
    pub fn is_strict(self) -> bool {
        self != Self::default()
    }

    /// Whether a key is needed.
    pub fn hashes(self) -> bool {
        [self.subject, self.addresses, self.message_id, self.attachment_names].contains(&Rule::Hash)
    }
}

/// Rules, with their key.
#[derive(Clone, Debug)]
pub struct Privacy {
    rules: Rules,
    key: hmac::Key,
}

/// An address within other text.
static ADDRESS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"[^\s<>()\[\],;:"'=@]+@[\pL\pN.-]+"#).ok());

impl Privacy {
    /// With this key; an empty one will do where nothing is hashed.
    pub fn new(rules: Rules, key: &[u8]) -> Self {
        Self { rules, key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// The event as it may be told. What was taken out before is not told again, and not hashed twice.
    pub fn apply(&self, event: Arc<Event>) -> Arc<Event> {
        if !self.rules.is_strict() {
            return event;
        }
        let mut event = Arc::unwrap_or_clone(event);
        let before = std::mem::take(&mut event.redacted);
        let mut redaction = Redaction { privacy: self, changed: before };
        redaction.event(&mut event);
        event.redacted = redaction.changed;
        Arc::new(event)
    }

    /// `h.` and ten hexadecimal digits.
    fn pseudonym(&self, value: &str) -> String {
        let tag = hmac::sign(&self.key, value.to_lowercase().as_bytes());
        format!("h.{}", data_encoding::HEXLOWER.encode(tag.as_ref().get(..5).unwrap_or_default()))
    }

    /// An address, a Message-ID: what may be told of it.
    fn address(&self, rule: Rule, value: &str) -> Option<String> {
        let domain = value.rsplit_once('@').map(|(_, domain)| domain).filter(|domain| !domain.is_empty());
        match rule {
            Rule::Include => Some(value.to_owned()),
            Rule::Domain => domain.map(str::to_owned),
            Rule::Hash => Some(match domain {
                Some(domain) => format!("{}@{domain}", self.pseudonym(value)),
                None => self.pseudonym(value),
            }),
            Rule::Omit => None,
        }
    }

    /// Text that may hold addresses.
    fn text(&self, text: &str) -> String {
        let Some(pattern) = ADDRESS.as_ref() else { return String::new() };
        let told = |found: &Captures<'_>| {
            let address = found.get(0).map_or("", |found| found.as_str());
            self.address(self.rules.addresses, address).unwrap_or_else(|| "(withheld)".to_owned())
        };
        pattern.replace_all(text, told).into_owned()
    }
}

/// For diagnostics, which know no key: no local part stays.
pub fn without_local_parts(text: &str) -> String {
    match ADDRESS.as_ref() {
        Some(pattern) => pattern.replace_all(text, "(address withheld)").into_owned(),
        None => String::new(),
    }
}

/// One event on its way.
struct Redaction<'a> {
    privacy: &'a Privacy,
    /// The fields that were changed.
    changed: Vec<String>,
}

impl Redaction<'_> {
    fn event(&mut self, event: &mut Event) {
        self.user(event);
        if let EventBody::MessageNew(message) = &mut event.body {
            self.message(message);
        }
        if let EventBody::AccountState(change) = &mut event.body
            && let Some(trouble) = &mut change.trouble
            && self.rule(self.privacy.rules.addresses, "error.message").is_some()
        {
            let told = self.privacy.text(&trouble.message);
            self.replace("error.message", &mut trouble.message, told);
        }
    }

    /// The rule, unless the field was hashed or cut already: then it can only be left out.
    fn rule(&self, rule: Rule, field: &str) -> Option<Rule> {
        let is_done = self.changed.iter().any(|known| known == field);
        (rule != Rule::Include && (rule == Rule::Omit || !is_done)).then_some(rule)
    }

    fn note(&mut self, field: &str) {
        if !self.changed.iter().any(|known| known == field) {
            self.changed.push(field.to_owned());
        }
    }

    fn replace<T: PartialEq>(&mut self, field: &str, value: &mut T, told: T) {
        if *value != told {
            *value = told;
            self.note(field);
        }
    }

    fn user(&mut self, event: &mut Event) {
        let Some(rule) = self.rule(self.privacy.rules.addresses, "user.name") else { return };
        if let Some(account) = &mut event.account {
            let account = Arc::make_mut(account);
            let told = self.privacy.address(rule, &account.user).unwrap_or_default();
            self.replace("user.name", &mut account.user, told);
        }
    }

    fn message(&mut self, message: &mut NewMessage) {
        let rules = self.privacy.rules;
        let summary = &mut message.summary;
        self.option(rules.subject, "email.subject", &mut summary.subject, Privacy::pseudonym);
        let lists = [
            (&mut summary.from, "email.from.address"),
            (&mut summary.reply_to, "email.reply_to.address"),
            (&mut summary.to, "email.to.address"),
            (&mut summary.cc, "email.cc.address"),
            (&mut summary.bcc, "email.bcc.address"),
        ];
        for (list, field) in lists {
            self.addresses(field, list);
        }
        if let Some(sender) = summary.sender.take() {
            let mut list = vec![sender];
            self.addresses("email.sender.address", &mut list);
            summary.sender = list.pop();
        }
        self.headers(message);
        let summary = &mut message.summary;
        let id = |privacy: &Privacy, value: &str| privacy.address(Rule::Hash, value).unwrap_or_default();
        if rules.message_id == Rule::Domain {
            self.domains("email.message_id", &mut summary.message_id);
        } else {
            self.option(rules.message_id, "email.message_id", &mut summary.message_id, id);
        }
        if let Some(rule) = self.rule(rules.message_id, "idlewatch.message.in_reply_to") {
            let told = summary.in_reply_to.iter().filter_map(|id| self.privacy.address(rule, id)).collect();
            self.replace("idlewatch.message.in_reply_to", &mut summary.in_reply_to, told);
        }
        self.attachments(message);
    }

    fn attachments(&mut self, message: &mut NewMessage) {
        const FIELD: &str = "email.attachments.file.name";
        let Some(rule) = self.rule(self.privacy.rules.attachment_names, FIELD) else { return };
        for attachment in &mut message.summary.attachments {
            let Some(name) = attachment.name.take() else { continue };
            attachment.name = (rule == Rule::Hash).then(|| file_name(self.privacy, &name));
            self.note(FIELD);
        }
    }

    fn option(
        &mut self,
        rule: Rule,
        field: &str,
        value: &mut Option<String>,
        hash: fn(&Privacy, &str) -> String,
    ) {
        let Some(rule) = self.rule(rule, field) else { return };
        let told = match (&*value, rule) {
            (Some(text), Rule::Hash) => Some(hash(self.privacy, text)),
            _ => None,
        };
        self.replace(field, value, told);
    }

    fn domains(&mut self, field: &str, value: &mut Option<String>) {
        if let Some(rule) = self.rule(Rule::Domain, field) {
            let told = value.as_deref().and_then(|value| self.privacy.address(rule, value));
            self.replace(field, value, told);
        }
    }

    /// The names beside addresses name people too.
    fn addresses(&mut self, field: &str, list: &mut Vec<Address>) {
        let Some(rule) = self.rule(self.privacy.rules.addresses, field) else { return };
        if list.iter().any(|address| address.name.is_some()) && field == "email.from.address" {
            self.note("idlewatch.message.from_name");
        }
        let address = |known: &Address| {
            Some(Address { name: None, address: self.privacy.address(rule, &known.address)? })
        };
        let told = list.iter().filter_map(address).collect();
        self.replace(field, list, told);
    }

    /// By what their names say is in them; any other may hold addresses.
    fn headers(&mut self, message: &mut NewMessage) {
        const FIELD: &str = "idlewatch.message.headers";
        let rules = self.privacy.rules;
        if self.changed.iter().any(|known| known == FIELD) {
            return;
        }
        let mut told = message.summary.headers.clone();
        for (name, values) in &mut told {
            match name.as_str() {
                "subject" | "thread-topic" | "comments" | "keywords" if rules.subject != Rule::Include => {
                    values.clear()
                }
                "message-id" | "references" | "in-reply-to" | "resent-message-id" => {
                    values.retain(|_| rules.message_id == Rule::Include);
                }
                _ if rules.addresses != Rule::Include => {
                    values.iter_mut().for_each(|value| *value = self.privacy.text(value));
                }
                _ => {}
            }
        }
        told.retain(|_, values| !values.is_empty());
        self.replace(FIELD, &mut message.summary.headers, told);
    }
}

/// The extension says what it is, and not whose.
fn file_name(privacy: &Privacy, name: &str) -> String {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension).filter(|e| e.len() <= 16);
    match extension {
        Some(extension) => format!("{}.{extension}", privacy.pseudonym(name)),
        None => privacy.pseudonym(name),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;
    use crate::event::{AccountIdentity, Attachment, MailboxName, MessageSummary, Source};

    const CANARY: &str = "canary";

    fn address(text: &str) -> Address {
        Address { name: Some("Canary Bird".to_owned()), address: text.to_owned() }
    }

    /// Every value that a rule is about has the canary in it, but for domains.
    fn event() -> Arc<Event> {
        let people = || vec![address("canary.one@example.org"), address("canary.two@example.net")];
        let summary = MessageSummary {
            subject: Some("The canary resets your password".to_owned()),
            from: people(),
            sender: Some(address("canary@example.org")),
            reply_to: people(),
            to: people(),
            cc: people(),
            bcc: people(),
            recipient_count: 6,
            message_id: Some("canary.1@mail.example.org".to_owned()),
            in_reply_to: vec!["canary.0@mail.example.org".to_owned()],
            headers: BTreeMap::from([
                ("delivered-to".to_owned(), vec!["<canary@example.org>".to_owned()]),
                ("references".to_owned(), vec!["<canary.0@mail.example.org>".to_owned()]),
                ("thread-topic".to_owned(), vec!["canary".to_owned()]),
                ("x-mailer".to_owned(), vec!["Mutt".to_owned()]),
            ]),
            attachments: vec![
                Attachment {
                    name: Some("canary.pdf".to_owned()),
                    mime_type: "application/pdf".to_owned(),
                    size: None,
                },
                Attachment {
                    name: Some("canary 2.pdf".to_owned()),
                    mime_type: "application/pdf".to_owned(),
                    size: None,
                },
            ],
            ..MessageSummary::default()
        };
        let body = EventBody::MessageNew(Box::new(NewMessage {
            mailbox: MailboxName::inbox(),
            role: None,
            messages: None,
            uid_validity: 1,
            uid: 1,
            source: Source::Idle,
            epoch_changed: false,
            summary,
        }));
        let account = AccountIdentity {
            id: "work".into(),
            user: "canary@example.com".to_owned(),
            host: "imap.example.com".into(),
            port: 993,
            labels: Arc::default(),
        };
        Arc::new(Event {
            at: Timestamp::UNIX_EPOCH,
            id: "x".to_owned(),
            account: Some(Arc::new(account)),
            body,
            filtered: None,
            redacted: Vec::new(),
        })
    }

    fn all(rule: Rule) -> Privacy {
        let coarse = if rule == Rule::Domain { Rule::Omit } else { rule };
        let rules = Rules { subject: coarse, addresses: rule, message_id: rule, attachment_names: coarse };
        Privacy::new(rules, b"key")
    }

    fn message(event: &Event) -> &MessageSummary {
        let EventBody::MessageNew(message) = &event.body else { panic!() };
        &message.summary
    }

    #[test]
    fn nothing_personal_is_left_by_any_rule_but_include() {
        for rule in [Rule::Domain, Rule::Hash, Rule::Omit] {
            let told = all(rule).apply(event());
            let text = serde_json::to_string(&*told).unwrap().to_lowercase();
            assert!(!text.contains(CANARY), "{rule:?}: {text}");
            assert_eq!(message(&told).recipient_count, 6);
            for field in [
                "email.subject",
                "email.from.address",
                "email.message_id",
                "user.name",
                "email.attachments.file.name",
            ] {
                assert!(
                    told.redacted.iter().any(|named| named == field),
                    "{rule:?} {field}: {:?}",
                    told.redacted
                );
            }
        }
        let told = all(Rule::Include).apply(event());
        assert_eq!(told, event());
    }

    #[test]
    fn a_hash_keeps_the_shape_and_is_the_same_for_the_same() {
        let told = all(Rule::Hash).apply(event());
        let summary = message(&told);
        let from = &summary.from[0].address;
        assert!(
            from.starts_with("h.")
                && from.len() == "h.9c1f0e2ab4@example.org".len()
                && from.ends_with("@example.org"),
            "{from}"
        );
        assert_eq!(*from, summary.to[0].address);
        assert_ne!(*from, summary.to[1].address);
        assert!(summary.attachments[0].name.as_deref().unwrap().ends_with(".pdf"));
        assert_ne!(summary.attachments[0].name, summary.attachments[1].name);
        let other = Privacy::new(all(Rule::Hash).rules, b"other key").apply(event());
        assert_ne!(message(&other).from, summary.from);
        let upper = all(Rule::Hash).pseudonym("CANARY.one@example.org");
        assert_eq!(upper, all(Rule::Hash).pseudonym("canary.one@example.org"));
    }

    #[test]
    fn a_domain_is_the_domain() {
        let told = all(Rule::Domain).apply(event());
        let summary = message(&told);
        let to: Vec<_> = summary.to.iter().map(|address| address.address.as_str()).collect();
        assert_eq!(to, ["example.org", "example.net"]);
        assert_eq!(summary.message_id.as_deref(), Some("mail.example.org"));
        assert_eq!(summary.headers["delivered-to"], ["<example.org>"]);
        assert_eq!(told.account.as_ref().unwrap().user, "example.com");
    }

    /// As a dead letter that is replayed.
    #[test]
    fn what_was_taken_out_once_stays_as_it_is_unless_it_is_to_go() {
        for rule in [Rule::Domain, Rule::Hash, Rule::Omit] {
            let once = all(rule).apply(event());
            assert_eq!(all(rule).apply(once.clone()), once, "{rule:?}");
        }
        let hashed = all(Rule::Hash).apply(event());
        let omitted = all(Rule::Omit).apply(hashed);
        assert_eq!(message(&omitted).subject, None);
        assert!(message(&omitted).from.is_empty());
    }

    #[test]
    fn text_in_diagnostics_names_nobody() {
        let text = "LOGIN of canary@example.com failed: <canary@x.example>";
        assert!(!without_local_parts(text).contains(CANARY));
        assert_eq!(without_local_parts("no address @ all"), "no address @ all");
    }
}
