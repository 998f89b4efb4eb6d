//! `{name}` in the texts of a template. Pure.

use std::borrow::Cow;

/// One part of a template's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// Taken as it is.
    Text(&'t str),
    /// The name of a placeholder.
    Name(&'t str),
}

/// What is wrong with the braces of a text.
pub(super) const MALFORMED: &str =
    "a brace begins or ends a placeholder like \"{id}\"; write \"{{\" or \"}}\" for the brace itself";

/// What a value must not do where it is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Into {
    /// A text: nothing to break out of.
    Text,
    /// The name of a secret: another file, credential or variable must be out of reach.
    SecretName,
    /// An argument of a command: it must not become an option.
    Argument,
}

/// Cuts a text into pieces; `None` where its braces do not match.
pub(super) fn pieces(text: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at_checked(at)?;
        pieces.push(Piece::Text(before));
        if brace.starts_with("{{") || brace.starts_with("}}") {
            pieces.push(Piece::Text(brace.get(..1)?));
            rest = brace.get(2..)?;
            continue;
        }
        let (name, after) = brace.strip_prefix('{')?.split_once('}')?;
        if name.is_empty() || !name.chars().all(is_of_a_name) {
            return None;
        }
        pieces.push(Piece::Name(name));
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Some(pieces)
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// The pieces with their values, or the name that has none.
pub(super) fn fill<'t, 'v>(
    pieces: &[Piece<'t>],
    value: impl Fn(&str) -> Option<Cow<'v, str>>,
) -> Result<String, &'t str> {
    let mut text = String::new();
    for piece in pieces {
        match *piece {
            Piece::Text(plain) => text.push_str(plain),
            Piece::Name(name) => text.push_str(&value(name).ok_or(name)?),
        }
    }
    Ok(text)
}

/// Why a value may not stand there.
pub(super) fn forbidden(value: &str, into: Into) -> Option<&'static str> {
    if value.chars().any(char::is_control) {
        return Some("control characters are not allowed");
    }
    match into {
        Into::SecretName if value.contains('/') || value.contains("..") => {
            Some("no \"/\" and no \"..\": it could name the secret of somebody else")
        }
        _ => None,
    }
}

/// Why a text that was filled in may not be used.
pub(super) fn broke_out(template: &str, filled: &str, into: Into) -> Option<&'static str> {
    let up = |text: &str| text.split('/').filter(|part| matches!(*part, "." | "..")).count();
    match into {
        // Of two harmless values, too.
        Into::SecretName if up(filled) > up(template) => Some("it would name another directory"),
        Into::Argument if filled.starts_with('-') && !template.starts_with('-') => {
            Some("it would be an option of the command")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(text: &str) -> Option<String> {
        let value = |name: &str| match name {
            "id" => Some(Cow::Borrowed("bob")),
            "labels.dept" => Some(Cow::Borrowed("{id}")),
            _ => None,
        };
        fill(&pieces(text)?, value).ok()
    }

    #[test]
    fn whole_tokens_are_filled_in_once() {
        for (text, result) in [
            ("plain", Some("plain")),
            ("", Some("")),
            ("{id}", Some("bob")),
            ("a/{id}@{id}.b", Some("a/bob@bob.b")),
            ("{labels.dept}", Some("{id}")),
            ("{{id}}", Some("{id}")),
            ("{{{id}}}", Some("{bob}")),
            ("ä{id}ö", Some("äbobö")),
            ("{other}", None),
            ("{id", None),
            ("id}", None),
            ("{}", None),
            ("{i d}", None),
            ("{{id}", None),
            ("{{}", None),
            ("{a{id}}", None),
        ] {
            assert_eq!(filled(text).as_deref(), result, "{text}");
        }
    }

    #[test]
    fn a_value_does_not_break_out() {
        for value in ["a/b", "..", "a..b", "/", "x\0", "x\n"] {
            assert!(forbidden(value, Into::SecretName).is_some(), "{value:?}");
        }
        assert!(forbidden("a/../b", Into::Text).is_none() && forbidden("a\r\nb", Into::Text).is_some());
        assert!(forbidden("bob@x.example", Into::SecretName).is_none());
        assert!(broke_out("/s/{a}{b}", "/s/..", Into::SecretName).is_some());
        assert!(broke_out("/s/.{a}/pw", "/s/../pw", Into::SecretName).is_some());
        assert!(broke_out("../s/{a}", "../s/bob", Into::SecretName).is_none());
        assert!(broke_out("{a}", "--help", Into::Argument).is_some());
        assert!(broke_out("--user={a}", "--user=-x", Into::Argument).is_none());
    }

    proptest! {
        /// Whatever two values hold: what is allowed lies in the directory that the template names.
        #[test]
        fn a_secret_stays_in_its_directory(template in "/s/[a.]{0,2}\\{a\\}[./]{0,2}\\{b\\}", a in "a?\\.a?|a", b in "a?\\.a?|a") {
            let value = |name: &str| Some(Cow::Owned(if name == "a" { a.clone() } else { b.clone() }));
            let text = fill(&pieces(&template).unwrap(), value).unwrap();
            prop_assume!(broke_out(&template, &text, Into::SecretName).is_none());
            prop_assert!(!text.split('/').any(|part| part == ".." && !template.contains("/../")), "{text}");
            prop_assert_eq!(text.matches('/').count(), template.matches('/').count());
        }

        #[test]
        fn doubled_braces_are_the_text_itself(text in "[a{}/]{0,12}") {
            let doubled = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(filled(&doubled), Some(text));
        }
    }
}
