//! Whether colours are wanted.

use std::sync::OnceLock;

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

#[cfg(test)]
mod tests {
    use super::*;

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
