//! LOGIN and AUTHENTICATE PLAIN (RFC 9051 sections 6.2.2 and 6.2.3).

use std::time::Instant;

use super::command::{Command, Credentials};
use super::conversation::{Action, Phase, Shared};
use super::ending::Ending;
use super::refusal::Refusal;
use super::reply::{Code, Status, StatusText};

/// Awaits the completion of a login.
#[derive(Debug)]
pub(super) struct Login {
    capabilities_told: bool,
}

/// Logs in by the best mechanism that the server offers.
pub(super) fn begin(shared: &mut Shared, now: Instant) -> Phase {
    let credentials = shared.plan.credentials.clone();
    let command = if shared.capabilities.has("AUTH=PLAIN") {
        Command::AuthenticatePlain(&credentials)
    } else if shared.capabilities.has("LOGINDISABLED") {
        return shared.end(Ending::NoMechanism);
    } else {
        Command::Login(&credentials)
    };
    let phase = shared.send_then(&command, now, Phase::AwaitLogin(Login { capabilities_told: false }));
    // Not needed any more, and an idle connection lives for months.
    shared.plan.credentials = Credentials { user: String::new(), password: String::new().into() };
    phase
}

impl Login {
    /// The server told its capabilities during the login (Gmail).
    pub(super) fn capabilities_told(&mut self) {
        self.capabilities_told = true;
    }

    pub(super) fn completed(
        self,
        shared: &mut Shared,
        status: Status,
        text: &StatusText,
        now: Instant,
    ) -> Phase {
        match status {
            Status::Ok => {}
            // The command itself was not understood: that says nothing of the password.
            Status::Bad if text.code.is_none() => return shared.refused("the login", text),
            _ => return shared.end(Ending::LoginRefused(Refusal::of_login(text))),
        }
        shared.act(Action::LoggedIn);
        if shared.stopping {
            return shared.log_out(now);
        }
        let told = self.capabilities_told || matches!(text.code, Some(Code::Capability(_)));
        shared.logged_in(!told, now)
    }
}
