//! One run of a program, with all that it starts.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::time::timeout;

use crate::config::settings::ExecSettings;

/// What every program gets of our environment: nothing that could hold a secret.
const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Between the request to end and the end.
const GRACE: Duration = Duration::from_secs(2);

/// For what it wrote last, where others hold its stderr open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// So much of the end of its stderr is kept.
const MOST_WORDS: usize = 4096;

/// It runs.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
    group: Group,
}

/// How it ended, and the end of what it wrote to stderr; no status where it ran for too long.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: Option<ExitStatus>,
    pub(super) said: Vec<u8>,
}

impl Program {
    pub(super) fn start(settings: &ExecSettings, instance: &str, events: usize) -> io::Result<Self> {
        let (program, arguments) =
            settings.command.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let inherited = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(inherited)
            .envs(settings.environment.iter().map(|(name, value)| (name, value)))
            .env("IDLEWATCH_INSTANCE", instance)
            .env("IDLEWATCH_EVENTS", events.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, group: Group(leader) })
    }

    /// Gives it the lines, and waits for its end. After `limit`, it is ended with all that it started.
    pub(super) async fn feed(mut self, lines: Bytes, limit: Duration) -> io::Result<Ended> {
        let (stdin, stderr) = (self.child.stdin.take(), self.child.stderr.take());
        let mut said = Vec::new();
        let status = {
            let mut talk = Box::pin(join(tell(stdin, lines), listen(stderr, &mut said)));
            let mut is_told = false;
            let ended = timeout(limit, async {
                tokio::select! {
                    biased;
                    status = self.child.wait() => status,
                    // Ended or not, it has closed its stderr.
                    _ = &mut talk => {
                        is_told = true;
                        self.child.wait().await
                    }
                }
            });
            let status = ended.await.ok().transpose()?;
            if !is_told {
                let _ = timeout(LAST_WORDS, &mut talk).await;
            }
            status
        };
        match status {
            Some(_) => self.group.reaped(),
            None => self.end().await?,
        }
        Ok(Ended { status, said })
    }

    async fn end(&mut self) -> io::Result<()> {
        self.group.signal(Signal::TERM);
        let ended = timeout(GRACE, self.child.wait()).await;
        // The others of its group too, and while its number cannot be another's.
        self.group.signal(Signal::KILL);
        if ended.is_err() {
            self.child.wait().await?;
        }
        self.group.reaped();
        Ok(())
    }
}

/// Whoever does not read everything may still have all that it needs: its exit status says so.
async fn tell(stdin: Option<ChildStdin>, lines: Bytes) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(&lines).await;
    }
}

/// To the end, so that it is never held up; only the last of it is kept.
async fn listen(stderr: Option<ChildStderr>, said: &mut Vec<u8>) {
    let Some(mut stderr) = stderr else { return };
    let mut words = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut words).await {
        said.extend_from_slice(words.get(..count).unwrap_or_default());
        let excess = said.len().saturating_sub(MOST_WORDS);
        said.drain(..excess);
    }
}

/// A process group, which does not outlive whoever waits for it: the monitor may be ending.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, signal);
        }
    }

    /// Its number may be another's from now on.
    fn reaped(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
