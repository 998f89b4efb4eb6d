//! What is wrong with a configuration, and where.

use std::fmt;

use crate::text::{counted, escape};

/// Whether the program can run with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can; somebody should look.
    Warning,
}

/// One problem. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Issue {
    /// How bad it is.
    pub severity: Severity,
    /// `file:line:col`, an environment variable, or a flag; empty where there is no place.
    pub origin: String,
    /// `accounts[2].tls`
    pub path: String,
    /// What, and what to do.
    pub message: String,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.origin.is_empty() {
            write!(f, "{}: ", escape(&self.origin))?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", escape(&self.path))?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&escape(&self.message))
    }
}

impl Issue {
    /// What is wrong, and what to do about it where the message says so: the part behind its last semicolon.
    pub fn advice(&self) -> (&str, Option<&str>) {
        match self.message.rsplit_once("; ") {
            // Not one that stands in something quoted.
            Some((what, hint)) if what.matches('"').count() % 2 == 0 => (what, Some(hint)),
            _ => (&self.message, None),
        }
    }

    /// What sorts issues as a reader meets them: by file, then by line.
    pub fn order(&self) -> (String, u64, u64) {
        let Place { file, line, column } = Place::of(&self.origin);
        (file.to_owned(), line, column)
    }
}

/// Problems of one list that are shown, of each severity.
const MOST_OF_A_LIST: usize = 20;

/// Problems of all lists that are shown.
const MOST_OF_LISTS: usize = 200;

/// Issues, in order, as lines for people.
pub fn shown(issues: &[Issue]) -> Vec<String> {
    shown_as(issues, ToString::to_string, |more| more)
}

/// Issues, in order, each as a line, and how many more there are: a list of accounts may have thousands, and the
/// first say it.
pub fn shown_as(
    issues: &[Issue],
    line: impl Fn(&Issue) -> String,
    more_line: impl Fn(String) -> String,
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut room = MOST_OF_LISTS;
    let mut hidden = 0;
    for of_file in issues.chunk_by(|a, b| Place::of(&a.origin).file == Place::of(&b.origin).file) {
        let file = of_file.first().map(|issue| Place::of(&issue.origin).file).unwrap_or_default();
        if !file.ends_with(".csv") && !file.ends_with(".jsonl") {
            lines.extend(of_file.iter().map(&line));
            continue;
        }
        for (severity, name) in [(Severity::Error, "error"), (Severity::Warning, "warning")] {
            let of_kind: Vec<_> = of_file.iter().filter(|issue| issue.severity == severity).collect();
            let told = of_kind.len().min(MOST_OF_A_LIST).min(room);
            room -= told;
            lines.extend(of_kind.iter().take(told).map(|issue| line(issue)));
            match of_kind.len() - told {
                0 => {}
                more if told > 0 => {
                    let more = counted(more, &format!("more {name}"));
                    lines.push(more_line(format!("{}: and {more}", escape(file))));
                }
                more => hidden += more,
            }
        }
    }
    if hidden > 0 {
        lines.push(more_line(format!("and {hidden} more in other lists")));
    }
    lines
}

/// A place in a file: `file:line:col`, or `file:line` in a list of accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The file, or whatever else an origin names.
    pub file: &'a str,
    /// Its line; 0 for none.
    pub line: u64,
    /// Its column; 0 for none.
    pub column: u64,
}

impl<'a> Place<'a> {
    /// Takes an origin apart.
    pub fn of(origin: &'a str) -> Self {
        let number = |text: &'a str| {
            text.rsplit_once(':').and_then(|(rest, number)| Some((rest, number.parse::<u64>().ok()?)))
        };
        let Some((rest, last)) = number(origin) else { return Self { file: origin, line: 0, column: 0 } };
        match number(rest) {
            Some((file, line)) => Self { file, line, column: last },
            None => Self { file: rest, line: last, column: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_what_stands_behind_the_problem() {
        for (message, what, hint) in [
            ("unknown key; did you mean \"host\"?", "unknown key", Some("did you mean \"host\"?")),
            ("expected a rate, found \"a; b\"", "expected a rate, found \"a; b\"", None),
            ("missing required key `user`", "missing required key `user`", None),
        ] {
            let origin = "t.toml:1:1".to_owned();
            let issue =
                Issue { severity: Severity::Error, origin, path: String::new(), message: message.to_owned() };
            assert_eq!(issue.advice(), (what, hint));
        }
    }
}
