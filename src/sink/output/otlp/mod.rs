//! Events as log records, by OTLP over HTTP in its JSON encoding.

mod records;

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::http::{Endpoint, with_path};
use super::{Outcome, OutputError};
use crate::config::settings::OtlpSettings;
use crate::sink::batch::Batch;

/// The collector.
#[derive(Debug)]
pub struct OtlpOutput {
    endpoint: Endpoint,
    url: Url,
    instance: String,
}

impl OtlpOutput {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// Where there is no client to be had.
    pub fn open(settings: &OtlpSettings, instance: &str) -> Result<Self, OutputError> {
        let endpoint = Endpoint::new(&settings.http)?;
        let url = with_path(endpoint.url(), "v1/logs");
        Ok(Self { endpoint, url, instance: instance.to_owned() })
    }

    /// Offers a batch: one request.
    pub async fn deliver(&mut self, batch: &Batch) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = records::body(&self.instance, batch);
        match self.endpoint.ask(self.url.clone(), headers, body).await {
            Ok(answer) if answer.status.is_success() => records::verdict(&answer.body),
            Ok(answer) => answer.outcome(),
            Err(outcome) => outcome,
        }
    }
}
