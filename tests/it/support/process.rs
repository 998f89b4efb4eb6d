//! A server's process, which goes with the test however that ends.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Server {
    child: Child,
    /// Where the leader of the server's session is written down.
    leader: PathBuf,
}

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A directory that the system users of servers may enter, with a path short enough for unix sockets.
pub fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("iw").tempdir_in("/tmp").unwrap();
    assert!(Command::new("chmod").arg("755").arg(dir.path()).status().unwrap().success());
    dir
}

impl Server {
    /// Runs `command` and waits until something listens on all `ports`.
    pub fn start(command: &str, env: &[(&str, &str)], ports: &[u16], log: &Path) -> Self {
        let leader = log.with_extension("pid");
        // The shell lives as long as our end of its stdin; then the server's whole session goes, asleep or not.
        let script = format!(
            "setsid {command} >>{log:?} 2>&1 </dev/null & p=$!; echo $p >{leader:?}; cat >/dev/null; kill -TERM -- -$p; kill -CONT -- -$p; wait $p"
        );
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).envs(env.iter().copied()).stdin(Stdio::piped());
        let server = Self { child: shell.spawn().unwrap(), leader };
        let end = Instant::now() + Duration::from_secs(30);
        while ports.iter().any(|port| TcpStream::connect(("127.0.0.1", *port)).is_err()) {
            let log = fs::read_to_string(log).unwrap_or_default();
            assert!(Instant::now() < end, "{command} did not start: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

impl Server {
    /// `kill -9` of all its processes.
    pub fn kill(&self) {
        self.signal("KILL");
    }

    /// As [`Self::kill`], where there may be none.
    pub fn kill_what_is_left(&self) {
        self.pkill("KILL");
    }

    /// `STOP`, `CONT` to all processes of its session.
    pub fn signal(&self, name: &str) {
        assert!(self.pkill(name));
    }

    /// Whether there was a process.
    fn pkill(&self, name: &str) -> bool {
        let signal = format!("-{name}");
        Command::new("pkill").args([&signal, "-s", &self.leader()]).status().unwrap().success()
    }

    /// The leader of its session.
    pub fn leader(&self) -> String {
        fs::read_to_string(&self.leader).unwrap().trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
