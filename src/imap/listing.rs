//! The mailboxes that LIST tells.

use super::reply::ListEntry;
use super::select::shown_name;
use crate::event::{MailboxName, Role};

/// The most mailboxes of one account that are listed.
pub const MOST_MAILBOXES: usize = 10_000;

/// A name of this length may have been cut.
const LONGEST: usize = 1_024;

/// The mailboxes of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailboxListing {
    /// In the server's order.
    pub mailboxes: Vec<ListedMailbox>,
    /// There are more than are listed.
    pub truncated: bool,
    /// The server can tell of all of them on one connection (RFC 5465).
    pub hears_all: bool,
}

/// One mailbox of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedMailbox {
    /// The name as the configuration and events have it.
    pub name: MailboxName,
    /// As the server has it.
    pub wire_name: Vec<u8>,
    /// The server's hierarchy delimiter.
    pub delimiter: Option<char>,
    /// Its special use.
    pub role: Option<Role>,
    /// Whether it can be opened.
    pub selectable: bool,
}

impl ListedMailbox {
    /// What an entry of LIST tells.
    pub fn new(entry: &ListEntry) -> Self {
        let name = shown_name(entry);
        let special = entry.attributes.iter().find_map(|attribute| Role::from_attribute(attribute));
        let role = if name.is_inbox() { Some(Role::Inbox) } else { special };
        let selectable = is_nameable(&entry.name) && !is_closed(&entry.attributes);
        let (wire_name, delimiter) = (entry.name.clone(), entry.delimiter);
        Self { name, wire_name, delimiter, role, selectable }
    }
}

/// What cannot be sent back as it came cannot be opened.
fn is_nameable(name: &[u8]) -> bool {
    !name.is_empty() && name.len() < LONGEST && !name.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

/// RFC 9051 section 7.3.1.
pub(super) fn is_closed(attributes: &[String]) -> bool {
    let closed = ["\\Noselect", "\\NonExistent"];
    attributes.iter().any(|attribute| closed.iter().any(|name| name.eq_ignore_ascii_case(attribute)))
}

impl MailboxListing {
    /// One more; [`MOST_MAILBOXES`] at most.
    pub fn listed(&mut self, entry: &ListEntry) {
        if self.mailboxes.len() < MOST_MAILBOXES {
            self.mailboxes.push(ListedMailbox::new(entry));
        } else {
            self.truncated = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_is_known() {
        let listed = |attributes: &[&str], name: &[u8]| {
            let attributes = attributes.iter().map(|&attribute| attribute.to_owned()).collect();
            ListedMailbox::new(&ListEntry { attributes, delimiter: Some('.'), name: name.to_vec() })
        };
        assert!(listed(&[], b"a.b").selectable);
        assert!(listed(&["\\HasNoChildren", "\\Sent"], b"a").selectable);
        assert!(!listed(&["\\noselect"], b"a").selectable);
        assert!(!listed(&["\\NonExistent"], b"a").selectable);
        assert!(!listed(&[], b"a\r\nt2 LOGOUT").selectable, "what cannot be sent is never sent");
        assert!(!listed(&[], &[b'a'; 1_024]).selectable);
        assert_eq!(listed(&[], b"a.b").name.as_str(), "a/b");
    }
}
