//! What the monitor says of itself, on stderr: `log` and env_logger, with key-values, nothing unescaped, no secret.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use env_logger::{Builder, Target};
use jiff::Timestamp;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Record, warn};

use crate::config::Severity;
use crate::config::issue::{Issue, Place};
use crate::config::settings::{LogFormat, LogSettings};
use crate::privacy::without_local_parts;
use crate::terminal::has_colors;
use crate::text::{escape, json_string};
use crate::wire::transcript::TARGET;

/// As RFC 3339 has it, in UTC.
const TIME: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";

/// Who speaks of the configuration before there is any logging.
const CONFIG: &str = "idlewatch::config";

/// Starts logging; the environment (`IDLEWATCH_LOG`, then `RUST_LOG`) goes before the configuration.
///
/// async-imap logs whole LOGIN lines at TRACE, so its records never pass below DEBUG, whatever is asked for.
pub fn start(settings: &LogSettings, verbosity: i8) {
    let (filters, complaints) = filters(settings, verbosity);
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
    if builder.try_init().is_ok() {
        complaints.iter().for_each(|complaint| warn!("{complaint}"));
    }
}

/// Whether addresses are withheld in what is said.
static WITHHELD: AtomicBool = AtomicBool::new(false);

/// From now on no address stands in a message, as some output may not know it either. What identifies an account stays.
pub fn withhold_addresses() {
    WITHHELD.store(true, Ordering::Relaxed);
}

/// What is let through, and what is wrong with the environment's wishes.
fn filters(settings: &LogSettings, verbosity: i8) -> (String, Vec<String>) {
    let level = match verbosity {
        ..0 => "error".to_owned(),
        0 => settings.level.clone(),
        1 => "debug".to_owned(),
        2.. => "trace".to_owned(),
    };
    let env = ["IDLEWATCH_LOG", "RUST_LOG"].iter().find_map(|name| Some((*name, std::env::var(name).ok()?)));
    let (filters, complaints) = match env.filter(|_| verbosity == 0) {
        Some((name, text)) => {
            let (sound, wrong) = directives(&text);
            let complaint = |wrong: &&str| {
                let wrong = crate::text::line(wrong, 60);
                format!(
                    "{name}: \"{wrong}\" is left out: expected a level (off, error, warn, info, debug, trace), or one for a part, as in \"info,idlewatch::wire=debug\""
                )
            };
            (if sound.is_empty() { level } else { sound.join(",") }, wrong.iter().map(complaint).collect())
        }
        None => (level, Vec::new()),
    };
    let wire = settings.wire.is_some() && verbosity >= 0;
    let filters = if wire { format!("{filters},{TARGET}=debug") } else { filters };
    // What our HTTP server says of its threads is nobody's business at info; what it says of requests that are none, anybody could fill
    // a disk with.
    let filters =
        format!("actix_server=warn,actix_http=off,{filters},async_imap=debug,async_imap::imap_stream=debug");
    (filters, complaints)
}

/// The directives of a filter that env_logger takes as they are meant, and the others. A word alone is a part of the
/// program to it, and everything else would be silent for a level that was misspelt.
fn directives(text: &str) -> (Vec<&str>, Vec<&str>) {
    let known = |word: &str| word.parse::<LevelFilter>().is_ok();
    let is_sound = |directive: &&str| match directive.split_once('=') {
        Some((part, level)) => !part.trim().is_empty() && (level.trim().is_empty() || known(level.trim())),
        None => known(directive) || directive.contains("::") || *directive == env!("CARGO_PKG_NAME"),
    };
    text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).partition(is_sound)
}

/// A problem of the configuration as a line of JSON, without its end.
pub fn issue_line(issue: &Issue) -> String {
    let Place { file, line, column } = Place::of(&issue.origin);
    let (message, hint) = issue.advice();
    let level = if issue.severity == Severity::Error { "error" } else { "warn" };
    let texts = [("file", file), ("key", issue.path.as_str()), ("hint", hint.unwrap_or_default())];
    config_line(level, message, &texts, &[("line", line), ("column", column)])
}

/// A remark on problems of the configuration, likewise.
pub fn note_line(message: &str) -> String {
    config_line("warn", message, &[], &[])
}

fn config_line(level: &str, message: &str, texts: &[(&str, &str)], numbers: &[(&str, u64)]) -> String {
    let now = Timestamp::now().strftime(TIME).to_string();
    let fixed =
        [("@timestamp", now.as_str()), ("level", level), ("message", message), ("log.logger", CONFIG)];
    let all = fixed.iter().chain(texts).copied().filter(|(_, text)| !text.is_empty());
    String::from_utf8_lossy(&object(all, numbers)).into_owned()
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
    let now = Timestamp::now().strftime(TIME);
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
    let level = record.level().as_str().to_ascii_lowercase();
    let fixed =
        [("@timestamp", now), ("level", &level), ("message", message), ("log.logger", record.target())];
    let all = fixed.into_iter().chain(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let mut line = object(all, &[]);
    line.push(b'\n');
    line
}

/// One JSON object. A number that is 0 is none.
fn object<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>, numbers: &[(&str, u64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let key = |key: &str, out: &mut Vec<u8>| {
        out.push(if out.is_empty() { b'{' } else { b',' });
        json_string(key, out);
        out.push(b':');
    };
    for (name, text) in texts {
        key(name, &mut out);
        json_string(text, &mut out);
    }
    for (name, number) in numbers.iter().filter(|(_, number)| *number > 0) {
        key(name, &mut out);
        out.extend_from_slice(number.to_string().as_bytes());
    }
    out.push(b'}');
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
    fn a_filter_keeps_what_is_meant_and_names_the_rest() {
        let (sound, wrong) =
            directives("info, idlewatch::wire=trace,idlewatch,hyper=,inof,a=b,=info,x=debug=y");
        assert_eq!(sound, ["info", "idlewatch::wire=trace", "idlewatch", "hyper="]);
        assert_eq!(wrong, ["inof", "a=b", "=info", "x=debug=y"]);
    }

    #[test]
    fn a_problem_as_json_has_its_place_and_its_hint() {
        let issue = Issue {
            severity: Severity::Error,
            origin: "a.toml:3:1".to_owned(),
            path: "accounts[0].hots".to_owned(),
            message: "unknown key; did you mean \"host\"?".to_owned(),
        };
        let told: serde_json::Value = serde_json::from_str(&issue_line(&issue)).unwrap();
        assert_eq!((&told["file"], &told["line"], &told["column"]), (&"a.toml".into(), &3.into(), &1.into()));
        assert_eq!((&told["key"], &told["message"]), (&"accounts[0].hots".into(), &"unknown key".into()));
        assert_eq!((&told["hint"], &told["level"]), (&"did you mean \"host\"?".into(), &"error".into()));
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
