//! `idlewatch titles`: the latest messages of a mailbox.

use clap::Args;
use jiff::Timestamp;

use super::ask::{self, Answer};
use super::{Exit, Globals, say};
use crate::event::{Event, EventBody, MailboxName};
use crate::event_id;
use crate::imap::conversation::Goal;
use crate::sink::encode::{Encoder, EncoderSettings, Format};
use crate::text::line;

/// Flags of `titles`.
#[derive(Debug, Args)]
pub(super) struct TitlesArgs {
    /// The account; not needed where there is only one.
    #[arg(short, long)]
    account: Option<String>,
    /// The mailbox.
    #[arg(short, long, default_value = "INBOX")]
    mailbox: String,
    /// How many at most.
    #[arg(short = 'n', long = "count", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// Event lines.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &TitlesArgs, globals: &Globals) -> Exit {
    let inbox = args.mailbox.eq_ignore_ascii_case("INBOX");
    let mailbox = if inbox { MailboxName::inbox() } else { MailboxName::from(args.mailbox.as_str()) };
    let goal = |_: &_| Goal::Titles { mailbox: mailbox.clone(), count: args.count };
    let (account, answer) = match ask::ask(globals.load(), args.account.as_deref(), goal) {
        Ok(answered) => answered,
        Err(exit) => return exit,
    };
    let Answer::Titles(messages) = answer else { return Exit::Io };
    let instance = gethostname::gethostname().to_string_lossy().into_owned();
    let encoder =
        Encoder::new(EncoderSettings { instance: instance.into(), max_bytes: 8000, format: Format::Ecs });
    let mut out = Vec::new();
    for (index, message) in messages.into_iter().enumerate() {
        if args.json {
            let id = event_id::message_new(account.id(), &message.mailbox, message.uid_validity, message.uid);
            let body = EventBody::MessageNew(Box::new(message));
            let event = Event {
                at: Timestamp::now(),
                id,
                account: Some(account.identity.clone()),
                body,
                filtered: None,
            };
            encoder.line(index as u64 + 1, &event, &mut out);
        } else {
            let summary = &message.summary;
            let at =
                summary.received_at.map(|at| at.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default();
            let from = summary.from.first().map_or("(unknown sender)", |from| from.address.as_str());
            let subject = summary.subject.as_deref().unwrap_or("(no subject)");
            out.extend_from_slice(
                format!("{at:<16}  {:<32}  {}\n", line(from, 32), line(subject, 200)).as_bytes(),
            );
        }
    }
    say(&String::from_utf8_lossy(&out))
}
