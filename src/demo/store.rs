//! The mailboxes of the in-memory server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

/// One stored message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its UID.
    pub uid: u32,
    /// As delivered.
    pub bytes: Arc<[u8]>,
    /// When.
    pub received: Timestamp,
}

/// One mailbox.
#[derive(Clone, Debug)]
pub struct Mailbox {
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// UIDNEXT.
    pub uid_next: u32,
    /// Ascending by UID.
    pub messages: Vec<Message>,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self { uid_validity: 1, uid_next: 1, messages: Vec::new() }
    }
}

/// All users' mailboxes; cheap to clone. Sessions hear of every change.
#[derive(Clone, Debug)]
pub struct Store {
    users: Arc<Mutex<BTreeMap<String, User>>>,
    changes: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct User {
    password: String,
    mailboxes: BTreeMap<String, Mailbox>,
}

impl Store {
    /// Users with their passwords, each with an empty INBOX.
    pub fn new(users: impl IntoIterator<Item = (String, String)>) -> Self {
        let inbox = || BTreeMap::from([("INBOX".to_owned(), Mailbox::default())]);
        let users =
            users.into_iter().map(|(name, password)| (name, User { password, mailboxes: inbox() })).collect();
        Self { users: Arc::new(Mutex::new(users)), changes: watch::channel(0).0 }
    }

    /// Whether the password is the user's.
    pub fn accepts(&self, user: &str, password: &str) -> bool {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.get(user).is_some_and(|known| known.password == password)
    }

    /// Changes the password.
    pub fn set_password(&self, user: &str, password: &str) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = users.get_mut(user) {
            known.password = password.to_owned();
        }
    }

    /// A mailbox as it is now.
    pub fn mailbox(&self, user: &str, mailbox: &str) -> Option<Mailbox> {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.get(user)?.mailboxes.get(mailbox).cloned()
    }

    /// The names of a user's mailboxes.
    pub fn names(&self, user: &str) -> Vec<String> {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.get(user).map(|user| user.mailboxes.keys().cloned().collect()).unwrap_or_default()
    }

    /// Changes a mailbox, making it where it is not there, and tells all sessions.
    pub fn change<T>(&self, user: &str, mailbox: &str, change: impl FnOnce(&mut Mailbox) -> T) -> Option<T> {
        let changed = {
            let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            change(users.get_mut(user)?.mailboxes.entry(mailbox.to_owned()).or_default())
        };
        self.changes.send_modify(|count| *count += 1);
        Some(changed)
    }

    /// Delivers a message; its UID.
    pub fn deliver(&self, user: &str, mailbox: &str, message: &[u8]) -> Option<u32> {
        self.change(user, mailbox, |mailbox| {
            let uid = mailbox.uid_next;
            mailbox.uid_next += 1;
            mailbox.messages.push(Message { uid, bytes: message.into(), received: Timestamp::now() });
            uid
        })
    }

    /// Tells when anything has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
