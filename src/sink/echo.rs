//! Receivers repeat what they were sent: a mapping that failed, a traceback. What of a mail is in their words does not go
//! into logs, the status or a dead letter's reason. Pure.

use std::collections::HashSet;

use super::batch::Batch;
use crate::event::{Event, EventBody};

/// So many bytes in a row that are in a mail too are no accident.
const RUN: usize = 8;

/// A value that is shorter than [`RUN`] is known as a whole; a shorter one than this is in every text.
const SHORTEST: usize = 4;

/// In place of it.
const WITHHELD: &str = "(of the mail)";

/// `words` without what they repeat of the mails in `batch`.
pub(super) fn without(words: &str, batch: &Batch) -> String {
    let runs: HashSet<&[u8]> = words.as_bytes().windows(RUN).collect();
    let mut repeated = HashSet::new();
    let mut whole = Vec::new();
    for item in batch.items() {
        each_value(&item.event, |value| match value.len() {
            RUN.. => repeated.extend(value.as_bytes().windows(RUN).filter_map(|run| runs.get(run).copied())),
            SHORTEST.. if words.contains(value) => whole.push(value.to_owned()),
            _ => {}
        });
    }
    if repeated.is_empty() && whole.is_empty() {
        return words.to_owned();
    }
    let mut said = vec![true; words.len()];
    let mut strike =
        |from: usize, length: usize| said.iter_mut().skip(from).take(length).for_each(|b| *b = false);
    for (at, run) in words.as_bytes().windows(RUN).enumerate() {
        if repeated.contains(run) {
            strike(at, RUN);
        }
    }
    for value in &whole {
        words.match_indices(value.as_str()).for_each(|(at, _)| strike(at, value.len()));
    }
    kept(words, &said)
}

/// A character of which a byte is struck goes.
fn kept(words: &str, said: &[bool]) -> String {
    let (mut kept, mut was_said) = (String::with_capacity(words.len()), true);
    for (at, c) in words.char_indices() {
        let is_said = said.get(at..at + c.len_utf8()).is_some_and(|bytes| bytes.iter().all(|said| *said));
        match (is_said, was_said) {
            (true, _) => kept.push(c),
            (false, true) => kept.push_str(WITHHELD),
            (false, false) => {}
        }
        was_said = is_said;
    }
    kept
}

/// What a sender or a recipient wrote, or is.
fn each_value(event: &Event, mut each: impl FnMut(&str)) {
    let EventBody::MessageNew(message) = &event.body else { return };
    let summary = &message.summary;
    let lists = [&summary.from, &summary.reply_to, &summary.to, &summary.cc, &summary.bcc];
    for address in lists.into_iter().flatten().chain(&summary.sender) {
        each(&address.address);
        address.name.iter().for_each(|name| each(name));
    }
    summary
        .subject
        .iter()
        .chain(&summary.message_id)
        .chain(&summary.in_reply_to)
        .for_each(|value| each(value));
    summary.headers.values().flatten().for_each(|value| each(value));
    summary.attachments.iter().filter_map(|attachment| attachment.name.as_deref()).for_each(each);
}

#[cfg(test)]
mod tests {
    use super::super::batch::tests::{encoder, journalled};
    use super::*;
    use crate::event::{Address, MailboxName, MessageSummary, NewMessage, Source};
    use crate::journal::JournalledEvent;

    fn batch(subject: &str) -> Batch {
        let body = EventBody::MessageNew(Box::new(NewMessage {
            mailbox: MailboxName::inbox(),
            role: None,
            messages: None,
            uid_validity: 1,
            uid: 1,
            source: Source::Idle,
            epoch_changed: false,
            summary: MessageSummary {
                subject: Some(subject.to_owned()),
                from: vec![Address {
                    name: Some("Bird".to_owned()),
                    address: "canary@example.org".to_owned(),
                }],
                ..MessageSummary::default()
            },
        }));
        let event = Event { body, ..(*journalled(1).event).clone() };
        Batch::new([JournalledEvent { sequence: 1, event: event.into(), had: Vec::new() }], &encoder())
    }

    #[test]
    fn what_is_of_the_mail_goes_and_the_rest_stays() {
        let batch = batch("Übersicht of the canary and passwords");
        for (words, wanted) in [
            ("the answer is 422: no such field", "the answer is 422: no such field"),
            ("a preview: 'Übersicht of the canary', Bird", "a preview: '(of the mail)', (of the mail)"),
            ("mapping of canary@example.org failed", "mapping of (of the mail) failed"),
            ("cut in the middle: sicht of the ca…", "cut in the middle: (of the mail)…"),
            ("", ""),
        ] {
            assert_eq!(without(words, &batch), wanted);
        }
        assert_eq!(without("the canary", &super::super::batch::tests::batch(1..3)), "the canary");
    }
}
