//! Events to a program: whatever it does, every event comes, and nothing else is harmed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::monitor::{Monitor, events, states, told};

/// Whole lines only: the last one is torn where whoever writes it is killed.
const TAKE: &str = "while IFS= read -r line; do printf '%s\\n' \"$line\" >>taken; done\n";

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "canary-of-the-password".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

/// A monitor whose program is this shell script, in the directory of the monitor; `more` stands in `[outputs.exec]`.
struct Case {
    server: Server,
    monitor: Monitor,
}

impl Case {
    async fn start(script: &str, more: &str) -> Self {
        let mut case = Self::prepare(script, more).await;
        case.monitor.start();
        case.online();
        case
    }

    async fn prepare(script: &str, more: &str) -> Self {
        let server = server().await;
        let monitor = Monitor::new("");
        monitor.configure(&format!(
            "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"canary-of-the-password\" }}\n\
             [outputs.exec]\ntype = \"exec\"\ncommand = [\"/bin/bash\", {:?}, \"an argument\"]\ninclude = [\"message.new\"]\n{more}\n",
            server.addr().port(),
            monitor.dir.path().join("script"),
        ));
        let case = Self { server, monitor };
        case.rewrite(script);
        case
    }

    fn rewrite(&self, script: &str) {
        let script = format!("cd {:?}\n{script}", self.monitor.dir.path());
        fs::write(self.file("new-script"), script).unwrap();
        fs::rename(self.file("new-script"), self.file("script")).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.monitor.dir.path().join(name)
    }

    fn online(&self) {
        let is_online = |state: Option<&String>| state.is_some_and(|state| state == "online");
        self.monitor.wait("online", |events| is_online(states(events, "work").last()));
    }

    fn deliver(&self, count: usize) {
        for _ in 0..count {
            self.server.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\nhi\r\n");
        }
    }

    fn uids(&self) -> Vec<u64> {
        told(&events(&self.file("taken")), "work")
    }

    fn wait(&self, uids: &[u64]) {
        self.monitor.wait("taken", |_| self.uids() == uids);
    }
}

