//! `idlewatch event`: what events look like, for those who write pipelines without mail.

use std::io::IsTerminal;

use clap::Subcommand;
use jiff::Timestamp;

use super::run::FormatArg;
use super::{Exit, say};
use crate::config::settings::OutputFormat;
use crate::demo::samples::samples;
use crate::sink::encode::{Encoder, EncoderSettings, Format};
use crate::terminal;

/// `event`
#[derive(Debug, Subcommand)]
pub(super) enum EventCommand {
    /// The JSON schema of an event.
    Schema,
    /// One line of each kind, with made-up content.
    Sample {
        /// The form.
        #[arg(long, default_value = "ecs")]
        format: FormatArg,
    },
}

pub(super) fn execute(command: &EventCommand) -> Exit {
    match command {
        EventCommand::Schema => say(include_str!("../../schema/event-1.json")),
        EventCommand::Sample { format } => say(&sample((*format).into())),
    }
}

fn sample(format: OutputFormat) -> String {
    let format = match format {
        OutputFormat::Auto | OutputFormat::Ecs => Format::Ecs,
        OutputFormat::Flat => Format::Flat,
        OutputFormat::CloudEvents => Format::CloudEvents,
        OutputFormat::Pretty => {
            Format::Pretty { color: terminal::has_colors(std::io::stdout().is_terminal()) }
        }
    };
    let encoder = Encoder::new(EncoderSettings { instance: "sample".into(), max_bytes: 8000, format });
    let mut lines = Vec::new();
    for (sequence, event) in (1..).zip(samples(Timestamp::now())) {
        encoder.line(sequence, &event, &mut lines);
    }
    String::from_utf8_lossy(&lines).into_owned()
}
