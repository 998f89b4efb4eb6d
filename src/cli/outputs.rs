//! `outputs`: those of the running monitor, and one more try.

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::monitor::failed;
use super::{Exit, Globals, say};
use crate::status::{OutputList, OutputReport, RetryReport, ago};
use crate::terminal::Paint;
use crate::text::{counted, line};

/// Bytes of an error that are shown.
const MOST_ERROR: usize = 160;

/// `outputs`
#[derive(Debug, Subcommand)]
pub(super) enum OutputsCommand {
    /// How they do.
    List(ListArgs),
    /// Have one tried now that waits for its next try.
    Retry(RetryArgs),
}

/// Flags of `outputs list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Arguments of `outputs retry`.
#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    /// Of `[outputs.NAME]`.
    name: String,
}

pub(super) fn execute(command: &OutputsCommand, globals: &Globals) -> Exit {
    match command {
        OutputsCommand::List(args) => list(args, globals),
        OutputsCommand::Retry(args) => retry(args, globals),
    }
}

fn list(args: &ListArgs, globals: &Globals) -> Exit {
    let asked = globals.ask(|client| async move { client.get::<OutputList>("/api/v1/outputs").await });
    let now = Timestamp::now();
    match asked {
        Ok(OutputList { outputs }) if args.json => {
            let lines = outputs.iter().filter_map(|output| serde_json::to_string(output).ok());
            say(&lines.map(|line| line + "\n").collect::<String>())
        }
        Ok(OutputList { outputs }) => say(&outputs
            .iter()
            .map(|output| standing(output, now, Paint::of_stdout()) + "\n")
            .collect::<String>()),
        Err(error) => failed(&error),
    }
}

/// 1 where it was tried, and does not take events.
fn retry(RetryArgs { name }: &RetryArgs, globals: &Globals) -> Exit {
    let path = format!("/api/v1/outputs/{name}/retry");
    let report: RetryReport = match globals.ask(|client| async move { client.post(&path).await }) {
        Ok(report) => report,
        Err(error) => return failed(&error),
    };
    let goes_on = if report.settled { "" } else { "; it is being tried, and that goes on" };
    let said = say(&format!("{}{goes_on}\n", standing(&report.output, Timestamp::now(), Paint::of_stdout())));
    if said == Exit::Ok && report.settled && !report.output.is_ok() { Exit::SomeFailed } else { said }
}

/// How an output does, on a line.
pub(super) fn standing(output: &OutputReport, now: Timestamp, paint: Paint) -> String {
    let OutputReport { name, state, waiting, delivered, dead_letters, dropped, .. } = output;
    let error = output.last_error.as_deref().filter(|_| !output.is_ok());
    let error = error.map(|error| format!(": {}", line(error, MOST_ERROR))).unwrap_or_default();
    let next = output.next_try_at.map(|at| format!("; next try in {}", ago(now, at))).unwrap_or_default();
    let dead = if *dead_letters > 0 {
        format!(" · {}", counted(*dead_letters, "dead letter"))
    } else {
        String::new()
    };
    let lost = if *dropped > 0 { format!(" · {dropped} dropped") } else { String::new() };
    let state = if output.is_ok() { paint.good(state) } else { paint.bad(state) };
    format!("{name} {state} · {delivered} delivered · {waiting} waiting{dead}{lost}{error}{next}")
}
