//! Events as documents, by the bulk API of Elasticsearch and OpenSearch. A document's id is its event's, and it is only
//! ever created: a repetition is a conflict, and nothing comes twice.

mod bulk;
mod index;

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

pub use self::index::IndexTemplate;
use super::http::{Endpoint, with_path};
use super::{Outcome, OutputError};
use crate::config::settings::ElasticsearchSettings;
use crate::sink::batch::Batch;

/// What of an answer is wanted.
const FIELDS: &str = "items.*._id,items.*.status,items.*.error.type,items.*.error.reason";

/// The cluster.
#[derive(Debug)]
pub struct ElasticsearchOutput {
    endpoint: Endpoint,
    url: Url,
    index: IndexTemplate,
}

impl ElasticsearchOutput {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// Where there is no client to be had.
    pub fn open(settings: &ElasticsearchSettings) -> Result<Self, OutputError> {
        let endpoint = Endpoint::new(&settings.http)?;
        let mut url = with_path(endpoint.url(), "_bulk");
        url.query_pairs_mut().append_pair("filter_path", FIELDS);
        Ok(Self { endpoint, url, index: settings.index.clone() })
    }

    /// Offers a batch: one request.
    pub async fn deliver(&mut self, batch: &Batch) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        let body = bulk::body(&self.index, batch);
        match self.endpoint.ask(self.url.clone(), headers, body).await {
            Ok(answer) if answer.status.is_success() => bulk::verdict(batch, &answer.body),
            Ok(answer) => answer.outcome(),
            Err(outcome) => outcome,
        }
    }
}
