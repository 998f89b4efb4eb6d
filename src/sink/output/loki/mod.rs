//! Events as entries of streams, by the push API of Loki.

mod push;

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use self::push::Push;
use super::http::{Endpoint, with_path};
use super::{Outcome, OutputError};
use crate::config::settings::LokiSettings;
use crate::sink::batch::Batch;

const TENANT: HeaderName = HeaderName::from_static("x-scope-orgid");

/// The server.
#[derive(Debug)]
pub struct LokiOutput {
    endpoint: Endpoint,
    url: Url,
    headers: HeaderMap,
    push: Push,
}

impl LokiOutput {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// Where there is no client to be had.
    pub fn open(settings: &LokiSettings) -> Result<Self, OutputError> {
        let endpoint = Endpoint::new(&settings.http)?;
        let url = with_path(endpoint.url(), "loki/api/v1/push");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(tenant) = &settings.tenant {
            let tenant = HeaderValue::from_str(tenant);
            headers.insert(TENANT, tenant.map_err(|error| OutputError::Client(error.to_string()))?);
        }
        let push =
            Push { labels: settings.labels.clone(), structured_metadata: settings.structured_metadata };
        Ok(Self { endpoint, url, headers, push })
    }

    /// Offers a batch: one request.
    pub async fn deliver(&mut self, batch: &Batch) -> Outcome {
        let body = self.push.body(batch);
        match self.endpoint.post(self.url.clone(), self.headers.clone(), body).await {
            Ok(answer) => push::verdict(&answer),
            Err(outcome) => outcome,
        }
    }
}
