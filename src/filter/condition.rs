//! What filters ask of a message. Three answers: yes, no, and not known (`None`), where a part of it could not be read.

use super::pattern::Pattern;
use crate::event::{AccountId, Attachment, MOST_ATTACHMENTS, MessageSummary, NewMessage};

/// What a filter looks at.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Whose message.
    pub account: &'a AccountId,
    /// The message.
    pub message: &'a NewMessage,
}

/// One table of conditions: all of its tests have to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition(pub Vec<Test>);

/// One test.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Any address of From.
    From(Pattern),
    /// Any address of To, Cc and Bcc.
    To(Pattern),
    /// The decoded subject; that of a message without one is empty.
    Subject(Pattern),
    /// Any value of a header; its name is in lower case.
    Header(String, Pattern),
    /// There is such a header; in lower case.
    HeaderExists(String),
    /// RFC822.SIZE is above, octets.
    SizeOver(u64),
    /// RFC822.SIZE is below, octets.
    SizeUnder(u64),
    /// The account's id.
    Account(Pattern),
    /// The mailbox's name.
    Mailbox(Pattern),
    /// The media type of any attachment.
    AttachmentType(Pattern),
    /// The name of any attachment.
    AttachmentName(Pattern),
}

impl Condition {
    /// Whether all tests hold.
    pub fn holds(&self, candidate: Candidate<'_>) -> Option<bool> {
        all(self.0.iter().map(|test| test.holds(candidate)))
    }
}

impl Test {
    /// The header that it has to know of.
    pub fn header(&self) -> Option<&str> {
        match self {
            Self::Header(name, _) | Self::HeaderExists(name) => Some(name),
            _ => None,
        }
    }

    fn holds(&self, Candidate { account, message }: Candidate<'_>) -> Option<bool> {
        let summary = &message.summary;
        match self {
            Self::Account(pattern) => Some(pattern.matches(account.as_str())),
            Self::Mailbox(pattern) => Some(pattern.matches(message.mailbox.as_str())),
            Self::SizeOver(bytes) => summary.size.map(|size| size > *bytes),
            Self::SizeUnder(bytes) => summary.size.map(|size| size < *bytes),
            Self::AttachmentType(pattern) => {
                attachment(summary, |attachment| pattern.matches(&attachment.mime_type))
            }
            Self::AttachmentName(pattern) => {
                attachment(summary, |attachment| attachment.name.as_ref().is_some_and(|n| pattern.matches(n)))
            }
            _ if is_unread(summary) => None,
            Self::From(pattern) => {
                let found = summary.from.iter().any(|address| pattern.matches(&address.address));
                found_in(summary, found, &["email.from.address"])
            }
            Self::To(pattern) => {
                let mut all = summary.to.iter().chain(&summary.cc).chain(&summary.bcc);
                let found = all.any(|address| pattern.matches(&address.address));
                found_in(summary, found, &["email.to.address", "email.cc.address", "email.bcc.address"])
            }
            Self::Subject(pattern) => {
                let found = pattern.matches(summary.subject.as_deref().unwrap_or_default());
                found_in(summary, found, &["email.subject"])
            }
            Self::Header(name, pattern) => {
                let asked = summary.asked_headers.get(name);
                let found =
                    asked.is_some_and(|asked| asked.values.iter().any(|value| pattern.matches(value)));
                if !found && asked.is_some_and(|asked| asked.cut) {
                    None
                } else {
                    found_in(summary, found, &[])
                }
            }
            Self::HeaderExists(name) => found_in(summary, summary.asked_headers.contains_key(name), &[]),
        }
    }
}

/// Nothing of its header could be had.
fn is_unread(summary: &MessageSummary) -> bool {
    summary.decode_errors.iter().any(|field| field == "message")
}

/// What was not found may have stood in what was cut, or could not be decoded: of one of `fields`, or of the whole header.
fn found_in(summary: &MessageSummary, found: bool, fields: &[&str]) -> Option<bool> {
    let is_doubtful = |field: &String| field == "message" || fields.contains(&field.as_str());
    let doubtful = summary.truncated.iter().chain(&summary.decode_errors).any(is_doubtful);
    if !found && doubtful { None } else { Some(found) }
}

/// Without a BODYSTRUCTURE nobody knows, nor what came after the last one that is kept.
fn attachment(summary: &MessageSummary, matches: impl Fn(&Attachment) -> bool) -> Option<bool> {
    summary.content_type.as_ref()?;
    let found = summary.attachments.iter().any(matches);
    if !found && summary.attachments.len() >= MOST_ATTACHMENTS {
        return None;
    }
    found_in(summary, found, &["email.attachments"])
}

/// A "no" decides, whatever else is not known.
pub(super) fn all(answers: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    not(any(answers.into_iter().map(not)))
}

/// A "yes" decides, whatever else is not known.
pub(super) fn any(answers: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    let mut unknown = false;
    for answer in answers {
        match answer {
            Some(true) => return Some(true),
            Some(false) => {}
            None => unknown = true,
        }
    }
    if unknown { None } else { Some(false) }
}

