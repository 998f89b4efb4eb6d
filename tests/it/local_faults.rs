//! Faults of the machine under the program: disks, signals, pipes, files that others touch. Nothing is lost, nothing
//! stands twice in the file, and the process says what it waits for. They need root, strace and tmpfs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::faults::{Mount, Stream, copy, deliver, strace};
use crate::support::fuse::Fuse;
use crate::support::monitor::{Monitor, events, states, told};
use crate::support::process::open_dir;
use crate::support::{action, event};

const PASSWORD: &str = "CANARY-pw-51c2";

async fn server() -> Server {
    Server::start(Store::new([("bob".to_owned(), PASSWORD.to_owned())]), Behaviour::default()).await.unwrap()
}

fn account(server: &Server) -> String {
    format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"{PASSWORD}\" }}\n",
        server.addr().port()
    )
}

/// A monitor that watches bob's INBOX.
async fn watching() -> (Server, Monitor) {
    let server = server().await;
    let mut monitor = Monitor::new(&account(&server));
    monitor.start();
    online(&monitor);
    (server, monitor)
}

fn online(monitor: &Monitor) {
    monitor.wait("online", |events| states(events, "work").iter().any(|state| state == "online"));
}

fn up_to(last: u64) -> Vec<u64> {
    (1..=last).collect()
}

/// Whole lines only, no id twice, numbers that only grow.
fn sound(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line: {:?}", text.lines().last());
    assert!(!text.contains('\0'), "a hole");
    let events = events(path);
    let ids: BTreeSet<_> = events.iter().map(|event| event["event"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len(), "an event twice: {events:#?}");
    let numbers: Vec<_> = events.iter().map(|event| event["event"]["sequence"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    events
}

fn all_told(monitor: &Monitor, last: u64) -> Vec<Value> {
    monitor.wait("all told", |events| told(events, "work").len() as u64 >= last);
    let events = sound(&monitor.output());
    assert_eq!(told(&events, "work"), up_to(last));
    events
}

fn monitor_states(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["idlewatch"]["monitor"]["state"].as_str()).collect()
}

fn random() -> StdRng {
    let seed = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
    StdRng::seed_from_u64(seed.unwrap_or(1))
}

fn nap(random: &mut StdRng, most: u64) {
    std::thread::sleep(Duration::from_millis(random.random_range(0..most)));
}

/// L1: at any moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_again_and_again_writes_every_message_once() {
    let (server, mut monitor) = watching().await;
    let stream = Stream::start(server.store(), Duration::from_millis(10));
    let mut random = random();
    for _ in 0..20 {
        nap(&mut random, 400);
        monitor.kill();
        monitor.start();
    }
    let last = stream.end().await;
    all_told(&monitor, last);
    assert_eq!(monitor.stop().code(), Some(0));
    sound(&monitor.output());
}

/// L3
#[tokio::test(flavor = "multi_thread")]
async fn a_full_state_disk_pauses_everything_until_there_is_room() {
    let server = server().await;
    let mut monitor = Monitor::new(&account(&server));
    let disk = Mount::tmpfs(&monitor.dir.path().join("state"), "400k");
    monitor.start();
    online(&monitor);
    for round in 0..2 {
        disk.fill();
        // Pages that the log has already take some of it.
        let stream = Stream::start(server.store(), Duration::from_millis(10));
        monitor.wait_log("the journal's disk is full");
        if round == 1 {
            monitor.kill();
            monitor.start();
        }
        let last = stream.end().await;
        std::thread::sleep(Duration::from_secs(1));
        assert!((told(&monitor.events(), "work").len() as u64) < last, "the disk was not full");
        disk.free();
        all_told(&monitor, last);
        monitor.wait_log("there is room for the journal again");
    }
    assert_eq!(monitor.stop().code(), Some(0));
    let warnings = monitor.log().lines().filter(|line| line.contains("disk is full")).count();
    assert!(warnings < 8, "{warnings} warnings");
    sound(&monitor.output());
}

/// L3: whatever a start with too little room left behind, it is no damage.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_says_so_and_the_next_one_works() {
    let server = server().await;
    let mut monitor = Monitor::new(&account(&server));
    let disk = Mount::tmpfs(&monitor.dir.path().join("state"), "1m");
    let mut refused = 0;
    for spare in 0.. {
        disk.fill();
        disk.spare(spare * 4096);
        let (code, words) = refusal(&monitor);
        if code != Some(71) {
            // The time it has to run is over.
            assert_eq!(code, Some(124), "{words}");
            break;
        }
        assert!(words.contains("full") || words.contains("No space left"), "{words}");
        assert!(!words.contains("damaged"), "{words}");
        refused += 1;
    }
    assert!(refused > 2, "{refused}");
    disk.free();
    for _ in 0..2 {
        monitor.start();
        let last = deliver(server.store());
        all_told(&monitor, last.into());
        assert_eq!(monitor.stop().code(), Some(0));
        disk.fill();
        let (code, words) = refusal(&monitor);
        assert!(code == Some(124) || code == Some(71) && !words.contains("damaged"), "{code:?} {words}");
        disk.free();
    }
}

