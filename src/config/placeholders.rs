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
pub(super) enum Slot {
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
    while let Some(at) = memchr::memchr2(b'{', b'}', rest.as_bytes()) {
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

/// Why a text cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit<'t> {
    #[error("\"{{{0}}}\" is not set here")]
    NotSet(&'t str),
    #[error("\"{{{0}}}\" may not hold control characters")]
    Control(&'t str),
    #[error("\"{{{0}}}\" may not hold \"/\" or \"..\": it could name the secret of somebody else")]
    Path(&'t str),
    #[error("it would name another directory")]
    Directory,
    #[error("it would be an option of the command")]
    Option,
}

/// The text with the values of its placeholders.
pub(super) fn fill<'t, 'v>(
    text: &'t str,
    pieces: &[Piece<'t>],
    slot: Slot,
    value: impl Fn(&str) -> Option<Cow<'v, str>>,
) -> Result<String, Unfit<'t>> {
    let mut filled = String::new();
    for piece in pieces {
        match *piece {
            Piece::Text(plain) => filled.push_str(plain),
            Piece::Name(name) => {
                let value = value(name).ok_or(Unfit::NotSet(name))?;
                if value.chars().any(char::is_control) {
                    return Err(Unfit::Control(name));
                }
                if slot == Slot::SecretName && (value.contains('/') || value.contains("..")) {
                    return Err(Unfit::Path(name));
                }
                filled.push_str(&value);
            }
        }
    }
    // Of two harmless values, too.
    if slot == Slot::SecretName && dots(&filled) > dots(text) {
        return Err(Unfit::Directory);
    }
    if slot == Slot::Argument && filled.starts_with('-') && !text.starts_with('-') {
        return Err(Unfit::Option);
    }
    Ok(filled)
}

/// Parts of a path that are no names.
fn dots(path: &str) -> usize {
    path.split('/').filter(|part| matches!(*part, "." | "..")).count()
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
        fill(text, &pieces(text)?, Slot::Text, value).ok()
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
        use Slot::{Argument, SecretName, Text};
        let unfit = |text: &str, slot, a: &'static str, b: &'static str| {
            let value = |name: &str| Some(Cow::Borrowed(if name == "a" { a } else { b }));
            fill(text, &pieces(text).unwrap(), slot, value).err().map(|unfit| format!("{unfit:?}"))
        };
        for value in ["a/b", "..", "a..b", "/", "x\0", "x\n"] {
            assert!(unfit("/s/{a}", SecretName, value, "").is_some(), "{value:?}");
        }
        for (text, slot, a, b, reason) in [
            ("{a}", Text, "a/../b", "", None),
            ("{a}", Text, "a\r\nb", "", Some("Control(\"a\")")),
            ("/s/{a}", SecretName, "bob@x.example", "", None),
            ("/s/{a}{b}", SecretName, ".", ".", Some("Directory")),
            ("/s/.{a}/pw", SecretName, ".", "", Some("Directory")),
            ("../s/{a}", SecretName, "bob", "", None),
            ("{a}", Argument, "--help", "", Some("Option")),
            ("--user={a}", Argument, "-x", "", None),
        ] {
            assert_eq!(unfit(text, slot, a, b).as_deref(), reason, "{text} {a} {b}");
        }
    }

    proptest! {
        /// Whatever two values hold: what is allowed lies in the directory that the template names.
        #[test]
        fn a_secret_stays_in_its_directory(template in "/s/[a.]{0,2}\\{a\\}[./]{0,2}\\{b\\}", a in "a?\\.a?|a", b in "a?\\.a?|a") {
            let value = |name: &str| Some(Cow::Owned(if name == "a" { a.clone() } else { b.clone() }));
            let text = fill(&template, &pieces(&template).unwrap(), Slot::SecretName, value);
            prop_assume!(text.is_ok());
            let text = text.unwrap();
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
