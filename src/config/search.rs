//! `search` of an account -> [`Criteria`]. Nothing of it is ever taken as a command.

use super::keys;
use super::section::{Issues, Section};
use super::validate::is_header_name;
use crate::imap::search::{Criteria, Key};
use crate::text::shortened;

/// The longest text that is searched for, bytes: a quoted string takes it in whatever server.
const MOST: usize = 1_000;

/// What an account searches for; `None` where it does not.
pub(super) fn criteria(account: &Section<'_>, issues: &mut Issues) -> Option<Criteria> {
    if !account.has("search") {
        return None;
    }
    let section = account.inner("search", issues);
    section.known(keys::SEARCH, issues);
    let mut keys = Vec::new();
    for (key, make) in TEXTS {
        keys.extend(text(&section, key, issues).map(make));
    }
    keys.extend(header(&section, "header", issues));
    keys.extend(header(&section, "not_header", issues).map(not));
    let (larger, smaller) = (size(&section, "larger", issues), size(&section, "smaller", issues));
    if let (Some(larger), Some(smaller)) = (larger, smaller)
        && larger.saturating_add(1) >= smaller
    {
        section.error("smaller", "no message is that small and larger than `larger`", issues);
    }
    keys.extend(larger.map(Key::Larger));
    keys.extend(smaller.map(Key::Smaller));
    for (key, flag) in [("unseen", Key::Unseen), ("flagged", Key::Flagged)] {
        keys.extend(section.boolean(key, false, issues).then_some(flag));
    }
    Criteria::new(keys)
}

/// Makes a key of a text.
type MakeKey = fn(String) -> Key;

const TEXTS: [(&str, MakeKey); 8] = [
    ("from", Key::From),
    ("to", Key::To),
    ("cc", Key::Cc),
    ("subject", Key::Subject),
    ("body", Key::Body),
    ("not_from", |text| not(Key::From(text))),
    ("not_to", |text| not(Key::To(text))),
    ("not_subject", |text| not(Key::Subject(text))),
];

fn not(key: Key) -> Key {
    Key::Not(Box::new(key))
}

fn text(section: &Section<'_>, key: &str, issues: &mut Issues) -> Option<String> {
    let text = section.text(key, issues)?;
    if text.trim().is_empty() {
        section.error(key, "must not be empty: it would be a part of everything", issues);
        return None;
    }
    if text.len() > MOST {
        section.error(key, format!("longer than {MOST} bytes"), issues);
        return None;
    }
    Some(text.to_owned())
}

/// `Name: part of its value`
fn header(section: &Section<'_>, key: &str, issues: &mut Issues) -> Option<Key> {
    let text = text(section, key, issues)?;
    let (name, contains) = text.split_once(':').unwrap_or((&text, ""));
    if !text.contains(':') || !is_header_name(name.trim()) {
        let message = format!("expected \"Name: part of its value\", found \"{}\"", shortened(&text, 60));
        section.error(key, message, issues);
        return None;
    }
    Some(Key::Header { name: name.trim().to_owned(), contains: contains.trim().to_owned() })
}

/// IMAP counts sizes in 32 bits.
fn size(section: &Section<'_>, key: &str, issues: &mut Issues) -> Option<u32> {
    let text = section.text(key, issues)?;
    let size = text.parse::<bytesize::ByteSize>().ok().and_then(|size| u32::try_from(size.0).ok());
    if size.is_none_or(|size| size == 0) {
        let message = format!("expected a size like \"1MiB\", below 4GiB, found \"{}\"", shortened(text, 60));
        section.error(key, message, issues);
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_text;

    const ACCOUNT: &str = "[[accounts]]\nid = \"work\"\nhost = \"imap.example.com\"\nuser = \"bob\"\npassword = { env = \"PW\" }\n";

    #[test]
    fn criteria_are_read_over_all_layers() {
        let text = format!(
            "[defaults]\nsearch = {{ unseen = true, larger = \"1kB\" }}\n{ACCOUNT}[accounts.search]\nfrom = \"boss\"\nnot_header = \"List-Id:\"\nlarger = \"2kB\"\n"
        );
        let settings = from_text("t", &text).unwrap().0;
        let list = Key::Header { name: "List-Id".to_owned(), contains: String::new() };
        assert_eq!(
            settings.accounts[0].search.as_ref().unwrap().keys(),
            [Key::From("boss".to_owned()), not(list), Key::Larger(2000), Key::Unseen]
        );
        assert_eq!(from_text("t", ACCOUNT).unwrap().0.accounts[0].search, None);
    }

    #[test]
    fn what_cannot_be_searched_for_is_told() {
        for (key, expected) in [
            ("from = \"\"", "search.from: must not be empty: it would be a part of everything"),
            ("form = \"x\"", "search.form: unknown key; did you mean \"from\"?"),
            (
                "header = \"List-Id\"",
                "search.header: expected \"Name: part of its value\", found \"List-Id\"",
            ),
            ("larger = \"5GiB\"", "search.larger: expected a size like \"1MiB\", below 4GiB, found \"5GiB\""),
            (
                "larger = \"2kB\"\nsmaller = \"2kB\"",
                "search.smaller: no message is that small and larger than `larger`",
            ),
            ("subject = \"a\\nb\"", "search.subject: control characters are not allowed"),
        ] {
            let issues = from_text("t", &format!("{ACCOUNT}[accounts.search]\n{key}\n")).unwrap_err();
            assert_eq!(issues.len(), 1, "{issues:?}");
            assert!(issues[0].to_string().ends_with(expected), "{}", issues[0]);
        }
    }
}