pub(super) fn not(answer: Option<bool>) -> Option<bool> {
    answer.map(|answer| !answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Address, AskedHeader, Source};

    fn message(summary: MessageSummary) -> NewMessage {
        NewMessage {
            mailbox: "Lists/rust".into(),
            role: None,
            messages: None,
            uid_validity: 7,
            uid: 1,
            source: Source::Idle,
            epoch_changed: false,
            summary,
        }
    }

    fn addresses(list: &[&str]) -> Vec<Address> {
        list.iter().map(|address| Address { name: None, address: (*address).to_owned() }).collect()
    }

    fn ask(test: Test, summary: MessageSummary) -> Option<bool> {
        let message = message(summary);
        test.holds(Candidate { account: &"work".into(), message: &message })
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::of_text(text).unwrap()
    }

    fn asked(values: &[&str]) -> AskedHeader {
        AskedHeader { values: values.iter().map(|value| (*value).to_owned()).collect(), cut: false }
    }

    fn read() -> MessageSummary {
        MessageSummary {
            from: addresses(&["Alice@example.org"]),
            to: addresses(&["bob@example.com"]),
            bcc: addresses(&["secret@example.com"]),
            subject: Some("Invoice 12".to_owned()),
            size: Some(1000),
            content_type: Some("multipart/mixed".to_owned()),
            attachments: vec![Attachment {
                name: Some("a.EXE".to_owned()),
                mime_type: "application/octet-stream".to_owned(),
                size: None,
            }],
            asked_headers: [("x-spam".to_owned(), asked(&["yes"])), ("x-empty".to_owned(), asked(&[]))]
                .into(),
            ..MessageSummary::default()
        }
    }

    #[test]
    fn each_test_looks_at_its_own_part() {
        for (test, expected) in [
            (Test::From(pattern("*@example.org")), true),
            (Test::From(pattern("*@example.com")), false),
            (Test::To(pattern("secret@*")), true),
            (Test::To(pattern("alice@*")), false),
            (Test::Subject(pattern("invoice*")), true),
            (Test::Header("x-spam".to_owned(), pattern("y*")), true),
            (Test::Header("x-spam".to_owned(), pattern("n*")), false),
            (Test::HeaderExists("x-empty".to_owned()), true),
            (Test::HeaderExists("x-none".to_owned()), false),
            (Test::SizeOver(999), true),
            (Test::SizeOver(1000), false),
            (Test::SizeUnder(1001), true),
            (Test::SizeUnder(1000), false),
            (Test::Account(pattern("w*")), true),
            (Test::Mailbox(Pattern::of_mailboxes("Lists/*").unwrap()), true),
            (Test::AttachmentName(pattern("*.exe")), true),
            (Test::AttachmentType(pattern("image/*")), false),
        ] {
            assert_eq!(ask(test.clone(), read()), Some(expected), "{test:?}");
        }
    }

    #[test]
    fn what_could_not_be_read_is_neither_yes_nor_no() {
        let unread = || MessageSummary { decode_errors: vec!["message".to_owned()], ..Default::default() };
        for test in [
            Test::From(pattern("*")),
            Test::To(pattern("*")),
            Test::Subject(pattern("*")),
            Test::Header("x".to_owned(), pattern("*")),
            Test::HeaderExists("x".to_owned()),
            Test::SizeOver(1),
            Test::SizeUnder(1),
            Test::AttachmentName(pattern("*")),
            Test::AttachmentType(pattern("*")),
        ] {
            assert_eq!(ask(test.clone(), unread()), None, "{test:?}");
        }
        assert_eq!(ask(Test::Account(pattern("work")), unread()), Some(true));
    }

    /// A sender who writes to many must not hide one of them behind the others.
    #[test]
    fn a_list_that_was_cut_does_not_prove_that_somebody_is_not_in_it() {
        let cut = MessageSummary { truncated: vec!["email.to.address".to_owned()], ..read() };
        assert_eq!(ask(Test::To(pattern("carol@*")), cut.clone()), None);
        assert_eq!(ask(Test::To(pattern("bob@*")), cut.clone()), Some(true));
        assert_eq!(ask(Test::From(pattern("carol@*")), cut), Some(false));
    }

    #[test]
    fn what_was_cut_or_not_decoded_proves_only_what_is_there() {
        let named = |field: &str| vec![field.to_owned()];
        let (cut, failed) = (
            |field| MessageSummary { truncated: named(field), ..read() },
            |field| MessageSummary { decode_errors: named(field), ..read() },
        );
        for (summary, test) in [
            (cut("email.subject"), "*the end"),
            (failed("email.subject"), "*the end"),
            (cut("message"), "*the end"),
        ] {
            assert_eq!(ask(Test::Subject(pattern(test)), summary.clone()), None, "{summary:?}");
            assert_eq!(ask(Test::Subject(pattern("invoice*")), summary), Some(true));
        }
        assert_eq!(ask(Test::From(pattern("boss@*")), failed("email.from.address")), None, "From twice");
        assert_eq!(ask(Test::HeaderExists("x-none".to_owned()), cut("message")), None);
        assert_eq!(ask(Test::AttachmentName(pattern("*.zip")), cut("email.attachments")), None);
        let many = MessageSummary { attachments: vec![Attachment::default(); MOST_ATTACHMENTS], ..read() };
        assert_eq!(ask(Test::AttachmentName(pattern("*.zip")), many), None);
        let long = AskedHeader { cut: true, ..asked(&["yes"]) };
        let long =
            || MessageSummary { asked_headers: [("x-spam".to_owned(), long.clone())].into(), ..read() };
        assert_eq!(ask(Test::Header("x-spam".to_owned(), pattern("no")), long()), None);
        assert_eq!(ask(Test::Header("x-spam".to_owned(), pattern("yes")), long()), Some(true));
    }

    #[test]
    fn one_answer_may_decide_whatever_the_others_are() {
        let (yes, no, unknown) = (Some(true), Some(false), None);
        for (answers, every, some) in [
            (vec![], yes, no),
            (vec![yes, unknown], unknown, yes),
            (vec![no, unknown], no, unknown),
            (vec![yes, no], no, yes),
            (vec![unknown], unknown, unknown),
        ] {
            assert_eq!(all(answers.clone()), every, "{answers:?}");
            assert_eq!(any(answers.clone()), some, "{answers:?}");
        }
    }
}
