//! The human-readable `message` of an event, and how serious it is.

use crate::event::{AccountState, Event, EventBody, GapReason, NewMessage, StateChange};
use crate::text::{counted, line};

/// The longest `message`, bytes.
const MESSAGE: usize = 512;

/// `level`
pub(in crate::sink) fn level(event: &Event) -> &'static str {
    match &event.body {
        EventBody::AccountState(change) => match change.state {
            AccountState::AuthFailed | AccountState::TlsFailed | AccountState::Suspended => "error",
            AccountState::Backoff | AccountState::Throttled => "warn",
            _ if change.trouble.is_some() => "warn",
            _ => "info",
        },
        EventBody::MailboxGap(gap) if gap.lost == Some(0) => "info",
        EventBody::MailboxReset(_) | EventBody::MailboxGap(_) => "warn",
        EventBody::MessageNew(_)
        | EventBody::MessageFlags(_)
        | EventBody::MessageExpunged(_)
        | EventBody::MonitorState(_) => "info",
    }
}

/// `message`: no control character, nothing that deceives.
pub(super) fn message(event: &Event) -> String {
    let account = event.account.as_ref().map(|account| account.id.as_str()).unwrap_or_default();
    let words = match &event.body {
        EventBody::MessageNew(new) => {
            format!("new message in {account}/{} from {}", new.mailbox, about(new, &event.redacted))
        }
        EventBody::MessageFlags(change) => {
            let flags = if change.flags.is_empty() { "(none)".to_owned() } else { change.flags.join(" ") };
            format!("flags of {account}/{} uid {} are now {flags}", change.mailbox, change.uid)
        }
        EventBody::MessageExpunged(gone) => {
            format!("message expunged from {account}/{} uid {}", gone.mailbox, gone.uid)
        }
        EventBody::AccountState(change) => state(account, change),
        EventBody::MailboxReset(reset) => format!(
            "UIDVALIDITY of {account}/{} changed {} -> {}; uids below {} were there before",
            reset.mailbox, reset.uid_validity_previous, reset.uid_validity, reset.uid_next
        ),
        EventBody::MailboxGap(gap) if gap.lost == Some(0) => format!(
            "{account}/{} was not watched{}: {} came meanwhile, none is missing",
            gap.mailbox,
            gap.since
                .map(|since| format!(" since {}", since.strftime("%Y-%m-%d %H:%M:%SZ")))
                .unwrap_or_default(),
            counted(gap.recovered.unwrap_or(0), "message")
        ),
        EventBody::MailboxGap(gap) if gap.reason == GapReason::Changes => {
            let how_many = gap.lost.map_or_else(|| "more".to_owned(), |lost| format!("{lost} more"));
            format!(
                "{how_many} changes of flags and expunges in {account}/{} than are told one by one",
                gap.mailbox
            )
        }
        EventBody::MailboxGap(gap) => {
            let which = match (gap.uid_first, gap.uid_last) {
                (Some(first), Some(last)) if first == last => format!("uid {first}"),
                (Some(first), Some(last)) => format!("uids {first} to {last}"),
                _ => "messages".to_owned(),
            };
            format!("{which} of {account}/{} may have been missed ({})", gap.mailbox, gap.reason.as_str())
        }
        EventBody::MonitorState(state) => format!("monitor {}", state.as_str()),
    };
    line(&words, MESSAGE)
}

fn about(new: &NewMessage, redacted: &[String]) -> String {
    let is_redacted = |field| redacted.iter().any(|named| named == field);
    let nobody = if is_redacted("email.from.address") { "(sender withheld)" } else { "(unknown sender)" };
    let nothing = if is_redacted("email.subject") { "(subject withheld)" } else { "(no subject)" };
    let from = new.summary.from.first().map_or(nobody, |from| from.address.as_str());
    let subject = new.summary.subject.as_deref().unwrap_or(nothing);
    format!("{from}: {subject}")
}

fn state(account: &str, change: &StateChange) -> String {
    let mut words = match &change.mailbox {
        Some(mailbox) => format!("mailbox {account}/{mailbox}"),
        None => format!("account {account}: {} -> {}", change.previous, change.state),
    };
    match &change.trouble {
        Some(trouble) => {
            let code = trouble.code.as_deref().map(|code| format!("{code} ")).unwrap_or_default();
            words.push_str(&format!(" ({code}{})", trouble.message));
        }
        None if change.mailbox.is_some() => words.push_str(" is watched again"),
        None => {}
    }
    if let Some(wait) = change.retry_in_ms {
        words.push_str(&format!(", next attempt in {} s", wait.div_ceil(1000)));
    }
    words
}
