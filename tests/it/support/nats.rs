//! A real nats-server with JetStream, in a directory of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context, stream};
use serde_json::Value;
use tempfile::TempDir;

use super::process::{Server, free_port, open_dir};

pub struct Nats {
    dir: TempDir,
    pub port: u16,
    server: Option<Server>,
}

impl Nats {
    pub fn start() -> Self {
        assert!(Path::new("/usr/sbin/nats-server").exists(), "install nats-server (see tests/packages.txt)");
        let mut nats = Self { dir: open_dir(), port: free_port(), server: None };
        let config = format!(
            "host: 127.0.0.1\nport: {}\njetstream {{ store_dir: {:?}, max_memory_store: 64MB, max_file_store: 1GB }}\n",
            nats.port,
            nats.store()
        );
        fs::write(nats.dir.path().join("nats.conf"), config).unwrap();
        nats.launch();
        nats
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("js")
    }

    pub fn launch(&mut self) {
        let command = format!("/usr/sbin/nats-server -c {}", self.dir.path().join("nats.conf").display());
        self.server = Some(Server::start(&command, &[], &[self.port], &self.dir.path().join("log")));
    }

    pub fn stop(&mut self) {
        self.server = None;
    }

    pub fn kill(&mut self) {
        self.server.as_ref().unwrap().kill();
        self.server = None;
    }

    /// `STOP`, `CONT`
    pub fn signal(&self, name: &str) {
        self.server.as_ref().unwrap().signal(name);
    }

    /// Remembers what is stored now; the server must be stopped.
    pub fn save(&self) {
        let saved = self.dir.path().join("saved");
        assert!(Command::new("cp").arg("-a").arg(self.store()).arg(saved).status().unwrap().success());
    }

    /// Goes back to what was saved: what came since is lost, as after a power loss.
    pub fn restore(&self) {
        fs::remove_dir_all(self.store()).unwrap();
        fs::rename(self.dir.path().join("saved"), self.store()).unwrap();
    }

    pub async fn context(&self) -> Context {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            match async_nats::connect(format!("127.0.0.1:{}", self.port)).await {
                Ok(client) => return jetstream::new(client),
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A stream that takes everything of ours, with this duplicate window.
    pub async fn stream(&self, window: Duration) {
        let config = stream::Config {
            name: "MAIL".to_owned(),
            subjects: vec!["idlewatch.>".to_owned()],
            duplicate_window: window,
            ..Default::default()
        };
        self.context().await.create_stream(config).await.unwrap();
    }

    /// How often each event is stored, by its id; each message is a whole event.
    pub async fn stored(&self) -> Vec<(String, Value)> {
        let Ok(stream) = self.context().await.get_stream("MAIL").await else { return Vec::new() };
        let mut stored = Vec::new();
        for sequence in 1..=stream.cached_info().state.last_sequence {
            let Ok(message) = stream.get_raw_message(sequence).await else { continue };
            let event = super::event(std::str::from_utf8(&message.payload).unwrap());
            assert_eq!(
                message.headers.get("Nats-Msg-Id").unwrap().as_str(),
                event["event"]["id"].as_str().unwrap()
            );
            stored.push((message.subject.to_string(), event));
        }
        stored
    }

    /// The UIDs that are stored, in the stream's order.
    pub async fn uids(&self) -> Vec<u64> {
        self.stored()
            .await
            .iter()
            .filter_map(|(_, event)| event["idlewatch"]["imap"]["uid"].as_u64())
            .collect()
    }

    /// Waits until every one of these UIDs is stored.
    pub async fn wait(
        &self,
        wanted: impl Iterator<Item = u64> + Clone,
        log: impl Fn() -> String,
    ) -> Vec<u64> {
        let end = Instant::now() + Duration::from_secs(90);
        loop {
            let uids = self.uids().await;
            if wanted.clone().all(|uid| uids.contains(&uid)) {
                return uids;
            }
            assert!(Instant::now() < end, "{uids:?}\n{}", log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// How often each comes.
pub fn counts(uids: &[u64]) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    uids.iter().for_each(|uid| *counts.entry(*uid).or_default() += 1);
    counts
}
