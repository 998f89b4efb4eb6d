//! The part of Redis's protocol (RESP 2) that adding to a stream takes. Pure.

use crate::sink::output::Pause;

/// No reply that we ask for is longer.
const MOST_REPLY: usize = 1024;

/// What a command got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Anything but an error.
    Good,
    /// Its words; the first is a code.
    Error(String),
}

/// No reply to a command of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("what answers does not speak as Redis does")]
pub(super) struct Unreadable;

/// Appends a command: an array of strings, so that nothing in them has a meaning.
pub(super) fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// The first reply and its length, once it is whole.
///
/// # Errors
/// Where it can become none, or is longer than any.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Unreadable> {
    let Some(kind) = bytes.first() else { return Ok(None) };
    let bounded = bytes.get(..bytes.len().min(MOST_REPLY)).unwrap_or_default();
    let Some(end) = bounded.windows(2).position(|pair| pair == b"\r\n") else {
        let may_come = bytes.len() < MOST_REPLY && b"+-:$".contains(kind);
        return if may_come { Ok(None) } else { Err(Unreadable) };
    };
    let line = String::from_utf8_lossy(bounded.get(1..end).unwrap_or_default());
    match kind {
        b'+' | b':' => Ok(Some((Reply::Good, end + 2))),
        b'-' => Ok(Some((Reply::Error(line.into_owned()), end + 2))),
        b'$' => bulk(bytes, line.parse().map_err(|_| Unreadable)?, end + 2),
        _ => Err(Unreadable),
    }
}

/// A string of a length that is said before.
fn bulk(bytes: &[u8], length: usize, start: usize) -> Result<Option<(Reply, usize)>, Unreadable> {
    if length > MOST_REPLY {
        return Err(Unreadable);
    }
    let end = start + length + 2;
    match bytes.get(start + length..end) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((Reply::Good, end))),
        Some(_) => Err(Unreadable),
    }
}

/// When to come back after an error: no event is ever to blame.
pub(super) fn meaning(error: &str) -> Pause {
    match error.split(' ').next() {
        Some("LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN" | "OOM" | "MISCONF") => {
            Pause::Backoff
        }
        _ => Pause::Slowly,
    }
}

/// A command that it does not know is repeated by Redis with its arguments: passwords, and what the log may not hold.
pub(super) fn unechoed(words: &str) -> &str {
    let end = [", with args", ", `", " with args"].iter().filter_map(|mark| words.find(mark)).min();
    words.get(..end.unwrap_or(words.len())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_strings_whatever_is_in_them() {
        let mut out = Vec::new();
        command(&[b"XADD", b"a\r\nb", b""], &mut out);
        assert_eq!(out, b"*3\r\n$4\r\nXADD\r\n$4\r\na\r\nb\r\n$0\r\n\r\n");
    }

    #[test]
    fn a_reply_is_read_once_it_is_whole_and_not_before() {
        for (bytes, reply) in [
            (&b"+OK\r\n"[..], Reply::Good),
            (b":7\r\n", Reply::Good),
            (b"$15\r\n1700000000000-0\r\n", Reply::Good),
            (b"-OOM command not allowed\r\n", Reply::Error("OOM command not allowed".to_owned())),
        ] {
            for length in 0..bytes.len() {
                assert_eq!(parse(&bytes[..length]), Ok(None), "{length} of {bytes:?}");
            }
            let more = [bytes, b"+OK\r\n"].concat();
            assert_eq!(parse(&more), Ok(Some((reply, bytes.len()))));
        }
    }

    #[test]
    fn what_is_no_reply_or_too_long_is_refused() {
        let long = [b"+".as_slice(), &[b'x'; 5000]].concat();
        for bytes in [
            &b"HTTP/1.1 400\r\n"[..],
            b"*1\r\n",
            b"$-1\r\n",
            b"$99999999999999999999\r\n",
            b"$2000\r\n",
            b"$1\r\nxyz",
            b"x",
            &long,
        ] {
            assert_eq!(parse(bytes), Err(Unreadable), "{bytes:?}");
        }
    }

    #[test]
    fn trouble_that_passes_is_told_from_what_a_person_has_to_mend() {
        for error in ["OOM x", "LOADING x", "MISCONF x"] {
            assert_eq!(meaning(error), Pause::Backoff, "{error}");
        }
        for error in ["NOAUTH x", "WRONGPASS x", "NOPERM x", "WRONGTYPE x", "READONLY x", "ERR x", ""] {
            assert_eq!(meaning(error), Pause::Slowly, "{error}");
        }
    }

    #[test]
    fn what_a_server_repeats_of_a_command_is_not_passed_on() {
        for (words, shown) in [
            (
                "ERR unknown command 'AUTH', with args beginning with: 'bob' 'secret'",
                "ERR unknown command 'AUTH'",
            ),
            (
                "ERR unknown command `AUTH`, with args beginning with: `bob`, `secret`, ",
                "ERR unknown command `AUTH`",
            ),
            ("WRONGPASS invalid username-password pair", "WRONGPASS invalid username-password pair"),
        ] {
            assert_eq!(unechoed(words), shown);
        }
    }
}
