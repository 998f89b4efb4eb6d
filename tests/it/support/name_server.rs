//! dnsmasq as the only name server of an isolated test.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::isolated::shell;

/// Knows the names of `.test` that it is told of, and says of all others there that they do not exist.
pub struct NameServer {
    dir: TempDir,
    dnsmasq: Child,
}

impl NameServer {
    /// Replaces the resolver of the test's mount namespace, and asks nobody else.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::write(file("hosts"), "").unwrap();
        fs::write(file("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
        shell(&format!("mount --bind {} /etc/resolv.conf", file("resolv.conf").display()));
        let mut command = Command::new("/usr/sbin/dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--pid-file=",
        ]);
        command.args([
            "--user=root",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--local=/test/",
            "--local-ttl=0",
        ]);
        command.arg(format!("--addn-hosts={}", file("hosts").display()));
        let dnsmasq = command.stderr(Stdio::null()).spawn().expect("dnsmasq of the package dnsmasq-base");
        until("it listens", || TcpStream::connect(("127.0.0.1", 53)).is_ok());
        Self { dir, dnsmasq }
    }

    fn hosts(&self) -> PathBuf {
        self.dir.path().join("hosts")
    }

    /// From now on `name` has these addresses and nothing else is known. Returns once that is what it says.
    pub fn tell(&self, name: &str, addresses: &[&str]) {
        let lines: String = addresses.iter().map(|address| format!("{address} {name}\n")).collect();
        fs::write(self.hosts(), lines).unwrap();
        self.signal("HUP");
        let says = |found: &str| match addresses {
            [] => found.is_empty(),
            all => all.iter().all(|address| found.contains(address)),
        };
        until("it says so", || says(&resolved(name)));
    }

    /// Takes queries, and never answers.
    pub fn falls_silent(&self) {
        self.signal("STOP");
    }

    /// Answers again.
    pub fn wakes(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        shell(&format!("kill -{name} {}", self.dnsmasq.id()));
    }
}

fn until(what: &str, reached: impl Fn() -> bool) {
    for _ in 0..1000 {
        if reached() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("dnsmasq: {what}: never");
}

fn resolved(name: &str) -> String {
    let found = Command::new("getent").args(["ahosts", name]).output().unwrap();
    String::from_utf8_lossy(&found.stdout).into_owned()
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.dnsmasq.kill();
        let _ = self.dnsmasq.wait();
    }
}
