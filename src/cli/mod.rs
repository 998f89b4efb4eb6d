//! The command line: one file per subcommand, one place for exit codes and for what goes to stdout.

mod accounts_table;
mod ask;
mod check;
mod cluster;
mod config;
mod demo;
mod event;
mod init;
mod mailboxes;
mod monitor;
mod oauth;
mod outputs;
mod problems;
mod replay;
mod run;
mod running;
mod selection;
mod shell;
mod state;
mod titles;

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::settings::{LogFormat, LogSettings, Settings};
use crate::config::{Issue, Loaded};
use crate::diagnostics;
pub(crate) use crate::exit::Exit;
use crate::privacy::Rule;
use crate::terminal::{self, Color};

/// Version, commit, compiler, features.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("IDLEWATCH_COMMIT"),
    "\nrustc: ",
    env!("IDLEWATCH_RUSTC"),
    "\nfeatures: ",
    env!("IDLEWATCH_FEATURES"),
);

/// Watches many IMAP mailboxes and turns every new message into one structured event.
#[derive(Debug, Parser)]
#[command(name = "idlewatch", version, long_version = LONG_VERSION, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
pub struct Globals {
    /// A configuration file; more than one are merged in this order.
    #[arg(short = 'c', long = "config", global = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// More diagnostics; twice for all.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Errors only.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Colours.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_default_value = true)]
    color: Color,
    /// The form of the diagnostics on stderr.
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormatArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormatArg {
    Auto,
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch all accounts until told to stop.
    Run(run::RunArgs),
    /// Ask for a mailbox, try it, write the first configuration.
    Init(init::InitArgs),
    /// Check the configuration, then log in to every account once.
    Check(check::CheckArgs),
    /// Show the configuration, its schema, its reference, its places.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// What events look like: their schema, and one of each kind.
    #[command(subcommand)]
    Event(event::EventCommand),
    /// See it work: three accounts on a small IMAP server inside, mail every second.
    Demo(demo::DemoArgs),
    /// List the mailboxes of an account.
    Mailboxes(mailboxes::MailboxesArgs),
    /// Access tokens (OAuth2): permission by a person, when they end, a trial.
    #[command(subcommand, name = "oauth")]
    OAuth(oauth::OAuthCommand),
    /// How the running monitor is: 0 ready, 1 degraded, 3 not running.
    Status(running::StatusArgs),
    /// The accounts of the running monitor; those that are in the journal's database.
    #[command(subcommand)]
    Accounts(running::AccountsCommand),
    /// The outputs of the running monitor.
    #[command(subcommand)]
    Outputs(outputs::OutputsCommand),
    /// Have an account of the running monitor tried again now, whatever it waits for.
    Resume(running::AccountArgs),
    /// Have the connections of an account of the running monitor made anew.
    Reconnect(running::AccountArgs),
    /// Have the running monitor read its configuration again.
    Reload,
    /// Tell past messages again: through the running monitor, or alone where none runs.
    Replay(replay::ReplayArgs),
    /// What the monitor keeps: where mailboxes stand, dead letters.
    #[command(subcommand)]
    State(state::StateCommand),
    /// The monitors that share the accounts over one database: who has how many, drain one, place accounts.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Completions of a shell, on stdout.
    Completions(shell::CompletionsArgs),
    /// Write manual pages into a directory.
    Man(shell::ManArgs),
    /// List the latest messages of a mailbox.
    Titles(titles::TitlesArgs),
}

/// Parses the command line and runs it.
pub fn main() -> i32 {
    let cli = Cli::parse();
    crate::process::keep_secrets();
    crate::wire::tls::use_ring();
    let globals = &cli.globals;
    terminal::choose(globals.color);
    let exit = match cli.command {
        Command::Run(args) => run::execute(args, globals),
        Command::Init(args) => init::execute(&args, globals),
        Command::Check(args) => check::execute(&args, globals),
        Command::Config(command) => config::execute(&command, globals),
        Command::Event(command) => event::execute(&command),
        Command::Demo(args) => demo::execute(&args, globals),
        Command::Mailboxes(args) => mailboxes::execute(&args, globals),
        Command::OAuth(command) => oauth::execute(&command, globals),
        Command::Status(args) => running::status(&args, globals),
        Command::Accounts(running::AccountsCommand::List(args)) => running::list(&args, globals),
        Command::Accounts(running::AccountsCommand::Import(args)) => accounts_table::import(&args, globals),
        Command::Accounts(running::AccountsCommand::Export(args)) => accounts_table::export(&args, globals),
        Command::Outputs(command) => outputs::execute(&command, globals),
        Command::Resume(args) => running::resume(&args, globals),
        Command::Reconnect(args) => running::reconnect(&args, globals),
        Command::Reload => running::reload(globals),
        Command::Replay(args) => replay::execute(&args, globals),
        Command::State(command) => state::execute(&command, globals),
        Command::Cluster(command) => cluster::execute(&command, globals),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
        Command::Titles(args) => titles::execute(&args, globals),
    };
    exit.code()
}

impl Globals {
    /// The settings, with warnings told; or every problem told, and how to end.
    fn load(&self) -> Result<Settings, Exit> {
        self.load_by(crate::config::load)
    }

