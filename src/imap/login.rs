//! LOGIN and AUTHENTICATE (RFC 9051 sections 6.2.2 and 6.2.3).

use std::time::Instant;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::command::{Command, Credentials, Proof};
use super::conversation::{Action, Phase, Shared};
use super::ending::Ending;
use super::refusal::Refusal;
use super::reply::{Code, Reply, Status, StatusText};
use super::sasl::{self, Exchange, Mechanism, SHORTEST_SECRET};

/// Awaits the completion of a login.
#[derive(Debug)]
pub(super) struct Login {
    capabilities_told: bool,
    /// `None` for LOGIN.
    exchange: Option<Exchange>,
    /// What was shown, in all of its forms, until it was answered: a server may repeat it in its words.
    shown: Vec<SecretString>,
}

/// Logs in by the best mechanism that the server offers.
pub(super) fn begin(shared: &mut Shared, now: Instant) -> Phase {
    // Not needed any more after this, and an idle connection lives for months.
    let credentials = std::mem::take(&mut shared.plan.credentials);
    let mechanism = Mechanism::choose(&credentials.proof, shared.capabilities);
    let Some(command) = command(&credentials, mechanism, shared.capabilities.has("LOGINDISABLED")) else {
        return shared.end(Ending::NoMechanism);
    };
    let (exchange, shown) = (mechanism.map(Exchange::new), sasl::forms(&credentials));
    let login = Login { capabilities_told: false, exchange, shown };
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

fn conceal(text: &mut StatusText, secret: &str) {
    if secret.len() < SHORTEST_SECRET {
        return;
    }
    if text.text.contains(secret) {
        text.text = text.text.replace(secret, "[secret]");
    }
    // Codes are in capitals.
    let capitals = Zeroizing::new(secret.to_ascii_uppercase());
    if matches!(&text.code, Some(Code::Named(name)) if name.contains(capitals.as_str())) {
        text.code = None;
    }
}

impl Login {
    /// A reply without what was shown to log in: its words go into logs and events.
    pub(super) fn concealed(&self, mut reply: Reply) -> Reply {
        if let Reply::Tagged { text, .. } | Reply::Untagged { text, .. } = &mut reply {
            for secret in self.shown.iter().map(ExposeSecret::expose_secret) {
                conceal(text, secret);
            }
        }
        reply
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_neither_in_the_words_nor_in_the_code() {
        for (code, kept) in [("HUNTER2", None), ("ALERT", Some(Code::parse("ALERT")))] {
            let mut text = StatusText { code: Some(Code::parse(code)), text: "it is hunter2".to_owned() };
            conceal(&mut text, "hunter2");
            assert_eq!(text, StatusText { code: kept, text: "it is [secret]".to_owned() });
        }
    }
}
