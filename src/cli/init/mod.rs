//! `idlewatch init`: the first configuration, tried before it is written.

mod dialogue;
mod private_file;

use std::io::{self, ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use secrecy::ExposeSecret;

use self::dialogue::{Dialogue, Then, Unanswered};
use super::{Exit, Globals, tell, tell_issues};
use crate::account::session::Wires;
use crate::config::settings::{Account, Settings, TlsMode};
use crate::config::starter::{Server, Starter, guess, id_of};
use crate::config::{Issue, from_text, load};
use crate::once::outcome::Failure;
use crate::secrets::SecretSource;
use crate::survey::Finding;
use crate::survey::report::AccountReport;
use crate::survey::runner::survey;
use crate::text::line;

/// The latest messages that are shown.
const TITLES: u32 = 3;

/// Mailboxes that are offered.
const MOST_OFFERED: usize = 500;

/// Flags of `init`: each answers a question.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The e-mail address.
    #[arg(long)]
    address: Option<String>,
    /// The IMAP server; not needed where the provider is known by the address.
    #[arg(long)]
    host: Option<String>,
    /// Its port. Default: 993, or 143 with another `--tls`.
    #[arg(long, requires = "host")]
    port: Option<u16>,
    /// How the connection is secured.
    #[arg(long, value_enum, default_value = "implicit", requires = "host")]
    tls: Tls,
    /// The name to log in with. Default: the address.
    #[arg(long)]
    user: Option<String>,
    /// A file with the password; the configuration names it.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// An environment variable with the password; the configuration names it.
    #[arg(long, value_name = "NAME", conflicts_with = "password_file")]
    password_env: Option<String>,
    /// A mailbox to watch; may be given several times. Default: INBOX.
    #[arg(long = "mailbox", value_name = "NAME")]
    mailboxes: Vec<String>,
    /// Where to write the configuration.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write it without trying it.
    #[arg(long)]
    no_network: bool,
    /// Ask nothing; write over a file that is there.
    #[arg(short, long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tls {
    Implicit,
    Starttls,
    None,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("{flag} is needed where nobody can be asked")]
    Missing { flag: &'static str },
    #[error("{0}: {1}")]
    Unusable(&'static str, String),
    #[error("{path} is there already", path = .0.display())]
    Exists(PathBuf),
    #[error("{path}: {cause}", path = .path.display())]
    Write { path: PathBuf, cause: io::Error },
    #[error("this cannot be written as a configuration")]
    Invalid(Vec<Issue>),
    #[error("the account cannot be used like this; nothing was written")]
    Refused(Exit),
}

pub(super) fn execute(args: &InitArgs, globals: &Globals) -> Exit {
    match Init::new(args, globals).run() {
        Ok(()) => Exit::Ok,
        Err(failed) => {
            if let Failed::Invalid(issues) = &failed {
                tell_issues(issues);
            }
            tell(&format!("error: {failed}"));
            failed.hint().iter().for_each(|hint| tell(&format!("hint: {hint}")));
            failed.exit()
        }
    }
}

impl Failed {
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } => Some(
                "on a terminal, `idlewatch init` asks for everything; `idlewatch init --help` has the flags",
            ),
            Self::Exists(_) => Some("--yes writes over it; --output names another place"),
            Self::Refused(_) => Some("--no-network writes without trying"),
            _ => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Unanswered(Unanswered::Interrupted) => Exit::Interrupted,
            Self::Unanswered(Unanswered::Gone)
            | Self::Missing { .. }
            | Self::Unusable(..)
            | Self::Exists(_) => Exit::Usage,
            Self::Write { .. } => Exit::Io,
            Self::Invalid(_) => Exit::Config,
            Self::Refused(exit) => *exit,
        }
    }
}

/// What is asked, and of whom.
struct Init<'a> {
    args: &'a InitArgs,
    globals: &'a Globals,
    dialogue: Option<Dialogue>,
}

/// What is known so far.
struct Draft {
    address: String,
    provider: Option<String>,
    server: Server,
    user: String,
    password: SecretSource,
}

impl<'a> Init<'a> {
    fn new(args: &'a InitArgs, globals: &'a Globals) -> Self {
        let asks = !args.yes && io::stdin().is_terminal() && io::stderr().is_terminal();
        Self { args, globals, dialogue: asks.then(Dialogue::new) }
    }

    fn run(&self) -> Result<(), Failed> {
        if self.dialogue.is_some() {
            tell(
                "This asks for one mailbox, tries it without changing anything there, and writes a configuration.\n",
            );
        }
        let mut draft = self.draft()?;
        let tried = if self.args.no_network { None } else { self.attempt(&mut draft)? };
        let mailboxes = self.mailboxes(tried.as_ref())?;
        let path = self.output()?;
        self.write(draft, mailboxes, &path)
    }

