//! Event ids: made of what identifies a message, so that whatever is sent again is known again.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::event::{AccountId, MailboxName};

/// `email.local_id`: base32 of the first 16 bytes of SHA-256 over
/// `"idlewatch/1" NUL account NUL mailbox NUL uidvalidity NUL uid`; 26 characters.
pub fn local_id(account: &AccountId, mailbox: &MailboxName, uid_validity: u32, uid: u32) -> String {
    let mut hash = Sha256::new();
    let (validity, uid) = (uid_validity.to_string(), uid.to_string());
    for (i, part) in ["idlewatch/1", account.as_str(), mailbox.as_str(), &validity, &uid].iter().enumerate() {
        if i > 0 {
            hash.update([0]);
        }
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let head = digest.get(..16).unwrap_or_default();
    data_encoding::BASE32_NOPAD.encode(head).to_ascii_lowercase()
}

/// The id of `message.new`.
pub fn message_new(account: &AccountId, mailbox: &MailboxName, uid_validity: u32, uid: u32) -> String {
    local_id(account, mailbox, uid_validity, uid) + ".new"
}

/// The id of `message.flags`: one per change.
pub fn message_flags(
    account: &AccountId,
    mailbox: &MailboxName,
    uid_validity: u32,
    uid: u32,
    modseq: u64,
) -> String {
    format!("{}.flags.{modseq}", local_id(account, mailbox, uid_validity, uid))
}

/// The id of `message.expunged`: that happens once.
pub fn message_expunged(account: &AccountId, mailbox: &MailboxName, uid_validity: u32, uid: u32) -> String {
    local_id(account, mailbox, uid_validity, uid) + ".expunged"
}

/// The id of `mailbox.reset`: one per epoch.
pub fn reset(account: &AccountId, mailbox: &MailboxName, uid_validity: u32) -> String {
    local_id(account, mailbox, uid_validity, 0) + ".reset"
}

/// The id of `mailbox.gap`: by its first UID, or by its end in milliseconds where no UID is known.
pub fn gap(
    account: &AccountId,
    mailbox: &MailboxName,
    uid_validity: u32,
    uid_first: Option<u32>,
    until: Timestamp,
) -> String {
    match uid_first {
        Some(uid) => local_id(account, mailbox, uid_validity, uid) + ".gap",
        None => format!("{}.gap.{}", local_id(account, mailbox, uid_validity, 0), until.as_millisecond()),
    }
}

/// The id of events that happen once and are not derived from anything: UUIDv7.
pub fn fresh() -> String {
    uuid::Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_documented_one() {
        let (account, inbox) = (AccountId::from("work"), MailboxName::inbox());
        assert_eq!(local_id(&account, &inbox, 1_700_000_001, 4242), "ge7pxnd5fixdtlfn5xhh6uvixu");
        assert_eq!(message_new(&account, &inbox, 1_700_000_001, 4242), "ge7pxnd5fixdtlfn5xhh6uvixu.new");
        let changed = message_flags(&account, &inbox, 1_700_000_001, 4242, 715_194_045_011);
        assert_eq!(changed, "ge7pxnd5fixdtlfn5xhh6uvixu.flags.715194045011");
        let gone = message_expunged(&account, &inbox, 1_700_000_001, 4242);
        assert_eq!(gone, "ge7pxnd5fixdtlfn5xhh6uvixu.expunged");
    }

    #[test]
    fn parts_cannot_run_into_each_other() {
        let a = local_id(&"a".into(), &"b/c".into(), 11, 1);
        assert_ne!(a, local_id(&"a".into(), &"b/c".into(), 1, 11));
        assert_ne!(a, local_id(&"ab".into(), &"/c".into(), 11, 1));
    }
}