/// L3: since when nobody watched is recorded once there is room, and nothing goes before that.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_tells_since_when_it_was_blind() {
    let server = server().await;
    let mut monitor = Monitor::new(&account(&server));
    let disk = Mount::tmpfs(&monitor.dir.path().join("state"), "1m");
    monitor.start();
    online(&monitor);
    assert_eq!(monitor.stop().code(), Some(0));
    let journal = rusqlite::Connection::open(monitor.dir.path().join("state/journal.db")).unwrap();
    let hour_ago = jiff::Timestamp::now().as_millisecond() - 3_600_000;
    journal.execute("UPDATE monitor SET value = ?1 WHERE name = 'alive_at'", [hour_ago]).unwrap();
    drop(journal);
    let last = deliver(server.store()).into();
    // The least room to start in.
    for spare in 0.. {
        disk.fill();
        disk.spare(spare * 4096);
        monitor.start();
        let is_full = || monitor.log().contains("the journal's disk is full");
        monitor.wait("started, or not", |_| is_full() || !monitor.is_alive());
        if is_full() {
            break;
        }
        assert_eq!(monitor.wait_end().code(), Some(71));
    }
    disk.free();
    let events = all_told(&monitor, last);
    let gap = |events: &[Value]| events.iter().find(|event| action(event) == "mailbox.gap").cloned();
    let gap = gap(&events).or_else(|| gap(&monitor.wait("told", |events| gap(events).is_some()))).unwrap();
    let since = gap["idlewatch"]["gap"]["since"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(since.as_millisecond(), hour_ago);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// L3 and L4: no file can be made any more, though there is room for bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_no_more_files_is_as_a_full_one() {
    let server = server().await;
    let second = "[outputs.second]\ntype = \"file\"\npath = \"disk/second.jsonl\"\n";
    let mut monitor = Monitor::new(&format!("{}{second}", account(&server)));
    let (state, out) = (monitor.dir.path().join("state"), monitor.dir.path().join("disk"));
    let (disk, other) = (Mount::tmpfs(&state, "4m,nr_inodes=20"), Mount::tmpfs(&out, "4m,nr_inodes=20"));
    // The lock, the journal and its two companions, and the mark that it is being made.
    let refused = (0..).take_while(|spare| {
        disk.fill_with_files(*spare);
        let (code, words) = refusal(&monitor);
        disk.free_files();
        assert!(!words.contains("damaged"), "{words}");
        let full = words.contains("No space left") || words.contains("full");
        assert!(if full { code == Some(71) } else { code == Some(124) }, "{code:?} {words}");
        full
    });
    assert!(refused.count() > 2);
    monitor.start();
    online(&monitor);
    // What is there already is enough to go on, and to begin again.
    for last in 1..=3 {
        disk.fill_with_files(0);
        deliver(server.store());
        all_told(&monitor, last);
        if last == 1 {
            monitor.kill();
        } else {
            assert_eq!(monitor.stop().code(), Some(0));
        }
        monitor.start();
    }
    deliver(server.store());
    all_told(&monitor, 4);
    let (path, rotated) = (out.join("second.jsonl"), out.join("rotated.jsonl"));
    monitor.wait("the other one too", |_| told(&events(&path), "work").len() == 4);
    fs::rename(&path, &rotated).unwrap();
    other.fill_with_files(0);
    monitor.signal("HUP");
    deliver(server.store());
    all_told(&monitor, 5);
    monitor.wait_log("No space left on device");
    assert!(!path.exists());
    other.free_files();
    monitor.wait("the other one too", |_| told(&sound(&path), "work") == [5]);
    assert_eq!(told(&sound(&rotated), "work"), [1, 2, 3, 4]);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// L4
#[tokio::test(flavor = "multi_thread")]
async fn an_output_disk_without_room_holds_up_its_own_output_only() {
    let server = server().await;
    let second = "[outputs.second]\ntype = \"file\"\npath = \"disk/second.jsonl\"\n";
    let mut monitor = Monitor::new(&format!("{}{second}", account(&server)));
    let at = monitor.dir.path().join("disk");
    let disk = Mount::tmpfs(&at, "64k");
    let second = at.join("second.jsonl");
    monitor.start();
    online(&monitor);
    disk.fill();
    for _ in 0..50 {
        deliver(server.store());
    }
    all_told(&monitor, 50);
    monitor.wait_log("No space left on device");
    assert!(told(&events(&second), "work").len() < 50, "the disk was not full");
    disk.free();
    monitor.wait("the other one too", |_| told(&events(&second), "work").len() == 50);
    let read_only = Mount::read_only(&at);
    monitor.signal("HUP");
    deliver(server.store());
    all_told(&monitor, 51);
    monitor.wait_log("Read-only file system");
    drop(read_only);
    monitor.wait("the other one too", |_| told(&events(&second), "work").len() == 51);
    assert_eq!(monitor.stop().code(), Some(0));
    assert_eq!(told(&sound(&second), "work"), up_to(51));
}

/// L37: the accounts go on, the other outputs too, whatever is asked of the one that hangs.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_hangs_holds_up_its_own_output_only() {
    let server = server().await;
    let second =
        "[outputs.second]\ntype = \"file\"\npath = \"hangs/second.jsonl\"\nrotate = { max_age = \"1d\" }\n";
    let mut monitor = Monitor::new(&format!("shutdown_timeout = \"2s\"\n{}{second}", account(&server)));
    let Some(disk) = Fuse::mount(&monitor.dir.path().join("hangs")) else { return };
    let copy = monitor.dir.path().join("copy");
    let has = |last: u64| {
        disk.copy("second.jsonl", &copy);
        told(&events(&copy), "work").len() as u64 >= last
    };
    monitor.start();
    online(&monitor);
    deliver(server.store());
    monitor.wait("both have it", |_| has(1));
    disk.hang();
    deliver(server.store());
    all_told(&monitor, 2);
    monitor.wait_log("it has taken nothing for 10s");
    let status = monitor.command().arg("status").output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("output    second stalled"), "{status}");
    disk.go_on();
    monitor.wait_log("the output takes events again");
    assert!(has(2));
    // To close a file that has nothing to write waits too.
    disk.hang();
    monitor.signal("USR1");
    deliver(server.store());
    all_told(&monitor, 3);
    monitor.signal("TERM");
    monitor.wait_log("it did not end in time");
    monitor.wait_log("INFO  stopped");
    // The kernel lets nobody go who waits in it.
    disk.go_on();
    assert_eq!(monitor.wait_end().code(), Some(0));
    monitor.start();
    monitor.wait("the other one too", |_| has(3));
    assert_eq!(monitor.stop().code(), Some(0));
    disk.copy("second.jsonl", &copy);
    assert_eq!(told(&sound(&copy), "work"), up_to(3));
}

