//! `idlewatch replay`: past messages once more, through the running monitor, or alone where none runs.

use clap::Args;
use jiff::Timestamp;

use super::monitor::failed;
use super::{Exit, Globals, say, tell};
use crate::admin::client::AskError;
use crate::app::{self, RunOptions};
use crate::event::AccountId;
use crate::imap::conversation::ToldFrom;
use crate::messages::{Replay, ReplayReport};
use crate::once::replay::{Replaying, narrow};
use crate::once::{self, Pass};
use crate::since::Since;
use crate::text::line;

/// Bytes of a reason that are shown.
const MOST_WHY: usize = 300;

/// Flags of `replay`.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The account.
    #[arg(short, long)]
    account: String,
    /// Only mailboxes whose name matches, of those that are watched.
    #[arg(short, long, value_name = "GLOB")]
    mailbox: Option<String>,
    /// Messages that were received (INTERNALDATE) then or later: `24h`, `2026-11-24`, `2026-11-24T08:00:00Z`.
    #[arg(
        long,
        value_name = "AGE|RFC3339",
        required_unless_present = "from_uid",
        conflicts_with = "from_uid"
    )]
    since: Option<Since>,
    /// Messages with this UID and those above; of one mailbox.
    #[arg(long, value_name = "UID", value_parser = clap::value_parser!(u32).range(1..))]
    from_uid: Option<u32>,
    /// Only to this output, whatever filters say.
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
}

impl ReplayArgs {
    fn wanted(&self) -> Option<Replay> {
        let from = match self.from_uid {
            Some(uid) => ToldFrom::Uid(uid),
            None => ToldFrom::Time(self.since?.time()?),
        };
        let (mailbox, output) = (self.mailbox.clone(), self.output.clone());
        Some(Replay { account: AccountId::from(self.account.as_str()), mailbox, from, output })
    }
}

pub(super) fn execute(args: &ReplayArgs, globals: &Globals) -> Exit {
    let Some(wanted) = args.wanted() else {
        tell("error: --since: expected a time; for a UID there is --from-uid");
        return Exit::Usage;
    };
    let path = path(&wanted);
    match globals.ask(|client| async move { client.post(&path).await }) {
        Ok(report) => told(&report),
        Err(AskError::NotRunning(_)) => alone(&wanted, globals),
        Err(error) => failed(&error),
    }
}

/// What the running monitor is asked for.
fn path(wanted: &Replay) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    match wanted.from {
        ToldFrom::Time(at) => query.append_pair("since", &at.to_string()),
        ToldFrom::Uid(uid) => query.append_pair("from_uid", &uid.to_string()),
    };
    for (name, value) in [("mailbox", &wanted.mailbox), ("output", &wanted.output)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("/api/v1/accounts/{}/replay?{}", wanted.account, query.finish())
}

fn told(ReplayReport { account, settled, complete, events, problems }: &ReplayReport) -> Exit {
    let account = line(account.as_str(), 160);
    let words = match (settled, complete) {
        (false, _) => format!(
            "past messages of {account} are being told again, and that goes on: the log says when it is done"
        ),
        (true, true) => format!("{events} past messages of {account} were told again"),
        (true, false) => {
            let why = problems.first().map_or("the log says why".to_owned(), |why| line(why, MOST_WHY));
            format!("{events} past messages of {account} were told again, and not all: {why}")
        }
    };
    let said = say(&(words + "\n"));
    if *settled && !complete { said.and(Exit::SomeFailed) } else { said }
}

/// No monitor runs: one pass, with the state and the outputs of the configuration.
fn alone(wanted: &Replay, globals: &Globals) -> Exit {
    let settings = match globals.load() {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let mut settings = match narrow(&settings, wanted) {
        Ok(settings) => settings,
        Err(refused) => {
            tell(&format!("error: {refused}"));
            return Exit::SomeFailed;
        }
    };
    once::narrow_gate(&mut settings);
    let replaying = Replaying::new(wanted);
    let options = RunOptions { once: Some(Pass::of(replaying.clone())), ..RunOptions::default() };
    let began = Timestamp::now();
    let exit = app::run(&settings, &options, Box::pin(std::future::pending()));
    tell(&format!(
        "{} past messages were told again in {}",
        replaying.events(),
        crate::status::ago(began, Timestamp::now())
    ));
    exit
}
