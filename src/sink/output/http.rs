//! One HTTP endpoint that batches are POSTed to: no redirect is followed, no answer is read without bound, every
//! exchange has a deadline.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Proxy, RequestBuilder, Response, StatusCode, Url};
use secrecy::ExposeSecret;
use tokio::time::timeout;

use super::kept_secret::KeptSecret;
use super::{Outcome, OutputError, Pause};
use crate::config::settings::{EndpointSettings, HttpLogin};
use crate::imap::sasl::SHORTEST_SECRET;
use crate::text;
use crate::wire::http::{chain, retry_after};
use crate::wire::tls::TlsContexts;

/// More of an answer is not read.
const MOST_ANSWER: usize = 64 << 10;

/// Nor of one whose body counts: a thousand events with a reason each are less.
const MOST_WHOLE_ANSWER: usize = 4 << 20;

/// The rest of a good answer is waited for so long, only to use the connection again.
const LINGER: Duration = Duration::from_secs(1);

/// What nginx, Go, Apache and Tomcat say to HTTP at a port of HTTPS.
const PLAIN_TO_TLS: [&str; 4] = [
    "plain http request was sent to https port",
    "client sent an http request to an https server",
    "speaking plain http to an ssl-enabled server port",
    "combination of host and port requires tls",
];

/// Where batches go.
#[derive(Debug)]
pub(super) struct Endpoint {
    client: Client,
    url: Url,
    login: Option<Login>,
}

/// Whose `Authorization` is sent.
#[derive(Debug)]
struct Login {
    scheme: Scheme,
    secret: KeptSecret,
}

#[derive(Debug)]
enum Scheme {
    Bearer,
    ApiKey,
    /// Of this user.
    Basic(String),
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
        Ok(Self { client, url: settings.url.clone(), login: settings.login.clone().map(Login::new) })
    }

    /// The configured URL; a path may be added to it.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// One exchange, whose status says it all.
    pub(super) async fn post(
        &mut self,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Outcome> {
        let response = self.send(url, headers, body).await?;
        Ok(self.heard(Answer::read(response).await))
    }

    /// One exchange where the body of a good answer counts: it is waited for.
    pub(super) async fn ask(&mut self, url: Url, headers: HeaderMap, body: Bytes) -> Result<Answer, Outcome> {
        let response = self.send(url, headers, body).await?;
        let answer = match response.status().is_success() {
            true => Answer::read_whole(response).await?,
            false => Answer::read(response).await,
        };
        Ok(self.heard(answer))
    }

    /// What the other side repeats of our login is in none of its words; one that is refused may have been exchanged.
    fn heard(&mut self, mut answer: Answer) -> Answer {
        if let Some(login) = &mut self.login {
            login.shown().iter().for_each(|shown| answer.strike(shown));
            if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                login.secret.forget();
            }
        }
        answer
    }

    async fn send(&mut self, url: Url, headers: HeaderMap, body: Bytes) -> Result<Response, Outcome> {
        let mut request = self.client.post(url).headers(headers).body(body);
        if let Some(login) = &mut self.login {
            request = login.sign(request).await?;
        }
        request.send().await.map_err(|error| Outcome::again(chain(&error.without_url())))
    }
}

impl Login {
    fn new(login: HttpLogin) -> Self {
        let (scheme, source) = match login {
            HttpLogin::Token(token) => (Scheme::Bearer, token),
            HttpLogin::ApiKey(key) => (Scheme::ApiKey, key),
            HttpLogin::Password { user, password } => (Scheme::Basic(user), password),
        };
        Self { scheme, secret: KeptSecret::new(source) }
    }

    /// As it stands in a request.
    fn shown(&self) -> Vec<String> {
        let secret = self.secret.kept().filter(|secret| secret.len() >= SHORTEST_SECRET);
        let Some(secret) = secret else { return Vec::new() };
        match &self.scheme {
            Scheme::Basic(user) => {
                let pair = data_encoding::BASE64.encode(format!("{user}:{secret}").as_bytes());
                vec![pair, secret.to_owned()]
            }
            Scheme::Bearer | Scheme::ApiKey => vec![secret.to_owned()],
        }
    }

    async fn sign(&mut self, request: RequestBuilder) -> Result<RequestBuilder, Outcome> {
        let secret = self.secret.get().await?.expose_secret();
        Ok(match &self.scheme {
            Scheme::Bearer => request.bearer_auth(secret),
            Scheme::Basic(user) => request.basic_auth(user, Some(secret)),
            Scheme::ApiKey => {
                let value = HeaderValue::try_from(format!("ApiKey {secret}"));
                let mut value = value.map_err(|_| Outcome::again("the API key cannot be sent"))?;
                value.set_sensitive(true);
                request.header(header::AUTHORIZATION, value)
            }
        })
    }
}

