//! `idlewatch check`

use clap::Args;

use super::{Exit, Globals, say, tell, tell_issues};
use crate::config::{Severity, shown};

/// Flags of `check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The configuration only; nothing is connected to. (Checking logins comes in a later version.)
    #[arg(long, required = true)]
    no_network: bool,
    /// Warnings are errors.
    #[arg(long)]
    deny_warnings: bool,
    /// Problems as JSON on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &CheckArgs, globals: &Globals) -> Exit {
    if globals.has_no_file() {
        return Exit::Config;
    }
    debug_assert!(args.no_network, "clap requires it");
    let (issues, summary) = match crate::config::check(&globals.files) {
        Ok((settings, warnings)) => {
            let mailboxes: usize = settings.accounts.iter().map(|account| account.mailboxes.len()).sum();
            let outputs: Vec<_> = settings.outputs.iter().map(|output| output.name.clone()).collect();
            let summary = format!(
                "ok: {} accounts, {mailboxes} mailboxes, outputs: {}, state: {}\n",
                settings.accounts.len(),
                outputs.join(", "),
                settings.monitor.state_dir.display()
            );
            (warnings, Some(summary))
        }
        Err(issues) => (issues, None),
    };
    if args.json {
        let rows: Vec<_> = issues
            .iter()
            .map(|issue| {
                let severity = if issue.severity == Severity::Error { "error" } else { "warning" };
                serde_json::json!({"severity": severity, "origin": issue.origin, "path": issue.path, "message": issue.message})
            })
            .collect();
        let _ = say(&format!("{}\n", serde_json::json!({"ok": summary.is_some(), "issues": rows})));
    }
    match summary {
        None if args.json => Exit::Config,
        None => {
            tell_issues(&issues);
            Exit::Config
        }
        Some(summary) => {
            if !args.json {
                shown(&issues).iter().for_each(|line| tell(line));
            }
            if args.deny_warnings && !issues.is_empty() {
                return Exit::Config;
            }
            if args.json { Exit::Ok } else { say(&summary) }
        }
    }
}
