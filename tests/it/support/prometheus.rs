//! A real Prometheus that scrapes one monitor every second, with the alerts of the package.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use form_urlencoded::Serializer;
use serde_json::Value;
use tempfile::TempDir;

use super::process::{Server, free_port};

/// What is unpacked from Debian's package.
fn program(name: &str) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/target/prometheus/usr/bin");
    let program = PathBuf::from(root).join(name);
    assert!(program.exists(), "scripts/unpack prometheus usr/bin/promtool prometheus");
    program
}

/// A file of the package.
pub fn packaged(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging")).join(name)
}

pub fn promtool(arguments: &[&str]) -> Output {
    let mut command = Command::new(program("promtool"));
    command.current_dir(packaged("prometheus")).args(arguments).output().unwrap()
}

pub struct Prometheus {
    /// Gone before its directory is.
    _server: Server,
    _dir: TempDir,
    port: u16,
}

impl Prometheus {
    pub fn start(monitor: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let rules = packaged("prometheus/alerts.yml");
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: [{rules:?}]\nscrape_configs:\n  - job_name: idlewatch\n    static_configs: [{{ targets: [\"127.0.0.1:{monitor}\"] }}]\n"
        );
        let path = dir.path().join("prometheus.yml");
        fs::write(&path, config).unwrap();
        let command = format!(
            "{} --config.file={} --storage.tsdb.path={} --web.listen-address=127.0.0.1:{port}",
            program("prometheus").display(),
            path.display(),
            dir.path().join("data").display(),
        );
        let server = Server::start(&command, &[], &[port], &dir.path().join("log"));
        let prometheus = Self { _server: server, _dir: dir, port };
        let end = Instant::now() + Duration::from_secs(60);
        while !prometheus.ask("GET", "/-/ready", "").starts_with("HTTP/1.0 200 ") {
            assert!(Instant::now() < end, "Prometheus does not become ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        prometheus
    }

    /// What an expression is now: its samples.
    pub fn query(&self, expression: &str) -> Vec<f64> {
        self.samples(expression).iter().map(value).collect()
    }

    /// The values of a label among the samples that are numbers.
    #[cfg(all(feature = "nats", feature = "postgres"))]
    pub fn labels<L: FromIterator<String>>(&self, expression: &str, label: &str) -> L {
        let samples = self.samples(expression);
        let numbers = samples.iter().filter(|sample| value(sample).is_finite());
        numbers.filter_map(|sample| Some(sample["metric"][label].as_str()?.to_owned())).collect()
    }

    fn samples(&self, expression: &str) -> Vec<Value> {
        let form = Serializer::new(String::new()).append_pair("query", expression).finish();
        let answer = self.ask("POST", "/api/v1/query", &form);
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut answer: Value = serde_json::from_str(body).unwrap();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        match answer["data"]["result"].take() {
            Value::Array(samples) => samples,
            other => panic!("{expression}: {other}"),
        }
    }

    fn ask(&self, method: &str, path: &str, form: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = form.len();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{form}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

fn value(sample: &Value) -> f64 {
    sample["value"][1].as_str().unwrap().parse().unwrap()
}
