//! `type = "journald"`

use std::path::PathBuf;

use super::super::section::{Issues, Section};
use super::super::settings::{JournaldSettings, OutputKind};
use super::super::validate::{DAY, SECOND};
use super::syslog::app_name;

pub(super) const KEYS: [&str; 3] = ["socket", "app_name", "timeout"];

pub(super) fn journald(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    if section.has("format") {
        section.error("format", "an entry of the journal has fields, and no other form", issues);
    }
    let socket = if section.has("socket") { section.path("socket", issues)? } else { PathBuf::from(SOCKET) };
    let identifier = app_name(section, issues);
    let timeout = section.duration("timeout", SECOND * 10, SECOND..=DAY, issues);
    Some(OutputKind::Journald(Box::new(JournaldSettings { socket, identifier, timeout })))
}

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
