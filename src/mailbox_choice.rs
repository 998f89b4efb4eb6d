//! Which mailboxes of an account are watched: names, globs, special uses, and what is left out. Pure.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use crate::event::{MailboxName, Role};
use crate::filter::pattern::{Pattern, PatternError};
use crate::imap::listing::ListedMailbox;

/// Bytes of one entry.
const LONGEST: usize = 512;

/// `mailboxes`: what is named, in this order. What is excluded stays excluded, wherever it stands.
#[derive(Clone, Debug)]
pub struct MailboxChoice {
    wanted: Vec<Entry>,
    excluded: Vec<Entry>,
    /// The names that stand for themselves; they are watched even where no LIST tells them.
    names: Vec<MailboxName>,
    /// Only those that match one of these, if there are any.
    only: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Entry {
    source: String,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    Name(MailboxName),
    SpecialUse(Role),
    Glob(Pattern),
}

/// A mailbox that is watched, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<'a> {
    /// Which.
    pub mailbox: MailboxName,
    /// As the server lists it; `None` where it does not.
    pub listed: Option<&'a ListedMailbox>,
    /// The entry that chose it, as the configuration has it.
    pub by: &'a str,
}

/// Why an entry, or all of them together, are no choice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ChoiceError {
    #[error("there is none")]
    Empty,
    #[error("only what is left out is named (`!`), nothing that is watched")]
    OnlyExcluded,
    #[error("a mailbox name must have 1 to 512 bytes")]
    Length,
    #[error("\"{0}\" is named twice")]
    Twice(String),
    #[error(
        "\"{0}\" is no special use: \\Inbox, \\All, \\Archive, \\Drafts, \\Flagged, \\Important, \\Junk, \\Sent or \\Trash (RFC 6154)"
    )]
    SpecialUse(String),
    #[error("\"{0}\": `%` is no wildcard here; `*` stays within a level, `**` does not")]
    Percent(String),
    #[error("\"{0}\": {1}")]
    Pattern(String, PatternError),
}

impl Entry {
    fn new(source: &str) -> Result<Self, ChoiceError> {
        let text = source.strip_prefix('!').unwrap_or(source);
        if text.is_empty() || text.len() > LONGEST {
            return Err(ChoiceError::Length);
        }
        let matcher = if text.starts_with('\\') {
            let role = Role::from_attribute(text);
            Matcher::SpecialUse(role.ok_or_else(|| ChoiceError::SpecialUse(text.to_owned()))?)
        } else if text.contains('*') || text.starts_with("re:") {
            let pattern = Pattern::of_mailboxes(text);
            Matcher::Glob(pattern.map_err(|error| ChoiceError::Pattern(text.to_owned(), error))?)
        } else if text.contains('%') {
            return Err(ChoiceError::Percent(text.to_owned()));
        } else {
            Matcher::Name(name(text))
        };
        Ok(Self { source: source.to_owned(), matcher })
    }

    fn matches(&self, mailbox: &MailboxName, role: Option<Role>) -> bool {
        match &self.matcher {
            Matcher::Name(name) => name == mailbox,
            Matcher::SpecialUse(wanted) => role == Some(*wanted),
            Matcher::Glob(pattern) => pattern.matches(mailbox.as_str()),
        }
    }
}

/// The entry that chooses the mailbox of this name and no other, whatever the name looks like.
pub fn entry_of(name: &str) -> String {
    let is_more = name.contains(['*', '%']) || name.starts_with(['!', '\\']) || name.starts_with("re:");
    if is_more { format!("re:^{}$", regex::escape(name)) } else { name.to_owned() }
}

fn matches_any(patterns: &[Pattern], mailbox: &MailboxName) -> bool {
    patterns.iter().any(|pattern| pattern.matches(mailbox.as_str()))
}

fn name(text: &str) -> MailboxName {
    if text.eq_ignore_ascii_case("INBOX") { MailboxName::inbox() } else { MailboxName::from(text) }
}

