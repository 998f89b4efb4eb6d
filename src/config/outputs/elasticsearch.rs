//! `type = "elasticsearch"`

use super::super::section::{Issues, Section};
use super::super::settings::{ElasticsearchSettings, OutputFormat, OutputKind};
use super::{http, only_in};
use crate::sink::output::elasticsearch::IndexTemplate;

pub(super) const KEYS: [&str; 4] = ["index", "api_key", "user", "password"];

pub(super) fn elasticsearch(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    only_in(&[OutputFormat::Ecs, OutputFormat::Flat], section, issues);
    let text = section.text("index", issues).unwrap_or("logs-{dataset}-default");
    let index = IndexTemplate::parse(text).map_err(|problem| section.error("index", problem, issues));
    let http = http(section, issues)?;
    Some(OutputKind::Elasticsearch(Box::new(ElasticsearchSettings { http, index: index.ok()? })))
}
