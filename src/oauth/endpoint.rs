//! Token endpoints: few requests at a time, none while one asks for patience, no answer without bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, header};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::config::settings::{TlsBackend, TlsOptions, TlsVersion};
use crate::wire::http::{chain, retry_after};
use crate::wire::tls::TlsContexts;

/// Requests to one endpoint at the same time.
const MOST_AT_ONCE: usize = 8;

/// One exchange, and the wait for its turn.
const EXCHANGE: Duration = Duration::from_secs(20);
const TURN: Duration = Duration::from_secs(60);

/// More of an answer is not read: tokens have a few KiB.
const MOST_ANSWER: usize = 64 << 10;

/// The longest pause that an endpoint may ask for, and the one where it does not say.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
const PAUSE: Duration = Duration::from_secs(60);

/// Why there is no answer that could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not reachable, out of order, or no token endpoint.
    #[error("{0}")]
    Down(String),
    /// Too slow.
    #[error("no answer in time")]
    TimedOut,
    /// It wants to be left alone for so long.
    #[error("too many requests, {0:?} to wait")]
    Throttled(Duration),
}

/// All of them.
#[derive(Debug, Default)]
pub struct Endpoints {
    client: OnceLock<Result<Client, String>>,
    known: Mutex<HashMap<String, Arc<Endpoint>>>,
}

#[derive(Debug)]
struct Endpoint {
    turns: Semaphore,
    paused_until: Mutex<Option<Instant>>,
}

impl Endpoint {
    fn pause_left(&self) -> Option<Duration> {
        let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.map(|until| until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

impl Endpoints {
    /// One exchange: answers that say something of the grant come back, all others are errors.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, EndpointError> {
        let endpoint = self.endpoint(&request.uri().to_string());
        let turn = timeout(TURN, endpoint.turns.acquire()).await;
        let _turn = turn.map_err(|_| EndpointError::TimedOut)?;
        // Who waited for a turn may hear what the one before him heard.
        if let Some(left) = endpoint.pause_left() {
            return Err(EndpointError::Throttled(left));
        }
        let answer = timeout(EXCHANGE, self.ask(request)).await;
        let answer = answer.unwrap_or(Err(EndpointError::TimedOut));
        if let Err(EndpointError::Throttled(pause)) = answer {
            endpoint.pause(pause);
        }
        answer
    }

    fn endpoint(&self, url: &str) -> Arc<Endpoint> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Endpoint { turns: Semaphore::new(MOST_AT_ONCE), paused_until: Mutex::default() };
        known.entry(url.to_owned()).or_insert_with(|| Arc::new(new())).clone()
    }

    async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, EndpointError> {
        let client = self.client.get_or_init(client).as_ref();
        let client = client.map_err(|reason| EndpointError::Down(reason.clone()))?;
        let request = reqwest::Request::try_from(request).map_err(|error| failed(&error))?;
        let mut response = client.execute(request).await.map_err(|error| failed(&error.without_url()))?;
        let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        judge(response.status(), after.and_then(|value| retry_after(value, Timestamp::now())))?;
        let mut answer = http_answer(&response);
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error.without_url()))? {
            answer.body_mut().extend_from_slice(&chunk);
            if answer.body().len() > MOST_ANSWER {
                return Err(EndpointError::Down("its answer is too long".to_owned()));
            }
        }
        Ok(answer)
    }
}

/// For the oauth2 crate.
impl<'c> AsyncHttpClient<'c> for Endpoints {
    type Error = EndpointError;
    type Future = BoxFuture<'c, Result<HttpResponse, EndpointError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.exchange(request))
    }
}

fn http_answer(response: &reqwest::Response) -> HttpResponse {
    let mut answer = HttpResponse::new(Vec::new());
    *answer.status_mut() = response.status();
    answer.headers_mut().clone_from(response.headers());
    answer
}

/// Whether an answer of this status is one about the grant (RFC 6749 section 5).
fn judge(status: StatusCode, retry_after: Option<Duration>) -> Result<(), EndpointError> {
    match status.as_u16() {
        200..=299 | 400 | 401 | 403 => Ok(()),
        429 => Err(EndpointError::Throttled(
            retry_after.unwrap_or(PAUSE).clamp(Duration::from_secs(1), LONGEST_PAUSE),
        )),
        503 if retry_after.is_some_and(|pause| !pause.is_zero()) => {
            Err(EndpointError::Throttled(retry_after.unwrap_or(PAUSE).min(LONGEST_PAUSE)))
        }
        300..=399 => {
            Err(EndpointError::Down(format!("the answer is {status}, and redirects are not followed")))
        }
        _ => Err(EndpointError::Down(format!("the answer is {status}"))),
    }
}

fn failed(error: &reqwest::Error) -> EndpointError {
    if error.is_timeout() { EndpointError::TimedOut } else { EndpointError::Down(chain(error)) }
}

/// The system's roots, and the proxy of the environment (`HTTPS_PROXY`).
fn client() -> Result<Client, String> {
    let options = TlsOptions {
        backend: TlsBackend::Rustls,
        ca_file: None,
        min_version: TlsVersion::Tls12,
        client: None,
        pins: Vec::new(),
        pin_only: false,
    };
    let tls = TlsContexts::default().rustls_config(&options).map_err(|error| error.to_string())?;
    Client::builder()
        .tls_backend_preconfigured((*tls).clone())
        .redirect(Policy::none())
        .no_gzip()
        .user_agent(concat!("idlewatch/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10))
        .pool_idle_timeout(Duration::from_secs(50))
        .pool_max_idle_per_host(2)
        .build()
        .map_err(|error| chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_about_the_grant_are_about_the_grant() {
        let judged = |status, after: Option<u64>| {
            judge(StatusCode::from_u16(status).unwrap(), after.map(Duration::from_secs)).err()
        };
        for status in [200, 400, 401, 403] {
            assert_eq!(judged(status, None), None, "{status}");
        }
        for status in [301, 302, 404, 500, 502, 503, 504] {
            assert!(matches!(judged(status, None), Some(EndpointError::Down(_))), "{status}");
        }
        let throttled = |seconds| Some(EndpointError::Throttled(Duration::from_secs(seconds)));
        assert_eq!(judged(429, None), throttled(60));
        assert_eq!(judged(429, Some(0)), throttled(1));
        assert_eq!(judged(429, Some(120)), throttled(120));
        assert_eq!(judged(429, Some(1_000_000)), throttled(3600));
        assert_eq!(judged(503, Some(30)), throttled(30));
    }
}
