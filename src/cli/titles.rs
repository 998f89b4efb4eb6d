//! `idlewatch titles`: the latest messages of a mailbox, of all accounts together.

use std::cmp::Reverse;
use std::sync::Arc;

use clap::Args;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::ask::{Answer, ask_all};
use super::selection::AccountSelection;
use super::{Exit, Globals, say, tell};
use crate::config::settings::{Account, Settings};
use crate::event::{Event, EventBody, MailboxName, NewMessage};
use crate::event_id;
use crate::imap::conversation::Goal;
use crate::imap::search::{Criteria, Key};
use crate::imap::titles::TitleQuery;
use crate::since::Since;
use crate::sink::encode::{Encoder, EncoderSettings, Format};
use crate::text::line;

/// The longest text that is searched for, bytes.
const MOST_WORDS: usize = 1_000;

/// Flags of `titles`.
#[derive(Debug, Args)]
pub(super) struct TitlesArgs {
    #[command(flatten)]
    accounts: AccountSelection,
    /// The mailbox.
    #[arg(short, long, default_value = "INBOX")]
    mailbox: String,
    /// How many at most, of all accounts together.
    #[arg(short = 'n', long = "count", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// Only messages received since then: `1d`, `2026-11-24`, `2026-11-24T08:00:00Z`.
    #[arg(long, value_name = "AGE|RFC3339", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only messages in which the server finds each of these words, in the header or the body.
    #[arg(long, value_name = "WORDS", value_parser = words)]
    search: Option<Words>,
    /// Event lines.
    #[arg(long)]
    json: bool,
}

/// What is searched for.
#[derive(Clone, Debug)]
struct Words(Vec<String>);

fn moment(text: &str) -> Result<Timestamp, String> {
    let since: Since = text.parse()?;
    since.time().ok_or_else(|| "expected an age like 1d, or a moment like 2026-11-24T08:00:00Z".to_owned())
}

fn words(text: &str) -> Result<Words, String> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() || text.len() > MOST_WORDS || words.iter().any(|word| word.contains(char::is_control))
    {
        return Err(format!("expected words, {MOST_WORDS} bytes at most, without control characters"));
    }
    Ok(Words(words))
}

pub(super) fn execute(args: &TitlesArgs, globals: &Globals) -> Exit {
    let mut settings = match globals.load() {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    if let Err(problem) = args.accounts.narrow(&mut settings) {
        return globals.refuse(&problem);
    }
    let accounts: Vec<_> = settings.accounts.iter().filter(|account| account.enabled).cloned().collect();
    let (query, many) = (args.query(), accounts.len() > 1);
    let mut titles = Vec::new();
    let exit = ask_all(
        &settings,
        accounts,
        |_| Goal::Titles(Box::new(query.clone())),
        |account, answer| {
            let Answer::Titles(listing) = answer else { return };
            if listing.partial {
                tell(&format!("note: {}: older messages than its latest were not looked at", account.id()));
            }
            titles.extend(listing.messages.into_iter().map(|message| (account.clone(), message)));
            keep_latest(&mut titles, args.count as usize);
        },
    );
    let titles = titles.into_iter().map(|(account, message)| settings.filters.mark(event(&account, message)));
    let shown = if args.json { lines(&settings, titles) } else { rows(titles, many) };
    match say(&String::from_utf8_lossy(&shown)) {
        Exit::Ok => exit,
        failed => failed,
    }
}

impl TitlesArgs {
    fn query(&self) -> TitleQuery {
        let inbox = self.mailbox.eq_ignore_ascii_case("INBOX");
        let mailbox = if inbox { MailboxName::inbox() } else { MailboxName::from(self.mailbox.as_str()) };
        let criteria = self.search.as_ref().and_then(|Words(words)| {
            let mut keys: Vec<_> = words.iter().map(|word| Key::Text(word.clone())).collect();
            keys.extend(self.since.and_then(day_before).map(Key::Since));
            Criteria::new(keys)
        });
        TitleQuery { mailbox, count: self.count, since: self.since, criteria: criteria.map(Arc::new) }
    }
}

/// Servers compare days, each in a time zone of its own; the moment is looked at afterwards.
fn day_before(since: Timestamp) -> Option<jiff::civil::Date> {
    let day = since.checked_sub(SignedDuration::from_hours(24)).ok()?.to_zoned(TimeZone::UTC).date();
    (day.year() >= 1970).then_some(day)
}

/// Newest first.
fn keep_latest(titles: &mut Vec<(Arc<Account>, NewMessage)>, count: usize) {
    titles.sort_by_key(|(_, message)| Reverse((message.summary.received_at, message.uid)));
    titles.truncate(count);
}

fn event(account: &Account, message: NewMessage) -> Event {
    Event {
        at: Timestamp::now(),
        id: event_id::message_new(account.id(), &message.mailbox, message.uid_validity, message.uid),
        account: Some(account.identity.clone()),
        body: EventBody::MessageNew(Box::new(message)),
        filtered: None,
        redacted: Vec::new(),
    }
}

fn lines(settings: &Settings, events: impl Iterator<Item = Event>) -> Vec<u8> {
    let (instance, max_bytes) = (settings.monitor.instance.clone(), settings.events.max_bytes);
    let encoder = Encoder::new(EncoderSettings { instance, max_bytes, format: Format::Ecs });
    let mut out = Vec::new();
    for (sequence, event) in (1..).zip(events) {
        encoder.line(sequence, &event, &mut out);
    }
    out
}

fn rows(events: impl Iterator<Item = Event>, many: bool) -> Vec<u8> {
    events.flat_map(|event| row(&event, many).into_bytes()).collect()
}

/// The date as it is here, the account where there are several, the sender, the subject, what filters would do.
fn row(event: &Event, many: bool) -> String {
    let EventBody::MessageNew(message) = &event.body else { return String::new() };
    let summary = &message.summary;
    let at =
        summary.received_at.map(|at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string());
    let account =
        event.account.as_ref().filter(|_| many).map(|account| format!("{:<16}  ", account.id.as_str()));
    let from = summary.from.first().map_or("(unknown sender)", |from| from.address.as_str());
    let subject = summary.subject.as_deref().unwrap_or("(no subject)");
    let filtered = event.filtered.as_ref().map(|filtered| {
        let dropped = if filtered.dropped { "dropped by " } else { "" };
        format!("  [{dropped}{}]", filtered.by.join(", "))
    });
    format!(
        "{:<16}  {}{:<32}  {}{}\n",
        at.unwrap_or_default(),
        account.unwrap_or_default(),
        line(from, 32),
        line(subject, 200),
        filtered.unwrap_or_default()
    )
}
