//! A real redis-server that keeps what it acknowledges, and asks for a password.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::process::{Server, free_port, open_dir};

pub const PASSWORD: &str = "canary-of-redis";

pub struct Redis {
    dir: TempDir,
    pub port: u16,
    server: Option<Server>,
}

impl Redis {
    pub fn start() -> Self {
        assert!(Path::new("/usr/bin/redis-server").exists(), "install redis-server (see tests/packages.txt)");
        let mut redis = Self { dir: open_dir(), port: free_port(), server: None };
        redis.launch();
        redis
    }

    pub fn launch(&mut self) {
        let command = format!(
            "/usr/bin/redis-server --bind 127.0.0.1 --port {} --dir {} --appendonly yes --appendfsync always \
             --user mail on '>{PASSWORD}' '~idlewatch' +xadd +select --requirepass {PASSWORD}",
            self.port,
            self.dir.path().display()
        );
        self.server = Some(Server::start(&command, &[], &[self.port], &self.dir.path().join("log")));
        // It answers before it has read what it kept.
        while !self.ask(&["PING"]).contains("PONG") {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    pub fn kill(&mut self) {
        self.server.as_ref().unwrap().kill();
        self.server = None;
    }

    /// What redis-cli gets.
    pub fn ask(&self, words: &[&str]) -> String {
        let mut command = Command::new("/usr/bin/redis-cli");
        command.args(["-p", &self.port.to_string(), "-a", PASSWORD, "--no-auth-warning", "--json"]);
        String::from_utf8(command.args(words).output().unwrap().stdout).unwrap()
    }

    /// The events in the stream, in its order; each entry is whole.
    pub fn events(&self) -> Vec<Value> {
        let entries: Value =
            serde_json::from_str(&self.ask(&["XRANGE", "idlewatch", "-", "+"])).unwrap_or_default();
        let entries = entries.as_array().cloned().unwrap_or_default();
        let event = |entry: &Value| {
            let fields = &entry[1];
            let event = super::event(fields[5].as_str().unwrap());
            assert_eq!([&fields[0], &fields[2], &fields[4]], ["event_id", "event_action", "event"]);
            assert_eq!((&fields[1], &fields[3]), (&event["event"]["id"], &event["event"]["action"]));
            event
        };
        entries.iter().map(event).collect()
    }
}

/// Asked to end, it would first save to its directory, and never end without that.
impl Drop for Redis {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
    }
}
