//! Cuts a byte stream into complete responses, and bounds them before anybody parses anything. Pure.

use memchr::{memchr, memchr_iter};

/// The bounds of one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a line.
    pub line: usize,
    /// Bytes of a literal that is kept; a longer one becomes NIL.
    pub literal: u64,
    /// Bytes of a literal that is skipped; a longer one ends the connection.
    pub skipped: u64,
    /// Bytes of a response in all.
    pub frame: usize,
}

impl Limits {
    /// Before the login nobody has reason to say much.
    pub const BEFORE_LOGIN: Self = Self { line: 64 << 10, literal: 0, skipped: 0, frame: 64 << 10 };

    /// After it.
    pub const LOGGED_IN: Self =
        Self { line: 256 << 10, literal: 256 << 10, skipped: 64 << 20, frame: 512 << 10 };
}

/// A response that is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitExceeded {
    /// A line without an end.
    #[error("the server sent a line that is too long")]
    Line,
    /// A literal that nobody asked for.
    #[error("the server announced a literal that is too long, malformed, or out of place")]
    Literal,
    /// A response without an end.
    #[error("the server sent a response that is too long")]
    Frame,
}

/// One complete response: its line end is CRLF, and there is nothing behind it.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Opening parentheses outside of literals: they bound the parser's recursion.
    pub opens: usize,
    /// An `INTERNALDATE NIL` outside of literals and quoted strings, where no sender can write it.
    pub nil_date: bool,
}

/// Takes bytes in as they come.
#[derive(Debug, Default)]
pub struct Framer {
    bytes: Vec<u8>,
    line_start: usize,
    opens: usize,
    nil_date: bool,
    /// Whether literals may follow: known from its first line.
    takes_literals: Option<bool>,
    blank_lines: u32,
    /// Octets of a literal that are still to come; kept or skipped.
    literal: Option<Literal>,
}

#[derive(Debug)]
enum Literal {
    Kept(u64),
    Skipped(u64),
}

/// In a row; Courier sends one now and then.
const MOST_BLANK_LINES: u32 = 1_000;

impl Framer {
    /// Whether a response has begun.
    pub fn is_inside(&self) -> bool {
        !self.bytes.is_empty() || self.literal.is_some()
    }

    /// Takes from `input` up to the end of one response; how much was taken, and the response if it is complete.
    ///
    /// # Errors
    /// Where a bound is exceeded. Nothing can be read after that.
    pub fn feed(&mut self, input: &[u8], limits: &Limits) -> Result<(usize, Option<Frame>), LimitExceeded> {
        let mut taken = 0;
        while let Some(rest) = input.get(taken..).filter(|rest| !rest.is_empty()) {
            taken += match &mut self.literal {
                Some(Literal::Kept(left)) => {
                    let part = head(rest, *left);
                    *left -= part.len() as u64;
                    self.bytes.extend_from_slice(part);
                    part.len()
                }
                Some(Literal::Skipped(left)) => {
                    let part = head(rest, *left);
                    *left -= part.len() as u64;
                    part.len()
                }
                None => self.line(rest, limits)?,
            };
            if matches!(self.literal, Some(Literal::Kept(0) | Literal::Skipped(0))) {
                self.literal = None;
                self.line_start = self.bytes.len();
            } else if self.literal.is_none()
                && self.bytes.ends_with(b"\n")
                && let Some(frame) = self.finish(limits)?
            {
                return Ok((taken, Some(frame)));
            }
        }
        Ok((taken, None))
    }

    fn line(&mut self, rest: &[u8], limits: &Limits) -> Result<usize, LimitExceeded> {
        let part = memchr(b'\n', rest).and_then(|at| rest.get(..=at)).unwrap_or(rest);
        if self.bytes.len() - self.line_start + part.len() > limits.line {
            return Err(LimitExceeded::Line);
        }
        if self.bytes.len() + part.len() > limits.frame {
            return Err(LimitExceeded::Frame);
        }
        self.opens += memchr_iter(b'(', part).count();
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    /// A line has ended: a literal follows, or the response is complete. Blank lines are dropped, bare LF mended.
    fn finish(&mut self, limits: &Limits) -> Result<Option<Frame>, LimitExceeded> {
        let end = self.bytes.trim_ascii_end_of_line();
        self.bytes.truncate(end);
        if self.bytes.is_empty() {
            self.blank_lines += 1;
            return if self.blank_lines > MOST_BLANK_LINES { Err(LimitExceeded::Frame) } else { Ok(None) };
        }
        let line = self.bytes.get(self.line_start..).unwrap_or_default();
        self.nil_date |= has_nil_date(line);
        if *self.takes_literals.get_or_insert_with(|| takes_literals(&self.bytes))
            && let Some((at, length)) = announced(line)?
        {
            self.begin_literal(self.line_start + at, length, limits)?;
            return Ok(None);
        }
        self.bytes.extend_from_slice(b"\r\n");
        let frame =
            Frame { bytes: std::mem::take(&mut self.bytes), opens: self.opens, nil_date: self.nil_date };
        *self = Self::default();
        Ok(Some(frame))
    }

    fn begin_literal(&mut self, at: usize, length: u64, limits: &Limits) -> Result<(), LimitExceeded> {
        if length <= limits.literal {
            if (self.bytes.len() as u64).saturating_add(length) > limits.frame as u64 {
                return Err(LimitExceeded::Frame);
            }
            self.bytes.extend_from_slice(b"\r\n");
            self.literal = Some(Literal::Kept(length));
        } else if length <= limits.skipped {
            self.bytes.truncate(at);
            self.bytes.extend_from_slice(b"NIL");
            self.literal = Some(Literal::Skipped(length));
        } else {
            return Err(LimitExceeded::Literal);
        }
        self.line_start = self.bytes.len();
        if length == 0 {
            self.literal = None;
        }
        Ok(())
    }
}

trait TrimLineEnd {
    fn trim_ascii_end_of_line(&self) -> usize;
}

impl TrimLineEnd for Vec<u8> {
    /// Where the line ends without its CR and LF.
    fn trim_ascii_end_of_line(&self) -> usize {
        let without_lf = self.strip_suffix(b"\n").unwrap_or(self);
        without_lf.strip_suffix(b"\r").unwrap_or(without_lf).len()
    }
}

/// Whether `INTERNALDATE NIL` stands in a line outside of quoted strings.
fn has_nil_date(line: &[u8]) -> bool {
    const NIL_DATE: &[u8] = b"INTERNALDATE NIL";
    let (mut quoted, mut escaped) = (false, false);
    line.iter().enumerate().any(|(at, byte)| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'I' | b'i' if !quoted => {
                let word = line.get(at..at + NIL_DATE.len());
                return word.is_some_and(|word| word.eq_ignore_ascii_case(NIL_DATE));
            }
            _ => {}
        }
        false
    })
}