/// Wherever the monitor was started.
#[tokio::test(flavor = "multi_thread")]
async fn a_relative_program_is_looked_for_beside_the_configuration() {
    let mut case = Case::prepare("", "").await;
    let text = fs::read_to_string(case.monitor.config()).unwrap();
    let (before, rest) = text.split_once("command = ").unwrap();
    let (_, after) = rest.split_once('\n').unwrap();
    fs::write(case.monitor.config(), format!("{before}command = [\"./take\"]\n{after}")).unwrap();
    let script = format!("#!/bin/bash\ncd {:?}\n{TAKE}", case.monitor.dir.path());
    fs::write(case.file("take"), script).unwrap();
    fs::set_permissions(case.file("take"), fs::Permissions::from_mode(0o755)).unwrap();
    case.monitor.start();
    case.online();
    case.deliver(2);
    case.wait(&[1, 2]);
    assert_eq!(case.monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_whole_lines_in_order_and_an_environment_without_secrets() {
    let script = format!("{TAKE}env >env; tr '\\0' '\\n' </proc/$$/cmdline >argv");
    let more = "environment = { TEAM = \"mail\" }\nbatch = { max_events = 10 }";
    let mut case = Case::prepare(&script, more).await;
    let mut command = case.monitor.command();
    command.arg("run").env("CANARY", "canary-of-the-environment");
    case.monitor.start_by(command);
    case.online();
    case.deliver(35);
    case.wait(&(1..=35).collect::<Vec<_>>());
    assert_eq!(case.monitor.stop().code(), Some(0));
    let read = |name: &str| fs::read_to_string(case.file(name)).unwrap();
    let environment = read("env");
    assert!(!environment.to_lowercase().contains("canary"), "{environment}");
    let names: Vec<_> =
        environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    for name in names {
        let of_ours = [
            "PATH",
            "HOME",
            "LANG",
            "LC_ALL",
            "TZ",
            "TMPDIR",
            "TEAM",
            "IDLEWATCH_INSTANCE",
            "IDLEWATCH_EVENTS",
        ];
        let of_the_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
        assert!(of_ours.contains(&name) || of_the_shell.contains(&name), "{name}");
    }
    assert!(environment.contains("TEAM=mail\n") && environment.contains("IDLEWATCH_INSTANCE=test\n"));
    assert_eq!(read("argv").lines().last(), Some("an argument"));
    assert!(!read("argv").contains("canary"));
}

/// What is no acknowledgement is none, whatever the program read.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_does_not_end_with_zero_gets_the_same_events_again() {
    for (end, words) in [
        ("exit 75", "it ended with 75: line three"),
        ("exit 1", "it ended with 1: line three"),
        ("kill -9 $$", "signal 9 ended it: line three"),
    ] {
        let failing = format!(
            "{TAKE}printf 'line one\\n\\033[2Jtwo\\nline three\\n' >&2\nmkdir once || exit 0\n{end}\n"
        );
        let mut case = Case::start(&failing, "").await;
        case.deliver(1);
        case.wait(&[1, 1]);
        case.monitor.wait_log(words);
        case.monitor.wait_log("the output takes events again");
        assert!(!case.monitor.log().contains('\x1b'));
        assert_eq!(case.monitor.stop().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_person_mends_is_never_given_up() {
    let mut case = Case::start("exit 78", "").await;
    case.deliver(2);
    case.monitor.wait_log("it ended with 78");
    case.monitor.wait("the file has both", |events| told(events, "work") == [1, 2]);
    case.monitor.kill();
    case.rewrite(TAKE);
    case.monitor.start();
    case.wait(&[1, 2]);
    assert!(!case.file("state/dead-letters.jsonl").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_with_65_is_found_and_buried() {
    let script = "cat >batch.$$\nif grep -q '\"uid\":3,' batch.$$; then echo 'poison' >&2; exit 65; fi\nflock lock cat batch.$$ >>taken\n";
    let mut case = Case::start(script, "concurrency = 2").await;
    case.deliver(5);
    case.monitor.wait_log("now in the dead letters: ");
    case.monitor
        .wait("the others", |_| case.uids().into_iter().collect::<BTreeSet<_>>() == [1, 2, 4, 5].into());
    assert_eq!(case.monitor.stop().code(), Some(0));
    let letters = fs::read_to_string(case.file("state/dead-letters.jsonl")).unwrap();
    assert_eq!(letters.lines().count(), 1);
    assert!(letters.contains("\"uid\":3") && letters.contains("poison"), "{letters}");
}

/// The program, its child and its grandchild, deaf to TERM: all are gone, and nobody else waited.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_hangs_is_ended_with_all_that_it_started() {
    let script = "mkdir once || { cat >>taken; exit 0; }\ntrap '' TERM\n(trap '' TERM; echo $BASHPID >child; sleep 1000) &\n(sleep 1000 & echo $! >grandchild) \n\
                  echo $$ >leader\nwhile :; do sleep 1000; done\n";
    let mut case = Case::start(script, "timeout = \"1s\"").await;
    case.deliver(1);
    case.monitor.wait_log("it ran longer than 1s, and was ended");
    case.deliver(1);
    case.monitor.wait("the file has both", |events| told(events, "work") == [1, 2]);
    case.wait(&[1, 2]);
    for name in ["leader", "child", "grandchild"] {
        let pid = fs::read_to_string(case.file(name)).unwrap();
        let is_alive = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        case.monitor.wait(name, |_| !is_alive());
    }
    assert_eq!(case.monitor.stop().code(), Some(0));
}

/// Neither a flood of words, nor deaf ears, nor a child that lives on with our pipe in its hands.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_says_and_leaves_behind_delays_nothing() {
    let script = "mkdir once || { cat >>taken; exit 0; }\nhead -c 300000000 /dev/zero | tr '\\0' x >&2\n(sleep 20 <&0 &)\nexit 75\n";
    let mut case = Case::start(script, "timeout = \"60s\"").await;
    case.deliver(60);
    case.monitor.wait("taken", |_| case.uids().len() == 60);
    assert!(case.monitor.peak_memory() < 100 << 20, "{}", case.monitor.peak_memory());
    case.rewrite("exit 0");
    case.deliver(100);
    case.monitor.wait("the file has them", |events| told(events, "work").len() == 160);
    assert_eq!(case.monitor.stop().code(), Some(0), "what is not read is taken all the same");
}

/// Each waits a while for the three others.
#[tokio::test(flavor = "multi_thread")]
async fn programs_run_at_the_same_time_and_no_more_than_configured() {
    let wait = "trap 'rm -f runs.$$' EXIT\ntouch runs.$$\n\
                for i in {1..50}; do\n  n=$(ls | grep -c '^runs')\n  [ $n -le 4 ] || touch too-many\n  [ $n -lt 4 ] || touch all\n\
                [ ! -e all ] || break\n  sleep 0.02\ndone\nexec 9>lock\nflock 9\n";
    let more = "concurrency = 4\nbatch = { max_events = 8, max_delay = \"2s\" }";
    let mut case = Case::start(&format!("{wait}{TAKE}"), more).await;
    case.deliver(40);
    case.monitor.wait("taken", |_| case.uids().into_iter().collect::<BTreeSet<_>>().into_iter().eq(1..=40));
    assert_eq!(case.uids().len(), 40, "each once");
    assert!(case.file("all").exists() && !case.file("too-many").exists());
    assert_eq!(case.monitor.stop().code(), Some(0));
}

/// The monitor by `kill -9`, the program by its own failures: nothing is missing.
/// Nobody waits for it any more, and the next start offers the same events again.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_hangs_does_not_outlive_the_monitor() {
    let script = "trap '' TERM\necho $$ >leader\nsleep 600 &\necho $! >member\nwait\nsleep 600\n";
    let mut case = Case::prepare(script, "timeout = \"500s\"").await;
    let config = fs::read_to_string(case.monitor.config()).unwrap();
    let config = config.replacen("[monitor]\n", "[monitor]\nshutdown_timeout = \"1s\"\n", 1);
    fs::write(case.monitor.config(), config).unwrap();
    case.monitor.start();
    case.online();
    case.deliver(1);
    let pid = |name: &str| fs::read_to_string(case.file(name)).ok()?.trim().parse::<u32>().ok();
    case.monitor.wait("it runs", |_| pid("member").is_some());
    let started = ["leader", "member"].map(|name| pid(name).unwrap());
    assert_eq!(case.monitor.stop().code(), Some(0));
    let lives = |pid: u32| {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !state.is_empty() && !state.contains(") Z ")
    };
    case.monitor.wait("it is gone", |_| !started.into_iter().any(lives));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_failing_at_random_nothing_is_lost() {
    // Seldom enough that the waits of a chain of failures stay far below the deadline of the test.
    let script =
        format!("{TAKE}[ $((RANDOM % 6)) = 0 ] && exit 75\n[ $((RANDOM % 12)) = 0 ] && kill -9 $$\nexit 0\n");
    let mut case = Case::start(&script, "batch = { max_events = 10 }\nconcurrency = 2").await;
    let mut random = StdRng::seed_from_u64(7);
    let mut sent = 0;
    for _ in 0..8 {
        let count = random.random_range(1..20);
        case.deliver(count);
        sent += count as u64;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        case.monitor.kill();
        case.monitor.start();
    }
    // Two write at once, so lines may be torn by each other; an id for each message is what counts.
    case.monitor.wait("all of them", |_| {
        let text = fs::read_to_string(case.file("taken")).unwrap_or_default();
        (1..=sent).all(|uid| text.contains(&format!("\"uid\":{uid},")))
    });
    case.monitor.wait("the file has each once", |events| told(events, "work").len() as u64 == sent);
}