/// L5: nobody knows what is on disk then, but for a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_synced_ends_it_with_74_and_nothing_is_lost() {
    let (server, mut monitor) = watching().await;
    monitor.kill();
    let wal = fs::canonicalize(monitor.dir.path()).unwrap().join("state/journal.db-wal");
    let (mut last, mut codes) = (0, Vec::new());
    for when in 1..=6 {
        let mut run = monitor.command();
        run.arg("run");
        let injection = format!("fsync,fdatasync:error=EIO:when={when}");
        monitor.start_by(strace(&run, &[&wal], &[&injection]));
        let stream = Stream::start(server.store(), Duration::from_millis(20));
        codes.push(monitor.wait_end().code().unwrap());
        last = stream.end().await;
    }
    // The first ones come before anything is watched.
    assert!(codes.iter().all(|code| [71, 74].contains(code)) && codes.ends_with(&[74; 3]), "{codes:?}");
    assert!(monitor.log().contains("the journal failed: disk I/O error"));
    monitor.start();
    all_told(&monitor, last);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// L5, for an output: the lane tries again, on a file opened anew.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_cannot_be_synced_once_holds_every_message_once() {
    let (server, mut monitor) = watching().await;
    monitor.kill();
    let output = fs::canonicalize(monitor.output()).unwrap();
    let mut run = monitor.command();
    run.arg("run");
    monitor.start_by(strace(&run, &[&output], &["fsync,fdatasync:error=EIO:when=2"]));
    let stream = Stream::start(server.store(), Duration::from_millis(20));
    monitor.wait_log("the output takes events again");
    let last = stream.end().await;
    all_told(&monitor, last);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// L6
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_only_makes_it_slower() {
    let (server, mut monitor) = watching().await;
    monitor.kill();
    let mut run = monitor.command();
    run.arg("run");
    monitor.start_by(strace(&run, &[], &["fsync,fdatasync:delay_enter=300000"]));
    let stream = Stream::start(server.store(), Duration::from_millis(20));
    monitor.wait("some told", |events| told(events, "work").len() >= 20);
    let last = stream.end().await;
    let events = all_told(&monitor, last);
    assert!(!states(&events, "work").iter().any(|state| state == "backoff"));
    assert_eq!(monitor.stop().code(), Some(0));
}

