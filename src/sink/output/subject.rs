//! The subject of an event on a message bus, made of a template. Pure.

use crate::event::{Event, EventBody};

/// Literal text and placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectTemplate(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Account,
    Action,
    Mailbox,
    Instance,
}

const PLACEHOLDERS: [(&str, Piece); 4] = [
    ("account", Piece::Account),
    ("action", Piece::Action),
    ("mailbox", Piece::Mailbox),
    ("instance", Piece::Instance),
];

impl SubjectTemplate {
    /// `idlewatch.{account}.{action}` and the like.
    ///
    /// # Errors
    /// Where it cannot make a subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, inner)) = rest.split_once('{') {
            let (name, after) = inner.split_once('}').ok_or("a { without its }")?;
            let known = PLACEHOLDERS.iter().find(|(known, _)| *known == name);
            let (_, piece) = known.ok_or_else(|| {
                let names = PLACEHOLDERS.map(|(name, _)| format!("{{{name}}}"));
                format!("unknown placeholder (known: {})", names.join(", "))
            })?;
            pieces.extend([Piece::Text(before.to_owned()), piece.clone()]);
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let template = Self(pieces);
        let sample = template.made(|_| "x".to_owned());
        let is_token = |token: &str| {
            !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && !b"*>{}".contains(&b))
        };
        if sample.len() > 200 || !sample.split('.').all(is_token) {
            return Err("expected tokens of printable characters between dots, without wildcards".to_owned());
        }
        Ok(template)
    }

    /// Every subject that it can make, as a subscription.
    pub fn wildcard(&self) -> String {
        // The action has two levels.
        let pattern =
            self.made(|piece| if *piece == Piece::Action { "\u{0}.\u{0}" } else { "\u{0}" }.to_owned());
        let tokens = pattern.split('.').map(|token| if token.contains('\u{0}') { "*" } else { token });
        tokens.collect::<Vec<_>>().join(".")
    }

    /// The subject of an event.
    pub fn fill(&self, event: &Event, instance: &str) -> String {
        self.made(|piece| match piece {
            // Ours, and meant as levels.
            Piece::Action => event.body.action().as_str().to_owned(),
            Piece::Account => token(event.account.as_ref().map_or("", |account| account.id.as_str())),
            Piece::Mailbox => token(mailbox(&event.body).unwrap_or_default()),
            Piece::Instance | Piece::Text(_) => token(instance),
        })
    }

    fn made(&self, value: impl Fn(&Piece) -> String) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            other => value(other),
        };
        self.0.iter().map(piece).collect()
    }
}

fn mailbox(body: &EventBody) -> Option<&str> {
    #[allow(clippy::wildcard_enum_match_arm, reason = "what has no mailbox")]
    match body {
        EventBody::MessageNew(message) => Some(message.mailbox.as_str()),
        EventBody::MessageFlags(change) => Some(change.mailbox.as_str()),
        EventBody::MessageExpunged(gone) => Some(gone.mailbox.as_str()),
        EventBody::MailboxReset(reset) => Some(reset.mailbox.as_str()),
        EventBody::MailboxGap(gap) => Some(gap.mailbox.as_str()),
        EventBody::AccountState(change) => change.mailbox.as_ref().map(|mailbox| mailbox.as_str()),
        _ => None,
    }
}

/// One level: what has a meaning in subjects, and whatever is not printable ASCII, as `%2E`. No value at all is `_`.
fn token(value: &str) -> String {
    if value.is_empty() {
        return "_".to_owned();
    }
    let mut token = String::with_capacity(value.len());
    for byte in crate::text::cap(value, 256).bytes() {
        match byte {
            b'.' | b'*' | b'>' | b'%' => token.push_str(&format!("%{byte:02X}")),
            byte if byte.is_ascii_graphic() => token.push(char::from(byte)),
            byte => token.push_str(&format!("%{byte:02X}")),
        }
    }
    token
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::tests::journalled;
    use super::*;

    #[test]
    fn values_are_one_level_each_whatever_is_in_them() {
        for (value, made) in [
            ("work", "work"),
            ("bob@example.org", "bob@example%2Eorg"),
            ("", "_"),
            ("a.*.>", "a%2E%2A%2E%3E"),
            ("Ü b%", "%C3%9C%20b%25"),
        ] {
            assert_eq!(token(value), made);
        }
        assert!(token(&"ü.".repeat(10_000)).len() < 1000);
    }

    #[test]
    fn a_template_is_filled() {
        let template = SubjectTemplate::parse("mail.{instance}.{account}.{action}").unwrap();
        assert_eq!(template.wildcard(), "mail.*.*.*.*");
        assert_eq!(template.fill(&journalled(1).event, "mon.1"), "mail.mon%2E1._.monitor.state");
    }

    #[test]
    fn what_makes_no_subject_is_refused() {
        for text in
            ["", "a..b", "a.*", "a.>", "a b", "{acount}", "{account", "a.", ".a", "a.{account}b.\u{7f}", "a}"]
        {
            assert!(SubjectTemplate::parse(text).is_err(), "{text}");
        }
        assert!(SubjectTemplate::parse("x{account}y.{mailbox}").is_ok());
    }
}