fn head(bytes: &[u8], most: u64) -> &[u8] {
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
    bytes.get(..most).unwrap_or_default()
}

/// Only untagged data holds literals: the text of a status response, a tag or a `+` may end in `{5}` and mean nothing.
pub(super) fn takes_literals(frame: &[u8]) -> bool {
    let Some(rest) = frame.strip_prefix(b"* ") else { return false };
    let word = rest.split(|&byte| byte == b' ').next().unwrap_or_default();
    let status: [&[u8]; 5] = [b"OK", b"NO", b"BAD", b"BYE", b"PREAUTH"];
    !status.iter().any(|status| word.eq_ignore_ascii_case(status))
}

/// `{n}` or `{n+}` at the end of a line: where it begins, and `n`.
fn announced(line: &[u8]) -> Result<Option<(usize, u64)>, LimitExceeded> {
    let Some(inside) = line.strip_suffix(b"}") else { return Ok(None) };
    let Some(at) = inside.iter().rposition(|&byte| byte == b'{') else { return Ok(None) };
    let digits = inside.get(at + 1..).unwrap_or_default();
    let digits = digits.strip_suffix(b"+").unwrap_or(digits);
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = || std::str::from_utf8(digits).ok()?.parse().ok();
    match number().filter(|_| is_number && (digits.len() == 1 || !digits.starts_with(b"0"))) {
        Some(length) => Ok(Some((at, length))),
        None => Err(LimitExceeded::Literal),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(input: &[u8], cuts: &[usize]) -> Result<Vec<String>, LimitExceeded> {
        let mut framer = Framer::default();
        let mut found = Vec::new();
        let mut cuts = cuts.iter().map(|&cut| cut % (input.len() + 1)).collect::<Vec<_>>();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        for piece in cuts.windows(2) {
            let mut rest = &input[piece[0]..piece[1]];
            while !rest.is_empty() {
                let (taken, frame) = framer.feed(rest, &Limits::LOGGED_IN)?;
                rest = &rest[taken..];
                found.extend(frame.map(|frame| String::from_utf8_lossy(&frame.bytes).into_owned()));
            }
        }
        Ok(found)
    }

    const DIALOGUE: &[u8] = b"* OK ready {5}\r\n\r\n* 1 FETCH (UID 1 BODY[] {5}\r\na\r\n)b UID 2)\n* LIST () \"/\" {0}\r\n\r\n+ idling\r\n";

    #[test]
    fn responses_are_cut_where_they_end() {
        assert_eq!(
            frames(DIALOGUE, &[]).unwrap(),
            [
                "* OK ready {5}\r\n",
                "* 1 FETCH (UID 1 BODY[] {5}\r\na\r\n)b UID 2)\r\n",
                "* LIST () \"/\" {0}\r\n\r\n",
                "+ idling\r\n"
            ]
        );
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_come(cuts in prop::collection::vec(any::<usize>(), 0..20)) {
            prop_assert_eq!(frames(DIALOGUE, &cuts), frames(DIALOGUE, &[]));
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>(), cuts in prop::collection::vec(any::<usize>(), 0..5)) {
            let _ = frames(&bytes, &cuts);
        }
    }

    #[test]
    fn a_long_literal_becomes_nil_and_the_rest_stays() {
        let input =
            [b"* 1 FETCH (BODY[] {300000}\r\n".as_slice(), &vec![b'x'; 300_000], b" UID 7)\r\n"].concat();
        assert_eq!(frames(&input, &[100, 5000]).unwrap(), ["* 1 FETCH (BODY[] NIL UID 7)\r\n"]);
    }

    #[test]
    fn nothing_is_allocated_for_what_is_only_announced() {
        for literal in ["{530000000}", "{4294967295}", "{99999999999999999999}", "{-1}", "{012}", "{}"] {
            let input = format!("* 1 FETCH (BODY[] {literal}\r\n");
            assert_eq!(frames(input.as_bytes(), &[]), Err(LimitExceeded::Literal), "{literal}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_read_to_its_end() {
        let mut framer = Framer::default();
        let chunk = [b'a'; 4096];
        let fed = (0..1000).take_while(|_| framer.feed(&chunk, &Limits::LOGGED_IN).is_ok()).count();
        assert_eq!(fed, Limits::LOGGED_IN.line / 4096);
        assert!(framer.bytes.capacity() <= 2 * Limits::LOGGED_IN.line);
    }

    #[test]
    fn before_the_login_there_are_no_literals() {
        let fed = Framer::default().feed(b"* LIST () {3}\r\nabc\r\n", &Limits::BEFORE_LOGIN);
        assert_eq!(fed, Err(LimitExceeded::Literal));
    }
}