/// A monitor that was killed with five messages told and five in its journal, and a copy of its state.
async fn with_a_backlog() -> (Server, Monitor, PathBuf) {
    let server = server().await;
    let text =
        format!("{}[outputs.second]\ntype = \"file\"\npath = \"out/second.jsonl\"\n", account(&server));
    let mut monitor = Monitor::new(&text);
    let (out, away) = (monitor.dir.path().join("out"), monitor.dir.path().join("away"));
    fs::create_dir(&out).unwrap();
    monitor.start();
    online(&monitor);
    // So that its first cursor is not in SQLite's log alone.
    assert_eq!(monitor.stop().code(), Some(0));
    monitor.start();
    for last in 1..=10 {
        deliver(server.store());
        monitor.wait("told", |events| told(events, "work").len() == last);
        if last == 5 {
            monitor.wait("told", |_| told(&events(&out.join("second.jsonl")), "work").len() == last);
            fs::rename(&out, &away).unwrap();
        }
    }
    monitor.kill();
    fs::rename(&away, &out).unwrap();
    let kept = monitor.dir.path().join("kept");
    copy(&monitor.dir.path().join("state"), &kept);
    (server, monitor, kept)
}

/// All that was ever told, orphans included, without what stands twice; those must be equal.
fn told_at_all(dir: &Path) -> Vec<u64> {
    let mut by_id = std::collections::BTreeMap::new();
    for file in fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().contains(".jsonl") {
            for mut event in events(&path) {
                event["event"]["sequence"].take();
                let id = event["event"]["id"].as_str().unwrap().to_owned();
                if action(&event) == "message.new" {
                    let uid = event["idlewatch"]["imap"]["uid"].as_u64().unwrap();
                    assert_eq!(*by_id.entry(id).or_insert(uid), uid);
                }
            }
        }
    }
    let mut uids: Vec<_> = by_id.into_values().collect();
    uids.sort_unstable();
    uids
}