    /// The answer of a flag, of a person, or none.
    fn answer<T>(
        &self,
        given: Option<T>,
        flag: &'static str,
        ask: impl FnOnce(&Dialogue) -> Result<T, Unanswered>,
    ) -> Result<T, Failed> {
        match (given, &self.dialogue) {
            (Some(given), _) => Ok(given),
            (None, Some(dialogue)) => Ok(ask(dialogue)?),
            (None, None) => Err(Failed::Missing { flag }),
        }
    }

    fn draft(&self) -> Result<Draft, Failed> {
        let args = self.args;
        let address = self.answer(args.address.clone(), "--address", Dialogue::address)?;
        dialogue::address(&address).map_err(|problem| Failed::Unusable("--address", problem))?;
        let guess = guess(&address).filter(|_| args.host.is_none());
        if let Some(guess) = &guess {
            tell(&format!("{}: {}:{}", guess.provider, guess.server.host, guess.server.port));
            if guess.is_oauth_only {
                tell(&format!(
                    "warning: {} takes no passwords: it needs OAuth2 (docs/getting-started.md)",
                    guess.provider
                ));
            }
        }
        let server = match (&guess, self.given_server()) {
            (Some(guess), _) => guess.server.clone(),
            (None, given) => self.answer(given, "--host", |dialogue| dialogue.server(&address))?,
        };
        let likely = guess.as_ref().map_or(&address, |guess| &guess.user);
        let user = match (&args.user, &self.dialogue, &guess) {
            (Some(user), _, _) => user.clone(),
            (None, Some(dialogue), None) => dialogue.user(likely)?,
            _ => likely.clone(),
        };
        let password =
            self.answer(self.given_password()?, "--password-file or --password-env", |dialogue| {
                dialogue.password().map(SecretSource::Inline)
            })?;
        Ok(Draft { address, provider: guess.map(|guess| guess.provider), server, user, password })
    }

    fn given_server(&self) -> Option<Server> {
        let host = self.args.host.clone()?;
        let (tls, port) = match self.args.tls {
            Tls::Implicit => (TlsMode::Implicit, 993),
            Tls::Starttls => (TlsMode::StartTls, 143),
            Tls::None => (TlsMode::None, 143),
        };
        Some(Server { host, port: self.args.port.unwrap_or(port), tls })
    }

    fn given_password(&self) -> Result<Option<SecretSource>, Failed> {
        let absolute = |path: &PathBuf| {
            std::path::absolute(path).map_err(|cause| Failed::Write { path: path.clone(), cause })
        };
        let file = self.args.password_file.as_ref().map(absolute).transpose()?.map(SecretSource::File);
        Ok(file.or_else(|| self.args.password_env.clone().map(SecretSource::Env)))
    }

    /// Tries until it works, or until somebody has had enough.
    fn attempt(&self, draft: &mut Draft) -> Result<Option<Finding>, Failed> {
        loop {
            let finding = self.look(draft)?;
            let report = AccountReport::new(&finding, Timestamp::now());
            tell_report(&report, &finding);
            if report.error.is_none() {
                return Ok(Some(finding));
            }
            let refused = report.failure == Some(Failure::Refused);
            let exit = if refused { Exit::Refused } else { Exit::Unreachable };
            let Some(dialogue) = &self.dialogue else { return Err(Failed::Refused(exit)) };
            match dialogue.then(refused)? {
                Then::Password => draft.password = SecretSource::Inline(dialogue.password()?),
                Then::User => draft.user = dialogue.user(&draft.user)?,
                Then::Server => {
                    draft.server = dialogue.server(&draft.address)?;
                    draft.provider = None;
                }
                Then::WriteAnyway => return Ok(None),
                Then::GiveUp => return Err(Failed::Refused(exit)),
            }
        }
    }

    /// One connection, one login.
    fn look(&self, draft: &Draft) -> Result<Finding, Failed> {
        let (settings, account) = trial(draft)?;
        self.globals.log(&settings.log);
        let Server { host, port, .. } = &draft.server;
        tell(&format!("trying {host}:{port} as {} …", line(&draft.user, 255)));
        let (wires, _prober) = Wires::new(&settings);
        Ok(actix::System::new().block_on(survey(account, TITLES, &wires)))
    }

    fn mailboxes(&self, tried: Option<&Finding>) -> Result<Vec<String>, Failed> {
        if !self.args.mailboxes.is_empty() {
            return Ok(self.args.mailboxes.clone());
        }
        let listing = tried.and_then(|finding| finding.surveyed.as_ref()).map(|surveyed| &surveyed.listing);
        let mut names: Vec<String> = listing
            .into_iter()
            .flat_map(|listing| &listing.mailboxes)
            .filter(|listed| listed.selectable)
            .map(|listed| listed.name.as_str().to_owned())
            .filter(|name| line(name, 255) == *name)
            .take(MOST_OFFERED)
            .collect();
        names.sort_by_key(|name| (name != "INBOX", name.clone()));
        match &self.dialogue {
            Some(dialogue) if names.len() > 1 => Ok(dialogue.mailboxes(&names)?),
            _ => Ok(vec!["INBOX".to_owned()]),
        }
    }

