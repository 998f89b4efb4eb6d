//! Whether colours are wanted, and what fits on a screen.

use std::io::IsTerminal;
use std::sync::OnceLock;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthChar;

use crate::status::Mood;

/// `--color`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless the environment asks for something else.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// One process, one answer.
static CHOICE: OnceLock<Color> = OnceLock::new();

/// What the command line says; the first call counts.
pub fn choose(color: Color) {
    let _ = CHOICE.set(color);
}

/// Whether to show colours on a stream that is a terminal, or is none.
pub fn has_colors(is_terminal: bool) -> bool {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    decide(CHOICE.get().copied().unwrap_or_default(), is_terminal, variable)
}

/// The command line, then `NO_COLOR` (no-color.org), `CLICOLOR_FORCE`, `TERM=dumb`.
fn decide(color: Color, is_terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if variable("NO_COLOR").is_some() => false,
        Color::Auto if variable("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
        Color::Auto => is_terminal && variable("TERM").is_none_or(|term| term != "dumb"),
    }
}

/// Colours for words, where they are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Paint(bool);

impl Paint {
    /// Whether they are.
    pub fn new(color: bool) -> Self {
        Self(color)
    }

    /// As stdout wants it.
    pub fn of_stdout() -> Self {
        Self(has_colors(std::io::stdout().is_terminal()))
    }

    fn with(self, style: Style, text: &str) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// All is well.
    pub fn good(self, text: &str) -> String {
        self.with(AnsiColor::Green.on_default(), text)
    }

    /// Somebody should look.
    pub fn bad(self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default().bold(), text)
    }

    /// Somebody may look.
    pub fn warn(self, text: &str) -> String {
        self.with(AnsiColor::Yellow.on_default(), text)
    }

    /// As a state is.
    pub fn mood(self, mood: Mood, text: &str) -> String {
        match mood {
            Mood::Good => self.good(text),
            Mood::Quiet => text.to_owned(),
            Mood::Bad => self.bad(text),
        }
    }
}

/// What of a text fits on a screen of that size, drawn over what was there: nothing wraps or scrolls. Pure.
pub fn screen(text: &str, columns: usize, rows: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    // The last row is the cursor's.
    let room = rows.saturating_sub(1).max(1);
    let shown = if lines.len() > room { room - 1 } else { lines.len() };
    let mut drawn = String::from("\x1b[H");
    let more = lines.len() - shown;
    let last = (more > 0).then(|| format!("… and {more} more lines"));
    for line in lines.iter().take(shown).copied().chain(last.as_deref()) {
        drawn.push_str(&fitting(line, columns));
        drawn.push_str("\x1b[K\n");
    }
    drawn + "\x1b[J"
}

/// The beginning of a line that has no more columns. Colours take none, and all that was begun ends.
fn fitting(line: &str, columns: usize) -> String {
    let (mut fitting, mut width, mut in_style) = (String::new(), 0, false);
    for c in line.chars() {
        in_style |= c == '\x1b';
        if !in_style {
            width += c.width().unwrap_or(0);
        }
        if in_style || width <= columns {
            fitting.push(c);
        }
        in_style &= c != 'm';
    }
    fitting
}

/// Columns and rows of the terminal at stdout; `None` where it is none, or cannot be drawn on.
pub fn size() -> Option<(usize, usize)> {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok().filter(|_| !dumb)?;
    let of = |number: u16, usual: usize| if number == 0 { usual } else { usize::from(number) };
    Some((of(size.ws_col, 80), of(size.ws_row, 24)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_and_nothing_wraps() {
        let text = "one\n日本語\nthree\nfour\nfive\n";
        assert_eq!(screen("one\n", 80, 24), "\x1b[Hone\x1b[K\n\x1b[J");
        let drawn = screen(text, 5, 5);
        let lines: Vec<_> = drawn.lines().map(|line| line.trim_end_matches("\x1b[K")).collect();
        assert_eq!(lines, ["\x1b[Hone", "日本", "three", "… and", "\x1b[J"]);
        assert!(screen(text, 80, 5).contains("… and 2 more lines"));
        let painted = screen("a \x1b[31mred\x1b[0m word\n", 3, 5);
        assert!(painted.starts_with("\x1b[Ha \x1b[31mr\x1b[0m\x1b[K\n"), "{painted:?}");
        for rows in 0..3 {
            assert!(screen(text, 0, rows).lines().count() <= 2, "{rows}");
        }
    }

    #[test]
    fn the_command_line_goes_before_the_environment_and_that_before_the_terminal() {
        use Color::{Always, Auto, Never};
        for (color, terminal, environment, wanted) in [
            (Auto, true, "TERM=xterm", true),
            (Auto, false, "TERM=xterm", false),
            (Auto, true, "TERM=dumb", false),
            (Auto, true, "NO_COLOR=1", false),
            (Auto, false, "CLICOLOR_FORCE=1", true),
            (Auto, false, "CLICOLOR_FORCE=0", false),
            (Always, false, "NO_COLOR=1", true),
            (Never, true, "CLICOLOR_FORCE=1", false),
        ] {
            let (name, value) = environment.split_once('=').unwrap();
            let variable = |asked: &str| (asked == name).then(|| value.to_owned());
            assert_eq!(decide(color, terminal, variable), wanted, "{color:?} {terminal} {environment}");
        }
    }
}
