//! `type = "elasticsearch"`

use super::EndpointSettings;
use crate::sink::output::elasticsearch::IndexTemplate;

/// Where documents go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElasticsearchSettings {
    /// The cluster; the path of its bulk API is added.
    pub http: EndpointSettings,
    /// The index or data stream of each event.
    pub index: IndexTemplate,
}
