//! Files that the monitor itself ends: every event once in all of them, whenever it is killed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use flate2::read::GzDecoder;
use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::event;
use crate::support::monitor::{Monitor, states, told};

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

/// `rotate` is the key's value, or nothing.
fn configuration(server: &Server, rotate: &str) -> String {
    format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n\
         [outputs.file]\nbatch = {{ max_events = 3 }}\n{rotate}\n",
        server.addr().port()
    )
}

/// With one file output only: that of the configuration's head, which is written on.
fn monitor(server: &Server, rotate: &str) -> Monitor {
    let monitor = Monitor::new("");
    let rest = configuration(server, rotate);
    let (accounts, keys) = rest.split_once("[outputs.file]\n").unwrap();
    let head = "[monitor]\ninstance = \"test\"\nstate_dir = \"state\"\n[outputs.file]\ntype = \"file\"\npath = \"events.jsonl\"\n";
    fs::write(monitor.config(), format!("{head}{keys}{accounts}")).unwrap();
    monitor
}

fn deliver(server: &Server, count: usize) {
    for _ in 0..count {
        server.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\nhi\r\n");
    }
}

/// The file and those that ended, oldest first.
fn files(monitor: &Monitor) -> Vec<PathBuf> {
    let entries = fs::read_dir(monitor.dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_of_ours = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("events.jsonl");
    let mut files: Vec<_> = entries.filter(is_of_ours).collect();
    // The one without a time comes last.
    files.sort_by_key(|path| (*path == monitor.output(), path.clone()));
    files
}

/// All lines of a file, compressed or not; none is torn.
fn lines(path: &Path) -> Vec<Value> {
    let mut text = String::new();
    let read = match path.extension().unwrap().to_str().unwrap() {
        "gz" => GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text),
        _ => File::open(path).unwrap().read_to_string(&mut text),
    };
    read.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text.is_empty() || text.ends_with('\n'), "{}", path.display());
    text.lines().map(event).collect()
}

/// While files are compressed and renamed one may be there twice, or gone when it is read.
fn settled(monitor: &Monitor, gzip: bool) -> bool {
    let files = files(monitor);
    let plain = |path: &&PathBuf| path.extension().unwrap() != "gz";
    let is_part = |path: &PathBuf| path.extension().unwrap() == "part";
    !files.iter().any(is_part) && (!gzip || files.iter().filter(plain).count() <= 2)
}

/// Everything in all files, oldest first.
fn everything(monitor: &Monitor) -> Vec<Value> {
    files(monitor).iter().flat_map(|path| lines(path)).collect()
}

fn texts(monitor: &Monitor) -> String {
    let read = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
    files(monitor).iter().map(read).collect()
}

fn online(monitor: &Monitor) {
    monitor.wait("online", |_| texts(monitor).contains("\"state\":\"online\""));
}

/// Its last message is in one of the files that are not compressed.
fn wait_for(monitor: &Monitor, uid: usize) {
    monitor.wait("told", |_| texts(monitor).contains(&format!("\"uid\":{uid},")));
}

