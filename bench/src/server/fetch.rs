//! What a FETCH asks for, and its answers.

use super::mail::Mail;

/// The items of a FETCH.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Items {
    plain: Vec<Plain>,
    header: Option<Header>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    Flags,
    InternalDate,
    Size,
    Structure,
    Envelope,
}

/// A header section.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    /// As the answer names it.
    name: String,
    /// All where it is empty.
    fields: Vec<String>,
}

impl Items {
    /// Reads the items as the client wrote them; unknown ones are passed over.
    pub(super) fn parse(text: &str) -> Self {
        let upper = text.to_ascii_uppercase();
        let (outside, section) = match upper.split_once("BODY.PEEK[").or_else(|| upper.split_once("BODY[")) {
            Some((before, rest)) => {
                let (section, after) = rest.split_once(']').unwrap_or((rest, ""));
                (format!("{before} {after}"), Some((section.to_owned(), after.starts_with("<0"))))
            }
            None => (upper, None),
        };
        let words = outside.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')'));
        Self { plain: words.filter_map(Plain::parse).collect(), header: section.map(Header::parse) }
    }

    /// `* n FETCH (...)`; the sequence number is the UID, as nothing is ever expunged.
    pub(super) fn answer(&self, mail: Mail, out: &mut Vec<u8>) {
        let mut line = format!("* {uid} FETCH (UID {uid}", uid = mail.uid);
        for item in &self.plain {
            line.push(' ');
            line.push_str(&item.of(mail));
        }
        if let Some(header) = &self.header {
            let text = header.of(mail);
            line.push_str(&format!(" {} {{{}}}\r\n{text}", header.name, text.len()));
        }
        line.push_str(")\r\n");
        out.extend_from_slice(line.as_bytes());
    }
}

impl Plain {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "FLAGS" => Self::Flags,
            "INTERNALDATE" => Self::InternalDate,
            "RFC822.SIZE" => Self::Size,
            "BODYSTRUCTURE" => Self::Structure,
            "ENVELOPE" => Self::Envelope,
            _ => return None,
        })
    }

    fn of(self, mail: Mail) -> String {
        match self {
            Self::Flags => "FLAGS ()".to_owned(),
            Self::InternalDate => mail.internal_date(),
            Self::Size => mail.size(),
            Self::Structure => mail.structure(),
            Self::Envelope => mail.envelope(),
        }
    }
}

impl Header {
    fn parse((section, partial): (String, bool)) -> Self {
        let fields = section.split_once('(').map_or("", |(_, fields)| fields.trim_end_matches(')'));
        let fields = fields.split_whitespace().map(|field| field.trim_matches('"').to_owned()).collect();
        Self { name: format!("BODY[{section}]{}", if partial { "<0>" } else { "" }), fields }
    }

    fn of(&self, mail: Mail) -> String {
        let wanted = |name: &str| self.fields.iter().any(|field| field.eq_ignore_ascii_case(name));
        mail.header(|name| self.fields.is_empty() || wanted(name))
    }
}

/// The ranges of a sequence set, low to high; `last` is what `*` stands for. Nothing where there is no message.
pub(super) fn parse_set(text: &str, last: u32) -> Vec<(u32, u32)> {
    let number = |text: &str| if text == "*" { Some(last) } else { text.parse().ok() };
    let range = |part: &str| {
        let (a, b) = part.split_once(':').unwrap_or((part, part));
        let (a, b) = (number(a)?, number(b)?);
        let (low, high) = (a.min(b).max(1), a.max(b).min(last));
        (low <= high).then_some((low, high))
    };
    text.split(',').filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_what_was_asked_for() {
        let items = Items::parse("(UID FLAGS BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (Message-ID)]<0.65536>)");
        let mut out = Vec::new();
        items.answer(Mail { user: 2, uid: 9 }, &mut out);
        let out = String::from_utf8(out).unwrap_or_default();
        assert!(out.starts_with("* 9 FETCH (UID 9 FLAGS () BODYSTRUCTURE (("), "{out}");
        let header =
            "BODY[HEADER.FIELDS (MESSAGE-ID)]<0> {37}\r\nMessage-ID: <9.2@bench.example>\r\n\r\n)\r\n";
        assert!(out.ends_with(&header.replace("{37}", "{35}")), "{out}");
    }

    #[test]
    fn a_set_is_clamped_to_what_there_is() {
        assert_eq!(parse_set("3:*", 5), [(3, 5)]);
        assert_eq!(parse_set("9:*", 5), [(5, 5)]);
        assert_eq!(parse_set("1,3:4,8", 5), [(1, 1), (3, 4)]);
        assert_eq!(parse_set("1:*", 0), []);
    }
}
