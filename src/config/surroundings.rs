//! Whether what a configuration names is there: secrets, certificates, directories.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use secrecy::ExposeSecret;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::issue::{Issue, Severity};
use super::settings::{SHORTEST_TOKEN, TOO_SHORT};
use crate::accounts_table::{PLACE, TableError};
use crate::oauth::assertion::{KeyError, ServiceKey};
use crate::secrets::{SecretSource, Shape, look_for_program};

/// What lies outside, and where it is named.
#[derive(Debug)]
pub(super) struct Outside {
    pub(super) thing: Thing,
    pub(super) origin: String,
    pub(super) path: String,
}

/// The things that a configuration names.
#[derive(Debug)]
pub(super) enum Thing {
    /// A password, or a key file.
    Secret(SecretSource, Shape),
    /// The key of a service account.
    ServiceKey(SecretSource),
    /// What must be shown over HTTP.
    Token(SecretSource),
    /// What `oauth login` of an account leaves.
    Permission { file: PathBuf, account: String },
    /// A file of certificates.
    Certificates(PathBuf),
    /// The key of a certificate of ours.
    Key {
        /// PEM.
        file: PathBuf,
        /// No other form will do.
        pkcs8: bool,
    },
    /// A file that events are appended to.
    Output(PathBuf),
    /// A program that takes events.
    Program(Vec<String>),
    /// The state directory.
    State(PathBuf),
    /// The table of accounts, which could not be read.
    Table(TableError),
}

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// At nothing.
    Nowhere,
    /// At secrets: only its own account waits for one that cannot be had.
    Secrets,
    /// At everything, before it is run: what is missing is an error.
    Everywhere,
}

/// What was found.
type Found = Result<(), (Severity, String)>;

/// Looks at things; at what many accounts share only once.
#[derive(Debug)]
pub(super) struct Observer {
    look: Look,
    programs: HashMap<String, Found>,
    files: HashMap<PathBuf, Found>,
}

impl Observer {
    pub(super) fn new(look: Look) -> Self {
        Self { look, programs: HashMap::new(), files: HashMap::new() }
    }

    pub(super) fn look(&mut self, Outside { thing, origin, path }: Outside) -> Option<Issue> {
        let found = match (self.look, thing) {
            (Look::Nowhere, _) => Ok(()),
            (_, Thing::Secret(source, shape)) => self.secret(&source, shape),
            (_, Thing::ServiceKey(source)) => self.service_key(&source),
            (Look::Secrets, Thing::Table(error)) => {
                Err((Severity::Warning, format!("{error}; its accounts are left out")))
            }
            (Look::Everywhere, Thing::Table(error)) => missing(error.to_string()),
            (Look::Secrets, _) => Ok(()),
            (_, Thing::Token(source)) => token(&source),
            (_, Thing::Permission { file, account }) => permission(&file, &account),
            (_, Thing::Certificates(file)) => {
                self.files.entry(file).or_insert_with_key(|file| certificates(file)).clone()
            }
            (_, Thing::Key { file, pkcs8 }) => {
                self.files.entry(file).or_insert_with_key(|file| key(file, pkcs8)).clone()
            }
            (_, Thing::Output(file)) => output(&file),
            (_, Thing::Program(argv)) => program(&argv),
            (_, Thing::State(dir)) => state(&dir),
        };
        // A row of the table keeps nobody from anything.
        found.err().map(|(severity, message)| {
            let severity = if origin == PLACE { Severity::Warning } else { severity };
            Issue { severity, origin, path, message }
        })
    }

    /// Whether the source of a secret gives one, to us alone.
    fn secret(&mut self, source: &SecretSource, shape: Shape) -> Found {
        let severity = if self.look == Look::Everywhere { Severity::Error } else { Severity::Warning };
        let look = || match source.look(shape) {
            Ok(None) => Ok(()),
            Ok(Some(exposure)) => Err((Severity::Warning, exposure.to_string())),
            Err(error) => Err((severity, error.to_string())),
        };
        match source {
            SecretSource::Command(_) | SecretSource::Backend(..) => {
                let program = source.program().unwrap_or_default().to_owned();
                self.programs.entry(program).or_insert_with(look).clone()
            }
            _ => look(),
        }
    }

    /// Whether it can sign.
    fn service_key(&mut self, source: &SecretSource) -> Found {
        self.secret(source, Shape::Document)?;
        let SecretSource::File(path) = source else { return Ok(()) };
        let failed = |error: KeyError| (Severity::Error, format!("{}: {error}", path.display()));
        let Ok(text) = fs::read_to_string(path) else { return Ok(()) };
        ServiceKey::parse(&text.into()).and_then(|key| key.check()).map_err(failed)
    }
}

/// Where it stands in plain reach: whether it is long enough. That it can be had was looked at already.
fn token(source: &SecretSource) -> Found {
    let text = match source {
        SecretSource::File(path) => fs::read_to_string(path).unwrap_or_default(),
        SecretSource::Env(name) => std::env::var(name).unwrap_or_default(),
        SecretSource::Inline(secret) => secret.expose_secret().to_owned(),
        _ => return Ok(()),
    };
    let length = Zeroizing::new(text).trim_end_matches(['\r', '\n']).chars().count();
    if (1..SHORTEST_TOKEN).contains(&length) { missing(TOO_SHORT.to_owned()) } else { Ok(()) }
}

