//! A secret that is resolved when it is needed, kept while it works, and resolved anew once it does not.

use secrecy::{ExposeSecret, SecretString};

use super::{Outcome, Pause};
use crate::secrets::SecretSource;

/// One secret of an output.
#[derive(Debug)]
pub(super) struct KeptSecret {
    source: SecretSource,
    kept: Option<SecretString>,
}

impl KeptSecret {
    pub(super) fn new(source: SecretSource) -> Self {
        Self { source, kept: None }
    }

    /// The secret; where there is none, only a person can help.
    pub(super) async fn get(&mut self) -> Result<&SecretString, Outcome> {
        if self.kept.is_none() {
            let resolved = self.source.resolve().await;
            self.kept = Some(resolved.map_err(|error| Outcome::TryAgain {
                taken: 0,
                pause: Pause::Slowly,
                reason: error.to_string(),
            })?);
        }
        self.kept.as_ref().ok_or_else(|| Outcome::again("there is no secret"))
    }

    /// The one that is in use.
    pub(super) fn kept(&self) -> Option<&str> {
        self.kept.as_ref().map(ExposeSecret::expose_secret)
    }

    /// It was refused: it may have been rotated.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }
}
