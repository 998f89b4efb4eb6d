//! Refused logins of an account, as they outlive the process: a restart must not lock anybody out.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::time::Duration;

use data_encoding::BASE64;
use jiff::Timestamp;
use ring::pbkdf2;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::event::{AccountIdentity, Trouble};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// The wait after each refused login; after the last refusal nothing happens until a person acts. Two logins in an
/// hour and six in a day at most: what servers tolerate before they lock an account.
const WAITS: [Duration; 5] = [
    Duration::from_secs(5 * MINUTE),
    Duration::from_secs(HOUR),
    Duration::from_secs(2 * HOUR),
    Duration::from_secs(4 * HOUR),
    Duration::from_secs(8 * HOUR),
];

/// The logins that were refused in a row, with one and the same secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// How many.
    count: u32,
    /// When the last one was.
    last: Option<Timestamp>,
    /// What was refused.
    login: Option<LoginDigest>,
    /// In which words.
    trouble: Option<Trouble>,
}

/// When the next login may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextLogin {
    /// After this time.
    After(Duration),
    /// When a person has acted.
    Never,
}

impl Refusals {
    /// One more. Another login than the last one begins anew; one that is not known counts as the same.
    pub fn add(&mut self, login: Option<LoginDigest>, trouble: Option<Trouble>, at: Timestamp) {
        let same = login.is_none() || login == self.login;
        let count = if same { self.count.saturating_add(1) } else { 1 };
        *self = Self { count, last: Some(at), login: login.or(self.login.take()), trouble };
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many in a row.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// What the server said last.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// What was refused last.
    pub fn login(&self) -> Option<&LoginDigest> {
        self.login.as_ref()
    }

    /// When the next one is due. A clock that was set shortens no wait below nothing, and lengthens none.
    pub fn next(&self, now: Timestamp) -> NextLogin {
        let Some(index) = self.count.checked_sub(1) else { return NextLogin::After(Duration::ZERO) };
        let Some(wait) = WAITS.get(index as usize) else { return NextLogin::Never };
        let passed = self
            .last
            .map_or(Duration::ZERO, |last| Duration::try_from(now.duration_since(last)).unwrap_or_default());
        NextLogin::After(wait.saturating_sub(passed))
    }
}

/// Who logs in where with which secret, to be compared only. Slow to make (PBKDF2, RFC 8018; who and where are the
/// salt), since it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginDigest(String);

/// About 10 ms. It is made once per refused login.
const ROUNDS: NonZeroU32 = NonZeroU32::new(20_000).unwrap();

impl LoginDigest {
    /// Takes its time: not for an event loop.
    pub fn new(identity: &AccountIdentity, secret: &SecretString) -> Self {
        let salt = format!("idlewatch\n{}\n{}\n{}", identity.host, identity.port, identity.user);
        let mut digest = [0; 16];
        let secret = secret.expose_secret().as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt.as_bytes(), secret, &mut digest);
        Self(BASE64.encode(&digest))
    }
}

/// A secret to be compared within this process, at no cost: keyed by a number that dies with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuickDigest(u64);

impl QuickDigest {
    /// Of a secret.
    pub fn new(secret: &SecretString) -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(KEY.hash_one(secret.expose_secret()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(port: u16) -> AccountIdentity {
        AccountIdentity {
            id: "a".into(),
            user: "bob".to_owned(),
            host: "h".into(),
            port,
            labels: Default::default(),
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + i64::try_from(seconds).unwrap()).unwrap()
    }

    /// Tries whenever it may: at most two logins in any hour and six in any day, then none.
    #[test]
    fn refused_logins_are_few() {
        let digest = LoginDigest::new(&identity(1), &"pw".into());
        let (mut refusals, mut now, mut tries) = (Refusals::default(), 0, Vec::new());
        while let NextLogin::After(wait) = refusals.next(at(now)) {
            now += wait.as_secs();
            tries.push(now);
            refusals.add(Some(digest.clone()), None, at(now));
        }
        assert_eq!(tries.len(), 6);
        for first in &tries {
            assert!(tries.iter().filter(|at| (*first..first + HOUR).contains(at)).count() <= 2, "{tries:?}");
        }
        assert_eq!(refusals.next(at(now + 1_000_000)), NextLogin::Never);
    }

    #[test]
    fn another_secret_begins_anew() {
        let mut refusals = Refusals::default();
        let (old, new) =
            (LoginDigest::new(&identity(1), &"old".into()), LoginDigest::new(&identity(1), &"new".into()));
        for _ in 0..6 {
            refusals.add(Some(old.clone()), None, at(0));
        }
        assert_eq!(old, LoginDigest::new(&identity(1), &"old".into()));
        assert_ne!(old, LoginDigest::new(&identity(2), &"old".into()), "another server");
        refusals.add(Some(new), None, at(0));
        assert_eq!(refusals.count(), 1);
    }

    #[test]
    fn a_clock_that_was_set_does_not_make_a_wait_longer() {
        let mut refusals = Refusals::default();
        refusals.add(Some(LoginDigest::new(&identity(1), &"pw".into())), None, at(1_000_000));
        assert_eq!(refusals.next(at(0)), NextLogin::After(WAITS[0]), "set back");
        assert_eq!(refusals.next(at(2_000_000)), NextLogin::After(Duration::ZERO), "set forward");
    }

    #[test]
    fn nothing_of_the_secret_is_stored() {
        let mut refusals = Refusals::default();
        refusals.add(Some(LoginDigest::new(&identity(1), &"canary".into())), None, at(0));
        assert!(!serde_json::to_string(&refusals).unwrap().contains("canary"));
    }
}