impl MailboxChoice {
    /// Of the entries as the configuration has them; `!` before one excludes what it matches.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn new<S: AsRef<str>>(sources: &[S]) -> Result<Self, Vec<ChoiceError>> {
        let mut errors = Vec::new();
        let mut choice =
            Self { wanted: Vec::new(), excluded: Vec::new(), names: Vec::new(), only: Vec::new() };
        let mut known = HashSet::new();
        for source in sources.iter().map(AsRef::as_ref) {
            match Entry::new(source) {
                Ok(entry) if !known.insert(entry.identity()) => {
                    errors.push(ChoiceError::Twice(entry.shown().to_owned()));
                }
                Ok(entry) if source.starts_with('!') => choice.excluded.push(entry),
                Ok(entry) => choice.wanted.push(entry),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() && choice.wanted.is_empty() {
            let only = !choice.excluded.is_empty();
            errors.push(if only { ChoiceError::OnlyExcluded } else { ChoiceError::Empty });
        }
        choice.names = choice.wanted.iter().filter_map(Entry::name).cloned().collect();
        if errors.is_empty() { Ok(choice) } else { Err(errors) }
    }

    /// The INBOX alone.
    pub fn inbox() -> Self {
        let inbox = MailboxName::inbox();
        let entry = Entry { source: inbox.as_str().to_owned(), matcher: Matcher::Name(inbox.clone()) };
        Self { wanted: vec![entry], excluded: Vec::new(), names: vec![inbox], only: Vec::new() }
    }

    /// What of it matches one of these, too; `None` where nothing can.
    pub fn narrowed(&self, only: &[Pattern]) -> Option<Self> {
        let mut narrowed = Self { only: only.to_vec(), ..self.clone() };
        narrowed.wanted.retain(|entry| entry.name().is_none_or(|name| matches_any(only, name)));
        narrowed.names.retain(|name| matches_any(only, name));
        (!narrowed.wanted.is_empty()).then_some(narrowed)
    }

    /// The mailboxes that are named; all of them, where [`Self::needs_listing`] says no.
    pub fn names(&self) -> &[MailboxName] {
        &self.names
    }

    /// Whether only the server's LIST can tell what is meant.
    pub fn needs_listing(&self) -> bool {
        self.names.len() < self.wanted.len() || !self.excluded.is_empty()
    }

    /// What is watched of `listed`: INBOX first, then in the order of the entries, then by name.
    pub fn choose<'a>(&'a self, listed: &'a [ListedMailbox]) -> Vec<Chosen<'a>> {
        let mut chosen: Vec<(usize, Chosen<'a>)> = Vec::new();
        for mailbox in listed.iter().filter(|mailbox| mailbox.selectable) {
            if let Some((rank, entry)) = self.entry_of(&mailbox.name, mailbox.role) {
                let by = entry.source.as_str();
                chosen.push((rank, Chosen { mailbox: mailbox.name.clone(), listed: Some(mailbox), by }));
            }
        }
        let known: HashSet<_> = chosen.iter().map(|(_, chosen)| chosen.mailbox.clone()).collect();
        for (rank, entry) in self.wanted.iter().enumerate() {
            if let Some(name) =
                entry.name().filter(|name| !known.contains(*name) && !self.excludes(name, None))
            {
                chosen.push((rank, Chosen { mailbox: name.clone(), listed: None, by: &entry.source }));
            }
        }
        chosen.sort_by_cached_key(|(rank, chosen)| {
            (!chosen.mailbox.is_inbox(), *rank, chosen.mailbox.as_str().to_owned())
        });
        chosen.dedup_by(|(_, a), (_, b)| a.mailbox == b.mailbox);
        chosen.into_iter().map(|(_, chosen)| chosen).collect()
    }

    fn entry_of(&self, mailbox: &MailboxName, role: Option<Role>) -> Option<(usize, &Entry)> {
        let mut entries = self.wanted.iter().enumerate();
        entries.find(|(_, entry)| entry.matches(mailbox, role)).filter(|_| !self.excludes(mailbox, role))
    }

    fn excludes(&self, mailbox: &MailboxName, role: Option<Role>) -> bool {
        self.excluded.iter().any(|entry| entry.matches(mailbox, role))
            || (!self.only.is_empty() && !matches_any(&self.only, mailbox))
    }

    fn sources(&self) -> impl Iterator<Item = &str> {
        let entries = self.wanted.iter().chain(&self.excluded).map(|entry| entry.source.as_str());
        entries.chain(self.only.iter().map(Pattern::as_str))
    }
}

impl Entry {
    fn name(&self) -> Option<&MailboxName> {
        match &self.matcher {
            Matcher::Name(name) => Some(name),
            _ => None,
        }
    }

    /// Two names of one mailbox are one.
    fn identity(&self) -> String {
        let excluded = if self.source.starts_with('!') { "!" } else { "" };
        format!("{excluded}{}", self.shown())
    }

    fn shown(&self) -> &str {
        self.name().map_or(&self.source, MailboxName::as_str)
    }
}

/// Whatever was made of the entries is made of their texts.
impl PartialEq for MailboxChoice {
    fn eq(&self, other: &Self) -> bool {
        self.sources().eq(other.sources())
    }
}

impl Eq for MailboxChoice {}

impl Hash for MailboxChoice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sources().for_each(|source| source.hash(state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, role: Option<Role>) -> ListedMailbox {
        let name = MailboxName::from(name);
        let role = if name.is_inbox() { Some(Role::Inbox) } else { role };
        ListedMailbox { wire_name: name.as_str().into(), name, delimiter: Some('/'), role, selectable: true }
    }

    fn chosen(entries: &[&str]) -> Vec<(String, String)> {
        let mut server: Vec<_> =
            ["Customers/B", "Customers/A", "Customers/Archive/2024", "Customers", "Lists/x"]
                .map(|name| listed(name, None))
                .into();
        server.push(listed("Gesendet", Some(Role::Sent)));
        server.push(listed("INBOX", None));
        server.push(ListedMailbox { selectable: false, ..listed("Customers/Folder", None) });
        let choice = MailboxChoice::new(entries).unwrap();
        let all = choice.choose(&server);
        all.iter().map(|chosen| (chosen.mailbox.as_str().to_owned(), chosen.by.to_owned())).collect()
    }

    fn names(entries: &[&str]) -> Vec<String> {
        chosen(entries).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_choice_is_made_of_names_globs_and_special_uses() {
        for (entries, wanted) in [
            (&["INBOX"][..], &["INBOX"][..]),
            (&["inbox"], &["INBOX"]),
            (&["\\Inbox"], &["INBOX"]),
            (&["Customers/*"], &["Customers/A", "Customers/B"]),
            (&["Customers/**"], &["Customers/A", "Customers/Archive/2024", "Customers/B"]),
            (&["Customers/**", "!Customers/Archive/**"], &["Customers/A", "Customers/B"]),
            (&["!Customers/Archive/**", "Customers/**"], &["Customers/A", "Customers/B"]),
            (&["**", "!\\Sent", "!Customers**"], &["INBOX", "Lists/x"]),
            (&["Lists/x", "\\sent", "INBOX"], &["INBOX", "Lists/x", "Gesendet"]),
            (&["Not/There", "INBOX"], &["INBOX", "Not/There"]),
            (&["Not/There", "!Not/*", "INBOX"], &["INBOX"]),
        ] {
            assert_eq!(names(entries), wanted, "{entries:?}");
        }
    }

    #[test]
    fn the_first_entry_that_matches_is_the_reason() {
        let all = chosen(&["Customers/A", "Customers/*"]);
        assert_eq!(all[0], ("Customers/A".to_owned(), "Customers/A".to_owned()));
        assert_eq!(all[1], ("Customers/B".to_owned(), "Customers/*".to_owned()));
    }

    #[test]
    fn names_alone_need_no_list() {
        assert!(!MailboxChoice::new(&["INBOX", "a"]).unwrap().needs_listing());
        for entry in ["a/*", "\\Sent", "!a", "re:^a"] {
            assert!(MailboxChoice::new(&["INBOX", entry]).unwrap().needs_listing(), "{entry}");
        }
    }

    #[test]
    fn what_is_no_choice_says_why() {
        let why = |entries: &[&str]| MailboxChoice::new(entries).unwrap_err().remove(0);
        assert_eq!(why(&[]), ChoiceError::Empty);
        assert_eq!(why(&["!a", "!b/**"]), ChoiceError::OnlyExcluded);
        assert_eq!(why(&["a", "a"]), ChoiceError::Twice("a".to_owned()));
        assert_eq!(why(&["inbox", "INBOX"]), ChoiceError::Twice("INBOX".to_owned()));
        assert_eq!(why(&["\\Nonsense"]), ChoiceError::SpecialUse("\\Nonsense".to_owned()));
        assert_eq!(why(&["a/%"]), ChoiceError::Percent("a/%".to_owned()));
        assert!(matches!(why(&["re:("]), ChoiceError::Pattern(..)));
        assert_eq!(MailboxChoice::new(&["", "\\x", "!"]).unwrap_err().len(), 3);
    }

    #[test]
    fn a_choice_can_be_narrowed() {
        let choice = MailboxChoice::new(&["INBOX", "Lists/x", "Customers/*"]).unwrap();
        let only = |glob: &str| choice.narrowed(&[Pattern::of_mailboxes(glob).unwrap()]);
        let server = ["INBOX", "Customers/A", "Customers/B"].map(|name| listed(name, None));
        let names = |narrowed: &MailboxChoice| {
            let chosen = narrowed.choose(&server);
            chosen.iter().map(|chosen| chosen.mailbox.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&only("**/A").unwrap()), ["Customers/A"]);
        assert_eq!(names(&only("inbox").unwrap()), ["INBOX"]);
        assert_ne!(only("inbox").unwrap(), choice);
        let named = MailboxChoice::new(&["INBOX", "a"]).unwrap();
        assert_eq!(named.narrowed(&[Pattern::of_mailboxes("b").unwrap()]), None);
    }

    #[test]
    fn equal_entries_are_an_equal_choice() {
        let choice = |entries: &[&str]| MailboxChoice::new(entries).unwrap();
        assert_eq!(choice(&["a/*", "!b"]), choice(&["a/*", "!b"]));
        assert_ne!(choice(&["a/*"]), choice(&["A/*"]));
    }
}
