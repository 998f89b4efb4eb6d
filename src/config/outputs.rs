//! `[outputs.X]`: the template of every output, and what each type adds. Pure.

use std::collections::HashMap;
use std::time::Duration;

use config::{Map, Value};

use super::keys;
use super::section::{Issues, Section};
use super::settings::*;
use super::surroundings::Thing;
use super::validate::actions;
use crate::event::Action;

/// Events may wait for others to go with them for this long.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// All of them; one stdout where none is configured.
pub(super) fn outputs(root: &Map<String, Value>, issues: &mut Issues) -> Vec<OutputSettings> {
    let tables = Section::of(root, "outputs", issues).tables(issues);
    if tables.is_empty() {
        return vec![stdout_output()];
    }
    let mut taken = HashMap::new();
    let outputs = tables.into_iter().filter_map(|(name, section)| {
        section.known(keys::OUTPUT, issues);
        let output = output(name, &section, issues)?;
        if let Some(place) = place(&output.kind)
            && let Some(other) = taken.insert(place.clone(), name)
        {
            section.error("type", format!("{place} is taken by outputs.{other} already"), issues);
        }
        Some(output)
    });
    outputs.collect()
}

/// What no two outputs can share.
fn place(kind: &OutputKind) -> Option<String> {
    match kind {
        OutputKind::Stdout => Some("stdout".to_owned()),
        OutputKind::File { path } => Some(path.display().to_string()),
    }
}

/// The output where none is configured.
pub fn stdout_output() -> OutputSettings {
    OutputSettings {
        name: "stdout".to_owned(),
        kind: OutputKind::Stdout,
        required: true,
        queue_max_events: 10_000,
        include: Action::ALL.to_vec(),
        format: OutputFormat::Auto,
        batch_max_events: 100,
        batch_max_delay: Duration::ZERO,
    }
}

/// The types, by their names.
#[derive(Clone, Copy, PartialEq)]
enum Type {
    Stdout,
    File,
}

const TYPES: [(&str, Type); 2] = [("stdout", Type::Stdout), ("file", Type::File)];

fn output(name: &str, section: &Section<'_>, issues: &mut Issues) -> Option<OutputSettings> {
    required(section, "type", issues)?;
    let kind = match section.choice("type", Type::Stdout, &TYPES, issues) {
        Type::Stdout => OutputKind::Stdout,
        Type::File => file(section, issues)?,
    };
    let default = if kind == OutputKind::Stdout { OutputFormat::Auto } else { OutputFormat::Ecs };
    let formats =
        [("auto", OutputFormat::Auto), ("ecs", OutputFormat::Ecs), ("pretty", OutputFormat::Pretty)];
    let (batch, queue) = (section.inner("batch", issues), section.inner("queue", issues));
    batch.known(keys::BATCH, issues);
    queue.known(keys::QUEUE, issues);
    Some(OutputSettings {
        name: name.to_owned(),
        kind,
        required: section.boolean("required", true, issues),
        queue_max_events: queue.number("max_events", 10_000, 1..=u64::from(u32::MAX), issues),
        include: actions(section, issues).unwrap_or_else(|| Action::ALL.to_vec()),
        format: section.choice("format", default, &formats, issues),
        batch_max_events: usize::try_from(batch.number("max_events", 100, 1..=1000, issues)).unwrap_or(100),
        batch_max_delay: batch.duration("max_delay", Duration::ZERO, Duration::ZERO..=LONGEST_DELAY, issues),
    })
}

fn required(section: &Section<'_>, key: &str, issues: &mut Issues) -> Option<()> {
    if !section.has(key) {
        issues.error(&section.origin, &section.path, format!("missing required key `{key}`"));
        return None;
    }
    Some(())
}

fn file(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    required(section, "path", issues)?;
    let path = section.path("path", issues)?;
    section.names("path", Thing::Output(path.clone()), issues);
    Some(OutputKind::File { path })
}
