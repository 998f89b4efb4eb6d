//! One request for an access token, by each flow.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use oauth2::basic::{BasicClient, BasicErrorResponse, BasicErrorResponseType, BasicTokenResponse};
use oauth2::http::header::{ACCEPT, CONTENT_TYPE};
use oauth2::url::form_urlencoded;
use oauth2::{
    AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest, RefreshToken,
    RequestTokenError, Scope, TokenResponse, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};

use super::assertion::{Claims, KeyError, ServiceKey};
use super::endpoint::{EndpointError, Endpoints};
use super::grant::{Client, Flow};
use super::life;
use super::shown::Shown;
use crate::secrets::{SecretError, SecretSource};
use crate::text;

/// A token as it was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// The access token.
    pub token: SecretString,
    /// How long it lives.
    pub lasts: Duration,
    /// Another refresh token, in place of the one that was shown.
    pub refresh_token: Option<SecretString>,
    /// What it is for; empty where that is not said.
    pub scopes: Vec<String>,
}

/// Why there is no token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenError {
    /// The endpoint gave no answer about the grant: nothing is wrong with that.
    #[error("the token endpoint {endpoint}: {error}")]
    Endpoint {
        /// Its host.
        endpoint: String,
        /// Why not.
        error: EndpointError,
    },
    /// The grant was refused (RFC 6749 section 5.2).
    #[error("the token endpoint {endpoint} refuses: {code}{description}; {remedy}")]
    Refused {
        /// Its host.
        endpoint: String,
        /// `error`
        code: String,
        /// `error_description`, after a separator; empty where there is none.
        description: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Nobody has permitted access yet.
    #[error("there is no refresh token yet; {0}")]
    NotPermitted(&'static str),
    /// A secret of the grant cannot be had.
    #[error(transparent)]
    Secret(Arc<SecretError>),
    /// The service account's key is none.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What is kept of the grant cannot be read.
    #[error("the state of the token cannot be read: {0}")]
    Store(String),
    /// What is kept of it is in a database that does not answer, or used by others for too long: it may pass.
    #[error("the refresh token cannot be had now: {0}")]
    Away(String),
    /// A bug of ours.
    #[error("the request for the token broke off")]
    Broken,
}

impl From<SecretError> for TokenError {
    fn from(error: SecretError) -> Self {
        Self::Secret(Arc::new(error))
    }
}

/// How long the token of a command is taken for a good one.
const COMMAND: Duration = Duration::from_secs(60);

/// A client that has a token endpoint.
type TokenClient = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// Errors of RFC 6749 section 5.2 and 4.1.2.1 that say nothing of the grant.
const PASSING: [&str; 3] = ["temporarily_unavailable", "server_error", "slow_down"];

/// Asks by `flow`; `refresh_token` is the one in force.
///
/// # Errors
/// See [`TokenError`].
pub fn fetch<'a>(
    endpoints: &'a Endpoints,
    flow: &'a Flow,
    refresh_token: Option<&'a SecretString>,
) -> BoxFuture<'a, Result<Fetched, TokenError>> {
    Box::pin(fetch_by(endpoints, flow, refresh_token))
}

async fn fetch_by(
    endpoints: &Endpoints,
    flow: &Flow,
    refresh_token: Option<&SecretString>,
) -> Result<Fetched, TokenError> {
    match flow {
        Flow::TokenCommand(argv) => {
            let token = SecretSource::Command(argv.clone()).resolve().await?;
            // Nobody says how long it lives: logins at about the same time share it, later ones ask again.
            Ok(Fetched { token, lasts: COMMAND, refresh_token: None, scopes: Vec::new() })
        }
        Flow::RefreshToken { client, .. } => {
            let token = refresh_token.ok_or(TokenError::NotPermitted(flow.remedy()))?;
            refreshed(endpoints, flow, client, token).await
        }
        Flow::ClientCredentials(client) => by_credentials(endpoints, flow, client).await,
        Flow::ServiceAccount { key, subject, token_url, scopes } => {
            let key = ServiceKey::parse(&key.document().await?)?;
            let claims = Claims { subject, audience: token_url, scopes, at: Timestamp::now() };
            by_assertion(endpoints, flow, token_url, &key.sign(claims)?).await
        }
    }
}

async fn refreshed(
    endpoints: &Endpoints,
    flow: &Flow,
    client: &Client,
    token: &SecretString,
) -> Result<Fetched, TokenError> {
    let (own, secret) = token_client(client).await?;
    let shown = Shown::of([Some(token), secret.as_ref()]);
    let token = RefreshToken::new(token.expose_secret().to_owned());
    let request = own.exchange_refresh_token(&token).add_scopes(scopes(&client.scopes));
    let answer = request.request_async(endpoints).await;
    fetched(answer, flow, &shown)
}

