//! `type = "exec"`

use super::super::section::{Issues, Section};
use super::super::settings::{ExecSettings, OutputKind};
use super::super::surroundings::Thing;
use super::super::validate::{DAY, SECOND};
use super::required;

pub(super) const KEYS: [&str; 4] = ["command", "environment", "concurrency", "timeout"];

pub(super) fn exec(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    let concurrency = section.number("concurrency", 1, 1..=64, issues);
    let timeout = section.duration("timeout", SECOND * 30, SECOND..=DAY, issues);
    let environment = environment(section, issues);
    required(section, "command", issues)?;
    let mut command = section.texts("command", issues)?;
    if command.first().is_none_or(String::is_empty) {
        section.error("command", "expected [\"program\", \"argument\", ...]", issues);
        return None;
    }
    if let Some(program) = command.first_mut().filter(|program| program.contains('/')) {
        *program = section.dir_of("command").join(&*program).to_string_lossy().into_owned();
    }
    section.names("command", Thing::Program(command.clone()), issues);
    let concurrency = usize::try_from(concurrency).unwrap_or(1);
    Some(OutputKind::Exec(Box::new(ExecSettings { command, environment, concurrency, timeout })))
}

fn environment(section: &Section<'_>, issues: &mut Issues) -> Vec<(String, String)> {
    let mut environment: Vec<_> = section.text_table("environment", issues).into_iter().collect();
    environment.retain(|(name, _)| {
        let sound = !name.is_empty() && !name.contains(['=', '\0']) && !name.starts_with("IDLEWATCH_");
        if !sound {
            let name = crate::text::line(name, 60);
            section.error("environment", format!("\"{name}\": no such variable can be set"), issues);
        }
        sound
    });
    environment
}
