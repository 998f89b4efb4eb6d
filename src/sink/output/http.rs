//! One HTTP endpoint that batches are POSTed to: no redirect is followed, no answer is read without bound, every
//! exchange has a deadline.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Proxy, Response, StatusCode, Url};
use secrecy::ExposeSecret;
use tokio::time::timeout;

use super::kept_secret::KeptSecret;
use super::{Outcome, OutputError, Pause};
use crate::config::settings::EndpointSettings;
use crate::text;
use crate::wire::http::{chain, retry_after};
use crate::wire::tls::TlsContexts;

/// More of an answer is not read.
const MOST_ANSWER: usize = 64 << 10;

/// The rest of a good answer is waited for so long, only to use the connection again.
const LINGER: Duration = Duration::from_secs(1);

/// Where batches go.
#[derive(Debug)]
pub(super) struct Endpoint {
    client: Client,
    url: Url,
    token: Option<KeptSecret>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) location: Option<String>,
    /// Its beginning.
    pub(super) body: Vec<u8>,
}

impl Endpoint {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// Where there are no roots, or the proxy is none.
    pub(super) fn new(settings: &EndpointSettings) -> Result<Self, OutputError> {
        let failed = |error: reqwest::Error| OutputError::Client(chain(&error));
        let tls = TlsContexts::default().rustls_config(&settings.tls_options);
        let tls = tls.map_err(|error| OutputError::Client(error.to_string()))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
            {
                headers.insert(name, value);
            }
        }
        let mut builder = Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .redirect(Policy::none())
            .no_proxy()
            .no_gzip()
            .user_agent(concat!("idlewatch/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.timeout)
            .pool_idle_timeout(Duration::from_secs(50))
            .pool_max_idle_per_host(1);
        if let Some(proxy) = &settings.proxy {
            builder = builder.proxy(Proxy::all(proxy.clone()).map_err(failed)?);
        }
        let client = builder.build().map_err(failed)?;
        Ok(Self { client, url: settings.url.clone(), token: settings.token.clone().map(KeptSecret::new) })
    }

    /// The configured URL; a path may be added to it.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// One exchange.
    pub(super) async fn post(
        &mut self,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Outcome> {
        let mut request = self.client.post(url).headers(headers).body(body);
        if let Some(token) = &mut self.token {
            request = request.bearer_auth(token.get().await?.expose_secret());
        }
        let response = request.send().await.map_err(|error| Outcome::again(chain(&error.without_url())))?;
        let answer = Answer::read(response).await;
        if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            && let Some(token) = &mut self.token
        {
            token.forget();
        }
        Ok(answer)
    }
}

impl Answer {
    async fn read(mut response: Response) -> Self {
        let text = |name: HeaderName| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(|value| text::line(value, 200))
        };
        let retry_after = text(header::RETRY_AFTER).and_then(|value| retry_after(&value, Timestamp::now()));
        let (status, location) = (response.status(), text(header::LOCATION));
        let mut body = Vec::new();
        // The status has said it all; whatever becomes of the rest changes nothing.
        let _ = timeout(LINGER, async {
            while body.len() < MOST_ANSWER
                && let Ok(Some(chunk)) = response.chunk().await
            {
                body.extend_from_slice(
                    chunk.get(..chunk.len().min(MOST_ANSWER - body.len())).unwrap_or_default(),
                );
            }
        })
        .await;
        Self { status, retry_after, location, body }
    }

    /// What it means for the batch that was sent.
    pub(super) fn outcome(&self) -> Outcome {
        let reason = self.reason();
        let again = |pause| Outcome::TryAgain { taken: 0, pause, reason: reason.clone() };
        match self.status.as_u16() {
            200..=299 => Outcome::Taken,
            400 | 413 | 422 => Outcome::Rejected { reason },
            408 | 425 | 429 | 500..=599 => again(self.retry_after.map_or(Pause::Backoff, Pause::For)),
            _ => again(Pause::Slowly),
        }
    }

    fn reason(&self) -> String {
        let mut words = format!("the answer is {}", self.status);
        match &self.location {
            Some(location) if self.status.is_redirection() => {
                words.push_str(&format!(", and redirects are not followed (to {location})"));
            }
            _ => {
                let said =
                    String::from_utf8_lossy(self.body.get(..self.body.len().min(400)).unwrap_or_default());
                let said = text::line(said.trim(), 200);
                if !said.is_empty() {
                    words.push_str(&format!(": {said}"));
                }
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: u16, retry_after: Option<u64>) -> Outcome {
        let (status, location) = (StatusCode::from_u16(status).unwrap(), None);
        Answer { status, retry_after: retry_after.map(Duration::from_secs), location, body: Vec::new() }
            .outcome()
    }

    fn pause(outcome: &Outcome) -> Option<Pause> {
        match outcome {
            Outcome::TryAgain { pause, .. } => Some(*pause),
            _ => None,
        }
    }

    #[test]
    fn each_status_has_its_meaning() {
        for status in [200, 201, 202, 204] {
            assert_eq!(outcome(status, None), Outcome::Taken);
        }
        for status in [400, 413, 422] {
            assert!(matches!(outcome(status, Some(9)), Outcome::Rejected { .. }), "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(pause(&outcome(status, None)), Some(Pause::Backoff), "{status}");
            assert_eq!(
                pause(&outcome(status, Some(9))),
                Some(Pause::For(Duration::from_secs(9))),
                "{status}"
            );
        }
        // The operator's trouble; a redirect too, wherever it leads.
        for status in [301, 302, 307, 308, 401, 402, 403, 404, 405, 407, 410, 411, 415, 451] {
            assert_eq!(pause(&outcome(status, Some(9))), Some(Pause::Slowly), "{status}");
        }
    }

    #[test]
    fn what_a_stranger_answers_is_harmless_and_short() {
        let body = format!("\x1b[2J\u{202e}{}", "x".repeat(10_000)).into_bytes();
        let location = Some("http://169.254.169.254/".to_owned());
        let answer = |status, body: &[u8]| {
            let answer =
                Answer { status, retry_after: None, location: location.clone(), body: body.to_vec() };
            answer.outcome().reason().unwrap().to_owned()
        };
        let words = answer(StatusCode::BAD_REQUEST, &body);
        assert!(words.len() < 300 && !words.contains(['\x1b', '\u{202e}']), "{words}");
        assert!(answer(StatusCode::FOUND, b"").ends_with("not followed (to http://169.254.169.254/)"));
    }
}
