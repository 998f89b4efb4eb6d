//! `idlewatch completions` and `idlewatch man`: made of the command line itself.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Exit, say, tell};

/// Flags of `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Flags of `man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The directory to write the pages to.
    dir: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "idlewatch", &mut script);
    say(&String::from_utf8_lossy(&script))
}

pub(super) fn man(args: &ManArgs) -> Exit {
    let write = |dir: &Path| -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        clap_mangen::generate_to(Cli::command(), dir)
    };
    match write(&args.dir) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            tell(&format!("error: {}: {error}", args.dir.display()));
            Exit::Io
        }
    }
}
