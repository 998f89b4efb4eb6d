//! `idlewatch demo`

use clap::Args;

use super::{Exit, Globals};

/// Flags of `demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// End after this time, like `10s`; else at Ctrl-C.
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<String>,
}

pub(super) fn execute(_args: &DemoArgs, _globals: &Globals) -> Exit {
    Exit::CannotStart
}
