//! Events in the form that an output asks for: exactly one line each.

mod ecs;
mod pretty;
mod words;

use std::io::IsTerminal;
use std::sync::Arc;

use super::SinkOptions;
use crate::config::settings::{OutputFormat, OutputKind, OutputSettings};
use crate::event::Event;
use crate::terminal::has_colors;

/// How lines look.
#[derive(Clone, Debug)]
pub struct EncoderSettings {
    /// `idlewatch.instance`
    pub instance: Arc<str>,
    /// The longest line, its end not counted.
    pub max_bytes: usize,
    /// The form.
    pub format: Format,
}

/// The forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One nested ECS object.
    Ecs,
    /// One line for people.
    Pretty {
        /// With colours.
        color: bool,
    },
}

impl EncoderSettings {
    /// For one output.
    pub fn new(options: &SinkOptions, output: &OutputSettings) -> Self {
        let terminal = output.kind == OutputKind::Stdout && std::io::stdout().is_terminal();
        let pretty = Format::Pretty { color: output.kind == OutputKind::Stdout && has_colors(terminal) };
        let format = match output.format {
            OutputFormat::Auto if terminal => pretty,
            OutputFormat::Auto | OutputFormat::Ecs => Format::Ecs,
            OutputFormat::Pretty => pretty,
        };
        Self { instance: options.instance.clone(), max_bytes: options.events.max_bytes, format }
    }
}

/// Writes events as lines.
#[derive(Clone, Debug)]
pub struct Encoder {
    settings: EncoderSettings,
}

impl Encoder {
    /// With these settings.
    pub fn new(settings: EncoderSettings) -> Self {
        Self { settings }
    }

    /// Appends exactly one line, its end included.
    pub fn line(&self, sequence: u64, event: &Event, out: &mut Vec<u8>) {
        match self.settings.format {
            Format::Ecs => ecs::line(&self.settings, sequence, event, out),
            Format::Pretty { color } => pretty::line(event, color, out),
        }
        out.push(b'\n');
    }
}