/// A path below the URL's own, unless it ends so already.
pub(super) fn with_path(url: &Url, path: &str) -> Url {
    let mut with = url.clone();
    let own = url.path().trim_end_matches('/');
    if !own.ends_with(&format!("/{path}")) {
        with.set_path(&format!("{own}/{path}"));
    }
    with
}

impl Answer {
    async fn read(mut response: Response) -> Self {
        let mut answer = Self::head(&response);
        // The status has said it all; whatever becomes of the rest changes nothing.
        let _ = timeout(LINGER, answer.fill(&mut response, MOST_ANSWER)).await;
        answer
    }

    /// The client's deadline is for this too.
    async fn read_whole(mut response: Response) -> Result<Self, Outcome> {
        let mut answer = Self::head(&response);
        let read = answer.fill(&mut response, MOST_WHOLE_ANSWER).await;
        read.map_err(|error| Outcome::again(chain(&error.without_url())))?;
        if answer.body.len() >= MOST_WHOLE_ANSWER {
            // One of fewer events is shorter.
            let reason = "the answer is too long".to_owned();
            return Err(Outcome::Strained { pause: Pause::Backoff, reason });
        }
        Ok(answer)
    }

    fn head(response: &Response) -> Self {
        let text = |name: HeaderName| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(|value| text::line(value, 200))
        };
        let retry_after = text(header::RETRY_AFTER).and_then(|value| retry_after(&value, Timestamp::now()));
        Self { status: response.status(), retry_after, location: text(header::LOCATION), body: Vec::new() }
    }

    /// Takes a secret out of it.
    fn strike(&mut self, secret: &str) {
        let text = String::from_utf8_lossy(&self.body);
        if text.contains(secret) {
            self.body = text.replace(secret, "[secret]").into_bytes();
        }
        if let Some(location) = &mut self.location {
            *location = location.replace(secret, "[secret]");
        }
    }

    async fn fill(&mut self, response: &mut Response, most: usize) -> reqwest::Result<()> {
        while self.body.len() < most
            && let Some(chunk) = response.chunk().await?
        {
            let room = chunk.len().min(most - self.body.len());
            self.body.extend_from_slice(chunk.get(..room).unwrap_or_default());
        }
        Ok(())
    }

    /// What it means for the batch that was sent.
    pub(super) fn outcome(&self) -> Outcome {
        let reason = self.reason();
        let again = |pause| Outcome::TryAgain { taken: 0, pause, reason: reason.clone() };
        let soon = self.retry_after.map_or(Pause::Backoff, Pause::For);
        match self.status.as_u16() {
            200..=299 => Outcome::Taken,
            400 if self.is_of_another_port() => again(Pause::Slowly),
            400 | 413 | 422 => Outcome::Rejected { reason },
            408 | 425 => again(soon),
            // Some that cannot take so much at once say it in this way (Loki: 500).
            429 | 500..=599 => Outcome::Strained { pause: soon, reason },
            _ => again(Pause::Slowly),
        }
    }

    /// A server of TLS that was spoken to without says 400, and means no event.
    fn is_of_another_port(&self) -> bool {
        let said = String::from_utf8_lossy(&self.body).to_ascii_lowercase();
        PLAIN_TO_TLS.iter().any(|words| said.contains(words))
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
            Outcome::TryAgain { pause, .. } | Outcome::Strained { pause, .. } => Some(*pause),
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
        for status in [429, 500, 502, 503, 504] {
            assert!(matches!(outcome(status, None), Outcome::Strained { .. }), "{status}");
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
    fn http_at_a_port_of_https_is_no_event_s_fault() {
        let of = |body: &str| {
            let (retry_after, location) = (None, None);
            Answer { status: StatusCode::BAD_REQUEST, retry_after, location, body: body.into() }.outcome()
        };
        for body in [
            "<center>The plain HTTP request was sent to HTTPS port</center>",
            "Client sent an HTTP request to an HTTPS server.\n",
            "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
            "This combination of host and port requires TLS.",
        ] {
            assert_eq!(pause(&of(body)), Some(Pause::Slowly), "{body}");
        }
        assert!(matches!(of("{\"error\":\"no such field\"}"), Outcome::Rejected { .. }));
    }

    #[test]
    fn a_path_is_added_once() {
        for (url, wanted) in [
            ("https://x.example", "https://x.example/v1/logs"),
            ("https://x.example/", "https://x.example/v1/logs"),
            ("https://x.example/otlp/", "https://x.example/otlp/v1/logs"),
            ("https://x.example/v1/logs", "https://x.example/v1/logs"),
        ] {
            assert_eq!(with_path(&url.parse().unwrap(), "v1/logs").as_str(), wanted);
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
