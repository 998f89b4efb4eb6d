//! `idlewatch mailboxes`: what an account has to watch, which entry chose it, and how it is watched.

use clap::Args;

use super::ask::{self, Answer};
use super::{Exit, Globals, say};
use crate::config::settings::Account;
use crate::event::{MailboxName, Role};
use crate::imap::budget;
use crate::imap::conversation::Goal;
use crate::imap::listing::ListedMailbox;
use crate::mailbox_choice::Chosen;
use crate::status::WatchedBy;
use crate::text::plain;

/// Flags of `mailboxes`.
#[derive(Debug, Args)]
pub(super) struct MailboxesArgs {
    /// The account; not needed where there is only one.
    #[arg(short, long)]
    account: Option<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &MailboxesArgs, globals: &Globals) -> Exit {
    let (account, answer) = match ask::ask(globals.load(), args.account.as_deref(), |_| Goal::ListMailboxes) {
        Ok(answered) => answered,
        Err(exit) => return exit,
    };
    let Answer::Mailboxes(listing) = answer else { return Exit::Io };
    let chosen = account.mailboxes.choose(&listing.mailboxes);
    let ways = Ways::new(&account, &chosen, listing.hears_all);
    let mut text = String::new();
    for listed in &listing.mailboxes {
        let entry = chosen.iter().find(|chosen| chosen.mailbox == listed.name).map(|chosen| chosen.by);
        text.push_str(&if args.json { row(listed, entry, &ways) } else { line(listed, entry, &ways) });
    }
    for missing in chosen.iter().filter(|chosen| chosen.listed.is_none() && !args.json && !listing.truncated)
    {
        text.push_str(&format!("* {:<40} (the server does not list it)\n", plain(missing.mailbox.as_str())));
    }
    if listing.truncated {
        text.push_str("... and more\n");
    }
    say(&text)
}

fn row(listed: &ListedMailbox, entry: Option<&str>, ways: &Ways) -> String {
    let role = listed.role.map(Role::as_str);
    let row = serde_json::json!({
        "name": listed.name.as_str(), "role": role, "selectable": listed.selectable, "watched": entry.is_some(),
        "chosen_by": entry, "watched_by": entry.map(|_| ways.of(&listed.name)),
    });
    format!("{row}\n")
}

fn line(listed: &ListedMailbox, entry: Option<&str>, ways: &Ways) -> String {
    let mark = if entry.is_some() { "*" } else { " " };
    let role = listed.role.map_or("-", Role::as_str);
    let reason = match entry {
        Some(entry) => format!("  {:<10}  {}", ways.word(&listed.name), plain(entry)),
        None if !listed.selectable => "  (cannot be opened)".to_owned(),
        None => String::new(),
    };
    let text = format!("{mark} {:<40} {role:<9}{reason}", plain(listed.name.as_str()));
    format!("{}\n", text.trim_end())
}

/// How each of the chosen mailboxes will be watched.
struct Ways {
    beside: Vec<MailboxName>,
    shared: WatchedBy,
}

impl Ways {
    fn new(account: &Account, chosen: &[Chosen<'_>], hears_all: bool) -> Self {
        let names: Vec<_> = chosen.iter().map(|chosen| chosen.mailbox.clone()).collect();
        let shared = if hears_all { WatchedBy::Notify } else { WatchedBy::Rounds };
        let beside = match account.shares_a_connection() {
            true => budget::beside(&names, &[], hears_all, account.connections()),
            false => names,
        };
        Self { beside, shared }
    }

    fn of(&self, mailbox: &MailboxName) -> WatchedBy {
        if self.beside.contains(mailbox) { WatchedBy::Connection } else { self.shared }
    }

    fn word(&self, mailbox: &MailboxName) -> &'static str {
        match self.of(mailbox) {
            WatchedBy::Connection => "connection",
            WatchedBy::Notify => "notify",
            WatchedBy::Rounds => "rounds",
        }
    }
}
