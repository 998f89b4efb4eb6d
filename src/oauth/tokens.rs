//! The access tokens in use: one request at a time for each, kept while it is fresh, renewed ahead.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use log::{debug, error, warn};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::endpoint::{EndpointError, Endpoints};
use super::exchange::{Fetched, TokenError, fetch};
use super::grant::{Flow, Grant};
use super::life::Life;
use super::store::{Kept, Store, successor_of};
use crate::backoff::full_jitter;
use crate::config::providers;
use crate::metrics::Metrics;
use crate::secrets::{SecretError, SecretSource};

/// Whoever asks at about the time of a refusal hears of that one.
const REFUSED: Duration = Duration::from_secs(5);

/// The longest wait after an endpoint that gives no answer: accounts wait by their own backoff too.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Between two tries to keep a rotated token while the database is away.
const UNKEPT: Duration = Duration::from_secs(1);

/// All tokens of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    endpoints: Endpoints,
    store: Store,
    metrics: Metrics,
    entries: Mutex<HashMap<String, Arc<Entry>>>,
    serial: AtomicU64,
}

/// The token of one grant.
#[derive(Debug)]
struct Entry {
    grant: Arc<Grant>,
    /// Held by those that live by it; nobody renews a token that nobody needs.
    lease: Lease,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    failure: Option<Failure>,
    failures: u32,
    /// Rotated, and not on disk yet.
    unsaved: Option<Kept>,
    is_renewed_ahead: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({} failures)", self.failures)
    }
}

struct Token {
    secret: SecretString,
    life: Life,
    serial: u64,
}

/// The latest failure, which others share for a while.
struct Failure {
    error: TokenError,
    until: Instant,
}

/// Keeps a token renewed while it is held.
#[derive(Clone, Debug, Default)]
struct Lease(Arc<()>);

/// A token for one login.
#[derive(Debug)]
pub struct Access {
    /// The access token.
    pub token: SecretString,
    /// Which one it is.
    pub ticket: Ticket,
}

/// Which token a connection lives by, without the token. It is renewed while this is held.
#[derive(Debug)]
pub struct Ticket {
    /// When it was fetched and how long it lives.
    pub life: Life,
    serial: u64,
    _lease: Lease,
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl State {
    fn fresh(&self) -> Option<&Token> {
        self.token.as_ref().filter(|token| token.life.is_fresh(now()))
    }

    /// Not fresh any more, but better than none.
    fn alive(&self) -> Option<&Token> {
        self.token.as_ref().filter(|token| token.life.is_alive(now()))
    }

    fn recent_failure(&self) -> Option<TokenError> {
        let recent = self.failure.as_ref().filter(|failure| failure.until > Instant::now())?;
        Some(match (&recent.error, recent.until.saturating_duration_since(Instant::now())) {
            (TokenError::Endpoint { endpoint, error: EndpointError::Throttled(_) }, left) => {
                TokenError::Endpoint { endpoint: endpoint.clone(), error: EndpointError::Throttled(left) }
            }
            (error, _) => error.clone(),
        })
    }

    fn failed(&mut self, error: &TokenError, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let wait = pause_after(error, self.failures, random);
        self.failure = Some(Failure { error: error.clone(), until: Instant::now() + wait });
    }
}

/// How long a failure stands for the next ones.
fn pause_after(error: &TokenError, failures: u32, random: f64) -> Duration {
    match error {
        TokenError::Endpoint { error: EndpointError::Throttled(pause), .. } => *pause,
        TokenError::Endpoint { .. } | TokenError::Store(_) | TokenError::Away(_) | TokenError::Broken => {
            full_jitter(Duration::from_secs(1), failures, random).min(LONGEST_WAIT)
        }
        TokenError::Refused { .. } => REFUSED,
        // Local, cheap, and mended at once by whoever mends it.
        TokenError::NotPermitted(_) | TokenError::Secret(_) | TokenError::Key(_) => Duration::ZERO,
    }
}

impl Entry {
    fn access(&self, token: &Token) -> Access {
        let ticket = Ticket { life: token.life, serial: token.serial, _lease: self.lease.clone() };
        Access { token: token.secret.clone(), ticket }
    }

    /// Whether any connection lives by it.
    fn is_needed(&self) -> bool {
        Arc::strong_count(&self.lease.0) > 1
    }
}

impl Tokens {
    /// None yet; refresh tokens are kept in `store`.
    pub fn new(store: Store) -> Self {
        Self::counted(store, Metrics::new())
    }

    /// As [`Self::new`]; requests are counted there.
    pub fn counted(store: Store, metrics: Metrics) -> Self {
        let (endpoints, entries, serial) = Default::default();
        Self(Arc::new(Shared { endpoints, store, metrics, entries, serial }))
    }

