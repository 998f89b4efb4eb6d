//! LOGIN and AUTHENTICATE (RFC 9051 sections 6.2.2 and 6.2.3).

use std::time::Instant;

use super::command::{Command, Credentials, Proof};
use super::conversation::{Action, Phase, Shared};
use super::ending::Ending;
use super::refusal::Refusal;
use super::reply::{Code, Status, StatusText};
use super::sasl::{Exchange, Mechanism};

/// Awaits the completion of a login.
#[derive(Debug)]
pub(super) struct Login {
    capabilities_told: bool,
    /// `None` for LOGIN.
    exchange: Option<Exchange>,
}

/// Logs in by the best mechanism that the server offers.
pub(super) fn begin(shared: &mut Shared, now: Instant) -> Phase {
    // Not needed any more after this, and an idle connection lives for months.
    let credentials = std::mem::take(&mut shared.plan.credentials);
    let mechanism = Mechanism::choose(&credentials.proof, shared.capabilities);
    let Some(command) = command(&credentials, mechanism, shared.capabilities.has("LOGINDISABLED")) else {
        return shared.end(Ending::NoMechanism);
    };
    let login = Login { capabilities_told: false, exchange: mechanism.map(Exchange::new) };
    shared.send_then(&command, now, Phase::AwaitLogin(login))
}

fn command(
    credentials: &Credentials,
    mechanism: Option<Mechanism>,
    login_disabled: bool,
) -> Option<Command<'_>> {
    match (mechanism, &credentials.proof) {
        (Some(mechanism), _) => Some(Command::Authenticate(mechanism, credentials)),
        (None, Proof::Password(_)) if !login_disabled => Some(Command::Login(credentials)),
        (None, _) => None,
    }
}

impl Login {
    /// The server told its capabilities during the login (Gmail).
    pub(super) fn capabilities_told(&mut self) {
        self.capabilities_told = true;
    }

    /// A continuation request that no part of the command waits for.
    pub(super) fn challenged(mut self, shared: &mut Shared, challenge: &str) -> Phase {
        match self.exchange.as_mut().and_then(|exchange| exchange.challenged(challenge)) {
            Some(answer) => {
                shared.act(Action::Send(answer));
                Phase::AwaitLogin(self)
            }
            None => shared.unexpected("a continuation request"),
        }
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
            _ => return shared.end(Ending::LoginRefused(self.refusal(text))),
        }
        shared.act(Action::LoggedIn);
        if shared.stopping {
            return shared.log_out(now);
        }
        let told = self.capabilities_told || matches!(text.code, Some(Code::Capability(_)));
        shared.logged_in(!told, now)
    }

    fn refusal(&self, text: &StatusText) -> Refusal {
        let refusal = Refusal::of_login(text);
        match self.exchange.as_ref().and_then(Exchange::complaint) {
            Some(complaint) => Refusal { text: format!("{} (token: {complaint})", refusal.text), ..refusal },
            None => refusal,
        }
    }
}
