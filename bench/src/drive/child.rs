//! A process that does not outlive who started it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::Result;

/// Killed and waited for when dropped.
#[derive(Debug)]
pub struct Kept(Child);

impl Kept {
    /// Starts `program`. `setpriv` becomes it, and has the kernel kill it should this process be killed itself.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start<A: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = A>) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args);
        command.env("BENCH_PASSWORD", "pw");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        Ok(Self(child.map_err(|error| format!("{}: {error}", program.display()))?))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its stdout, once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Its stdin, once.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.0.stdin.take()
    }

    /// Whether it runs still.
    ///
    /// # Errors
    /// Where it does not.
    pub fn lives(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            Some(status) => Err(format!("a process ended: {status}").into()),
            None => Ok(()),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it fails.
    pub fn succeed(&mut self) -> Result<()> {
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("a process failed: {status}").into()) }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