    /// A token that is good for a login.
    ///
    /// # Errors
    /// Where none can be had; for a while, without asking again.
    pub async fn access(&self, grant: &Arc<Grant>) -> Result<Access, TokenError> {
        let entry = self.entry(grant);
        if let Ok(state) = entry.state.try_lock()
            && let Some(token) = state.fresh()
        {
            return Ok(entry.access(token));
        }
        // It runs to its end even if nobody waits any more: the refresh token may be another one after it.
        let shared = self.0.clone();
        let asked = tokio::spawn(async move { shared.kept_or_fetched(&entry).await });
        asked.await.unwrap_or(Err(TokenError::Broken))
    }

    /// A server did not take it, perhaps because it is too old: whether another one is worth a try.
    pub async fn discard(&self, grant: &Arc<Grant>, ticket: &Ticket) -> bool {
        let entry = self.entry(grant);
        let mut state = entry.state.lock().await;
        let is_current = state.token.as_ref().is_some_and(|token| token.serial == ticket.serial);
        if is_current && ticket.life.may_be_stale(now()) {
            state.token = None;
            return true;
        }
        // Another session has seen to it.
        !is_current
    }

    /// What a refused login is known again by: the grant, and not the token, which changes all the time.
    ///
    /// # Errors
    /// Where a secret of it cannot be had.
    pub async fn known_by(&self, grant: &Grant) -> Result<SecretString, TokenError> {
        let resolved = match &grant.flow {
            Flow::RefreshToken { client, refresh_token, .. } => {
                let permitted = self.0.kept(&grant.name).await?.and_then(|kept| kept.permitted_at);
                let mut parts = vec![permitted.map(|at| at.to_string()).unwrap_or_default()];
                for source in client.secret.iter().chain(refresh_token) {
                    parts.push(source.resolve().await?.expose_secret().to_owned());
                }
                parts.join("\n").into()
            }
            Flow::ClientCredentials(client) => match &client.secret {
                Some(secret) => secret.resolve().await?,
                None => client.id.clone().into(),
            },
            Flow::ServiceAccount { key, .. } => key.document().await?,
            Flow::TokenCommand(argv) => argv.join("\n").into(),
        };
        Ok(resolved)
    }

    fn entry(&self, grant: &Arc<Grant>) -> Arc<Entry> {
        let mut entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.get(&grant.name) {
            Some(entry) if entry.grant == *grant => entry.clone(),
            // New, or configured in another way since.
            _ => {
                let (lease, state) = Default::default();
                let entry = Arc::new(Entry { grant: grant.clone(), lease, state });
                entries.insert(grant.name.clone(), entry.clone());
                entry
            }
        }
    }
}

impl Shared {
    async fn kept_or_fetched(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<Access, TokenError> {
        let mut state = entry.state.lock().await;
        if let Some(token) = state.fresh() {
            return Ok(entry.access(token));
        }
        let renewed = match state.recent_failure() {
            Some(error) => Err(error),
            None => self.renew(entry, &mut state).await,
        };
        match (renewed, state.alive()) {
            (_, Some(token)) => Ok(entry.access(token)),
            (Err(error), None) => Err(error),
            (Ok(()), None) => Err(TokenError::Broken),
        }
    }

    /// Fetches another token. What fails is kept in mind, and the token before stays.
    async fn renew(self: &Arc<Self>, entry: &Arc<Entry>, state: &mut State) -> Result<(), TokenError> {
        let (asked, name) = (now(), &entry.grant.name);
        let fetched = self.fetch(&entry.grant, state).await;
        self.metrics.token_refreshed(issuer(&entry.grant), fetched.is_ok());
        match fetched {
            Ok(Fetched { token, lasts, .. }) => {
                debug!(grant:% = name; "a token for {lasts:?}");
                let serial = self.serial.fetch_add(1, Ordering::Relaxed);
                state.token = Some(Token { secret: token, life: Life::new(asked, lasts), serial });
                (state.failure, state.failures) = (None, 0);
                self.renew_ahead(entry, state);
                Ok(())
            }
            Err(error) => {
                debug!(grant:% = name; "no token: {error}");
                state.failed(&error, rand::rng().random_range(0.0..1.0));
                Err(error)
            }
        }
    }

    async fn fetch(&self, grant: &Grant, state: &mut State) -> Result<Fetched, TokenError> {
        let Flow::RefreshToken { refresh_token, .. } = &grant.flow else {
            let fetched = fetch(&self.endpoints, &grant.flow, None).await?;
            self.note(grant, Kept::default(), fetched.lasts, fetched.scopes.clone(), Store::write_here).await;
            return Ok(fetched);
        };
        let configured = configured(refresh_token.as_ref()).await?;
        let kept = match (&state.unsaved, self.ask(&grant.name, Store::take).await) {
            (Some(kept), _) => kept.clone(),
            (None, taken) => taken?.unwrap_or_default(),
        };
        let in_force = kept.in_force(configured.as_ref());
        let fetched = match fetch(&self.endpoints, &grant.flow, in_force.as_ref()).await {
            Ok(fetched) => fetched,
            Err(error) => {
                self.put_back(&grant.name).await;
                return Err(error);
            }
        };
        let successor_of = successor_of(configured.as_ref());
        let refresh_token = fetched.refresh_token.clone().or(in_force);
        let kept = Kept { refresh_token, successor_of, ..kept };
        state.unsaved = self.note(grant, kept, fetched.lasts, fetched.scopes.clone(), Store::write).await;
        Ok(fetched)
    }

    async fn kept(&self, name: &str) -> Result<Option<Kept>, TokenError> {
        self.ask(name, Store::read).await
    }

    async fn ask(
        &self,
        name: &str,
        how: fn(&Store, &str) -> io::Result<Option<Kept>>,
    ) -> Result<Option<Kept>, TokenError> {
        let (store, name) = (self.store.clone(), name.to_owned());
        let found = spawn_blocking(move || how(&store, &name)).await.map_err(|_| TokenError::Broken)?;
        found.map_err(|error| match error.kind() {
            io::ErrorKind::NotConnected => TokenError::Away(error.to_string()),
            _ => TokenError::Store(error.to_string()),
        })
    }

    async fn put_back(&self, name: &str) {
        let (store, name) = (self.store.clone(), name.to_owned());
        let _ = spawn_blocking(move || store.put_back(&name)).await;
    }

    /// Writes down what came; gives it back where that fails, so that it is not lost while the process lives.
    async fn note(
        &self,
        grant: &Grant,
        kept: Kept,
        lasts: Duration,
        scopes: Vec<String>,
        write: fn(&Store, &str, &Kept) -> io::Result<()>,
    ) -> Option<Kept> {
        let at = Timestamp::now();
        // A command does not say when its token ends.
        let expires_at = at.checked_add(lasts).ok().filter(|_| grant.flow.token_url().is_some());
        let kept = Kept { fetched_at: Some(at), expires_at, scopes, ..kept };
        let mut told = false;
        let written = loop {
            let (store, name, written) = (self.store.clone(), grant.name.clone(), kept.clone());
            match spawn_blocking(move || write(&store, &name, &written)).await {
                // It is the only one that is good, and may soon be needed elsewhere: not used before it is kept.
                Ok(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(grant:% = grant.name; "the rotated refresh token waits to be kept: {error}");
                    }
                    tokio::time::sleep(UNKEPT).await;
                }
                written => break written,
            }
        };
        match written {
            Ok(Ok(())) => None,
            // What another keeps counts.
            Ok(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                warn!(grant:% = grant.name; "{error}");
                None
            }
            Ok(Err(error)) => {
                error!(grant:% = grant.name; "the state of the token cannot be kept: {error}");
                Some(kept)
            }
            Err(_) => Some(kept),
        }
    }

