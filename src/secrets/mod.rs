//! Where a password comes from. Resolved when a connection is made, so that a rotated one is found.

pub mod backend;

use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use zeroize::Zeroizing;

use backend::Backend;

/// No password is longer.
const MOST_BYTES: u64 = 64 << 10;

/// For any source.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a secret comes from. Its `Debug` never shows an inline value.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// `{ env = "NAME" }`
    Env(String),
    /// `{ file = "path" }`
    File(PathBuf),
    /// `{ command = ["argv", ...] }`: no shell
    Command(Vec<String>),
    /// `{ credential = "name" }`: `$CREDENTIALS_DIRECTORY/name`
    Credential(String),
    /// `{ secret = "x:name" }`: one of many that `[secrets.x]` tells at once
    Backend(Arc<Backend>, String),
    /// `{ inline = "..." }`
    Inline(SecretString),
}

/// What a secret has to look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A line, as a password.
    Line,
    /// A text, as a key file.
    Document,
}

/// The same source, whatever it gives at the moment.
impl PartialEq for SecretSource {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Env(a), Self::Env(b)) | (Self::Credential(a), Self::Credential(b)) => a == b,
            (Self::File(a), Self::File(b)) => a == b,
            (Self::Command(a), Self::Command(b)) => a == b,
            (Self::Backend(a, name), Self::Backend(b, other)) => a == b && name == other,
            (Self::Inline(a), Self::Inline(b)) => a.expose_secret() == b.expose_secret(),
            _ => false,
        }
    }
}

impl Eq for SecretSource {}

/// Why there is no secret. Names its source, never its value.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SecretError {
    #[error("the environment variable {0} is not set, or not UTF-8")]
    Env(String),
    #[error("the secret file {path}: {cause}", path = path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("the secret command {program}: {reason}")]
    Command { program: String, reason: String },
    #[error("the credential {0}: $CREDENTIALS_DIRECTORY is not set")]
    NoCredentials(String),
    #[error("the secret from {0} is empty, or holds a line break or NUL, or is not UTF-8")]
    Unusable(String),
    #[error("secrets.{backend} does not tell \"{name}\": {reason}")]
    Backend { backend: String, name: String, reason: String },
}

/// Every user of the machine may read a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("every user may read the secret file {path} (mode {mode:04o}): chmod o= it", path = path.display())]
pub struct Exposure {
    /// The file.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
}

impl SecretSource {
    /// Whether there is a usable secret, and who else can read it. Commands are not run for this.
    ///
    /// # Errors
    /// As those of [`Self::resolve`].
    pub fn look(&self, shape: Shape) -> Result<Option<Exposure>, SecretError> {
        match self {
            Self::Env(name) => from_env(name, shape).map(|_| None),
            Self::File(path) => look_at_file(path, shape),
            // systemd's own modes, and a directory that is ours alone.
            Self::Credential(name) => look_at_file(&credential(name)?, shape).map(|_| None),
            Self::Command(argv) => look_for_program(argv).map(|()| None),
            Self::Backend(backend, _) => look_for_program(backend.argv()).map(|()| None),
            Self::Inline(_) => Ok(None),
        }
    }

    /// The program that is run for it.
    pub fn program(&self) -> Option<&str> {
        match self {
            Self::Command(argv) => argv.first().map(String::as_str),
            Self::Backend(backend, _) => backend.argv().first().map(String::as_str),
            _ => None,
        }
    }

    /// Whether many are told at once: then they are asked for before they are needed.
    pub fn is_bulk(&self) -> bool {
        matches!(self, Self::Backend(..))
    }

    /// How often to look whether it has changed, while that is what an account waits for; `None` where it cannot
    /// change while the process lives.
    pub fn changes_within(&self) -> Option<Duration> {
        match self {
            Self::File(_) | Self::Credential(_) => Some(Duration::from_secs(10)),
            Self::Command(_) | Self::Backend(..) => Some(Duration::from_secs(15 * 60)),
            Self::Env(_) | Self::Inline(_) => None,
        }
    }

