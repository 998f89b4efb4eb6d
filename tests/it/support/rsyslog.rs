//! A real rsyslogd in a directory of its own. One that cannot start fails the test.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::certificates;
use super::event;
use super::process::{Server, free_port, open_dir};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Unix,
    Udp,
    Tcp,
    Tls,
}

pub struct Rsyslog {
    dir: TempDir,
    transport: Transport,
    port: u16,
    server: Option<Server>,
}

/// What it made of one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub facility: String,
    pub severity: String,
    pub hostname: String,
    pub app_name: String,
    pub procid: String,
    pub msgid: String,
    pub timestamp: String,
    pub structured_data: String,
    /// All of it, as it came.
    pub bytes: usize,
    pub event: Value,
}

impl Rsyslog {
    pub fn start(transport: Transport) -> Self {
        let mut server = Self::prepare(transport);
        server.launch();
        server
    }

    /// It does not run yet.
    pub fn prepare(transport: Transport) -> Self {
        assert!(Path::new("/usr/sbin/rsyslogd").exists(), "install rsyslog (see tests/packages.txt)");
        let server = Self { dir: open_dir(), transport, port: free_port(), server: None };
        certificates::write(server.dir.path());
        server.configure();
        server
    }

    fn configure(&self) {
        let (d, port) = (self.dir.path().display(), self.port);
        let input = match self.transport {
            Transport::Unix => format!(
                "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
                 input(type=\"imuxsock\" Socket=\"{d}/socket\" UseSpecialParser=\"off\" ParseHostname=\"on\" IgnoreTimestamp=\"off\" RateLimit.Interval=\"0\")\n"
            ),
            Transport::Udp => format!(
                "module(load=\"imudp\")\ninput(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\")\n"
            ),
            Transport::Tcp => format!(
                "module(load=\"imtcp\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n"
            ),
            Transport::Tls => format!(
                "global(DefaultNetstreamDriver=\"ossl\" DefaultNetstreamDriverCAFile=\"{d}/ca.pem\"\n\
                 DefaultNetstreamDriverCertFile=\"{d}/good.pem\" DefaultNetstreamDriverKeyFile=\"{d}/good.key\")\n\
                 module(load=\"imtcp\" StreamDriver.Name=\"ossl\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"anon\")\n\
                 input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n"
            ),
        };
        let fields = "%syslogfacility-text%|%syslogseverity-text%|%hostname%|%app-name%|%procid%|%msgid%|\
                      %timestamp:::date-rfc3339%|%structured-data%|%rawmsg:::drop-last-lf%|%msg%\\n";
        let config = format!(
            "global(workDirectory=\"{d}\")\n{input}\
             template(name=\"fields\" type=\"string\" string=\"{fields}\")\n\
             action(type=\"omfile\" file=\"{d}/received\" template=\"fields\")\n"
        );
        fs::write(self.dir.path().join("rsyslog.conf"), config).unwrap();
    }

    pub fn launch(&mut self) {
        let d = self.dir.path().display();
        let command = format!("/usr/sbin/rsyslogd -n -f {d}/rsyslog.conf -i {d}/rsyslog.pid");
        let is_stream = matches!(self.transport, Transport::Tcp | Transport::Tls);
        let ports = if is_stream { vec![self.port] } else { Vec::new() };
        self.server = Some(Server::start(&command, &[], &ports, &self.dir.path().join("log")));
    }

    pub fn stop(&mut self) {
        self.server = None;
    }

    /// `STOP`, `CONT`
    pub fn signal(&self, name: &str) {
        self.server.as_ref().unwrap().signal(name);
    }

    pub fn kill(&mut self) {
        self.server.as_ref().unwrap().kill();
        self.server = None;
        // It does not start beside a process of this number, whatever that is.
        let _ = fs::remove_file(self.dir.path().join("rsyslog.pid"));
    }

    pub fn url(&self) -> String {
        let port = self.port;
        match self.transport {
            Transport::Unix => format!("unix://{}/socket", self.dir.path().display()),
            Transport::Udp => format!("udp://127.0.0.1:{port}"),
            Transport::Tcp => format!("tcp://127.0.0.1:{port}"),
            Transport::Tls => format!("tls://127.0.0.1:{port}"),
        }
    }

    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// What it received, as it wrote it down.
    pub fn text(&self) -> String {
        fs::read_to_string(self.dir.path().join("received")).unwrap_or_default()
    }

    /// What it received, in its order.
    pub fn received(&self) -> Vec<Message> {
        let text = self.text();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(message).collect()
    }

    /// The UIDs of `message.new`, in its order.
    pub fn uids(&self) -> Vec<u64> {
        self.received()
            .iter()
            .filter_map(|message| message.event["idlewatch"]["imap"]["uid"].as_u64())
            .collect()
    }
}

fn message(line: &str) -> Message {
    let mut fields = line.splitn(9, '|').map(str::to_owned);
    let mut next = || fields.next().unwrap_or_else(|| panic!("{line}"));
    let [facility, severity, hostname, app_name, procid, msgid, timestamp, structured_data] =
        std::array::from_fn(|_| next());
    // The text as a whole ends with the part that is shown again behind it.
    let rest = next();
    let raw = &rest[..=rest.find("}|{").unwrap_or_else(|| panic!("{line}"))];
    let text = &rest[raw.len() + 1..];
    assert!(raw.ends_with(text), "{line}");
    Message {
        facility,
        severity,
        hostname,
        app_name,
        procid,
        msgid,
        timestamp,
        structured_data,
        bytes: raw.len(),
        event: event(text),
    }
}
