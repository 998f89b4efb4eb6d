//! `idlewatch init`: the first configuration, tried before it is written.

mod dialogue;
mod service;

use std::io::{self, ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use secrecy::ExposeSecret;

use self::dialogue::{Dialogue, Then, Unanswered};
use super::{Exit, Globals, oauth, tell};
use crate::account::session::Wires;
use crate::config::settings::{Account, Settings, TlsMode};
use crate::config::starter::{Guess, Server, Starter, StarterGrant, StarterLogin, guess, id_of};
use crate::config::{Issue, from_text, load};
use crate::imap::changes::WantedChanges;
use crate::mailbox_choice::entry_of;
use crate::once::outcome::Failure;
use crate::private_file;
use crate::secrets::SecretSource;
use crate::survey::Finding;
use crate::survey::report::AccountReport;
use crate::survey::runner::survey;
use crate::text::{counted, line};

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
    /// The id of an application that asks a person for permission (OAuth2), in place of a password: docs/oauth2.md.
    #[arg(long, value_name = "ID", conflicts_with_all = ["password_file", "password_env"])]
    client_id: Option<String>,
    /// With `--client-id`: where tokens come from, where the provider is not known.
    #[arg(long, value_name = "URL", requires = "client_id")]
    token_url: Option<String>,
    /// With `--client-id`: where the code comes from that is entered by the person, where the provider is not known.
    #[arg(long, value_name = "URL", requires = "client_id")]
    device_url: Option<String>,
    /// With `--client-id`: what is asked for; may be given several times.
    #[arg(long = "scope", value_name = "SCOPE", requires = "client_id")]
    scopes: Vec<String>,
    /// PEM file of the roots of the server's certificate, in place of the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
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
                globals.tell_issues(issues);
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
    login: StarterLogin,
    ca_file: Option<PathBuf>,
}