    /// One task for each token that is in use: a connection that ends finds a fresh one.
    fn renew_ahead(self: &Arc<Self>, entry: &Arc<Entry>, state: &mut State) {
        if state.is_renewed_ahead || matches!(entry.grant.flow, Flow::TokenCommand(_)) {
            return;
        }
        state.is_renewed_ahead = true;
        tokio::spawn(keep_renewed(Arc::downgrade(self), Arc::downgrade(entry)));
    }
}

/// The built-in provider whose tokens these are, or `other`.
fn issuer(grant: &Grant) -> &'static str {
    grant.flow.token_url().and_then(providers::issuer).unwrap_or("other")
}

/// Boxed: its state is large and seldom needed.
fn configured(source: Option<&SecretSource>) -> BoxFuture<'_, Result<Option<SecretString>, SecretError>> {
    Box::pin(async move {
        match source {
            Some(source) => source.resolve().await.map(Some),
            None => Ok(None),
        }
    })
}

async fn keep_renewed(shared: Weak<Shared>, entry: Weak<Entry>) {
    let mut wait = Duration::ZERO;
    loop {
        tokio::time::sleep(wait).await;
        let (Some(shared), Some(entry)) = (shared.upgrade(), entry.upgrade()) else { return };
        match next_renewal(&shared, &entry).await {
            Some(next) => wait = next,
            None => return,
        }
    }
}

/// Renews the token if that is due, and tells how long to wait; `None` where nobody needs it any more.
async fn next_renewal(shared: &Arc<Shared>, entry: &Arc<Entry>) -> Option<Duration> {
    let mut state = entry.state.lock().await;
    let random = rand::rng().random_range(0.0..1.0);
    if let Some(token) = state.fresh() {
        return Some(token.life.renewal(now(), random));
    }
    if !entry.is_needed() {
        state.is_renewed_ahead = false;
        return None;
    }
    if state.recent_failure().is_none()
        && let Err(error) = shared.renew(entry, &mut state).await
        && state.failures == 1
    {
        warn!(grant:% = entry.grant.name; "the token could not be renewed ahead: {error}");
    }
    let paused =
        state.failure.as_ref().map(|failure| failure.until.saturating_duration_since(Instant::now()));
    // Longer from time to time: who needs it at once asks himself.
    let slowly = full_jitter(Duration::from_secs(5), state.failures, 0.5 + random / 2.0);
    Some(match (paused, &state.token) {
        (Some(paused), _) => paused.max(slowly),
        (None, Some(token)) => token.life.renewal(now(), random),
        (None, None) => slowly,
    })
}
