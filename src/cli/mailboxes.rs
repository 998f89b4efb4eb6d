//! `idlewatch mailboxes`: what an account has to watch.

use clap::Args;

use super::ask::{self, Answer};
use super::{Exit, Globals, say};
use crate::imap::conversation::Goal;
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
    let mut text = String::new();
    for listed in &listing.mailboxes {
        let watched = account.mailboxes.contains(&listed.name);
        let role = listed.role.map(crate::event::Role::as_str);
        text.push_str(&if args.json {
            let row = serde_json::json!({"name": listed.name.as_str(), "role": role, "selectable": listed.selectable, "watched": watched});
            format!("{row}\n")
        } else {
            let mark = if watched { "*" } else { " " };
            let closed = if listed.selectable { "" } else { "  (cannot be opened)" };
            format!("{mark} {:<40} {}{closed}\n", plain(listed.name.as_str()), role.unwrap_or("-"))
        });
    }
    if listing.truncated {
        text.push_str("... and more\n");
    }
    say(&text)
}
