//! `type = "loki"`

use reqwest::header::HeaderValue;

use super::super::section::{Issues, Section};
use super::super::settings::{LokiSettings, OutputKind};
use super::http;

pub(super) const KEYS: [&str; 5] = ["tenant", "labels", "structured_metadata", "user", "password"];

/// Loki takes 15 by default; three are ours.
const MOST_LABELS: usize = 12;

/// What every stream has.
const OURS: [&str; 3] = ["service_name", "event_action", "level"];

pub(super) fn loki(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    let tenant = section.text("tenant", issues).map(str::to_owned);
    if tenant.as_ref().is_some_and(|name| name.is_empty() || HeaderValue::from_str(name).is_err()) {
        section.error("tenant", "no such header can be sent", issues);
    }
    let labels = labels(section, issues);
    let structured_metadata = section.boolean("structured_metadata", true, issues);
    let http = http(section, issues)?;
    Some(OutputKind::Loki(Box::new(LokiSettings { http, tenant, labels, structured_metadata })))
}

/// The configuration's words only: what varies from event to event makes a stream of each.
fn labels(section: &Section<'_>, issues: &mut Issues) -> Vec<(String, String)> {
    let labels: Vec<_> = section.text_table("labels", issues).into_iter().collect();
    for (name, _) in &labels {
        let problem = if !is_name(name) {
            "expected letters, digits and `_`, no digit first"
        } else if OURS.contains(&name.as_str()) {
            "every stream has this label already"
        } else {
            continue;
        };
        section.error("labels", format!("\"{}\": {problem}", crate::text::line(name, 60)), issues);
    }
    if labels.len() > MOST_LABELS {
        section.error("labels", format!("at most {MOST_LABELS} labels"), issues);
    }
    labels
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
