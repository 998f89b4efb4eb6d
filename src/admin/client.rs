//! Asking a running monitor over its Unix socket.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// For a whole answer; a reload waits for accounts that leave.
const PATIENCE: Duration = Duration::from_secs(60);

/// A monitor that is asked.
#[derive(Clone, Debug)]
pub struct MonitorClient {
    client: Client,
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no monitor is running: nobody answers at {}", .0.display())]
    NotRunning(PathBuf),
    /// Somebody may listen, but not to us.
    #[error("{} may not be opened by this user", .0.display())]
    Denied(PathBuf),
    /// Nobody listens where the monitor usually is, and the configuration does not say where it is.
    #[error("the configuration does not say where the monitor is, and nobody answers at {}", .0.display())]
    Unknown(PathBuf),
    /// The answer is no.
    #[error("{error}")]
    Refused {
        /// HTTP's word for it.
        status: StatusCode,
        /// Why.
        error: String,
        /// All that is wrong, where it is more than one thing.
        problems: Vec<String>,
    },
    /// What came is no answer.
    #[error("the monitor's answer cannot be read: {0}")]
    Broken(String),
}

impl MonitorClient {
    /// Over this socket.
    ///
    /// # Errors
    /// Where there is no client to be had.
    pub fn new(socket: &Path) -> Result<Self, AskError> {
        // No roots: nothing of this is TLS, and where the system has none, to look for them would fail.
        let client = Client::builder().tls_certs_only([]).unix_socket(socket.to_owned());
        let client = client.timeout(PATIENCE).no_proxy().build();
        let client = client.map_err(|error| AskError::Broken(error.to_string()))?;
        Ok(Self { client, socket: socket.to_owned() })
    }

    /// Reads.
    ///
    /// # Errors
    /// Where there is no answer, or another one than a `T`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        self.ask(Method::GET, path).await
    }

    /// Wants something.
    ///
    /// # Errors
    /// Where there is no answer, or another one than a `T`.
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        self.ask(Method::POST, path).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, AskError> {
        let broken = |error: reqwest::Error| AskError::Broken(error.to_string());
        let request = self.client.request(method, format!("http://localhost{path}"));
        let response = request.send().await.map_err(|error| match error.is_connect() {
            true if is_denied(&error) => AskError::Denied(self.socket.clone()),
            true => AskError::NotRunning(self.socket.clone()),
            false => broken(error),
        })?;
        let status = response.status();
        let body = response.bytes().await.map_err(broken)?;
        let unreadable = |error: serde_json::Error| AskError::Broken(error.to_string());
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(unreadable);
        }
        let answer: Value = serde_json::from_slice(&body).map_err(unreadable)?;
        let error = answer.get("error").and_then(Value::as_str).unwrap_or(status.as_str()).to_owned();
        let problems = answer.get("problems").and_then(Value::as_array).cloned().unwrap_or_default();
        let problems = problems.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Err(AskError::Refused { status, error, problems })
    }
}

fn is_denied(error: &reqwest::Error) -> bool {
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    })
}