/// Not an error: it may be done while the monitor runs.
fn permission(file: &Path, account: &str) -> Found {
    if file.exists() {
        return Ok(());
    }
    let message = format!("there is no refresh token yet: `idlewatch oauth login -a {account}` fetches one");
    Err((Severity::Warning, message))
}

fn missing(message: String) -> Found {
    Err((Severity::Error, message))
}

/// The monitor may run as another user than we do.
fn writable(path: &Path, wanted: Access) -> Found {
    access(path, wanted).map_err(|_| {
        (Severity::Warning, format!("{}: the user who runs this check may not write there", path.display()))
    })
}

fn certificates(file: &Path) -> Found {
    let failed = |reason: String| missing(format!("{}: {reason}", file.display()));
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if certificates.is_empty() => failed("there is no certificate in it".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => failed(error.to_string()),
    }
}

fn key(file: &Path, pkcs8: bool) -> Found {
    let failed = |reason: &str| missing(format!("{}: {reason}", file.display()));
    match PrivateKeyDer::from_pem_file(file) {
        Ok(PrivateKeyDer::Pkcs8(_)) => {}
        Ok(_) if !pkcs8 => {}
        Ok(_) => return failed("backend = \"native\" wants PKCS#8: openssl pkcs8 -topk8 -nocrypt"),
        Err(pem::Error::NoItemsFound) => return failed("there is no key in it that is not encrypted"),
        Err(error) => return failed(&error.to_string()),
    }
    let mode = fs::metadata(file).map_or(0, |metadata| metadata.mode() & 0o7777);
    if mode & 0o004 != 0 {
        let message =
            format!("every user may read the key {} (mode {mode:04o}): chmod o= it", file.display());
        return Err((Severity::Warning, message));
    }
    Ok(())
}

fn output(file: &Path) -> Found {
    if file.exists() {
        return writable(file, Access::WRITE_OK);
    }
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => writable(dir, Access::WRITE_OK | Access::EXEC_OK),
        Ok(_) => missing(format!("{}: not a directory", dir.display())),
        Err(error) => missing(format!("{}: {error}", dir.display())),
    }
}

fn program(argv: &[String]) -> Found {
    let name = argv.first().map(String::as_str).unwrap_or_default();
    look_for_program(argv).or_else(|_| missing(format!("{name}: there is no such program")))
}

/// One that is not there yet is made at the first start.
fn state(dir: &Path) -> Found {
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    match fs::metadata(dir) {
        Ok(metadata) if !metadata.is_dir() => missing(format!("{}: not a directory", dir.display())),
        Ok(metadata) if metadata.mode() & 0o077 != 0 => {
            let mode = metadata.mode() & 0o777;
            missing(format!("{}: others may enter it (mode {mode:o}): chmod 700 it", dir.display()))
        }
        Ok(_) => writable(dir, wanted),
        Err(_) => {
            dir.ancestors().find(|above| above.is_dir()).map_or(Ok(()), |above| writable(above, wanted))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn told(thing: Thing) -> Option<(Severity, String)> {
        let outside = Outside { thing, origin: "t.toml:1:1".to_owned(), path: "x".to_owned() };
        Observer::new(Look::Everywhere).look(outside).map(|issue| (issue.severity, issue.message))
    }

    fn message(thing: Thing) -> String {
        told(thing).map(|(_, message)| message).unwrap_or_default()
    }

    #[test]
    fn what_is_missing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("ca.pem"), "no certificate\n").unwrap();
        assert!(
            message(Thing::Certificates(path("ca.pem"))).ends_with("ca.pem: there is no certificate in it")
        );
        assert!(message(Thing::Certificates(path("none.pem"))).contains("none.pem"));
        let certificate = rcgen::generate_simple_self_signed(["x.example".to_owned()]).unwrap().cert.pem();
        fs::write(path("ca.pem"), certificate).unwrap();
        assert_eq!(told(Thing::Certificates(path("ca.pem"))), None);
        let key = |name: &str, pkcs8| Thing::Key { file: path(name), pkcs8 };
        assert!(
            message(key("ca.pem", false)).ends_with("ca.pem: there is no key in it that is not encrypted")
        );
        fs::write(path("key.pem"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        for (mode, severity) in [(0o644, Some(Severity::Warning)), (0o600, None)] {
            fs::set_permissions(path("key.pem"), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(told(key("key.pem", true)).map(|(severity, _)| severity), severity, "{mode:o}");
        }
        assert_eq!(told(Thing::Output(path("events.jsonl"))), None);
        assert!(message(Thing::Output(path("none/events.jsonl"))).contains("none: No such file"));
        assert!(message(Thing::Output(path("ca.pem/events.jsonl"))).ends_with("ca.pem: not a directory"));
        assert_eq!(told(Thing::State(path("made/later"))), None);
        assert!(message(Thing::State(path("ca.pem"))).contains("not a directory"));
        fs::create_dir(path("state")).unwrap();
        for (mode, sound) in [(0o755, false), (0o700, true)] {
            fs::set_permissions(path("state"), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(told(Thing::State(path("state"))).is_none(), sound, "{mode:o}");
        }
        for (program, there) in
            [("sh", true), ("/bin/sh", true), ("no-such-program", false), ("/etc/passwd", false)]
        {
            let source = SecretSource::Command(vec![program.to_owned()]);
            assert_eq!(told(Thing::Secret(source, Shape::Line)).is_none(), there, "{program}");
        }
    }
}
