//! A real collector of OpenTelemetry (rotel), which writes what it gets to its log.

use std::fs;

use tempfile::TempDir;

use super::process::{Server, free_port, open_dir};

pub struct Rotel {
    dir: TempDir,
    pub port: u16,
    grpc: u16,
    server: Option<Server>,
}

impl Rotel {
    pub fn start() -> Self {
        let mut rotel = Self { dir: open_dir(), port: free_port(), grpc: free_port(), server: None };
        rotel.launch();
        rotel
    }

    pub fn launch(&mut self) {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/target/rotel/rotel/rotel-agent");
        assert!(fs::exists(program).unwrap(), "{program}: see scripts/unpack-wheel in scripts/test");
        let command = format!(
            "{program} start --otlp-http-endpoint 127.0.0.1:{} --otlp-grpc-endpoint 127.0.0.1:{} \
             --exporter blackhole --debug-log logs --debug-log-verbosity detailed",
            self.port, self.grpc
        );
        self.server = Some(Server::start(&command, &[], &[self.port], &self.dir.path().join("log")));
    }

    pub fn kill(&mut self) {
        self.server.as_ref().unwrap().kill();
        self.server = None;
    }

    /// `STOP`, `CONT`
    #[cfg(feature = "nats")]
    pub fn signal(&self, name: &str) {
        self.server.as_ref().unwrap().signal(name);
    }

    /// What it says of records, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The UIDs of the records that came, repetitions too.
    pub fn uids(&self) -> Vec<u64> {
        self.values("idlewatch.imap.uid: Int(").iter().filter_map(|uid| uid.parse().ok()).collect()
    }

    /// The event ids of the records that came, repetitions too.
    #[cfg(feature = "nats")]
    pub fn ids(&self) -> Vec<String> {
        self.values("event.id: Str(")
    }

    fn values(&self, key: &str) -> Vec<String> {
        let (log, key) = (self.log(), format!("-> {key}"));
        let values = log.lines().filter_map(|line| line.trim().strip_prefix(&key));
        values.map(|rest| rest.trim_end_matches(')').to_owned()).collect()
    }
}
