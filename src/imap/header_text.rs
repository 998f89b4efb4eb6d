//! Header bytes as senders write them -> text: capped, UTF-8, whole.

use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::{HeaderName, MessageParser};

use super::command::MAX_HEADER;
use crate::text::{cap, is_printable_ascii};

/// What a parser may rely on: at most [`MAX_HEADER`] bytes of UTF-8 that end with an empty line.
///
/// The empty line matters: mail-parser tells nothing of a field that ends without a line end, so the
/// one that the partial FETCH cut would be lost.
pub(super) fn readable(header: &[u8]) -> Vec<u8> {
    let end = header.len().min(MAX_HEADER as usize);
    let kept = without_half_character(header.get(..end).unwrap_or_default());
    let mut text = Vec::with_capacity(kept.len() + 4);
    let mut field = 0;
    for line in kept.split_inclusive(|&byte| byte == b'\n') {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            disarm(&mut text, field);
            field = text.len();
        }
        match std::str::from_utf8(line) {
            Ok(_) => text.extend_from_slice(line),
            Err(_) => text.extend_from_slice(windows_1252(line).as_bytes()),
        }
    }
    disarm(&mut text, field);
    text.extend_from_slice(b"\r\n\r\n");
    text
}

/// Begins of encoded words without an end that one field may have.
const MOST_UNENDED: usize = 16;

/// mail-parser looks for the end of an encoded word through the whole field, again for each begin: in a field from
/// `start` on, those that have none are made ordinary text.
fn disarm(text: &mut [u8], start: usize) {
    let Some(field) = text.get_mut(start..) else { return };
    if memchr::memchr_iter(b'?', field).count() <= MOST_UNENDED {
        return;
    }
    let ended = memchr::memmem::rfind(field, b"?=").unwrap_or(0);
    let Some(rest) = field.get_mut(ended..) else { return };
    let begins: Vec<usize> = memchr::memmem::find_iter(rest, b"=?").skip(MOST_UNENDED).collect();
    for at in begins {
        if let Some(byte) = rest.get_mut(at + 1) {
            *byte = b'_';
        }
    }
}

/// A character that the end cuts in two is not worth another charset for the line it ends.
fn without_half_character(bytes: &[u8]) -> &[u8] {
    let line_start = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let line = bytes.get(line_start..).unwrap_or_default();
    match std::str::from_utf8(line) {
        Err(error) if error.error_len().is_none() => {
            bytes.get(..line_start + error.valid_up_to()).unwrap_or_default()
        }
        _ => bytes,
    }
}

/// What raw 8-bit text is taken for when it is not UTF-8; what that charset leaves undefined is U+FFFD.
fn windows_1252(bytes: &[u8]) -> String {
    let Some(decode) = charset_decoder(b"windows-1252") else {
        return String::from_utf8_lossy(bytes).into_owned();
    };
    let known = |c| if ('\u{80}'..='\u{9f}').contains(&c) { char::REPLACEMENT_CHARACTER } else { c };
    decode(bytes).chars().map(known).collect()
}

/// A text with encoded words (RFC 2047) and folding undone.
pub(super) fn decoded(raw: &[u8]) -> String {
    match std::str::from_utf8(raw) {
        Ok(text) if is_printable_ascii(text) && !raw.contains(&b'?') => {
            cap(text, MAX_HEADER as usize).trim().to_owned()
        }
        _ => parsed(raw),
    }
}

fn parsed(raw: &[u8]) -> String {
    let one_line: Vec<u8> =
        raw.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }).collect();
    let header = [b"Subject: ", readable(&one_line).as_slice()].concat();
    MessageParser::new()
        .header_text(HeaderName::Subject)
        .parse_headers(&header)
        .and_then(|message| message.subject().map(str::to_owned))
        .unwrap_or_default()
}

/// Whether an encoded word, or what was meant as one, is still in `text`.
pub(super) fn is_undecoded(text: &str) -> bool {
    memchr::memchr_iter(b'?', text.as_bytes()).any(|mark| {
        let (before, word) = text.split_at_checked(mark).unwrap_or_default();
        let Some(word) = word.strip_prefix('?').filter(|_| before.ends_with('=')) else { return false };
        let mut parts = word.splitn(3, '?');
        let (charset, encoding, rest) = (parts.next(), parts.next(), parts.next());
        let is_name = charset.is_some_and(|charset| {
            !charset.is_empty() && charset.len() <= 45 && charset.bytes().all(|b| b.is_ascii_graphic())
        });
        is_name && encoding.is_some_and(|encoding| encoding.len() == 1) && rest.is_some()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_needs_no_decoding_is_what_a_parser_makes_of_it(text in "[ ->@-~]{0,80}") {
            prop_assert_eq!(decoded(text.as_bytes()), parsed(text.as_bytes()));
        }
    }

    #[test]
    fn whatever_comes_is_utf_8_and_whole() {
        assert_eq!(readable(b"a: \xc3\xbc\nb: \xfc\nc: \xe2\x82"), "a: ü\nb: ü\nc: \r\n\r\n".as_bytes());
        assert_eq!(readable(b""), b"\r\n\r\n");
        assert_eq!(readable(&vec![b'x'; 1 << 20]).len(), MAX_HEADER as usize + 4);
    }

    #[test]
    fn encoded_words_that_stayed_are_noticed() {
        for text in ["=?utf-8?q?x", "a =?utf-8?B?#?= b", "=?x?z?y?="] {
            assert!(is_undecoded(text), "{text}");
        }
        for text in ["", "=?", "1 =? 2", "a=?b c?q?", "=??q?x?=", "x?=?y"] {
            assert!(!is_undecoded(text), "{text}");
        }
    }
}
