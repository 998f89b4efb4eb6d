//! `idlewatch oauth`: permission for an account, its access token, and when that ends.

use std::fmt::Write;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use log::error;
use secrecy::SecretString;

use super::ask::choose;
use super::{Exit, Globals, say, tell};
use crate::account::lifecycle::{Blame, SessionEnd, blame};
use crate::config::settings::{Account, LoginMeans, Settings};
use crate::oauth::device::{Invitation, permit};
use crate::oauth::endpoint::Endpoints;
use crate::oauth::exchange::Fetched;
use crate::oauth::grant::{Flow, Grant};
use crate::oauth::store::{Kept, Store, successor_of};
use crate::oauth::tokens::Tokens;
use crate::text::line;

/// `oauth`
#[derive(Debug, Subcommand)]
pub(super) enum OAuthCommand {
    /// Have a person permit access to an account, on another device (RFC 8628), and keep the refresh token.
    Login(OAuthArgs),
    /// When the account's last access token ends, and what it is for; never the token.
    Show(OAuthArgs),
    /// Fetch an access token now, to see that it can be had.
    Refresh(OAuthArgs),
}

/// Flags of `oauth`.
#[derive(Debug, Args)]
pub(super) struct OAuthArgs {
    /// The account; not needed where there is only one.
    #[arg(short, long)]
    account: Option<String>,
}

pub(super) fn execute(command: &OAuthCommand, globals: &Globals) -> Exit {
    let (OAuthCommand::Login(args) | OAuthCommand::Show(args) | OAuthCommand::Refresh(args)) = command;
    let found = globals.load().and_then(|settings| {
        let account = choose(&settings, args.account.as_deref())?;
        Ok((settings, account))
    });
    let (settings, account) = match found {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let LoginMeans::OAuth(grant) = &account.login else {
        error!(account:% = account.id(); "the account has no `oauth`: set it to have it use tokens");
        return Exit::Config;
    };
    let store = Store::of(&settings);
    match command {
        OAuthCommand::Login(_) => permit_access(&settings, &account),
        OAuthCommand::Show(_) => show(&account, grant, &store),
        OAuthCommand::Refresh(_) => refresh(&account, grant, store),
    }
}

/// Has a person permit access to an account that logs in by tokens.
pub(super) fn permit_access(settings: &Settings, account: &Account) -> Exit {
    let LoginMeans::OAuth(grant) = &account.login else { return Exit::Config };
    let store = Store::of(settings);
    prepare(settings).map_or_else(|exit| exit, |()| login(account, grant, &store))
}

/// The state directory, where the monitor has not made it yet.
fn prepare(settings: &Settings) -> Result<(), Exit> {
    use std::os::unix::fs::DirBuilderExt;
    let dir = &settings.monitor.state_dir;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| {
        error!("{}: {error}", dir.display());
        Exit::CannotStart
    })
}

fn login(account: &Account, grant: &Grant, store: &Store) -> Exit {
    let Flow::RefreshToken { client, refresh_token, device } = &grant.flow else {
        error!(account:% = account.id(); "flow = \"{}\" needs no login of a person", grant.flow.as_str());
        return Exit::Config;
    };
    let Some(device) = device else {
        error!(account:% = account.id(); "device_url is not known: set it in [oauth], or get a refresh token in another way (docs/oauth2.md)");
        return Exit::Config;
    };
    let permitted = actix::System::new().block_on(async {
        let configured = match refresh_token {
            Some(source) => Some(source.resolve().await.map_err(|error| error.to_string())?),
            None => None,
        };
        let endpoints = Endpoints::default();
        let permitted = permit(&endpoints, client, device, invite, tokio::time::sleep).await;
        permitted.map(|fetched| (configured, fetched)).map_err(|error| error.to_string())
    });
    match permitted {
        Ok((configured, fetched)) => keep(account, grant, store, configured.as_ref(), fetched),
        Err(reason) => {
            error!(account:% = account.id(); "{reason}");
            Exit::Refused
        }
    }
}

fn invite(Invitation { url, code }: &Invitation) {
    tell(&format!("Open {url} and enter the code {code}"));
    tell("Waiting until that is done ...");
}

fn keep(
    account: &Account,
    grant: &Grant,
    store: &Store,
    configured: Option<&SecretString>,
    fetched: Fetched,
) -> Exit {
    let now = Timestamp::now();
    let kept = Kept {
        refresh_token: fetched.refresh_token,
        successor_of: successor_of(configured),
        permitted_at: Some(now),
        fetched_at: Some(now),
        expires_at: now.checked_add(fetched.lasts).ok(),
        scopes: fetched.scopes,
    };
    let written = store.take(&grant.name).and_then(|_| store.write(&grant.name, &kept));
    if let Err(error) = written {
        error!(account:% = account.id(); "the refresh token cannot be kept: {error}");
        return Exit::Io;
    }
    say(&format!("{}: access is permitted; the refresh token is kept\n", account.id()))
}

fn show(account: &Account, grant: &Grant, store: &Store) -> Exit {
    match store.read(&grant.name) {
        Ok(kept) => say(&words(account, grant, &kept.unwrap_or_default(), Timestamp::now())),
        Err(error) => {
            error!(account:% = account.id(); "what is kept of the token cannot be read: {error}");
            Exit::Io
        }
    }
}

fn words(account: &Account, grant: &Grant, kept: &Kept, now: Timestamp) -> String {
    let mut words = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(words, "{name:<14}{value}");
    };
    row("account", account.id().as_str());
    row("flow", grant.flow.as_str());
    if let Some(url) = grant.flow.token_url() {
        row("endpoint", &line(url, 500));
    }
    if let Flow::RefreshToken { refresh_token, .. } = &grant.flow {
        row(
            "refresh token",
            match (&kept.refresh_token, refresh_token) {
                (Some(_), _) => "kept",
                (None, Some(_)) => "configured",
                (None, None) => "none: `idlewatch oauth login` fetches one",
            },
        );
    }
    if let Some(at) = kept.permitted_at {
        row("permitted", &at.to_string());
    }
    match (kept.fetched_at, kept.expires_at) {
        (Some(fetched), Some(expires)) => {
            row("fetched", &fetched.to_string());
            row("expires", &format!("{expires} ({})", left(expires.duration_since(now))));
        }
        (Some(fetched), None) => {
            row("fetched", &fetched.to_string());
            row("expires", "not said");
        }
        (None, _) => row("expires", "no token was fetched yet"),
    }
    if !kept.scopes.is_empty() {
        row("scopes", &kept.scopes.join(" "));
    }
    words
}

fn left(left: SignedDuration) -> String {
    let seconds = left.as_secs();
    if seconds <= 0 { "ended".to_owned() } else { format!("in {} min {} s", seconds / 60, seconds % 60) }
}

fn refresh(account: &Account, grant: &std::sync::Arc<Grant>, store: Store) -> Exit {
    let tokens = Tokens::new(store.clone());
    let fetched = actix::System::new().block_on(tokens.access(grant));
    match fetched {
        Ok(_) => show(account, grant, &store),
        Err(error) => {
            error!(account:% = account.id(); "{error}");
            match blame(&SessionEnd::NoToken(error)) {
                Blame::Credentials => Exit::Refused,
                Blame::Operator(_) => Exit::Config,
                _ => Exit::Unreachable,
            }
        }
    }
}
