//! What the monitor says of itself, on stderr: `log` and env_logger, with key-values, nothing unescaped, no secret.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use env_logger::{Builder, Target};
use jiff::Timestamp;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Record};

use crate::config::settings::{LogFormat, LogSettings};
use crate::privacy::without_local_parts;
use crate::terminal::has_colors;
use crate::text::{escape, json_string};

/// Starts logging; the environment (`IDLEWATCH_LOG`, then `RUST_LOG`) goes before the configuration.
///
/// async-imap logs whole LOGIN lines at TRACE, so its records never pass below DEBUG, whatever is asked for.
pub fn start(settings: &LogSettings, verbosity: i8) {
    let filters = filters(settings, verbosity);
    let mut builder = Builder::new();
    builder.parse_filters(&filters).target(Target::Stderr);
    let style = style(settings.format);
    builder.format(move |out, record| {
        if is_forbidden(record) {
            return Ok(());
        }
        out.write_all(&line(style, record))
    });
    // A second start (tests) keeps the first.
    let _ = builder.try_init();
}

/// Whether addresses are withheld in what is said.
static WITHHELD: AtomicBool = AtomicBool::new(false);

/// From now on no address stands in a message, as some output may not know it either. What identifies an account stays.
pub fn withhold_addresses() {
    WITHHELD.store(true, Ordering::Relaxed);
}

fn filters(settings: &LogSettings, verbosity: i8) -> String {
    let env = ["IDLEWATCH_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let level = match verbosity {
        ..0 => "error".to_owned(),
        0 => settings.level.clone(),
        1 => "debug".to_owned(),
        2.. => "trace".to_owned(),
    };
    let filters = if verbosity == 0 { env.unwrap_or(level) } else { level };
    // What our HTTP server says of its threads is nobody's business at info.
    format!("actix_server=warn,{filters},async_imap=debug,async_imap::imap_stream=debug")
}

/// The net below the filter: a directive for a deeper module would go before ours.
fn is_forbidden(record: &Record<'_>) -> bool {
    record.level() > LevelFilter::Debug && record.target().starts_with("async_imap")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Text { color: bool },
    Journal,
    Json,
}

fn style(format: LogFormat) -> Style {
    match format {
        LogFormat::Json => Style::Json,
        LogFormat::Auto if std::env::var_os("JOURNAL_STREAM").is_some() && !io::stderr().is_terminal() => {
            Style::Journal
        }
        LogFormat::Auto | LogFormat::Text => Style::Text { color: has_colors(io::stderr().is_terminal()) },
    }
}

fn line(style: Style, record: &Record<'_>) -> Vec<u8> {
    let message = record.args().to_string();
    let message = if WITHHELD.load(Ordering::Relaxed) { without_local_parts(&message) } else { message };
    let mut pairs = Pairs(Vec::new());
    let _ = record.key_values().visit(&mut pairs);
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ");
    if style == Style::Json {
        return json(&now.to_string(), record, &message, &pairs.0);
    }
    let mut text = match style {
        Style::Journal => format!("<{}>", priority(record.level())),
        Style::Text { color: true } => {
            let color = match record.level() {
                Level::Error => anstyle::AnsiColor::Red,
                Level::Warn => anstyle::AnsiColor::Yellow,
                Level::Info => anstyle::AnsiColor::Green,
                Level::Debug | Level::Trace => anstyle::AnsiColor::Blue,
            };
            let style = color.on_default();
            format!("{now} {style}{:<5}{style:#} ", record.level())
        }
        _ => format!("{now} {:<5} ", record.level()),
    };
    text.push_str(&escape(&message));
    for (key, value) in &pairs.0 {
        text.push_str(&format!(" {key}={}", escape(value)));
    }
    text.push('\n');
    text.into_bytes()
}

fn json(now: &str, record: &Record<'_>, message: &str, pairs: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let level = record.level().as_str().to_ascii_lowercase();
    let fixed =
        [("@timestamp", now), ("level", &level), ("message", message), ("log.logger", record.target())];
    let all = fixed.into_iter().chain(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    for (i, (key, value)) in all.enumerate() {
        out.push(if i == 0 { b'{' } else { b',' });
        json_string(key, &mut out);
        out.push(b':');
        json_string(value, &mut out);
    }
    out.extend_from_slice(b"}\n");
    out
}

/// As journald reads it (sd-daemon(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

struct Pairs(Vec<(String, String)>);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.push((key.to_string(), value.to_string()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(target: &'static str, level: Level) -> Record<'static> {
        Record::builder().target(target).level(level).args(format_args!("LOGIN bob \x1b[2Jcanary")).build()
    }

    #[test]
    fn async_imap_never_traces() {
        for target in ["async_imap", "async_imap::imap_stream"] {
            assert!(is_forbidden(&record(target, Level::Trace)));
            assert!(!is_forbidden(&record(target, Level::Debug)));
        }
        assert!(!is_forbidden(&record("idlewatch::app", Level::Trace)));
    }

    #[test]
    fn nothing_moves_the_terminal() {
        for style in [Style::Text { color: false }, Style::Journal, Style::Json] {
            let line = line(style, &record("idlewatch", Level::Info));
            let text = String::from_utf8(line).unwrap();
            assert!(!text.trim_end().contains(char::is_control), "{text:?}");
            assert!(text.ends_with('\n'));
        }
    }
}
