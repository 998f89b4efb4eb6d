//! `cluster`: the monitors that share the accounts, as their database knows them.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Exit, Globals, say, tell};
use crate::cluster::report::{MemberReport, MemberState, all_are_held};
use crate::cluster::shard::{SHARDS, Shard};
use crate::journal::OpenError;
use crate::journal::overview::Overview;
use crate::terminal::Paint;
use crate::text::counted;

/// Between two looks while somebody waits.
const LOOK: Duration = Duration::from_millis(500);

/// `cluster`
#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Who is there, and what each has. 1 where shards are nobody's, or a monitor is silent.
    Status(StatusArgs),
    /// Have others take all that one has, and wait until they have it: before it is stopped.
    Drain(DrainArgs),
    /// Have accounts watched by one of the monitors whenever it is there.
    Move(MoveArgs),
}

/// Flags of `cluster status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Arguments of `cluster drain`.
#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// Its monitor.instance; this configuration's where not given.
    name: Option<String>,
    /// It is to have its part again.
    #[arg(long)]
    undo: bool,
    /// How many seconds to wait for it at most.
    #[arg(long, value_name = "SECONDS", default_value = "120")]
    wait: u64,
}

/// Arguments of `cluster move`.
#[derive(Debug, Args)]
pub(super) struct MoveArgs {
    /// Accounts; those of the same shards go with them.
    #[arg(required = true, value_name = "ACCOUNT")]
    accounts: Vec<String>,
    /// To which monitor (its monitor.instance).
    #[arg(long, value_name = "NAME", required_unless_present = "anywhere")]
    to: Option<String>,
    /// To wherever they fall: what was said before is forgotten.
    #[arg(long, conflicts_with = "to")]
    anywhere: bool,
}

pub(super) fn execute(command: &ClusterCommand, globals: &Globals) -> Exit {
    let settings = match globals.load() {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let Some(database) = &settings.journal.database else {
        tell(
            "error: the journal is in a file, so there is one monitor: `idlewatch status`; docs/cluster.md has more of them",
        );
        return Exit::Config;
    };
    let done = Overview::open(database).and_then(|overview| match command {
        ClusterCommand::Status(args) => status(args, overview),
        ClusterCommand::Drain(args) => drain(args, &settings.monitor.instance, overview),
        ClusterCommand::Move(args) => place(args, overview),
    });
    done.unwrap_or_else(|error| {
        tell(&format!("error: {error}"));
        Exit::CannotStart
    })
}

fn status(args: &StatusArgs, mut overview: Overview) -> Result<Exit, OpenError> {
    let members = overview.members()?;
    let shown = if args.json {
        members
            .iter()
            .filter_map(|member| serde_json::to_string(member).ok())
            .map(|line| line + "\n")
            .collect()
    } else {
        table(&members, Paint::of_stdout())
    };
    let well = if all_are_held(&members) { Exit::Ok } else { Exit::Degraded };
    Ok(say(&shown).and(well))
}

fn table(members: &[MemberReport], paint: Paint) -> String {
    let width = members.iter().map(|member| member.name.chars().count()).max().unwrap_or(0).max(4);
    let mut shown = format!(
        "{:width$}  {:8}  {:>6}  {:>15}  {:>8}  {:>10}\n",
        "NAME", "STATE", "SHARDS", "ONLINE", "EVENTS", "SEEN"
    );
    for member in members {
        let (online, all) = member.online();
        let state = format!("{:8}", member.state.as_str());
        let state = match member.state {
            MemberState::Alive => paint.good(&state),
            MemberState::Silent => paint.bad(&state),
            MemberState::Joining | MemberState::Draining | MemberState::Left => paint.warn(&state),
        };
        let online = format!("{online}/{all}");
        let seen = format!("{:.1} s ago", member.seen_ms_ago as f64 / 1000.0);
        let MemberReport { name, shards, events, .. } = member;
        shown += &format!("{name:width$}  {state}  {shards:>6}  {online:>15}  {events:>8}  {seen:>10}\n");
    }
    let held: u64 = members.iter().map(|member| member.shards).sum();
    let free = (SHARDS as u64).saturating_sub(held);
    if free > 0 {
        shown += &format!("{} of {SHARDS} with nobody\n", counted(free, "shard"));
    }
    shown
}

fn drain(args: &DrainArgs, own: &str, mut overview: Overview) -> Result<Exit, OpenError> {
    let name = args.name.as_deref().unwrap_or(own);
    if !overview.drain(name, !args.undo)? {
        tell(&format!("error: no monitor named {name} is there; `idlewatch cluster status` has them"));
        return Ok(Exit::Usage);
    }
    if args.undo {
        return Ok(say(&format!("{name} gets its part again\n")));
    }
    for _ in 0..args.wait * 2 {
        let members = overview.members()?;
        let left = members.iter().find(|member| member.name == name).map_or(0, |member| member.shards);
        if left == 0 && all_are_held(&members) {
            return Ok(say(&format!("{name} has no accounts any more, until it starts again\n")));
        }
        let takers = |member: &&MemberReport| {
            member.name != name && matches!(member.state, MemberState::Alive | MemberState::Joining)
        };
        if members.iter().find(takers).is_none() {
            overview.drain(name, false)?;
            tell(&format!("error: there is nobody else to take what {name} has"));
            return Ok(Exit::Degraded);
        }
        std::thread::sleep(LOOK);
    }
    tell(&format!("error: {name} still has accounts; it goes on handing them over"));
    Ok(Exit::Degraded)
}

fn place(args: &MoveArgs, mut overview: Overview) -> Result<Exit, OpenError> {
    let mut shards: Vec<_> = args.accounts.iter().map(|id| Shard::of(&id.as_str().into())).collect();
    shards.sort_unstable();
    shards.dedup();
    let what = counted(shards.len(), "shard");
    let to = args.to.as_deref();
    if !overview.place(&shards, to)? {
        tell("error: no monitor of that name is known; `idlewatch cluster status` has them");
        return Ok(Exit::Usage);
    }
    Ok(match to {
        Some(name) => say(&format!("{what}: at {name}, whenever it is there\n")),
        None => say(&format!("{what}: wherever they fall\n")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, state: MemberState, shards: u64) -> MemberReport {
        MemberReport {
            name: name.to_owned(),
            state,
            shards,
            placed: 0,
            accounts: serde_json::json!({"online": 9, "backoff": 1}).as_object().unwrap().clone(),
            events: 3,
            seen_ms_ago: 250,
            process: format!("{name} (pid 7)"),
        }
    }

    #[test]
    fn the_table_shows_each_and_what_nobody_has() {
        let members = [member("a", MemberState::Alive, 512), member("longer", MemberState::Silent, 500)];
        let shown = table(&members, Paint::new(false));
        let expected = "NAME    STATE     SHARDS           ONLINE    EVENTS        SEEN
a       alive        512             9/10         3   0.2 s ago
longer  silent       500             9/10         3   0.2 s ago
12 shards of 1024 with nobody
";
        assert_eq!(shown, expected);
    }
}
