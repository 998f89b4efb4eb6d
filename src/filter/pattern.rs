//! Patterns of text: globs, or regular expressions where a glob does not do. Case is ignored, and time is linear.

use regex::{Regex, RegexBuilder};

/// Marks a regular expression.
const REGEX: &str = "re:";

/// Bytes that one compiled pattern may take.
const MOST_BYTES: usize = 1 << 20;

/// A pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

/// Whatever they were written as.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It would match nothing, or everything.
    #[error("a pattern is missing")]
    Empty,
    /// It is no regular expression.
    #[error("no regular expression: {0}")]
    Regex(String),
}

impl Pattern {
    /// Of any text: `*` stands for any characters, `?` for one; the whole text has to match. What begins with `re:` is a
    /// regular expression, found anywhere in the text.
    ///
    /// # Errors
    /// Where it is empty, or not a regular expression after `re:`.
    pub fn of_text(source: &str) -> Result<Self, PatternError> {
        Self::new(source, Star::AnyText)
    }

    /// Of the names of mailboxes: [`Self::of_text`], but `*` ends at a `/`; `**` does not.
    ///
    /// # Errors
    /// Where it is empty, or not a regular expression after `re:`.
    pub fn of_mailboxes(source: &str) -> Result<Self, PatternError> {
        Self::new(source, Star::OneLevel)
    }

    fn new(source: &str, star: Star) -> Result<Self, PatternError> {
        let expression = match source.strip_prefix(REGEX) {
            Some(expression) => expression.to_owned(),
            None => anchored(source, star),
        };
        if source.is_empty() || expression.is_empty() {
            return Err(PatternError::Empty);
        }
        let built = RegexBuilder::new(&expression)
            .case_insensitive(true)
            .dot_matches_new_line(true)
            .size_limit(MOST_BYTES)
            .build();
        let regex = built.map_err(|error| PatternError::Regex(reason(&error)))?;
        Ok(Self { source: source.to_owned(), regex })
    }

    /// Whether it matches.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// As the configuration has it.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

/// What a single `*` stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Star {
    AnyText,
    OneLevel,
}

/// A glob as a regular expression of the whole text.
fn anchored(glob: &str, star: Star) -> String {
    let mut expression = String::from("^");
    let mut characters = glob.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '*' if characters.next_if_eq(&'*').is_some() || star == Star::AnyText => {
                expression.push_str(".*");
            }
            '*' => expression.push_str("[^/]*"),
            '?' if star == Star::OneLevel => expression.push_str("[^/]"),
            '?' => expression.push('.'),
            '\\' => escape(characters.next().unwrap_or('\\'), &mut expression),
            c => escape(c, &mut expression),
        }
    }
    expression + "$"
}

fn escape(c: char, expression: &mut String) {
    expression.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// The regex crate draws the expression, and says what is wrong in the last line.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_glob_matches_the_whole_text_whatever_its_case() {
        for (glob, text, matches) in [
            ("*@news.example.net", "Daily@NEWS.example.net", true),
            ("*@news.example.net", "a@news.example.net.evil.org", false),
            ("*@news.example.net", "a@newsXexample.net", false),
            ("[list] *", "[LIST] hello", true),
            ("größe ?", "GRÖSSE 1", false),
            ("grö?e", "GRÖßE", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("?", "ü", true),
        ] {
            assert_eq!(Pattern::of_text(glob).unwrap().matches(text), matches, "{glob} {text}");
        }
    }

    #[test]
    fn a_star_of_mailboxes_ends_at_a_level() {
        for (glob, name, matches) in [
            ("Lists/*", "Lists/rust", true),
            ("Lists/*", "Lists/rust/old", false),
            ("Lists/**", "Lists/rust/old", true),
            ("inbox", "INBOX", true),
            ("*", "a/b", false),
            ("**", "a/b", true),
        ] {
            assert_eq!(Pattern::of_mailboxes(glob).unwrap().matches(name), matches, "{glob} {name}");
        }
    }

    #[test]
    fn a_regular_expression_is_found_anywhere() {
        assert!(Pattern::of_text("re:ticket #[0-9]+").unwrap().matches("Re: Ticket #4711: fire"));
        assert!(!Pattern::of_text("re:^ticket").unwrap().matches("Re: ticket"));
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        assert_eq!(Pattern::of_text("").unwrap_err(), PatternError::Empty);
        assert_eq!(Pattern::of_text("re:").unwrap_err(), PatternError::Empty);
        assert_eq!(
            Pattern::of_text("re:(a").unwrap_err().to_string(),
            "no regular expression: unclosed group"
        );
        assert!(Pattern::of_text("re:(\\w{1000}){1000}").unwrap_err().to_string().contains("size limit"));
    }

    proptest! {
        #[test]
        fn a_text_without_wildcards_matches_itself_alone(text in "[^*?\\\\]{1,20}", other in ".{0,20}") {
            prop_assume!(!text.starts_with(REGEX));
            let pattern = Pattern::of_text(&text).unwrap();
            prop_assert!(pattern.matches(&text));
            prop_assert!(!pattern.matches(&other) || other.to_lowercase() == text.to_lowercase() || !other.is_ascii() || !text.is_ascii());
        }

        #[test]
        fn no_glob_is_refused(glob in ".{1,40}") {
            prop_assume!(!glob.starts_with(REGEX));
            prop_assert!(Pattern::of_text(&glob).is_ok() && Pattern::of_mailboxes(&glob).is_ok());
        }
    }
}