async fn by_credentials(endpoints: &Endpoints, flow: &Flow, client: &Client) -> Result<Fetched, TokenError> {
    let (own, secret) = token_client(client).await?;
    let request = own.exchange_client_credentials().add_scopes(scopes(&client.scopes));
    let answer = request.request_async(endpoints).await;
    fetched(answer, flow, &Shown::of([secret.as_ref()]))
}

/// RFC 7523 section 2.1, which the oauth2 crate does not have.
async fn by_assertion(
    endpoints: &Endpoints,
    flow: &Flow,
    token_url: &str,
    assertion: &SecretString,
) -> Result<Fetched, TokenError> {
    let request: Result<HttpRequest, _> = oauth2::http::Request::post(token_url)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .body(assertion_form(assertion));
    let request = request.map_err(|error| down(flow, error.to_string()))?;
    let answer = endpoints.exchange(request).await.map_err(|error| at_endpoint(flow, error))?;
    if answer.status().is_success() {
        let read = serde_json::from_slice::<BasicTokenResponse>(answer.body());
        read.map(taken).map_err(|_| unreadable(flow))
    } else {
        let read = serde_json::from_slice::<BasicErrorResponse>(answer.body());
        let shown = Shown::of([Some(assertion)]);
        Err(read.map_or_else(|_| unreadable(flow), |error| refused(flow, &error, &shown)))
    }
}

fn assertion_form(assertion: &SecretString) -> Vec<u8> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
    form.append_pair("assertion", assertion.expose_secret());
    form.finish().into_bytes()
}

/// The oauth2 crate's client, and its secret. Secrets go in the body, which every server takes in the same way.
async fn token_client(client: &Client) -> Result<(TokenClient, Option<SecretString>), TokenError> {
    let url = TokenUrl::new(client.token_url.clone())
        .map_err(|error| TokenError::Store(format!("token_url: {error}")))?;
    let own = BasicClient::new(ClientId::new(client.id.clone()))
        .set_token_uri(url)
        .set_auth_type(AuthType::RequestBody);
    match &client.secret {
        Some(secret) => {
            let secret = secret.resolve().await?;
            let own = own.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()));
            Ok((own, Some(secret)))
        }
        None => Ok((own, None)),
    }
}

fn scopes(names: &[String]) -> Vec<Scope> {
    names.iter().cloned().map(Scope::new).collect()
}

/// What came back of a request by the oauth2 crate.
pub(super) fn fetched(
    answer: Result<BasicTokenResponse, RequestTokenError<EndpointError, BasicErrorResponse>>,
    flow: &Flow,
    shown: &Shown,
) -> Result<Fetched, TokenError> {
    answer.map(taken).map_err(|error| match error {
        RequestTokenError::ServerResponse(error) => refused(flow, &error, shown),
        RequestTokenError::Request(error) => at_endpoint(flow, error),
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => unreadable(flow),
    })
}

fn taken(answer: BasicTokenResponse) -> Fetched {
    let scopes = answer.scopes().into_iter().flatten().take(64);
    Fetched {
        token: answer.access_token().secret().clone().into(),
        lasts: life::said(answer.expires_in()),
        refresh_token: answer.refresh_token().map(|token| token.secret().clone().into()),
        scopes: scopes.map(|scope| text::line(scope, 256)).collect(),
    }
}

fn refused(flow: &Flow, error: &BasicErrorResponse, shown: &Shown) -> TokenError {
    let code: &BasicErrorResponseType = error.error();
    let code = shown.line(code.as_ref(), 64);
    let description = error.error_description().map(|words| shown.line(words, 300));
    if PASSING.contains(&code.as_str()) {
        return down(flow, code);
    }
    TokenError::Refused {
        endpoint: endpoint(flow),
        code,
        description: description.map(|words| format!(" ({words})")).unwrap_or_default(),
        remedy: flow.remedy(),
    }
}

fn unreadable(flow: &Flow) -> TokenError {
    down(flow, "its answer is none that a token endpoint gives".to_owned())
}

fn down(flow: &Flow, reason: String) -> TokenError {
    at_endpoint(flow, EndpointError::Down(reason))
}

fn at_endpoint(flow: &Flow, error: EndpointError) -> TokenError {
    TokenError::Endpoint { endpoint: endpoint(flow), error }
}

/// The endpoint's host, for people.
pub(super) fn endpoint(flow: &Flow) -> String {
    let url = flow.token_url().unwrap_or_default();
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    text::line(host.split(['/', '?']).next().unwrap_or(host), 128)
}
