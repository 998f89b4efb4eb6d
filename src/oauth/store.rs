//! What is kept of grants: rotated refresh tokens, those of `oauth login`, and when the token in use ends.
//!
//! One file for each grant in `state_dir/tokens`, mode 0600 in 0700; whole, or the one before. Where the journal is in a database, a
//! row each there, for all monitors that share the accounts: then a refresh token is used by one at a time.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
#[cfg(feature = "postgres")]
use std::sync::Arc;
#[cfg(feature = "postgres")]
use std::thread::sleep;
#[cfg(feature = "postgres")]
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

#[cfg(feature = "postgres")]
use crate::accounts_table::seal::{SealError, Seals};
#[cfg(feature = "postgres")]
use crate::accounts_table::seals;
use crate::config::settings::Settings;
#[cfg(feature = "postgres")]
use crate::journal::postgres::tokens::{Stored, TokensTable};
use crate::private_file;
#[cfg(feature = "postgres")]
use crate::secrets::SecretSource;

/// Between two looks whether it is our turn.
#[cfg(feature = "postgres")]
const TURN: Duration = Duration::from_millis(250);

/// The longest wait for it: a turn is over after two minutes.
#[cfg(feature = "postgres")]
const LONGEST_TURN: Duration = Duration::from_secs(150);

/// No file of ours is longer.
const MOST_BYTES: u64 = 256 << 10;

/// Where it is kept.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    /// In place of the files, but for what is not there yet.
    #[cfg(feature = "postgres")]
    shared: Option<Arc<Shared>>,
}

/// The table, and what seals its rows.
#[cfg(feature = "postgres")]
#[derive(Debug)]
struct Shared {
    table: TokensTable,
    seal_keys: Vec<SecretSource>,
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

impl OnDisk {
    fn of(kept: &Kept) -> Self {
        Self {
            refresh_token: kept.refresh_token.as_ref().map(|token| token.expose_secret().to_owned()),
            successor_of: kept.successor_of.clone(),
            permitted_at: kept.permitted_at,
            fetched_at: kept.fetched_at,
            expires_at: kept.expires_at,
            scopes: kept.scopes.clone(),
        }
    }

    fn bytes(kept: &Kept) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut on_disk = Self::of(kept);
        let bytes = serde_json::to_vec(&on_disk).map(Zeroizing::new)?;
        on_disk.refresh_token.zeroize();
        Ok(bytes)
    }

    fn read(bytes: &[u8]) -> io::Result<Kept> {
        // serde_json's own words could show what stands there.
        let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "not what idlewatch wrote");
        let Self { refresh_token, successor_of, permitted_at, fetched_at, expires_at, scopes } =
            serde_json::from_slice(bytes).map_err(damaged)?;
        let refresh_token = refresh_token.map(SecretString::from);
        Ok(Kept { refresh_token, successor_of, permitted_at, fetched_at, expires_at, scopes })
    }
}

impl Store {
    /// In this state directory; nothing is made yet.
    pub fn new(state_dir: &std::path::Path) -> Self {
        Self {
            dir: state_dir.join("tokens"),
            #[cfg(feature = "postgres")]
            shared: None,
        }
    }

    /// Where the journal is.
    pub fn of(settings: &Settings) -> Self {
        Self {
            #[cfg(feature = "postgres")]
            shared: settings.journal.database.as_ref().map(|database| {
                let seal_keys = settings
                    .table
                    .as_ref()
                    .map(|table| table.reader.seal_keys().to_vec())
                    .unwrap_or_default();
                Arc::new(Shared { table: TokensTable::new(database), seal_keys })
            }),
            ..Self::new(&settings.monitor.state_dir)
        }
    }

    fn path(&self, grant: &str) -> PathBuf {
        self.dir.join(format!("{grant}.json"))
    }

    /// What is kept of a grant; `None` where nothing is. Blocks.
    ///
    /// # Errors
    /// Where it cannot be read, or is not what we wrote.
    pub fn read(&self, grant: &str) -> io::Result<Option<Kept>> {
        #[cfg(feature = "postgres")]
        if let Some(shared) = &self.shared
            && let Some(stored) = shared.table.read(grant)?
        {
            return shared.open(grant, &stored).map(Some);
        }
        self.read_file(grant)
    }