    /// The secret: one line.
    ///
    /// # Errors
    /// Where its source does not give a usable one.
    pub async fn resolve(&self) -> Result<SecretString, SecretError> {
        self.told(Shape::Line).await
    }

    /// The secret, which may have several lines: a key file.
    ///
    /// # Errors
    /// Where its source does not give one.
    pub async fn document(&self) -> Result<SecretString, SecretError> {
        self.told(Shape::Document).await
    }

    async fn told(&self, shape: Shape) -> Result<SecretString, SecretError> {
        match self {
            Self::Env(name) => from_env(name, shape),
            Self::File(path) => from_file_in_time(path, shape).await,
            Self::Credential(name) => from_file_in_time(&credential(name)?, shape).await,
            Self::Command(argv) => from_command(argv, shape).await,
            Self::Backend(backend, name) => backend.get(name, shape).await,
            Self::Inline(secret) => Ok(secret.clone()),
        }
    }
}

fn from_env(name: &str, shape: Shape) -> Result<SecretString, SecretError> {
    let value = std::env::var(name).map_err(|_| SecretError::Env(name.to_owned()))?;
    usable(&Zeroizing::new(value.into_bytes()), name, shape)
}

fn credential(name: &str) -> Result<PathBuf, SecretError> {
    let dir = std::env::var_os("CREDENTIALS_DIRECTORY");
    let dir = dir.ok_or_else(|| SecretError::NoCredentials(name.to_owned()))?;
    Ok(Path::new(&dir).join(name))
}

fn look_at_file(path: &Path, shape: Shape) -> Result<Option<Exposure>, SecretError> {
    let failed = |cause| SecretError::File { path: path.to_owned(), cause };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    // A pipe is not opened before its time: that would wait for its writer, and take its content.
    if metadata.is_file() {
        let mut bytes = Zeroizing::new(Vec::with_capacity(256));
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        usable(&bytes, &path.display().to_string(), shape)?;
    }
    // A group may be the service's own.
    let mode = metadata.permissions().mode() & 0o777;
    Ok((mode & 0o007 != 0).then(|| Exposure { path: path.to_owned(), mode }))
}

/// As the kernel finds it: by its path, or in `$PATH`.
pub(crate) fn look_for_program(argv: &[String]) -> Result<(), SecretError> {
    let program = argv.first().cloned().unwrap_or_default();
    let runs = |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = if program.contains('/') {
        runs(Path::new(&program))
    } else {
        std::env::split_paths(&path).any(|dir| runs(&dir.join(&program)))
    };
    let reason = "there is no such program".to_owned();
    if found { Ok(()) } else { Err(SecretError::Command { program, reason }) }
}

