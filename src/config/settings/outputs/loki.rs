//! `type = "loki"`

use super::EndpointSettings;

/// Where entries go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LokiSettings {
    /// The server; the path of its push API is added.
    pub http: EndpointSettings,
    /// Sent as `X-Scope-OrgID`; it can be.
    pub tenant: Option<String>,
    /// Labels of every stream, beside ours; their names are sound.
    pub labels: Vec<(String, String)>,
    /// Whether ids go beside the line.
    pub structured_metadata: bool,
}
