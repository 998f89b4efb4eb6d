//! `state dead-letters`

use std::sync::Arc;

use clap::{Args, Subcommand};

use super::{Done, Exit, lock, not_opened, say, tell};
use crate::config::settings::Settings;
use crate::event::Filtered;
use crate::journal::Entry;
use crate::sink::dead_letters::{DeadLetter, DeadLetters};
use crate::sink::journal_at_rest;
use crate::text::{self, counted};

/// What to do with them.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DeadLettersCommand {
    /// Show them, oldest first.
    List(ListArgs),
    /// Put them back: the next start offers them to their outputs again. The monitor must not run.
    Replay(Which),
    /// Give them up for good. The monitor must not run.
    Drop(DropArgs),
}

/// Flags of `list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// One JSON object a line: reason, and the whole event.
    #[arg(long)]
    json: bool,
}

/// Flags of `drop`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DropArgs {
    #[command(flatten)]
    which: Which,
    /// All of them.
    #[arg(long, required_unless_present_any = ["output", "id"])]
    all: bool,
}

/// All of them, unless narrowed.
#[derive(Debug, Args)]
pub(in crate::cli) struct Which {
    /// Only those of this output.
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// Only this event.
    #[arg(long, value_name = "EVENT_ID")]
    id: Option<String>,
}

impl Which {
    fn takes(&self, letter: &DeadLetter) -> bool {
        self.output.as_ref().is_none_or(|output| *output == letter.output)
            && self.id.as_ref().is_none_or(|id| *id == letter.event.id)
    }
}

pub(super) fn execute(command: &DeadLettersCommand, settings: &Settings) -> Done {
    match command {
        DeadLettersCommand::List(args) => list(args, settings),
        DeadLettersCommand::Replay(which) => replay(which, settings),
        DeadLettersCommand::Drop(args) => remove(&args.which, settings),
    }
}

fn read(settings: &Settings) -> Result<(DeadLetters, Vec<DeadLetter>), (Exit, String)> {
    let file = DeadLetters::in_dir(&settings.monitor.state_dir);
    let (letters, unreadable) =
        file.read().map_err(|error| (Exit::Io, format!("{}: {error}", file.path().display())))?;
    if unreadable > 0 {
        tell(&format!("warning: {}: not readable: {}", file.path().display(), counted(unreadable, "line")));
    }
    Ok((file, letters))
}

fn list(args: &ListArgs, settings: &Settings) -> Done {
    let (_, letters) = read(settings)?;
    let shown = letters.iter().filter(|letter| args.which.takes(letter)).map(|letter| {
        if args.json { serde_json::to_string(letter).unwrap_or_default() + "\n" } else { line(letter) }
    });
    Ok(say(&shown.collect::<String>()))
}

fn line(letter: &DeadLetter) -> String {
    let DeadLetter { at, output, reason, event, .. } = letter;
    let account = event.account.as_ref().map_or("-", |account| account.id.as_str());
    let at = at.strftime("%Y-%m-%d %H:%M:%SZ");
    let row = format!("{at}  {output}  {account}  {}  {}  {reason}", event.body.action(), event.id);
    text::line(&row, 600) + "\n"
}

/// First into the journal, then out of the file: a crash between the two replays them twice, with the same ids.
fn replay(which: &Which, settings: &Settings) -> Done {
    let _lock = lock(settings)?;
    let (file, letters) = read(settings)?;
    let (chosen, mut kept): (Vec<_>, Vec<_>) = letters.into_iter().partition(|letter| which.takes(letter));
    let is_there = |letter: &DeadLetter| settings.outputs.iter().any(|output| output.name == letter.output);
    let (chosen, homeless): (Vec<_>, Vec<_>) = chosen.into_iter().partition(is_there);
    if let Some(letter) = homeless.first() {
        tell(&format!("warning: {} stay, since there is no outputs.{} now", homeless.len(), letter.output));
    }
    kept.extend(homeless);
    if !chosen.is_empty() {
        let mut journal = journal_at_rest(settings).map_err(not_opened)?;
        let entries: Vec<_> = chosen.iter().cloned().map(entry).collect();
        journal.commit(&entries, &[]).map_err(|error| (Exit::Io, error.to_string()))?;
        replace(&file, &kept)?;
    }
    tell(&format!("offered again at the next start: {}", counted(chosen.len(), "event")));
    Ok(Exit::Ok)
}

/// For its own output alone.
fn entry(DeadLetter { output, event, .. }: DeadLetter) -> Entry {
    let mut event = Arc::unwrap_or_clone(event);
    let filtered = event.filtered.take().unwrap_or_default();
    event.filtered = Some(Box::new(Filtered { outputs: vec![output], ..*filtered }));
    Entry::new(event.into())
}

fn remove(which: &Which, settings: &Settings) -> Done {
    let _lock = lock(settings)?;
    let (file, letters) = read(settings)?;
    let before = letters.len();
    let kept: Vec<_> = letters.into_iter().filter(|letter| !which.takes(letter)).collect();
    replace(&file, &kept)?;
    tell(&format!("given up: {}", counted(before - kept.len(), "event")));
    Ok(Exit::Ok)
}

fn replace(file: &DeadLetters, kept: &[DeadLetter]) -> Result<(), (Exit, String)> {
    file.replace(kept).map_err(|error| (Exit::Io, format!("{}: {error}", file.path().display())))
}