    /// The same, as they are read by this.
    fn load_by(&self, load: impl Fn(&[PathBuf]) -> Result<Loaded, Vec<Issue>>) -> Result<Settings, Exit> {
        if self.has_no_file() {
            return Err(Exit::Config);
        }
        match load(&self.files) {
            Ok((settings, warnings)) => {
                self.log(&settings.log);
                if settings.outputs.iter().any(|output| output.privacy.rules.addresses != Rule::Include) {
                    diagnostics::withhold_addresses();
                }
                self.tell_warnings(&warnings);
                Ok(settings)
            }
            Err(issues) => {
                self.tell_issues(&issues);
                Err(Exit::Config)
            }
        }
    }

    /// Whether there is no configuration at all; told, with how to begin.
    fn has_no_file(&self) -> bool {
        let none = self.files.is_empty() && crate::config::load::files(&[]).is_empty();
        if none {
            tell(&first_run());
        }
        none
    }

    /// The form that the flag asks for.
    fn asked_format(&self) -> Option<LogFormat> {
        Some(match self.log_format? {
            LogFormatArg::Auto => LogFormat::Auto,
            LogFormatArg::Text => LogFormat::Text,
            LogFormatArg::Json => LogFormat::Json,
        })
    }

    fn log(&self, settings: &LogSettings) {
        let format = self.asked_format().unwrap_or(settings.format);
        let verbosity = if self.quiet { -1 } else { i8::try_from(self.verbose).unwrap_or(2) };
        diagnostics::start(&LogSettings { format, ..settings.clone() }, verbosity);
    }
}

/// One line on stderr.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Data on stdout. A reader that has seen enough is no failure of a one-shot command.
fn say(text: &str) -> Exit {
    match write_out(text) {
        Ok(()) => Exit::Ok,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => not_said(&error),
    }
}

fn write_out(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())?;
    io::stdout().flush()
}

fn not_said(error: &io::Error) -> Exit {
    tell(&format!("error: stdout: {error}"));
    Exit::Io
}

/// Where it looked, and how to begin.
fn first_run() -> String {
    let places: Vec<_> =
        crate::config::load::default_files().iter().map(|path| path.display().to_string()).collect();
    format!(
        "error: no configuration found: looked at $IDLEWATCH_CONFIG, {}\n\
         hint: these begin one:\n  \
         idlewatch init                              asks for a mailbox, tries it, writes the configuration\n  \
         idlewatch config init > idlewatch.toml      an example to edit (--provider gmail: for that provider)\n  \
         idlewatch -c idlewatch.toml check           whether it works\n  \
         idlewatch demo                              see it work without any account",
        places.join(", ")
    )
}
