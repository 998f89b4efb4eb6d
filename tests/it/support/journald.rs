//! A real systemd-journald, which believes that a directory of ours is /run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::process::{Server, open_dir};

const JOURNALD: &str = "/lib/systemd/systemd-journald";

pub struct Journald {
    dir: TempDir,
    server: Option<Server>,
}

impl Journald {
    pub fn start() -> Self {
        let mut journald = Self::prepare();
        journald.launch();
        journald
    }

    /// It does not run yet.
    pub fn prepare() -> Self {
        assert!(Path::new(JOURNALD).exists(), "install systemd (see tests/packages.txt)");
        let journald = Self { dir: open_dir(), server: None };
        for dir in ["systemd/journal", "systemd/journald.conf.d", "log/journal"] {
            fs::create_dir_all(journald.run().join(dir)).unwrap();
        }
        // No other journal of the machine is touched; and a burst of the test is no flood.
        let settings = "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nReadKMsg=no\nAudit=no\nForwardToSyslog=no\n\
                        ForwardToWall=no\nForwardToKMsg=no\n";
        fs::write(journald.run().join("systemd/journald.conf.d/test.conf"), settings).unwrap();
        journald
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn launch(&mut self) {
        let script = format!("mount --bind {} /run && exec {JOURNALD}", self.run().display());
        let command = format!("unshare --mount sh -c '{script}'");
        self.server = Some(Server::start(&command, &[], &[], &self.dir.path().join("log")));
        let end = Instant::now() + Duration::from_secs(30);
        while !self.socket().exists() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "journald did not start: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn stop(&mut self) {
        self.server = None;
    }

    /// `STOP`, `CONT`
    #[cfg(feature = "nats")]
    pub fn signal(&self, name: &str) {
        self.server.as_ref().unwrap().signal(name);
    }

    pub fn socket(&self) -> PathBuf {
        self.run().join("systemd/journal/socket")
    }

    /// What journalctl shows for these arguments.
    pub fn journalctl(&self, arguments: &[&str]) -> Vec<Value> {
        let output = Command::new("journalctl")
            .arg("-D")
            .arg(self.run().join("log/journal"))
            .args(["-o", "json", "--all", "--no-pager"])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The UIDs of `message.new`, in its order.
    pub fn uids(&self) -> Vec<u64> {
        let entries = self.journalctl(&["IDLEWATCH_EVENT_ACTION=message.new"]);
        entries.iter().map(|entry| entry["IDLEWATCH_IMAP_UID"].as_str().unwrap().parse().unwrap()).collect()
    }
}