    /// As [`Self::read`], for whoever goes on to use the refresh token: nobody else does before [`Self::write`] or
    /// [`Self::put_back`], or two minutes are over. Blocks until it is our turn.
    ///
    /// # Errors
    /// Where it cannot be read; [`io::ErrorKind::NotConnected`] while the database is away, or others do not come to an end.
    pub fn take(&self, grant: &str) -> io::Result<Option<Kept>> {
        #[cfg(feature = "postgres")]
        if let Some(shared) = &self.shared
            && let Some(stored) = shared.take(grant)?
        {
            return shared.open(grant, &stored).map(Some);
        }
        self.read_file(grant)
    }

    /// Nothing came of it. What the database does not hear is over in two minutes.
    pub fn put_back(&self, grant: &str) {
        #[cfg(feature = "postgres")]
        if let Some(shared) = &self.shared {
            let _ = shared.table.put_back(grant);
        }
        #[cfg(not(feature = "postgres"))]
        let _ = grant;
    }

    /// Keeps it: when this returns, it survives a loss of power. Blocks.
    ///
    /// # Errors
    /// Where it cannot be written; then what was kept before still is. [`io::ErrorKind::AlreadyExists`] where another has
    /// taken its turn meanwhile: what that one keeps counts. [`io::ErrorKind::NotConnected`] while the database is away.
    pub fn write(&self, grant: &str, kept: &Kept) -> io::Result<()> {
        let bytes = OnDisk::bytes(kept)?;
        #[cfg(feature = "postgres")]
        if let Some(shared) = &self.shared {
            return shared.write(grant, &bytes);
        }
        private_file::write(&self.path(grant), &bytes, true)
    }

    /// Keeps what is of this machine alone: when tokens end that no rotation goes with. Blocks.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_here(&self, grant: &str, kept: &Kept) -> io::Result<()> {
        private_file::write(&self.path(grant), &OnDisk::bytes(kept)?, true)
    }

    fn read_file(&self, grant: &str) -> io::Result<Option<Kept>> {
        let file = match File::open(self.path(grant)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        file.take(MOST_BYTES).read_to_end(&mut bytes)?;
        OnDisk::read(&bytes).map(Some)
    }
}

#[cfg(feature = "postgres")]
impl Shared {
    fn take(&self, grant: &str) -> io::Result<Option<Stored>> {
        let begun = Instant::now();
        loop {
            match self.table.take(grant)? {
                Some(taken) => return Ok(taken),
                None if begun.elapsed() > LONGEST_TURN => {
                    let cause = "other monitors use it, and do not come to an end";
                    return Err(io::Error::new(io::ErrorKind::NotConnected, cause));
                }
                None => sleep(TURN),
            }
        }
    }

    fn write(&self, grant: &str, bytes: &[u8]) -> io::Result<()> {
        let text = || std::str::from_utf8(bytes).map(SecretString::from).map_err(io::Error::other);
        let stored = match self.seals()? {
            Some(seals) => {
                let kept = seals.seal(&sealed_for(grant), &text()?).map_err(io::Error::other)?;
                Stored { kept, is_sealed: true }
            }
            None => Stored { kept: bytes.to_vec(), is_sealed: false },
        };
        match self.table.write(grant, &stored)? {
            true => Ok(()),
            false => {
                Err(io::Error::new(io::ErrorKind::AlreadyExists, "another monitor has used it meanwhile"))
            }
        }
    }

    fn open(&self, grant: &str, stored: &Stored) -> io::Result<Kept> {
        if !stored.is_sealed {
            return OnDisk::read(&stored.kept);
        }
        let seals = self.seals()?.ok_or_else(|| io::Error::other(SealError::NoKey))?;
        let opened = seals.open(&sealed_for(grant), &stored.kept).map_err(io::Error::other)?;
        OnDisk::read(opened.secret.expose_secret().as_bytes())
    }

    /// The keys as they are now; `None` where none is configured.
    fn seals(&self) -> io::Result<Option<Seals>> {
        if self.seal_keys.is_empty() {
            return Ok(None);
        }
        seals(&self.seal_keys).map(Some).map_err(io::Error::other)
    }
}

/// No account has such an id: what is sealed for one is none of the other's.
#[cfg(feature = "postgres")]
fn sealed_for(grant: &str) -> String {
    format!("token\0{grant}")
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
