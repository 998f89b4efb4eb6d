//! What filters ask of a message. Three answers: yes, no, and not known (`None`), where a part of it could not be read.

use super::pattern::Pattern;
use crate::event::{AccountId, Address, Attachment, MessageSummary, NewMessage};

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
            Self::From(pattern) => addressed(summary, pattern, &[(&summary.from, "email.from.address")]),
            Self::To(pattern) => addressed(
                summary,
                pattern,
                &[
                    (&summary.to, "email.to.address"),
                    (&summary.cc, "email.cc.address"),
                    (&summary.bcc, "email.bcc.address"),
                ],
            ),
            Self::Subject(pattern) => Some(pattern.matches(summary.subject.as_deref().unwrap_or_default())),
            Self::Header(name, pattern) => Some(
                summary
                    .asked_headers
                    .get(name)
                    .is_some_and(|values| values.iter().any(|value| pattern.matches(value))),
            ),
            Self::HeaderExists(name) => Some(summary.asked_headers.contains_key(name)),
        }
    }
}

/// Nothing of its header could be had.
fn is_unread(summary: &MessageSummary) -> bool {
    summary.decode_errors.iter().any(|field| field == "message")
}

/// A list that was cut may have held what is looked for.
fn addressed(summary: &MessageSummary, pattern: &Pattern, lists: &[(&Vec<Address>, &str)]) -> Option<bool> {
    let of_list = |(list, field): &(&Vec<Address>, &str)| {
        let found = list.iter().any(|address| pattern.matches(&address.address));
        let cut = summary.truncated.iter().any(|truncated| truncated == field);
        if !found && cut { None } else { Some(found) }
    };
    any(lists.iter().map(of_list))
}

/// Without a BODYSTRUCTURE nobody knows.
fn attachment(summary: &MessageSummary, matches: impl Fn(&Attachment) -> bool) -> Option<bool> {
    summary.content_type.as_ref()?;
    Some(summary.attachments.iter().any(matches))
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
    use crate::event::Source;

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
            asked_headers: [("x-spam".to_owned(), vec!["yes".to_owned()]), ("x-empty".to_owned(), vec![])]
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
