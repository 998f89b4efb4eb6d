//! The package's configurations for log pipelines, with the programs that they are for: those that Debian has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use idlewatch::demo::server as imap;
use idlewatch::demo::store::Store;
use serde_json::Value;

use crate::support::monitor::{Monitor, events as read_events, states, told};
use crate::support::process::Server;
use crate::support::prometheus::packaged;

/// One event of each kind, in `events.jsonl`.
fn samples(dir: &Path) -> Vec<Value> {
    let sample = Command::new(env!("CARGO_BIN_EXE_idlewatch")).args(["event", "sample"]).output().unwrap();
    fs::write(dir.join("events.jsonl"), &sample.stdout).unwrap();
    let text = String::from_utf8(sample.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A value of all events, where they have it.
fn all<'a>(events: &'a [Value], pointer: &str) -> Vec<&'a str> {
    events.iter().map(|event| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default()).collect()
}

#[test]
fn lnav_knows_our_events_and_answers_sql() {
    let dir = tempfile::tempdir().unwrap();
    let events = samples(dir.path());
    let formats = dir.path().join("formats/idlewatch");
    fs::create_dir_all(&formats).unwrap();
    fs::copy(packaged("pipelines/lnav-format.json"), formats.join("format.json")).unwrap();
    let lnav = |query: &str| {
        let mut command = Command::new("lnav");
        command.current_dir(dir.path()).env("HOME", dir.path()).args(["-n", "-I", "."]);
        if !query.is_empty() {
            command.args(["-c", query, "-c", ":write-csv-to -"]);
        }
        let output = command.arg("events.jsonl").output().expect("install lnav (see tests/packages.txt)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = lnav("");
    for message in all(&events, "/message") {
        assert!(lines.contains(message), "{message} in {lines}");
    }
    let subjects = lnav(
        ";select \"email/subject\", \"idlewatch/imap/uid\" from idlewatch_log where \"event/action\" = 'message.new'",
    );
    let message = events.iter().find(|event| event["event"]["action"] == "message.new").unwrap();
    let row =
        format!("{},{}", message["email"]["subject"].as_str().unwrap(), message["idlewatch"]["imap"]["uid"]);
    assert_eq!(subjects.lines().nth(1), Some(row.as_str()), "{subjects}");
}

/// The rules of the package, but for the paths and for who tells the monitor.
#[tokio::test(flavor = "multi_thread")]
async fn logrotate_with_the_rules_of_the_package_loses_no_event() {
    let store = Store::new([("a".to_owned(), "CANARY-rotate-1".to_owned())]);
    let imap = imap::Server::start(store, imap::Behaviour::default()).await.unwrap();
    let mut monitor = Monitor::new(&format!(
        "[[accounts]]\nid = \"a\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"a\"\npassword = {{ inline = \"CANARY-rotate-1\" }}\n",
        imap.addr().port()
    ));
    monitor.start();
    monitor.wait("online", |events| states(events, "a") == ["online"]);
    let rules = fs::read_to_string(packaged("logrotate")).unwrap();
    let tell = "systemctl kill --signal=SIGUSR1 --kill-who=main idlewatch.service";
    assert!(rules.contains(tell));
    let rules = rules.replace("/var/log/idlewatch", &monitor.dir.path().display().to_string());
    let rules = rules.replace(tell, &format!("kill -USR1 {}", monitor.pid()));
    let path = monitor.dir.path().join("rules");
    fs::write(&path, rules.replace("    compress\n", "")).unwrap();
    let mut written = Vec::new();
    for rotation in 1..=3 {
        imap.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
        monitor.wait("told", |events| told(events, "a") == [rotation]);
        let mut logrotate = Command::new("logrotate");
        let state = monitor.dir.path().join("rotated");
        let output = logrotate.arg("--force").arg("--state").arg(state).arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        written.extend(told(&read_events(&monitor.output().with_extension("jsonl.1")), "a"));
    }
    assert_eq!(written, [1, 2, 3]);
    assert_eq!(monitor.stop().code(), Some(0));
}

#[test]
fn syslog_ng_takes_fields_and_times_out_of_our_events() {
    let dir = tempfile::tempdir().unwrap();
    let events = samples(dir.path());
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/syslog-ng/usr"));
    let program = root.join("sbin/syslog-ng");
    assert!(program.exists(), "scripts/unpack syslog-ng: see scripts/test");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let config = fs::read_to_string(packaged("pipelines/syslog-ng.conf")).unwrap();
    let config = config.replace("/var/log/idlewatch/events.jsonl", &at("events.jsonl"));
    fs::write(at("conf"), config.replace("/var/log/idlewatch-syslog-ng.log", &at("written"))).unwrap();
    let modules = root.join("lib/syslog-ng/3.38");
    let command = format!(
        "{} -F --no-caps -f {} -R {} -c {} -p {} --module-path={}",
        program.display(),
        at("conf"),
        at("persist"),
        at("control"),
        at("pid"),
        modules.display()
    );
    let libraries = format!("{0}/lib/x86_64-linux-gnu:{0}/lib/syslog-ng", root.display());
    let log = dir.path().join("log");
    let _server = Server::start(&command, &[("LD_LIBRARY_PATH", &libraries)], &[], &log);
    let end = Instant::now() + Duration::from_secs(60);
    let written = loop {
        let written = fs::read_to_string(at("written")).unwrap_or_default();
        if written.lines().count() == events.len() && written.ends_with('\n') {
            break written;
        }
        assert!(Instant::now() < end, "{written}\n{}", fs::read_to_string(&log).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(100));
    };
    for (line, event) in written.lines().zip(&events) {
        let [time, level, action, id] = ["/@timestamp", "/level", "/event/action", "/event/id"]
            .map(|pointer| event.pointer(pointer).unwrap().as_str().unwrap());
        let (time, rest) = (&time[..19], format!(" {level} {action} {id} "));
        assert!(line.starts_with(time) && line.contains(&rest), "{line}: {event}");
        let from = event.pointer("/idlewatch/from").and_then(Value::as_str).unwrap_or_default();
        assert!(line.contains(&format!("from={from} subject=")), "{line}: {event}");
    }
}
