//! Passwords in the table, sealed: AES-256-GCM with a key that is not in the database. Pure but for its random numbers.

use data_encoding::BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// The form of what is sealed: this byte, the nonce, the text, the tag.
const FORM: u8 = 1;

/// Keys: the first seals, all of them open.
#[derive(Debug)]
pub struct Seals {
    keys: Vec<LessSafeKey>,
}

/// Why there are no keys, or nothing comes of them. Never holds one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SealError {
    #[error("there is no `seal_keys` in the [[account_lists]] of the database")]
    NoKey,
    #[error("`seal_keys`: {0}")]
    NotThere(String),
    #[error("`seal_keys`: key {0} is not 32 bytes in base64; `openssl rand -base64 32` makes one")]
    NoSuchKey(usize),
    #[error("no key of `seal_keys` opens the sealed password")]
    Closed,
    #[error("the system gives no random numbers")]
    Random,
}

/// What was sealed.
#[derive(Debug)]
pub struct Opened {
    /// The secret.
    pub secret: SecretString,
    /// Whether the key that seals has sealed it.
    pub by_first: bool,
}

impl Seals {
    /// From the keys as they are written: 32 bytes in base64 each.
    ///
    /// # Errors
    /// Where one is none.
    pub fn new(texts: &[SecretString]) -> Result<Self, SealError> {
        let key = |(index, text): (usize, &SecretString)| {
            let none = || SealError::NoSuchKey(index + 1);
            let bytes = BASE64.decode(text.expose_secret().trim().as_bytes()).map_err(|_| none())?;
            let bytes = Zeroizing::new(bytes);
            UnboundKey::new(&AES_256_GCM, &bytes).map(LessSafeKey::new).map_err(|_| none())
        };
        Ok(Self { keys: texts.iter().enumerate().map(key).collect::<Result<_, _>>()? })
    }

    /// Seals a secret for the row of an account, and for no other.
    ///
    /// # Errors
    /// Where there is no key.
    pub fn seal(&self, id: &str, secret: &SecretString) -> Result<Vec<u8>, SealError> {
        let key = self.keys.first().ok_or(SealError::NoKey)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::Random)?;
        let mut text = Zeroizing::new(secret.expose_secret().as_bytes().to_vec());
        let unique = Nonce::assume_unique_for_key(nonce);
        let sealed = key.seal_in_place_separate_tag(unique, Aad::from(id.as_bytes()), &mut text);
        let tag = sealed.map_err(|_| SealError::Random)?;
        Ok([&[FORM], &nonce[..], &text[..], tag.as_ref()].concat())
    }

    /// Opens what was sealed for the row of this account.
    ///
    /// # Errors
    /// Where it is another row's, or of another key, or damaged.
    pub fn open(&self, id: &str, sealed: &[u8]) -> Result<Opened, SealError> {
        if self.keys.is_empty() {
            return Err(SealError::NoKey);
        }
        let (nonce, text) = parts(sealed).ok_or(SealError::Closed)?;
        let opened = self.keys.iter().enumerate().find_map(|(index, key)| {
            let mut text = Zeroizing::new(text.to_vec());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let opened = key.open_in_place(nonce, Aad::from(id.as_bytes()), &mut text).ok()?;
            let secret = SecretString::from(std::str::from_utf8(opened).ok()?);
            Some(Opened { secret, by_first: index == 0 })
        });
        opened.ok_or(SealError::Closed)
    }
}

/// The nonce, and what is sealed with its tag.
fn parts(sealed: &[u8]) -> Option<([u8; NONCE_LEN], &[u8])> {
    let (nonce, text) = sealed.strip_prefix(&[FORM])?.split_at_checked(NONCE_LEN)?;
    Some((nonce.try_into().ok()?, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seals(keys: &[u8]) -> Seals {
        let texts: Vec<_> = keys.iter().map(|&key| SecretString::from(BASE64.encode(&[key; 32]))).collect();
        Seals::new(&texts).unwrap()
    }

    fn open(seals: &Seals, id: &str, sealed: &[u8]) -> Result<(String, bool), SealError> {
        seals.open(id, sealed).map(|opened| (opened.secret.expose_secret().to_owned(), opened.by_first))
    }

    #[test]
    fn what_is_sealed_opens_for_its_account_alone_and_with_its_key() {
        let sealed = seals(&[1]).seal("ann", &"canary".into()).unwrap();
        assert!(!sealed.windows(6).any(|bytes| bytes == b"canary"));
        assert_ne!(sealed, seals(&[1]).seal("ann", &"canary".into()).unwrap(), "a nonce each");
        for (keys, id, expected) in [
            (&[1][..], "ann", Ok(("canary".to_owned(), true))),
            (&[2, 1], "ann", Ok(("canary".to_owned(), false))),
            (&[1], "bob", Err(SealError::Closed)),
            (&[2], "ann", Err(SealError::Closed)),
            (&[], "ann", Err(SealError::NoKey)),
        ] {
            assert_eq!(open(&seals(keys), id, &sealed), expected, "{keys:?} {id}");
        }
    }

    #[test]
    fn whatever_is_damaged_stays_closed() {
        let seals = seals(&[1]);
        let sealed = seals.seal("ann", &"canary".into()).unwrap();
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(open(&seals, "ann", &damaged), Err(SealError::Closed), "{at}");
            assert_eq!(open(&seals, "ann", &sealed[..at]), Err(SealError::Closed), "{at}");
        }
    }

    #[test]
    fn a_key_is_32_bytes_and_never_shown() {
        for text in ["", "canary", "Y2FuYXJ5", &BASE64.encode(&[1; 31]), &BASE64.encode(&[1; 33])] {
            let error = Seals::new(&[BASE64.encode(&[7; 32]).into(), text.into()]).unwrap_err();
            assert_eq!(error, SealError::NoSuchKey(2), "{text}");
        }
        assert_eq!(seals(&[]).seal("ann", &"x".into()), Err(SealError::NoKey));
    }
}
