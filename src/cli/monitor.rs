//! How the monitor that runs is asked.

use std::path::Path;

use super::{Exit, Globals, tell};
use crate::admin::client::{AskError, MonitorClient};
use crate::config;

impl Globals {
    /// Where the configuration says that it listens.
    pub(super) fn ask<T, F>(&self, ask: impl FnOnce(MonitorClient) -> F) -> Result<T, AskError>
    where
        F: Future<Output = Result<T, AskError>>,
    {
        let (sockets, issues) = config::sockets(&self.files);
        if !issues.is_empty() {
            self.tell_issues(&issues);
            tell("hint: the monitor is asked where it usually is");
        }
        let there = sockets.iter().find(|socket| socket.exists());
        // Where we may not look, there may be one.
        let hidden = || sockets.iter().find(|socket| socket.try_exists().is_err());
        let socket = there.or_else(hidden).or(sockets.first());
        let client = MonitorClient::new(socket.map_or(Path::new(""), |socket| socket))?;
        let asked = actix::System::new().block_on(ask(client));
        asked.map_err(|error| match error {
            AskError::NotRunning(place) if !issues.is_empty() => AskError::Unknown(place),
            error => error,
        })
    }
}

/// Why it could not be asked, or what it refused, on stderr; how the command ends.
pub(super) fn failed(error: &AskError) -> Exit {
    match error {
        AskError::Refused { problems, .. } if !problems.is_empty() => {
            problems.iter().for_each(|problem| tell(problem));
            tell(&format!("error: {error}"));
            return Exit::Config;
        }
        AskError::NotRunning(_) => {
            tell(&format!("error: {error}"));
            tell(
                "hint: it is asked where the configuration says (http.socket, monitor.state_dir): is it the one of the monitor that runs?",
            );
            return Exit::Unreachable;
        }
        AskError::Denied(_) => {
            tell(&format!("error: {error}"));
            tell("hint: a monitor answers its own user and root: ask as one of them");
            return Exit::Refused;
        }
        AskError::Unknown(_) => {
            tell(&format!("error: {error}"));
            return Exit::Config;
        }
        error => tell(&format!("error: {error}")),
    }
    Exit::SomeFailed
}