fn each_once(monitor: &Monitor, sent: usize) {
    let events = everything(monitor);
    assert_eq!(told(&events, "work"), (1..=sent as u64).collect::<Vec<_>>(), "each once, in order");
    let ids: BTreeSet<_> = events.iter().map(|event| event["event"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len(), "no event of any kind twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_end_at_their_size_and_are_compressed_and_as_many_kept_as_configured() {
    let server = server().await;
    let rotate = "rotate = { max_bytes = \"4KiB\", keep = 4, compress = \"gzip\" }";
    let mut monitor = monitor(&server, rotate);
    monitor.start();
    online(&monitor);
    for sent in 1..=60 {
        deliver(&server, 1);
        wait_for(&monitor, sent);
    }
    monitor.wait("four that ended, and the file", |_| files(&monitor).len() == 5 && settled(&monitor, true));
    let files = files(&monitor);
    let is_gz = |path: &PathBuf| path.extension().unwrap() == "gz";
    assert_eq!(files.iter().map(is_gz).collect::<Vec<_>>(), [true, true, true, false, false]);
    // A batch more than its bound, at most.
    let bytes = |path: &PathBuf| lines(path).len() * 900;
    assert!(files.iter().take(4).all(|path| (4000..8000).contains(&bytes(path))), "{files:?}");
    let uids = told(&everything(&monitor), "work");
    assert_eq!(uids, (61 - uids.len() as u64..=60).collect::<Vec<_>>(), "the newest, each once");
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_old_ends_before_the_next_event() {
    let server = server().await;
    let mut monitor = monitor(&server, "rotate = { max_age = \"2s\" }");
    monitor.start();
    online(&monitor);
    deliver(&server, 1);
    wait_for(&monitor, 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    deliver(&server, 1);
    wait_for(&monitor, 2);
    assert_eq!(monitor.stop().code(), Some(0));
    let files = files(&monitor);
    let of = |nth: usize| told(&lines(&files[nth]), "work");
    assert_eq!(of(0).first(), Some(&1));
    assert!(of(0).last() < Some(&2) && files.len() >= 2, "{files:?}");
    each_once(&monitor, 2);
}

/// At each renaming, sync and removal, before it is done; and then the process begins again.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_of_a_rotation_loses_nothing_and_doubles_nothing() {
    let server = server().await;
    let rotate = "rotate = { max_bytes = \"4KiB\", keep = 10000, compress = \"gzip\" }";
    let mut monitor = monitor(&server, rotate);
    monitor.start();
    online(&monitor);
    monitor.kill();
    let (mut sent, mut crashes) = (0, 0);
    for (syscalls, points) in
        [("rename,renameat,renameat2", 4), ("fsync,fdatasync", 6), ("unlink,unlinkat", 2), ("openat", 4)]
    {
        for point in 1..=points {
            let when = if syscalls == "openat" { 150 + 37 * point } else { point };
            let inject = format!("inject={syscalls}:signal=SIGKILL:when={when}");
            monitor.start_under(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject]);
            let killed = loop {
                if let Some(status) = monitor.end() {
                    break status.signal() == Some(9);
                }
                deliver(&server, 1);
                sent += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
                if sent % 400 == 0 {
                    break false;
                }
            };
            crashes += usize::from(killed);
            if !killed {
                monitor.kill_child();
            }
        }
    }
    monitor.start();
    wait_for(&monitor, sent);
    monitor.wait("in order", |_| settled(&monitor, true));
    monitor.kill();
    each_once(&monitor, sent);
    assert!(crashes >= 10, "{crashes}");
    println!("{crashes} crash points, {sent} messages in {} files: 0 lost, 0 twice", files(&monitor).len());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_while_files_end_each_event_is_there_once() {
    let rounds =
        std::env::var("IDLEWATCH_PROOF_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let server = server().await;
    let rotate = "rotate = { max_bytes = \"4KiB\", keep = 10000, compress = \"gzip\" }";
    let mut monitor = monitor(&server, rotate);
    let mut random = StdRng::seed_from_u64(3);
    let mut sent = 0;
    monitor.start();
    online(&monitor);
    for _ in 0..rounds {
        let count = random.random_range(1..30);
        deliver(&server, count);
        sent += count;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        monitor.kill();
        monitor.start();
    }
    wait_for(&monitor, sent);
    monitor.wait("in order", |_| settled(&monitor, true));
    monitor.kill();
    each_once(&monitor, sent);
}

/// A directory that may not be written to: nothing stands still because of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_renamed_goes_on() {
    let server = server().await;
    let mut monitor = monitor(&server, "rotate = { max_bytes = \"4KiB\" }");
    monitor.start();
    online(&monitor);
    let output = monitor.output();
    let chattr =
        |flag: &str| assert!(Command::new("chattr").arg(flag).arg(&output).status().unwrap().success());
    // It may be appended to, and neither renamed nor cut.
    chattr("+a");
    deliver(&server, 20);
    monitor.wait("told", |events| told(events, "work").len() == 20);
    monitor.wait_log("it has had its time, but goes on");
    chattr("-a");
    assert_eq!(states(&monitor.events(), "work").last().map(String::as_str), Some("online"));
    assert_eq!(monitor.stop().code(), Some(0));
    each_once(&monitor, 20);
}

/// The real one, with SIGUSR1, while mail comes.
#[tokio::test(flavor = "multi_thread")]
async fn logrotate_moves_the_file_away_and_no_line_is_lost_or_doubled() {
    assert!(Path::new("/usr/sbin/logrotate").exists(), "install logrotate (see tests/packages.txt)");
    let server = server().await;
    let mut monitor = monitor(&server, "");
    monitor.start();
    online(&monitor);
    let conf = monitor.dir.path().join("logrotate.conf");
    let rule = format!(
        "{:?} {{\n size 1\n rotate 100\n dateext\n dateformat .%Y%m%d-%s\n nocreate\n missingok\n postrotate\n  kill -USR1 {}\n endscript\n}}\n",
        monitor.output(),
        monitor.pid()
    );
    fs::write(&conf, rule).unwrap();
    let mut sent = 0;
    for _ in 0..4 {
        for _ in 0..50 {
            deliver(&server, 1);
            sent += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let state = monitor.dir.path().join("logrotate.state");
        let status = Command::new("/usr/sbin/logrotate").arg("-s").arg(state).arg(&conf).status();
        assert!(status.unwrap().success());
    }
    deliver(&server, 1);
    wait_for(&monitor, sent + 1);
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(files(&monitor).len() >= 4, "{:?}", files(&monitor));
    each_once(&monitor, sent + 1);
}