/// A file system that hangs, or a pipe that nobody writes to, is no reason to wait for ever.
async fn from_file_in_time(path: &Path, shape: Shape) -> Result<SecretString, SecretError> {
    let late = |_| SecretError::File { path: path.to_owned(), cause: io::ErrorKind::TimedOut.into() };
    timeout(PATIENCE, from_file(path, shape)).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

/// Files that are read at the same time. A file system that hangs keeps its threads; the others need some too.
static READERS: Semaphore = Semaphore::const_new(16);

async fn from_file(path: &Path, shape: Shape) -> Result<SecretString, SecretError> {
    let failed = |cause| SecretError::File { path: path.to_owned(), cause };
    let permit = READERS.acquire().await.map_err(|closed| failed(io::Error::other(closed)))?;
    let read = {
        let path = path.to_owned();
        move || {
            let _permit = permit;
            let mut bytes = Zeroizing::new(Vec::with_capacity(256));
            open(&path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        }
    };
    let bytes = spawn_blocking(read).await.map_err(|panic| failed(io::Error::other(panic)))?;
    usable(&bytes.map_err(failed)?, &path.display().to_string(), shape)
}

/// Without waiting for the writer of a pipe.
fn open(path: &Path) -> io::Result<std::fs::File> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    std::fs::File::options().read(true).custom_flags(flags).open(path)
}

async fn from_command(argv: &[String], shape: Shape) -> Result<SecretString, SecretError> {
    let program = argv.first().cloned().unwrap_or_default();
    let failed = |reason: String| SecretError::Command { program: program.clone(), reason };
    let mut child = Command::new(&program)
        .args(argv.get(1..).unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let stdout = child.stdout.take();
    let told = async {
        let mut bytes = Zeroizing::new(Vec::with_capacity(256));
        if let Some(stdout) = stdout {
            stdout.take(MOST_BYTES).read_to_end(&mut bytes).await?;
        }
        Ok::<_, io::Error>((bytes, child.wait().await?))
    };
    match timeout(PATIENCE, told).await {
        Ok(Ok((bytes, status))) if status.success() => usable(&bytes, &program, shape),
        Ok(Ok((_, status))) => Err(failed(status.to_string())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer in {PATIENCE:?}"))),
    }
}

/// One trailing newline is no part of a secret; any other cannot be sent.
fn usable(bytes: &[u8], source: &str, shape: Shape) -> Result<SecretString, SecretError> {
    let unusable = || SecretError::Unusable(source.to_owned());
    let text = std::str::from_utf8(bytes).map_err(|_| unusable())?;
    if shape == Shape::Document && !text.trim().is_empty() && !text.contains('\0') {
        return Ok(SecretString::from(text));
    }
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.contains(['\r', '\n', '\0']) {
        return Err(unusable());
    }
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    async fn text(source: SecretSource) -> Result<String, String> {
        source
            .resolve()
            .await
            .map(|secret| secret.expose_secret().to_owned())
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn one_line_end_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        for (content, secret) in
            [("canary\n", Some("canary")), ("canary\r\n", Some("canary")), ("", None), ("a\nb\n", None)]
        {
            std::fs::write(&path, content).unwrap();
            assert_eq!(text(SecretSource::File(path.clone())).await.ok().as_deref(), secret, "{content:?}");
        }
    }

    #[tokio::test]
    async fn a_command_is_no_shell_and_its_output_is_not_echoed() {
        let argv = |argv: &[&str]| SecretSource::Command(argv.iter().map(|&arg| arg.to_owned()).collect());
        assert_eq!(text(argv(&["echo", "$HOME;canary"])).await, Ok("$HOME;canary".to_owned()));
        let error = text(argv(&["sh", "-c", "echo canary; exit 3"])).await.unwrap_err();
        assert!(error.contains("sh") && error.contains('3') && !error.contains("canary"), "{error}");
    }

    #[tokio::test]
    async fn sources_that_are_not_there_are_named() {
        assert!(
            text(SecretSource::Env("NO_SUCH_VARIABLE".into()))
                .await
                .unwrap_err()
                .contains("NO_SUCH_VARIABLE")
        );
        assert!(text(SecretSource::File("/no/such".into())).await.unwrap_err().contains("/no/such"));
    }

    #[test]
    fn a_file_that_others_may_read_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        std::fs::write(&path, "canary\n").unwrap();
        for (mode, exposed) in [(0o600, false), (0o640, false), (0o604, true), (0o644, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let look = SecretSource::File(path.clone()).look(Shape::Line).unwrap();
            assert_eq!(look.is_some(), exposed, "{mode:o}");
            assert!(!format!("{look:?}").contains("canary"));
        }
        std::fs::write(&path, "").unwrap();
        assert!(SecretSource::File(path).look(Shape::Line).is_err(), "an empty secret");
    }

    #[test]
    fn debug_shows_nothing() {
        assert!(!format!("{:?}", SecretSource::Inline("canary".into())).contains("canary"));
    }
}