/// L7: told by exit code 71 and the way out, or harmless.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_refused_or_loses_nothing() {
    let (_server, mut monitor, kept) = with_a_backlog().await;
    let dir = monitor.dir.path().to_owned();
    let (state, out) = (dir.join("state"), dir.join("out"));
    let (kept_out, kept_file) = (monitor.dir.path().join("kept-out"), fs::read(monitor.output()).unwrap());
    copy(&out, &kept_out);
    let mut random = random();
    let (mut refused, mut harmless) = (0, 0);
    for round in 0..40 {
        copy(&kept, &state);
        copy(&kept_out, &out);
        fs::write(monitor.output(), &kept_file).unwrap();
        let name = if random.random() { "journal.db" } else { "journal.db-wal" };
        let path = state.join(name);
        let mut bytes = fs::read(&path).unwrap();
        let at = random.random_range(0..bytes.len());
        if round % 4 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << random.random_range(0..8);
        }
        fs::write(&path, bytes).unwrap();
        let logged = monitor.log().len();
        monitor.start();
        let log_file = monitor.dir.path().join("log");
        let log = || fs::read_to_string(&log_file).unwrap()[logged..].to_owned();
        let done = || told_at_all(&out).len() >= 10 && told_at_all(monitor.dir.path()).len() >= 10;
        let flipped = format!("round {round}: {name} {at:?} {:#?}", events(&out.join("second.jsonl")).len());
        monitor.wait(&flipped, |_| done() || log().contains("--new-state"));
        if log().contains("--new-state") {
            let words = log();
            assert!(words.contains("journal.db is damaged: "), "{words}");
            assert_eq!(monitor.wait_end().code(), Some(71), "{words}");
            refused += 1;
        } else {
            assert_eq!((told_at_all(&out), told_at_all(&dir)), (up_to(10), up_to(10)), "round {round}");
            assert_eq!(monitor.stop().code(), Some(0));
            assert!(!log().contains("there is no state"), "round {round}: a silent new state");
            harmless += 1;
        }
        for file in fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path()) {
            if file.to_string_lossy().contains(".orphan-") {
                fs::remove_file(file).unwrap();
            }
        }
    }
    assert!(refused > 2 && harmless > 2, "{refused} refused, {harmless} harmless");
}

/// The refusal of a start: its exit code and its words.
fn refusal(monitor: &Monitor) -> (Option<i32>, String) {
    let run = monitor.command();
    let mut timed = Command::new("timeout");
    timed.args(["--kill-after=15", "3"]).arg(run.get_program()).args(run.get_args()).arg("run");
    let refused = timed.output().unwrap();
    (refused.status.code(), String::from_utf8_lossy(&refused.stderr).into_owned())
}

/// L7
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_not_ours_alone_or_not_of_our_time_is_refused_with_the_reason() {
    let (server, mut monitor) = watching().await;
    assert_eq!(monitor.stop().code(), Some(0));
    let state = monitor.dir.path().join("state");
    let journal = state.join("journal.db");
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&state, 0o755);
    let (code, words) = refusal(&monitor);
    assert!(code == Some(71) && words.contains("state: others may enter it (mode 755)"), "{words}");
    mode(&state, 0o700);
    mode(&journal, 0o644);
    let (code, words) = refusal(&monitor);
    assert!(code == Some(71) && words.contains("journal.db: others may read it (mode 644)"), "{words}");
    mode(&journal, 0o600);
    // In SQLite's header, user_version is a big-endian number at byte 60.
    let sound = fs::read(&journal).unwrap();
    let mut newer = sound.clone();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(&journal, newer).unwrap();
    let (code, words) = refusal(&monitor);
    assert!(code == Some(71) && words.contains("was written by a newer idlewatch (schema 99)"), "{words}");
    for damaged in [&[][..], &[0; 8192], b"SQLite format 3\0", &sound[..sound.len() / 2]] {
        fs::write(&journal, damaged).unwrap();
        let (code, words) = refusal(&monitor);
        assert!(code == Some(71) && words.contains("journal.db is damaged: "), "{words}");
        assert_eq!(fs::read(&journal).unwrap(), damaged, "what is refused is left alone");
    }
    fs::write(&journal, sound).unwrap();
    let last = deliver(server.store());
    monitor.start();
    all_told(&monitor, last.into());
}

