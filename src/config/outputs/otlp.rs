//! `type = "otlp"`

use super::super::section::{Issues, Section};
use super::super::settings::{OtlpSettings, OutputFormat, OutputKind};
use super::{http, only_in};

pub(super) const KEYS: [&str; 2] = ["user", "password"];

pub(super) fn otlp(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    only_in(&[OutputFormat::Ecs], section, issues);
    Some(OutputKind::Otlp(Box::new(OtlpSettings { http: http(section, issues)? })))
}
