//! Which mailboxes of an account have a connection of their own, and which share one. Pure.

use crate::event::MailboxName;

/// How many connections there are in the end, the shared one included, where so many mailboxes share one: see [`beside`].
pub fn connections(mailboxes: usize, hears_all: bool, most: usize) -> usize {
    if hears_all { 1 } else { room(mailboxes, most) + 1 }
}

/// For those who have one of their own.
fn room(mailboxes: usize, most: usize) -> usize {
    most.saturating_sub(1).min(mailboxes.saturating_sub(1))
}

/// Who has a connection of their own; the others share one, which rests in the first of them.
///
/// `mailboxes` are in the order of their importance, `beside` have one already and keep it. Where one connection hears
/// of all of them (`hears_all`, RFC 5465) nobody else gets one. There are at most `most` connections, the shared one
/// included, and it always has something to watch.
pub fn beside(
    mailboxes: &[MailboxName],
    beside: &[MailboxName],
    hears_all: bool,
    most: usize,
) -> Vec<MailboxName> {
    let room = room(mailboxes.len(), most);
    let kept = mailboxes.iter().filter(|mailbox| beside.contains(mailbox));
    let mut chosen: Vec<MailboxName> = kept.take(room).cloned().collect();
    if !hears_all {
        let others = mailboxes.iter().filter(|mailbox| !beside.contains(mailbox));
        chosen.extend(others.take(room - chosen.len()).cloned());
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(mailboxes: &str, kept: &str, hears_all: bool, most: usize) -> String {
        let names = |text: &str| text.split_ascii_whitespace().map(MailboxName::from).collect::<Vec<_>>();
        let beside = beside(&names(mailboxes), &names(kept), hears_all, most);
        beside.iter().map(MailboxName::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_first_have_a_connection_of_their_own_and_the_rest_share_one() {
        for (mailboxes, kept, most, wanted) in [
            ("INBOX a b c d", "", 3, "INBOX a"),
            ("INBOX a b", "", 5, "INBOX a"),
            ("INBOX a b", "", 3, "INBOX a"),
            ("INBOX a b", "", 1, ""),
            ("INBOX", "", 5, ""),
            ("", "", 5, ""),
            // Nobody changes places because a mailbox came, and nobody outlives its mailbox.
            ("INBOX 0new a b c", "INBOX a", 3, "INBOX a"),
            ("INBOX b c", "INBOX a", 3, "INBOX b"),
            ("a b", "a b", 3, "a"),
        ] {
            assert_eq!(plan(mailboxes, kept, false, most), wanted, "{mailboxes} | {kept} | {most}");
            let own = wanted.split_ascii_whitespace().count();
            let all = mailboxes.split_ascii_whitespace().count();
            assert_eq!(connections(all, false, most), own + 1, "the shared one is always there");
        }
    }

    #[test]
    fn one_connection_that_hears_of_all_is_enough() {
        assert_eq!(plan("INBOX a b c", "", true, 5), "");
        assert_eq!(connections(4, true, 5), 1);
        assert_eq!(plan("INBOX a b c", "a", true, 5), "a");
    }
}