/// L7: as a user who may not read what another one left; in each case the reason is told, and nothing is taken for new.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_another_user_is_refused_with_the_reason() {
    let server = server().await;
    let mut monitor = Monitor::in_dir(open_dir(), &account(&server));
    let dir = monitor.dir.path().to_owned();
    let (state, program) = (dir.join("state"), dir.join("idlewatch"));
    // Where the program was built, not everybody may go.
    fs::copy(env!("CARGO_BIN_EXE_idlewatch"), &program).unwrap();
    let own = |path: &Path, owner: &str| {
        assert!(Command::new("chown").arg("-R").arg(owner).arg(path).status().unwrap().success());
    };
    own(&dir, "nobody");
    let as_nobody = |dir: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(&program);
        command.arg("-c").arg(dir.join("idlewatch.toml")).arg("run");
        command
    };
    monitor.start_by(as_nobody(&dir));
    online(&monitor);
    deliver(server.store());
    all_told(&monitor, 1);
    monitor.kill();
    for name in ["journal.db", "journal.db-wal", "lock", ""] {
        own(&state.join(name), "root");
        let refused = as_nobody(&dir).output().unwrap();
        let words = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(71), "{name}: {words}");
        assert!(words.contains("state") && words.contains("ermission denied"), "{name}: {words}");
        assert!(!words.contains("damaged") && !words.contains("there is no state"), "{name}: {words}");
        own(&state, "nobody");
    }
    deliver(server.store());
    monitor.start_by(as_nobody(&dir));
    all_told(&monitor, 2);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// L8: the file has gone on for less than a batch, and for more.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_from_yesterday_loses_nothing_and_says_so() {
    for more in [3, 150] {
        let (server, mut monitor) = watching().await;
        let state = monitor.dir.path().join("state");
        for _ in 0..5 {
            deliver(server.store());
        }
        all_told(&monitor, 5);
        assert_eq!(monitor.stop().code(), Some(0));
        copy(&state, &monitor.dir.path().join("yesterday"));
        monitor.start();
        for _ in 0..more {
            deliver(server.store());
        }
        let today = all_told(&monitor, 5 + more);
        monitor.kill();
        copy(&monitor.dir.path().join("yesterday"), &state);
        // What is gone from the server cannot be asked for again.
        server.store().change("bob", "INBOX", |mailbox| mailbox.messages.retain(|message| message.uid != 6));
        let last = u64::from(deliver(server.store()));
        monitor.start();
        let restored = |events: &[Value]| monitor_states(events).contains(&"state_restored");
        monitor.wait("told", |events| restored(events) && told(events, "work").contains(&last));
        assert_eq!(monitor.stop().code(), Some(0));
        sound(&monitor.output());
        assert_eq!(told_at_all(monitor.dir.path()), up_to(last), "{more}");
        let aside = fs::read_dir(monitor.dir.path()).unwrap().filter_map(|file| Some(file.ok()?.path()));
        let aside = aside.into_iter().find(|path| path.to_string_lossy().contains(".orphan-")).unwrap();
        assert!(events(&aside).starts_with(&today), "what was written is still there");
    }
}

/// L9: two that cut back each other's lines would lose them.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_monitor_on_the_same_output_file_is_refused() {
    let (server, monitor) = watching().await;
    let second = Monitor::new(&account(&server));
    let text = fs::read_to_string(second.config()).unwrap();
    fs::write(second.config(), text.replace("events.jsonl", monitor.output().to_str().unwrap())).unwrap();
    let (code, words) = refusal(&second);
    assert!(code == Some(75) && words.contains("another process writes it"), "{words}");
    let last = deliver(server.store());
    all_told(&monitor, last.into());
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// The monitor with its stdout in a pipe, and a journal that is soon full.
fn piped(monitor: &Monitor, server: &Server) -> Child {
    let text = format!(
        "[journal]\nmax_bytes = \"1MiB\"\n[monitor]\nstate_dir = \"state\"\nshutdown_timeout = \"2s\"\n{}",
        account(server)
    );
    fs::write(monitor.config(), text).unwrap();
    let log = File::options().create(true).append(true).open(monitor.dir.path().join("log")).unwrap();
    monitor.command().arg("run").stdout(Stdio::piped()).stderr(log).spawn().unwrap()
}

fn deliver_large(server: &Server, count: usize) {
    let large = format!("From: Eve <eve@example.org>\r\nSubject: {}\r\n\r\n", "news ".repeat(300));
    (0..count).for_each(|_| _ = server.store().deliver("bob", "INBOX", large.as_bytes()));
}

