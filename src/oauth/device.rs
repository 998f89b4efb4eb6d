//! A person permits access on another device (RFC 8628).

use std::future::Future;

use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, ClientId, ClientSecret, DeviceAuthorizationUrl, ErrorResponse, RequestTokenError, Scope,
    StandardDeviceAuthorizationResponse, TokenResponse, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};

use super::endpoint::{EndpointError, Endpoints};
use super::exchange::Fetched;
use super::grant::{Client, Device};
use super::life;
use super::shown::Shown;
use crate::secrets::SecretError;
use crate::text;

/// What a person has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// The page to open.
    pub url: String,
    /// The code to enter there.
    pub code: String,
}

/// Why there is no permission.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum DeviceError {
    #[error("{key} is no URL: {reason}")]
    Url { key: &'static str, reason: String },
    #[error("the authorization server: {0}")]
    Endpoint(#[from] EndpointError),
    #[error("the authorization server refuses: {0}")]
    Refused(String),
    #[error("the authorization server's answer cannot be read")]
    Unreadable,
    #[error("the authorization server gave no refresh token; does the scope `offline_access` lack?")]
    NoRefreshToken,
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// Asks for a code, shows it by `invite`, and waits until a person has permitted access, or has not in time.
///
/// # Errors
/// See [`DeviceError`].
pub async fn permit<F: Future<Output = ()>>(
    endpoints: &Endpoints,
    client: &Client,
    device: &Device,
    invite: impl FnOnce(&Invitation),
    sleep: impl Fn(std::time::Duration) -> F,
) -> Result<Fetched, DeviceError> {
    let bad = |key| move |error: oauth2::url::ParseError| DeviceError::Url { key, reason: error.to_string() };
    let token_url = TokenUrl::new(client.token_url.clone()).map_err(bad("token_url"))?;
    let device_url = DeviceAuthorizationUrl::new(device.url.clone()).map_err(bad("device_url"))?;
    let mut own = BasicClient::new(ClientId::new(client.id.clone()))
        .set_token_uri(token_url)
        .set_device_authorization_url(device_url)
        .set_auth_type(AuthType::RequestBody);
    let secret = match &client.secret {
        Some(secret) => Some(secret.resolve().await?),
        None => None,
    };
    if let Some(secret) = &secret {
        own = own.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()));
    }
    let request = own.exchange_device_code().add_scopes(device.scopes.iter().cloned().map(Scope::new));
    let asked: StandardDeviceAuthorizationResponse = request
        .request_async(endpoints)
        .await
        .map_err(|error| failed(error, &Shown::of([secret.as_ref()])))?;
    invite(&Invitation {
        url: text::line(asked.verification_uri(), 500),
        code: text::line(asked.user_code().secret(), 64),
    });
    let waiting = own.exchange_device_access_token(&asked).request_async(endpoints, sleep, None);
    let code = SecretString::from(asked.device_code().secret().as_str());
    let shown = Shown::of([secret.as_ref(), Some(&code)]);
    let answer = waiting.await.map_err(|error| failed(error, &shown))?;
    let refresh_token = answer.refresh_token().map(|token| token.secret().clone().into());
    Ok(Fetched {
        token: answer.access_token().secret().clone().into(),
        lasts: life::said(answer.expires_in()),
        refresh_token: Some(refresh_token.ok_or(DeviceError::NoRefreshToken)?),
        scopes: answer.scopes().into_iter().flatten().take(64).map(|scope| text::line(scope, 256)).collect(),
    })
}

fn failed<T: ErrorResponse + std::fmt::Display>(
    error: RequestTokenError<EndpointError, T>,
    shown: &Shown,
) -> DeviceError {
    match error {
        RequestTokenError::ServerResponse(error) => DeviceError::Refused(shown.line(&error.to_string(), 300)),
        RequestTokenError::Request(error) => DeviceError::Endpoint(error),
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => DeviceError::Unreadable,
    }
}
