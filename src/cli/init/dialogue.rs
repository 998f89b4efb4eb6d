//! Questions on the terminal. They go to stderr; an interrupt leaves the terminal as it was.

use std::io::{self, Write};

use dialoguer::theme::ColorfulTheme;
use dialoguer::{Confirm, Input, MultiSelect, Password, Select};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::settings::TlsMode;
use crate::config::starter::Server;
use crate::exit::Exit;

/// Nobody answers any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("nothing was written")]
    Interrupted,
    #[error("the questions were not answered")]
    Gone,
}

impl From<dialoguer::Error> for Unanswered {
    fn from(dialoguer::Error::IO(error): dialoguer::Error) -> Self {
        if error.kind() != io::ErrorKind::Interrupted {
            return Self::Gone;
        }
        // A list hides it.
        let _ = io::stderr().write_all(SHOW_CURSOR);
        Self::Interrupted
    }
}

const SHOW_CURSOR: &[u8] = b"\x1b[?25h\n";

/// What to do after an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Password,
    User,
    Server,
    WriteAnyway,
    GiveUp,
}

/// Somebody who can be asked.
pub(super) struct Dialogue {
    theme: ColorfulTheme,
}

impl Dialogue {
    /// With whoever sits at the terminal.
    pub(super) fn new() -> Self {
        restore_at_interrupt();
        Self { theme: ColorfulTheme::default() }
    }

    pub(super) fn address(&self) -> Result<String, Unanswered> {
        let question = Input::<String>::with_theme(&self.theme).with_prompt("E-mail address");
        Ok(question.validate_with(|text: &String| address(text)).interact_text()?)
    }

    pub(super) fn server(&self, address: &str) -> Result<Server, Unanswered> {
        let domain = address.rsplit_once('@').map_or("example.com", |(_, domain)| domain);
        let host: String = Input::with_theme(&self.theme)
            .with_prompt("IMAP server")
            .default(format!("imap.{domain}"))
            .validate_with(|text: &String| named(text))
            .interact_text()?;
        let modes = [
            ("TLS from the first byte (mostly port 993)", TlsMode::Implicit, 993),
            ("STARTTLS (mostly port 143)", TlsMode::StartTls, 143),
        ];
        let chosen = Select::with_theme(&self.theme)
            .with_prompt("Connection")
            .items(modes.map(|(text, _, _)| text))
            .default(0)
            .interact()?;
        let (_, tls, port) = modes.get(chosen).copied().ok_or(Unanswered::Gone)?;
        let port = Input::with_theme(&self.theme).with_prompt("Port").default(port).interact_text()?;
        Ok(Server { host, port, tls })
    }

    pub(super) fn user(&self, likely: &str) -> Result<String, Unanswered> {
        let question =
            Input::<String>::with_theme(&self.theme).with_prompt("User name").default(likely.to_owned());
        Ok(question.validate_with(|text: &String| named(text)).interact_text()?)
    }

    pub(super) fn password(&self) -> Result<SecretString, Unanswered> {
        let question = Password::with_theme(&self.theme).with_prompt("Password (not shown)");
        Ok(SecretString::from(question.interact()?))
    }

    pub(super) fn client_id(&self) -> Result<String, Unanswered> {
        let question = Input::<String>::with_theme(&self.theme).with_prompt("Client id of the application");
        Ok(question.validate_with(|text: &String| named(text)).interact_text()?)
    }

    pub(super) fn then(&self, is_refused: bool) -> Result<Then, Unanswered> {
        let all = [
            ("another password", Then::Password),
            ("another user name", Then::User),
            ("another server", Then::Server),
            ("write the configuration anyway", Then::WriteAnyway),
            ("give up; nothing is written", Then::GiveUp),
        ];
        let default = if is_refused { 0 } else { 2 };
        let question =
            Select::with_theme(&self.theme).with_prompt("What now?").items(all.map(|(text, _)| text));
        let chosen = question.default(default).interact()?;
        Ok(all.get(chosen).map_or(Then::GiveUp, |(_, then)| *then))
    }

    /// Some of `names`; the first of them where none is chosen.
    pub(super) fn mailboxes(&self, names: &[String]) -> Result<Vec<String>, Unanswered> {
        let first = names.iter().enumerate().map(|(i, _)| i == 0);
        let question = MultiSelect::with_theme(&self.theme)
            .with_prompt("Mailboxes to watch (space marks, enter goes on)")
            .items(names)
            .defaults(&first.collect::<Vec<_>>())
            .max_length(15);
        let chosen = question.interact()?;
        let mut chosen: Vec<_> = chosen.into_iter().filter_map(|i| names.get(i).cloned()).collect();
        if chosen.is_empty() {
            chosen.extend(names.first().cloned());
        }
        Ok(chosen)
    }

    /// Which of these places.
    pub(super) fn place(&self, places: &[String]) -> Result<usize, Unanswered> {
        let question =
            Select::with_theme(&self.theme).with_prompt("Where should the password be?").items(places);
        Ok(question.default(0).interact()?)
    }

    pub(super) fn output(&self, likely: &str) -> Result<String, Unanswered> {
        let question = Input::<String>::with_theme(&self.theme)
            .with_prompt("Write the configuration to")
            .default(likely.to_owned());
        Ok(question.validate_with(|text: &String| named(text)).interact_text()?)
    }

    pub(super) fn yes(&self, question: &str) -> Result<bool, Unanswered> {
        Ok(Confirm::with_theme(&self.theme).with_prompt(question).default(false).interact()?)
    }
}

/// Whether it looks like an address.
pub(super) fn address(text: &str) -> Result<(), String> {
    let parts = text.rsplit_once('@').filter(|(local, domain)| !local.is_empty() && !domain.is_empty());
    parts.ok_or_else(|| "expected an address like bob@example.com".to_owned()).and_then(|_| named(text))
}

fn named(text: &str) -> Result<(), String> {
    let usable = !text.trim().is_empty() && text.len() <= 255 && !text.contains(char::is_control);
    if usable { Ok(()) } else { Err("expected a text without control characters".to_owned()) }
}

/// A password is read without echo: whoever presses Ctrl-C there would type blindly ever after.
fn restore_at_interrupt() {
    let Ok(before) = tcgetattr(io::stdin()) else { return };
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(interrupted(&before));
    });
}

async fn interrupted(before: &Termios) {
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return };
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    let exit = tokio::select! {
        _ = interrupt.recv() => Exit::Interrupted,
        _ = terminate.recv() => Exit::Terminated,
    };
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
    let _ = io::stderr().write_all(SHOW_CURSOR);
    let _ = io::stderr().write_all(b"error: nothing was written\n");
    std::process::exit(exit.code());
}
