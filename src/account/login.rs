//! What an account shows to log in: a password, an access token, or nothing beside its certificate.

use std::time::Duration;

use secrecy::SecretString;

use super::lifecycle::SessionEnd;
use crate::config::settings::LoginMeans;
use crate::imap::command::Proof;
use crate::oauth::exchange::TokenError;
use crate::oauth::tokens::{Access, Ticket, Tokens};

/// What was had before the session's turn to connect.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Nothing: it is cheap, and newer when it is needed.
    Later,
    /// Of many accounts at once, by one question.
    Password(SecretString),
}

/// What was shown to the server, until it is known whether it was taken.
#[derive(Debug)]
pub(super) enum Shown {
    /// A password; forgotten once it was taken.
    Password(Option<SecretString>),
    /// A token, which itself is forgotten already.
    Token(Ticket),
    /// TLS did.
    Certificate,
}

impl Shown {
    /// It was taken.
    pub(super) fn taken(&mut self) {
        if let Self::Password(password) = self {
            *password = None;
        }
    }
}

impl LoginMeans {
    /// What takes its time, or can be had for many accounts at once, is asked for before the gate lets them in one
    /// after the other: an endpoint that hangs must not keep others waiting there.
    pub(super) async fn prepare(&self, tokens: &Tokens) -> Result<Prepared, SessionEnd> {
        match self {
            Self::Password(source) if source.is_bulk() => Ok(Prepared::Password(source.resolve().await?)),
            Self::Password(_) | Self::Certificate(_) => Ok(Prepared::Later),
            Self::OAuth(grant) => {
                tokens.access(grant).await?;
                Ok(Prepared::Later)
            }
        }
    }

    /// As fresh as it can be had.
    pub(super) async fn show(
        &self,
        prepared: Prepared,
        tokens: &Tokens,
    ) -> Result<(Proof, Shown), SessionEnd> {
        let password = match (self, prepared) {
            (Self::OAuth(grant), _) => {
                let Access { token, ticket } = tokens.access(grant).await?;
                return Ok((Proof::AccessToken(token), Shown::Token(ticket)));
            }
            (Self::Certificate(_), _) => return Ok((Proof::Certificate, Shown::Certificate)),
            (_, Prepared::Password(password)) => password,
            (Self::Password(source), Prepared::Later) => source.resolve().await?,
        };
        Ok((Proof::Password(password.clone()), Shown::Password(Some(password))))
    }

    /// The secret behind what was refused; `None` where it cannot be had any more.
    pub(super) async fn behind(&self, shown: Shown, tokens: &Tokens) -> Option<SecretString> {
        match shown {
            Shown::Password(password) => password,
            Shown::Token(_) | Shown::Certificate => self.known_by(tokens).await.ok(),
        }
    }

    /// What a refused login is known again by.
    pub(super) async fn known_by(&self, tokens: &Tokens) -> Result<SecretString, TokenError> {
        match self {
            Self::Password(source) => Ok(source.resolve().await?),
            Self::OAuth(grant) => tokens.known_by(grant).await,
            // A certificate is renewed like a password is changed.
            Self::Certificate(file) => Ok(file.document().await?),
        }
    }

    /// How often to look whether it has changed, while that is what the account waits for.
    pub(super) fn changes_within(&self) -> Option<Duration> {
        match self {
            Self::Password(source) | Self::Certificate(source) => source.changes_within(),
            Self::OAuth(grant) => grant.flow.changes_within(),
        }
    }

    /// The server did not take this token: whether another one is worth a try at once.
    pub(super) async fn is_stale(&self, shown: &Shown, tokens: &Tokens) -> bool {
        match (self, shown) {
            (Self::OAuth(grant), Shown::Token(ticket)) => tokens.discard(grant, ticket).await,
            _ => false,
        }
    }
}