/// L20: what the reader lacks is told by the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_reader_sleeps_can_be_stopped() {
    let (server, monitor) = (server().await, Monitor::new(""));
    let mut child = piped(&monitor, &server);
    let lines = |child: &mut Child| BufReader::new(child.stdout.take().unwrap()).lines();
    let mut first = lines(&mut child).map_while(|line| serde_json::from_str::<Value>(&line.unwrap()).ok());
    let mut heard = Vec::new();
    while !states(&heard, "work").contains(&"online".to_owned()) {
        heard.push(first.next().unwrap());
    }
    deliver_large(&server, 1000);
    monitor.wait_log("the journal is full");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // The pipe still has some, and its last line may be torn: nobody can take that back.
    heard.extend(first);
    let mut child = piped(&monitor, &server);
    let mut second = lines(&mut child).map(|line| event(&line.unwrap()));
    while told(&heard, "work").last() != Some(&1000) {
        heard.push(second.next().unwrap());
    }
    let uids: BTreeSet<_> = told(&heard, "work").into_iter().collect();
    assert!(uids.into_iter().eq(1..=1000));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// L3 and L4: a limit of the size of files (EFBIG, SIGXFSZ) is as good as a full disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_file_sizes_only_holds_it_up() {
    let (server, mut monitor) = watching().await;
    let limit = |bytes: &str| {
        let (pid, size) = (monitor.pid().to_string(), format!("--fsize={bytes}"));
        assert!(Command::new("prlimit").args(["--pid", &pid, &size]).status().unwrap().success());
    };
    let size = fs::metadata(monitor.output()).unwrap().len();
    limit(&format!("{}:unlimited", size + 1500));
    let stream = Stream::start(server.store(), Duration::from_millis(20));
    monitor.wait_log("the journal's disk is full");
    let last = stream.end().await;
    limit("unlimited:unlimited");
    all_told(&monitor, last);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// L11
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_sleeps_holds_fetching_up_and_not_the_connection() {
    let server = server().await;
    let monitor = Monitor::new("");
    let text =
        format!("[journal]\nmax_bytes = \"1MiB\"\n[monitor]\nstate_dir = \"state\"\n{}", account(&server));
    fs::write(monitor.config(), text).unwrap();
    let log = monitor.dir.path().join("log");
    let mut child = monitor
        .command()
        .arg("run")
        .stdout(Stdio::piped())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| event(&line.unwrap()));
    let mut heard = Vec::new();
    while !states(&heard, "work").contains(&"online".to_owned()) {
        heard.push(lines.next().unwrap());
    }
    let large = format!("From: Eve <eve@example.org>\r\nSubject: {}\r\n\r\n", "news ".repeat(300));
    let send = |count| (0..count).for_each(|_| _ = server.store().deliver("bob", "INBOX", large.as_bytes()));
    send(1000);
    monitor.wait_log("the journal is full");
    let before = resident(child.id());
    send(1000);
    std::thread::sleep(Duration::from_secs(2));
    let grown = resident(child.id()).saturating_sub(before);
    assert!(grown < 4 << 20, "grown by {grown} bytes");
    while told(&heard, "work").len() < 2000 {
        heard.push(lines.next().unwrap());
    }
    assert_eq!(told(&heard, "work"), up_to(2000));
    assert_eq!(states(&heard, "work"), ["online"], "the connection was kept");
    assert!(monitor_states(&heard).contains(&"journal_full"));
    while !monitor_states(&heard).contains(&"journal_ok") {
        heard.push(lines.next().unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// L20
#[tokio::test(flavor = "multi_thread")]
async fn a_process_stopped_at_any_moment_ends_well_and_writes_every_message_once() {
    let (server, mut monitor) = watching().await;
    let stream = Stream::start(server.store(), Duration::from_millis(10));
    let mut random = random();
    for _ in 0..20 {
        nap(&mut random, 300);
        // A signal before there is a handler for it is the system's matter.
        monitor.wait("started", |_| monitor.log().matches("watching 1 account").count() > 0);
        assert_eq!(monitor.stop().code(), Some(0));
        sound(&monitor.output());
        fs::remove_file(monitor.dir.path().join("log")).unwrap();
        monitor.start();
    }
    let last = stream.end().await;
    let events = all_told(&monitor, last);
    let count = |wanted| monitor_states(&events).into_iter().filter(|state| *state == wanted).count();
    assert_eq!((count("started"), count("stopping")), (21, 20));
}

/// L21
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_frozen_goes_on() {
    let (server, monitor) = watching().await;
    monitor.signal("STOP");
    deliver(server.store());
    std::thread::sleep(Duration::from_secs(1));
    server.drop_connections();
    deliver(server.store());
    std::thread::sleep(Duration::from_secs(2));
    monitor.signal("CONT");
    let events = all_told(&monitor, 2);
    assert!(states(&events, "work").iter().filter(|state| *state == "backoff").count() <= 1);
}

/// L23
#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_file_is_left_whole_and_the_next_one_begins_where_it_ended() {
    let (server, mut monitor) = watching().await;
    let output = monitor.output();
    let rotated = |name: &str| monitor.dir.path().join(format!("rotated-{name}.jsonl"));
    let mut last = 0;
    for name in ["HUP", "USR1", "", "copytruncate", "removed"] {
        for _ in 0..3 {
            last = u64::from(deliver(server.store()));
        }
        monitor.wait(name, |events| told(events, "work").last() == Some(&last));
        match name {
            "copytruncate" => {
                fs::copy(&output, rotated(name)).unwrap();
                File::options().write(true).open(&output).unwrap().set_len(0).unwrap();
            }
            "removed" => {
                fs::copy(&output, rotated(name)).unwrap();
                fs::remove_file(&output).unwrap();
            }
            _ => fs::rename(&output, rotated(name)).unwrap(),
        }
        if matches!(name, "HUP" | "USR1") {
            monitor.signal(name);
        }
        last = u64::from(deliver(server.store()));
        let events = monitor.wait(name, |events| told(events, "work").last() == Some(&last));
        assert_eq!(told(&events, "work"), [last], "{name}");
        sound(&rotated(name));
        sound(&output);
    }
    assert_eq!(monitor.stop().code(), Some(0));
    assert_eq!(told_at_all(monitor.dir.path()), up_to(last));
}

/// L23: with a stream of mail, and kills between.
#[tokio::test(flavor = "multi_thread")]
async fn files_rotated_while_mail_comes_hold_every_message_once() {
    let (server, mut monitor) = watching().await;
    let stream = Stream::start(server.store(), Duration::from_millis(5));
    let mut random = random();
    for round in 0..12 {
        nap(&mut random, 200);
        let _ = fs::rename(monitor.output(), monitor.dir.path().join(format!("rotated-{round}.jsonl")));
        match round % 3 {
            0 => monitor.signal("HUP"),
            1 => monitor.signal("USR1"),
            _ => assert_eq!(monitor.stop().code(), Some(0)),
        }
        if round % 3 == 2 {
            // One that is not yet up would die of the next signal.
            let before = monitor.log().matches("watching 1 account").count();
            monitor.start();
            monitor.wait("it is up", |_| monitor.log().matches("watching 1 account").count() > before);
        } else {
            monitor.wait("a new file", |_| monitor.output().exists());
        }
    }
    let last = stream.end().await;
    monitor.wait("all told", |_| told_at_all(monitor.dir.path()).len() as u64 == last);
    assert_eq!(monitor.stop().code(), Some(0));
    let mut lines = 0;
    for file in fs::read_dir(monitor.dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.to_string_lossy().ends_with(".jsonl") {
            lines += told(&sound(&path), "work").len() as u64;
        }
    }
    assert_eq!(lines, last, "a message twice");
}

/// L26
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_read_when_it_is_needed_and_stands_in_no_command_line() {
    let server = server().await;
    let monitor = Monitor::new("");
    let secret = monitor.dir.path().join("secret");
    let text = account(&server).replace(&format!("inline = \"{PASSWORD}\""), "file = \"secret\"");
    monitor.configure(&text);
    let mut monitor = monitor;
    monitor.start();
    monitor.wait("told of", |events| states(events, "work") == ["auth_failed"]);
    let told_of = monitor.events().into_iter().find(|event| event["error"]["code"] == "secret").unwrap();
    assert!(told_of["error"]["message"].as_str().unwrap().contains("the secret file"), "{told_of}");
    assert_eq!(monitor.stop().code(), Some(0));
    fs::write(&secret, PASSWORD).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    monitor.start();
    online(&monitor);
    // Rotated while it runs: the next login has the new one.
    let rotated = "CANARY-pw-rotated";
    server.store().set_password("bob", rotated);
    fs::write(&secret, rotated).unwrap();
    server.drop_connections();
    let last = deliver(server.store());
    all_told(&monitor, last.into());
    monitor
        .wait("online again", |events| states(events, "work").last().is_some_and(|state| state == "online"));
    for place in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/{}/{place}", monitor.pid())).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains("CANARY"), "{place}");
    }
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(!format!("{}{:?}", monitor.log(), monitor.events()).contains("CANARY"));
}
