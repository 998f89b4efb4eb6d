//! What is kept of grants: rotated refresh tokens, those of `oauth login`, and when the token in use ends.
//!
//! One file for each grant in `state_dir/tokens`, mode 0600 in 0700; whole, or the one before.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use data_encoding::BASE64;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::private_file;

/// No file of ours is longer.
const MOST_BYTES: u64 = 256 << 10;

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// What is kept of one grant.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The newest refresh token.
    pub refresh_token: Option<SecretString>,
    /// Of which configured refresh token it is the successor: a digest.
    pub successor_of: String,
    /// When a person permitted access by `oauth login`.
    pub permitted_at: Option<Timestamp>,
    /// When the last access token was fetched.
    pub fetched_at: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// What it is for.
    pub scopes: Vec<String>,
}

/// The file's form.
#[derive(Serialize, Deserialize)]
struct OnDisk {
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(default)]
    successor_of: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    permitted_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fetched_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(default)]
    scopes: Vec<String>,
}

impl Kept {
    /// The refresh token that is in force: the kept one, unless another was configured since.
    pub fn in_force(&self, configured: Option<&SecretString>) -> Option<SecretString> {
        let kept = self.refresh_token.clone().filter(|_| self.successor_of == successor_of(configured));
        kept.or_else(|| configured.cloned())
    }
}

/// The digest of a configured refresh token; empty where there is none.
pub fn successor_of(configured: Option<&SecretString>) -> String {
    let of =
        |secret: &SecretString| BASE64.encode(digest(&SHA256, secret.expose_secret().as_bytes()).as_ref());
    configured.map(of).unwrap_or_default()
}

impl Store {
    /// In this state directory; nothing is made yet.
    pub fn new(state_dir: &std::path::Path) -> Self {
        Self { dir: state_dir.join("tokens") }
    }

    fn path(&self, grant: &str) -> PathBuf {
        self.dir.join(format!("{grant}.json"))
    }

    /// What is kept of a grant; `None` where nothing is.
    ///
    /// # Errors
    /// Where it cannot be read, or is not what we wrote.
    pub fn read(&self, grant: &str) -> io::Result<Option<Kept>> {
        let file = match File::open(self.path(grant)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        file.take(MOST_BYTES).read_to_end(&mut bytes)?;
        // serde_json's own words could show what stands there.
        let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "not what idlewatch wrote");
        let OnDisk { refresh_token, successor_of, permitted_at, fetched_at, expires_at, scopes } =
            serde_json::from_slice(&bytes).map_err(damaged)?;
        let refresh_token = refresh_token.map(SecretString::from);
        Ok(Some(Kept { refresh_token, successor_of, permitted_at, fetched_at, expires_at, scopes }))
    }

    /// Keeps it: when this returns, it survives a loss of power.
    ///
    /// # Errors
    /// Where it cannot be written; then what was kept before still is.
    pub fn write(&self, grant: &str, kept: &Kept) -> io::Result<()> {
        let on_disk = OnDisk {
            refresh_token: kept.refresh_token.as_ref().map(|token| token.expose_secret().to_owned()),
            successor_of: kept.successor_of.clone(),
            permitted_at: kept.permitted_at,
            fetched_at: kept.fetched_at,
            expires_at: kept.expires_at,
            scopes: kept.scopes.clone(),
        };
        let bytes = Zeroizing::new(serde_json::to_vec(&on_disk)?);
        if let Some(mut token) = on_disk.refresh_token {
            zeroize::Zeroize::zeroize(&mut token);
        }
        private_file::write(&self.path(grant), &bytes, true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_kept_is_there_again_and_nobody_elses_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        assert!(store.read("x").unwrap().is_none());
        let kept =
            Kept { refresh_token: Some("r1".into()), scopes: vec!["mail".to_owned()], ..Kept::default() };
        store.write("x", &kept).unwrap();
        store.write("x", &Kept { refresh_token: Some("r2".into()), ..kept }).unwrap();
        let again = store.read("x").unwrap().unwrap();
        assert_eq!(again.refresh_token.as_ref().unwrap().expose_secret(), "r2");
        assert_eq!(again.scopes, ["mail"]);
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(dir.path().join("tokens")), mode(dir.path().join("tokens/x.json"))), (0o700, 0o600));
        assert_eq!(fs::read_dir(dir.path().join("tokens")).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn a_rotated_token_wins_until_another_is_configured() {
        let (first, second) = (SecretString::from("first"), SecretString::from("second"));
        let rotated = Kept {
            refresh_token: Some("rotated".into()),
            successor_of: successor_of(Some(&first)),
            ..Kept::default()
        };
        let in_force = |kept: &Kept, configured: Option<&SecretString>| {
            kept.in_force(configured).map(|token| token.expose_secret().to_owned())
        };
        assert_eq!(in_force(&rotated, Some(&first)).as_deref(), Some("rotated"));
        assert_eq!(in_force(&rotated, Some(&second)).as_deref(), Some("second"));
        assert_eq!(in_force(&Kept::default(), Some(&first)).as_deref(), Some("first"));
        assert_eq!(in_force(&Kept::default(), None), None);
    }

    #[test]
    fn a_damaged_file_is_told_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        store.write("x", &Kept::default()).unwrap();
        fs::write(dir.path().join("tokens/x.json"), "{\"refresh_token\": canary").unwrap();
        assert!(!store.read("x").unwrap_err().to_string().contains("canary"));
    }
}