impl Draft {
    fn starter(&self, mailboxes: Vec<String>) -> Starter {
        Starter {
            id: id_of(&self.address),
            server: self.provider.is_none().then(|| self.server.clone()),
            provider: self.provider.clone(),
            user: self.user.clone(),
            login: self.login.clone(),
            ca_file: self.ca_file.clone(),
            mailboxes,
        }
    }
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
            what_it_takes(guess).iter().for_each(|words| tell(words));
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
        let login = self.login(guess.as_ref().is_some_and(|guess| guess.is_oauth_only))?;
        let ca_file = args.ca_file.as_ref().map(absolute).transpose()?;
        Ok(Draft { address, provider: guess.map(|guess| guess.provider), server, user, login, ca_file })
    }

    fn login(&self, is_oauth_only: bool) -> Result<StarterLogin, Failed> {
        if let Some(password) = self.given_password()? {
            return Ok(StarterLogin::Password(password));
        }
        if is_oauth_only || self.args.client_id.is_some() {
            let client_id = self.answer(self.args.client_id.clone(), "--client-id", Dialogue::client_id)?;
            let InitArgs { token_url, device_url, scopes, .. } = self.args;
            let (token_url, device_url) = (token_url.clone(), device_url.clone());
            return Ok(StarterLogin::OAuth(StarterGrant {
                client_id,
                token_url,
                device_url,
                scopes: scopes.clone(),
            }));
        }
        let typed = self.answer(None, "--password-file or --password-env", Dialogue::password)?;
        Ok(StarterLogin::Password(SecretSource::Inline(typed)))
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
        let file = self.args.password_file.as_ref().map(absolute).transpose()?.map(SecretSource::File);
        Ok(file.or_else(|| self.args.password_env.clone().map(SecretSource::Env)))
    }

    /// Tries until it works, or until somebody has had enough.
    fn attempt(&self, draft: &mut Draft) -> Result<Option<Finding>, Failed> {
        if matches!(draft.login, StarterLogin::OAuth(_)) {
            self.have_permitted(draft)?;
        }
        loop {
            let finding = self.look(draft)?;
            let report = AccountReport::new(&finding, WantedChanges::default(), Timestamp::now());
            tell_report(&report, &finding);
            if report.error.is_none() {
                return Ok(Some(finding));
            }
            let refused = report.failure == Some(Failure::Refused);
            let exit = if refused { Exit::Refused } else { Exit::Unreachable };
            let Some(dialogue) = &self.dialogue else { return Err(Failed::Refused(exit)) };
            match dialogue.then(refused)? {
                Then::Password => {
                    draft.login = StarterLogin::Password(SecretSource::Inline(dialogue.password()?));
                }
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

    /// A person permits access, now; what comes of it is kept where the monitor will look for it.
    fn have_permitted(&self, draft: &Draft) -> Result<(), Failed> {
        let (settings, account) = trial(draft)?;
        self.globals.log(&settings.log);
        match oauth::permit_access(&settings, &account) {
            Exit::Ok => Ok(()),
            exit => Err(Failed::Refused(exit)),
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
            Some(dialogue) if names.len() > 1 => {
                Ok(dialogue.mailboxes(&names)?.iter().map(|name| entry_of(name)).collect())
            }
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

    fn write(&self, mut draft: Draft, mailboxes: Vec<String>, path: &Path) -> Result<(), Failed> {
        let id = id_of(&draft.address);
        let name = format!("{id}.password");
        let secret = path.with_file_name(&name);
        let typed = match &draft.login {
            StarterLogin::Password(SecretSource::Inline(password)) => Some(password.clone()),
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
        if beside {
            draft.login = StarterLogin::Password(SecretSource::File(PathBuf::from(&name)));
        }
        let text = draft.starter(mailboxes).text();
        from_text("init", &text).map_err(Failed::Invalid)?;
        // Whoever said yes, by flag or by word, said it to what is there by now.
        let over = path.exists();
        if let Some(typed) = typed.filter(|_| beside) {
            put(&secret, typed.expose_secret(), true)?;
        }
        put(path, &text, over)?;
        let here = load::files(&[]).first().is_some_and(|usual| usual == path);
        let option = if here { String::new() } else { format!(" -c {}", path.display()) };
        let permit = self.args.no_network && matches!(draft.login, StarterLogin::OAuth(_));
        let first =
            if permit { format!("    idlewatch{option} oauth login -a {id}\n") } else { String::new() };
        tell(&format!("\n{} is written. Next:\n\n{first}    idlewatch{option} run\n", path.display()));
        if service::is_beside(path) {
            tell(&service::advice(path, &id, &draft.login));
        }
        Ok(())
    }
}

fn put(path: &Path, text: &str, over: bool) -> Result<(), Failed> {
    private_file::write(path, text.as_bytes(), over).map_err(|cause| match cause.kind() {
        ErrorKind::AlreadyExists => Failed::Exists(path.to_owned()),
        _ => Failed::Write { path: path.to_owned(), cause },
    })
}

/// What a provider wants to see, where it is not simply the password.
fn what_it_takes(guess: &Guess) -> Option<String> {
    let provider = &guess.provider;
    if guess.is_oauth_only {
        return Some(format!(
            "{provider} takes no passwords, but the permission of a person (OAuth2), for which an application has to be registered\nas a public client that allows device code flow: docs/oauth2.md says how; its client id is asked for here"
        ));
    }
    let words = format!(
        "{provider} takes a password that is made for programs in its web settings (app password), not your own"
    );
    guess.wants_app_password.then_some(words)
}

fn absolute(path: &PathBuf) -> Result<PathBuf, Failed> {
    std::path::absolute(path).map_err(|cause| Failed::Write { path: path.clone(), cause })
}

/// In the user's home, but for root.
fn usual_place() -> PathBuf {
    let places = load::default_files();
    let own = if rustix::process::geteuid().is_root() { places.first() } else { places.last() };
    own.cloned().unwrap_or_else(|| PathBuf::from("idlewatch.toml"))
}

/// The draft as an account that is looked at, with the password that was typed.
fn trial(draft: &Draft) -> Result<(Settings, Arc<Account>), Failed> {
    let starter = draft.starter(vec!["INBOX".to_owned()]);
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
    tell(&format!("  logged in; {}; {watched}", counted(available, "mailbox")));
    for message in finding.titles.iter().flat_map(|titles| &titles.messages) {
        let subject = message.summary.subject.as_deref().unwrap_or("(no subject)");
        let from = message.summary.from.first().map_or("(unknown sender)", |from| from.address.as_str());
        tell(&format!("  {:<32}  {}", line(from, 32), line(subject, 72)));
    }
    report.warnings.iter().for_each(|warning| tell(&format!("  warning: {warning}")));
}
