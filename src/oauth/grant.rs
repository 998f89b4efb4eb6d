//! What entitles to access tokens: `[oauth.X]` as accounts use it.

use std::time::Duration;

use crate::secrets::SecretSource;

/// One entitlement, and so one access token at a time. Accounts that share it share the token.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// `X`, or `X~ACCOUNT` where each account has one of its own. Safe as the name of a file.
    pub name: String,
    /// How a token is had.
    pub flow: Flow,
}

/// `flow`
#[derive(Clone, Debug, PartialEq)]
pub enum Flow {
    /// A person has permitted access (RFC 6749 section 6).
    RefreshToken {
        /// Who we are.
        client: Client,
        /// Where the refresh token comes from; `None` where `oauth login` has to fetch one.
        refresh_token: Option<SecretSource>,
        /// How a person permits access; `None` where that is not known.
        device: Option<Device>,
    },
    /// The application itself is entitled (RFC 6749 section 4.4).
    ClientCredentials(Client),
    /// A key speaks for a mailbox (RFC 7523 section 2.1).
    ServiceAccount {
        /// Google's JSON key file.
        key: SecretSource,
        /// The mailbox.
        subject: String,
        /// Where tokens are had.
        token_url: String,
        /// What access is asked for.
        scopes: Vec<String>,
    },
    /// A program prints a token.
    TokenCommand(Vec<String>),
}

/// The program as the authorization server knows it (RFC 6749 section 2).
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// `client_id`
    pub id: String,
    /// `client_secret`; public clients have none.
    pub secret: Option<SecretSource>,
    /// Where tokens are had.
    pub token_url: String,
    /// What access is asked for; empty: what was permitted.
    pub scopes: Vec<String>,
}

/// How a person permits access on another device (RFC 8628).
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Where a code is asked for.
    pub url: String,
    /// What access is asked for.
    pub scopes: Vec<String>,
}

impl Flow {
    /// As in the configuration.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::RefreshToken { .. } => "refresh_token",
            Self::ClientCredentials(_) => "client_credentials",
            Self::ServiceAccount { .. } => "service_account",
            Self::TokenCommand(_) => "token_command",
        }
    }

    /// Where tokens are had, unless a program is asked.
    pub fn token_url(&self) -> Option<&str> {
        match self {
            Self::RefreshToken { client, .. } | Self::ClientCredentials(client) => Some(&client.token_url),
            Self::ServiceAccount { token_url, .. } => Some(token_url),
            Self::TokenCommand(_) => None,
        }
    }

    /// What a person can do about a refused grant.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::RefreshToken { .. } => {
                "permit access anew: `idlewatch oauth login -a ACCOUNT`, or configure another refresh_token"
            }
            Self::ClientCredentials(_) => {
                "check client_id, client_secret and tenant, and that the application may use IMAP"
            }
            Self::ServiceAccount { .. } => {
                "check the key, and that the domain has delegated the scopes to the service account"
            }
            Self::TokenCommand(_) => "check the command",
        }
    }

    /// How often to look whether it has changed, while that is what an account waits for.
    pub fn changes_within(&self) -> Option<Duration> {
        let soon = Some(Duration::from_secs(10));
        match self {
            // A file, at least that of `oauth login`.
            Self::RefreshToken { client, refresh_token, .. } => {
                let sources = client.secret.iter().chain(refresh_token);
                sources.filter_map(SecretSource::changes_within).max().or(soon)
            }
            Self::ClientCredentials(client) => client.secret.as_ref().and_then(SecretSource::changes_within),
            Self::ServiceAccount { key, .. } => key.changes_within(),
            Self::TokenCommand(argv) => SecretSource::Command(argv.clone()).changes_within(),
        }
    }
}
