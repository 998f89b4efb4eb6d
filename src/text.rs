//! Text from servers and mails is hostile: made harmless here before anybody sees it.

use std::any::Any;
use std::borrow::Cow;
use std::fmt::{Display, Write};

/// For values of events: control characters become U+FFFD, tabs and line breaks a space. Everything else stays,
/// and what could deceive a terminal is escaped when the value is written.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if is_printable_ascii(text) || !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let replace = |c| match c {
        '\t' | '\r' | '\n' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    Cow::Owned(text.chars().map(replace).collect())
}

/// For lines that people read: [`harmless`], and without the characters that change how others are shown.
pub fn plain(text: &str) -> Cow<'_, str> {
    if is_printable_ascii(text) {
        return Cow::Borrowed(text);
    }
    match harmless(text) {
        Cow::Borrowed(text) if !text.chars().any(is_deceptive) => Cow::Borrowed(text),
        text => Cow::Owned(text.chars().filter(|&c| !is_deceptive(c)).collect()),
    }
}

/// [`plain`], at most `most` bytes long.
pub fn line(text: &str, most: usize) -> String {
    // Capped before it is looked at, since every character shrinks or stays.
    shortened(&plain(cap(text, most.saturating_mul(4))), most)
}

/// Bidirectional controls, invisible characters and line separators: nothing that they do is seen.
pub fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
            | '\u{180e}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The longest beginning of `text` of at most `most` bytes that ends between two characters.
pub fn cap(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

/// `text`, or what fits of it into `most` bytes, with an ellipsis.
pub fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    format!("{}…", cap(text, most.saturating_sub('…'.len_utf8())))
}

/// `1 problem`, `2 problems`, `2 mailboxes`.
pub fn counted<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let ending = match noun {
        _ if number == N::from(1) => "",
        _ if noun.ends_with('x') => "es",
        _ => "s",
    };
    format!("{number} {noun}{ending}")
}

/// For logs: control and deceptive characters as `\x1b` and `\u{202e}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if is_printable_ascii(text) || !text.chars().any(|c| c.is_control() || is_deceptive(c)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c if c.is_control() && (c as u32) < 0x100 => {
                let _ = write!(escaped, "\\x{:02x}", c as u32);
            }
            c if c.is_control() || is_deceptive(c) => {
                let _ = write!(escaped, "\\u{{{:x}}}", c as u32);
            }
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// The beginning of bytes that could not be read, for debug logs.
pub fn excerpt(bytes: &[u8], most: usize) -> String {
    let head = bytes.get(..bytes.len().min(most)).unwrap_or_default();
    shortened(&escape(&String::from_utf8_lossy(head)), most)
}

/// Writes `text` as a JSON string. Deceptive characters are escaped, so that a raw line cannot spoof a terminal.
pub fn json_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    if each(text, is_bare) {
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    let mut plain_from = 0;
    for (at, c) in text.char_indices() {
        if !(c.is_control() || c == '"' || c == '\\' || is_deceptive(c)) {
            continue;
        }
        out.extend_from_slice(text.get(plain_from..at).unwrap_or_default().as_bytes());
        plain_from = at + c.len_utf8();
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    out.extend_from_slice(text.get(plain_from..).unwrap_or_default().as_bytes());
    out.push(b'"');
}

/// Printable ASCII that JSON takes as it is: most of what there is to write.
fn is_bare(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

/// No control character, nothing outside of ASCII.
pub fn is_printable_ascii(text: &str) -> bool {
    each(text, |byte| matches!(byte, b' '..=b'~'))
}

/// Whether all bytes are such: sixteen at a time without a branch, of which the compiler makes one comparison. What is left is
/// looked at once more with the end of what was before, or where that is too short, filled up with `a`.
fn each(text: &str, is_such: impl Fn(u8) -> bool) -> bool {
    const CHUNK: usize = 16;
    let are_such = |chunk: &[u8; CHUNK]| chunk.iter().fold(true, |all, &byte| all & is_such(byte));
    let bytes = text.as_bytes();
    match bytes.last_chunk::<CHUNK>() {
        Some(last) => bytes.as_chunks().0.iter().all(are_such) && are_such(last),
        None => {
            let mut filled = [b'a'; CHUNK];
            filled.get_mut(..bytes.len()).into_iter().for_each(|head| head.copy_from_slice(bytes));
            are_such(&filled)
        }
    }
}

/// What a panic said, as it comes from `catch_unwind`.
pub fn of_panic(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_written_can_move_a_terminal(text in any::<String>()) {
            let mut json = Vec::new();
            json_string(&text, &mut json);
            let json = String::from_utf8(json).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text.clone());
            for shown in [json, line(&text, 512), escape(&text).into_owned()] {
                prop_assert!(!shown.chars().any(|c| c.is_control() || is_deceptive(c)), "{:?}", shown);
            }
            prop_assert!(line(&text, 40).len() <= 40);
            prop_assert!(!harmless(&text).chars().any(char::is_control));
        }
    }

    #[test]
    fn values_keep_their_shape() {
        assert_eq!(harmless("a\tb\0c\u{202e}d"), "a b\u{fffd}c\u{202e}d");
        assert_eq!(plain("a\u{202e}b\u{200b}c\x1b[2J"), "abc\u{fffd}[2J");
        assert_eq!(escape("a\x1b\u{9b}\n\u{202e}"), "a\\x1b\\x9b\\n\\u{202e}");
        assert_eq!(shortened("Übersicht", 5), "Ü…");
    }
}
