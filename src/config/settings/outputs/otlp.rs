//! `type = "otlp"`

use super::EndpointSettings;

/// Where log records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpSettings {
    /// The collector; the path of logs is added.
    pub http: EndpointSettings,
}