    fn output(&self) -> Result<PathBuf, Failed> {
        let likely = self.globals.files.first().cloned().unwrap_or_else(usual_place);
        let path = match (&self.args.output, &self.dialogue) {
            (Some(path), _) => path.clone(),
            (None, Some(dialogue)) => PathBuf::from(dialogue.output(&likely.to_string_lossy())?),
            (None, None) => likely,
        };
        let over = self.args.yes
            || !path.exists()
            || match &self.dialogue {
                Some(dialogue) => {
                    dialogue.yes(&format!("{} is there already. Write over it?", path.display()))?
                }
                None => false,
            };
        if over { Ok(path) } else { Err(Failed::Exists(path)) }
    }

    fn write(&self, draft: Draft, mailboxes: Vec<String>, path: &Path) -> Result<(), Failed> {
        let id = id_of(&draft.address);
        let name = format!("{id}.password");
        let secret = path.with_file_name(&name);
        let typed = match &draft.password {
            SecretSource::Inline(password) => Some(password.clone()),
            _ => None,
        };
        let beside = match (&typed, &self.dialogue) {
            (Some(_), Some(dialogue)) => {
                let places = [
                    format!("in a file of its own that only you can read: {}", secret.display()),
                    "in the configuration, in clear".to_owned(),
                ];
                dialogue.place(&places)? == 0
            }
            _ => false,
        };
        let password = if beside { SecretSource::File(PathBuf::from(&name)) } else { draft.password };
        let server = draft.provider.is_none().then_some(draft.server);
        let starter = Starter { id, server, provider: draft.provider, user: draft.user, password, mailboxes };
        let text = starter.text();
        from_text("init", &text).map_err(Failed::Invalid)?;
        // Whoever said yes, by flag or by word, said it to what is there by now.
        let over = path.exists();
        if let Some(typed) = typed.filter(|_| beside) {
            put(&secret, typed.expose_secret(), true)?;
        }
        put(path, &text, over)?;
        let here = load::files(&[]).first().is_some_and(|usual| usual == path);
        let option = if here { String::new() } else { format!(" -c {}", path.display()) };
        tell(&format!("\n{} is written. Next:\n\n    idlewatch{option} run\n", path.display()));
        Ok(())
    }
}

fn put(path: &Path, text: &str, over: bool) -> Result<(), Failed> {
    private_file::write(path, text, over).map_err(|cause| match cause.kind() {
        ErrorKind::AlreadyExists => Failed::Exists(path.to_owned()),
        _ => Failed::Write { path: path.to_owned(), cause },
    })
}

/// In the user's home, but for root.
fn usual_place() -> PathBuf {
    let places = load::default_files();
    let own = if rustix::process::geteuid().is_root() { places.first() } else { places.last() };
    own.cloned().unwrap_or_else(|| PathBuf::from("idlewatch.toml"))
}

/// The draft as an account that is looked at, with the password that was typed.
fn trial(draft: &Draft) -> Result<(Settings, Arc<Account>), Failed> {
    let starter = Starter {
        id: id_of(&draft.address),
        server: draft.provider.is_none().then(|| draft.server.clone()),
        provider: draft.provider.clone(),
        user: draft.user.clone(),
        password: draft.password.clone(),
        mailboxes: vec!["INBOX".to_owned()],
    };
    let (settings, _) = from_text("init", &starter.text()).map_err(Failed::Invalid)?;
    let account = settings.accounts.first().cloned().ok_or_else(|| Failed::Invalid(Vec::new()))?;
    Ok((settings, account))
}

fn tell_report(report: &AccountReport, finding: &Finding) {
    if let Some(tls) = &report.tls {
        let version = tls.version.map(|version| format!(" {version}")).unwrap_or_default();
        tell(&format!("  TLS{version}, a certificate for {} more days", tls.days_left));
    }
    if let Some(error) = &report.error {
        let code = error.code.as_ref().map(|code| format!(" [{code}]")).unwrap_or_default();
        tell(&format!("  failed: {}{code}: {}", error.error_type, error.message));
        report.hint.iter().for_each(|hint| tell(&format!("  hint: {hint}")));
        return;
    }
    let watched = if report.watched_by == Some("poll") {
        "the server has no IDLE and is asked now and then"
    } else {
        "the server tells of new mail at once"
    };
    let available = report.mailboxes.as_ref().map_or(0, |mailboxes| mailboxes.available);
    tell(&format!("  logged in; {available} mailboxes; {watched}"));
    for message in finding.titles.iter().flat_map(|titles| &titles.messages) {
        let subject = message.summary.subject.as_deref().unwrap_or("(no subject)");
        let from = message.summary.from.first().map_or("(unknown sender)", |from| from.address.as_str());
        tell(&format!("  {:<32}  {}", line(from, 32), line(subject, 72)));
    }
    report.warnings.iter().for_each(|warning| tell(&format!("  warning: {warning}")));
}
