//! Every output at once: each consumer in turn is gone for a while, some fail at random, and the monitor is killed in
//! between. Short in the suite; `scripts/prove` runs it long.

#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use crate::proofs::size;
use crate::support::consumers::{Bulk, Streams};
use crate::support::journald::Journald;
#[cfg(feature = "kafka")]
use crate::support::kafka::Kafka;
use crate::support::monitor::{Monitor, events, states};
use crate::support::nats::Nats;
use crate::support::receiver::{Receiver, SECRET};
use crate::support::redis::{PASSWORD, Redis};
use crate::support::rotel::Rotel;
use crate::support::rsyslog::{Rsyslog, Transport};

const USERS: [&str; 5] = ["ann", "ben", "cleo", "dora", "odd"];

/// Of these, no output may get an event of any form of it.
const MAIL: &str = "From: Canary Bird <canary-sender@example.org>\r\nTo: canary-to@example.net\r\n\
                    Message-ID: <canary-id@example.org>\r\nSubject: canary-subject\r\n\r\nhi\r\n";

/// The journal's `max_bytes`, and what the file may have beyond it: the log of writes that is not yet in it.
const JOURNAL: u64 = 8 << 20;
const BEYOND: u64 = 8 << 20;

/// What one holds, with event ids in the order of their arrival.
type Held = Vec<String>;

/// A consumer of each type of output.
pub(crate) struct Consumers {
    hook: Receiver,
    search: Receiver,
    logs: Receiver,
    syslog: Rsyslog,
    journal: Journald,
    collector: Rotel,
    bus: Nats,
    stream: Redis,
    #[cfg(feature = "kafka")]
    topic: Kafka,
    /// Where the monitor is.
    dir: PathBuf,
}

/// Who is gone for a while.
const TURNS: [&str; 9] =
    ["hook", "search", "logs", "syslog", "journal", "collector", "bus", "stream", "program"];

impl Consumers {
    pub(crate) async fn start(dir: &Path) -> Self {
        let consumers = Self {
            hook: Receiver::start([]),
            search: Receiver::of(Bulk::default(), []),
            logs: Receiver::of(Streams::default(), []),
            syslog: Rsyslog::start(Transport::Tls),
            journal: Journald::start(),
            collector: Rotel::start(),
            bus: Nats::start(),
            stream: Redis::start(),
            #[cfg(feature = "kafka")]
            topic: Kafka::start(),
            dir: dir.to_owned(),
        };
        consumers.bus.stream(Duration::from_millis(100)).await;
        for (seed, receiver) in (1..).zip([&consumers.hook, &consumers.search, &consumers.logs]) {
            receiver.be_unreliable(seed);
        }
        consumers.hook.reject("\"odd\"");
        fs::write(dir.join("program"), PROGRAM).unwrap();
        consumers
    }

    pub(crate) fn configuration(&self) -> String {
        let secret = |key: &str, value: &str| format!("{key} = {{ inline = \"{value}\" }}");
        let outputs = [
            ("stdout", "stdout", "format = \"ecs\"".to_owned()),
            (
                "hook",
                "webhook",
                format!(
                    "url = \"http://127.0.0.1:{}\"\n{}\nbatch = {{ max_events = 10 }}",
                    self.hook.port,
                    secret("secret", SECRET)
                ),
            ),
            (
                "search",
                "elasticsearch",
                format!(
                    "url = \"http://127.0.0.1:{}\"\n{}",
                    self.search.port,
                    secret("api_key", "canary-key")
                ),
            ),
            (
                "logs",
                "loki",
                format!(
                    "url = \"http://127.0.0.1:{}\"\ntenant = \"mail\"\nlabels = {{ env = \"test\" }}\n{}",
                    self.logs.port,
                    secret("token", "canary-token")
                ),
            ),
            (
                "syslog",
                "syslog",
                format!(
                    "url = \"{}\"\ntls_options = {{ ca_file = {:?} }}\nhold = \"15s\"",
                    self.syslog.url().replace("127.0.0.1", "localhost"),
                    self.syslog.ca_file()
                ),
            ),
            ("journal", "journald", format!("socket = {:?}\ntimeout = \"1s\"", self.journal.socket())),
            (
                "collector",
                "otlp",
                format!(
                    "url = \"http://127.0.0.1:{}\"\nuser = \"bob\"\n{}\ntimeout = \"2s\"",
                    self.collector.port,
                    secret("password", "canary-otlp")
                ),
            ),
            (
                "bus",
                "nats",
                format!("url = \"nats://127.0.0.1:{}\"\ntimeout = \"2s\"\nhold = \"1s\"", self.bus.port),
            ),
            (
                "stream",
                "redis",
                format!(
                    "url = \"redis://127.0.0.1:{}\"\nuser = \"mail\"\n{}\ntimeout = \"2s\"",
                    self.stream.port,
                    secret("password", PASSWORD)
                ),
            ),
            ("program", "exec", format!("command = [\"bash\", {:?}]", self.dir.join("program"))),
            #[cfg(feature = "kafka")]
            ("topic", "kafka", format!("brokers = [{}]\ntimeout = \"2s\"", self.topic.brokers())),
        ];
        let output = |(name, kind, more): &(&str, &str, String)| {
            let include = if *name == "stdout" { "" } else { "include = [\"message.new\"]\n" };
            format!("[outputs.{name}]\ntype = \"{kind}\"\n{include}{more}\n")
        };
        outputs.iter().map(output).collect()
    }

    fn go(&mut self, who: &str) {
        match who {
            "hook" => self.hook.close(true),
            "search" => self.search.close(true),
            "logs" => self.logs.close(true),
            "syslog" => self.syslog.kill(),
            // What these two have read and not yet written down ends with them: they are asleep.
            "journal" => self.journal.signal("STOP"),
            "collector" => self.collector.signal("STOP"),
            "bus" => self.bus.kill(),
            "stream" => self.stream.kill(),
            "program" => fs::write(self.dir.join("closed"), "").unwrap(),
            #[cfg(feature = "kafka")]
            "topic" => self.topic.down(),
            other => panic!("{other}"),
        }
    }

    fn come_back(&mut self, who: &str) {
        match who {
            "hook" => self.hook.close(false),
            "search" => self.search.close(false),
            "logs" => self.logs.close(false),
            "syslog" => self.syslog.launch(),
            "journal" => self.journal.signal("CONT"),
            "collector" => self.collector.signal("CONT"),
            "bus" => self.bus.launch(),
            "stream" => self.stream.launch(),
            "program" => fs::remove_file(self.dir.join("closed")).unwrap(),
            #[cfg(feature = "kafka")]
            "topic" => self.topic.up(),
            other => panic!("{other}"),
        }
    }

    /// What each holds of `message.new`.
    async fn held(&self, who: &str) -> Held {
        let ids = |events: Vec<serde_json::Value>| -> Held {
            let new = events.into_iter().filter(|event| event["event"]["action"] == "message.new");
            new.map(|event| event["event"]["id"].as_str().unwrap().to_owned()).collect()
        };
        match who {
            "stdout" => ids(events(&self.dir.join("stdout"))),
            "hook" => ids(self.hook.taken()),
            "search" => ids(self.search.taken()),
            "logs" => ids(self.logs.taken()),
            "syslog" => ids(self.syslog.received().into_iter().map(|message| message.event).collect()),
            "journal" => {
                let entries = self.journal.journalctl(&["IDLEWATCH_EVENT_ACTION=message.new"]);
                entries.iter().map(|entry| entry["IDLEWATCH_EVENT_ID"].as_str().unwrap().to_owned()).collect()
            }
            "collector" => self.collector.ids(),
            "bus" => ids(self.bus.stored().await.into_iter().map(|(_, event)| event).collect()),
            "stream" => ids(self.stream.events()),
            "program" => ids(events(&self.dir.join("told"))),
            #[cfg(feature = "kafka")]
            "topic" => ids(self.topic.events().into_values().flatten().collect()),
            other => panic!("{other}"),
        }
    }

    /// Everything that any of them was sent, as far as it is text.
    fn sent(&self) -> String {
        let bodies =
            [&self.hook, &self.search, &self.logs].map(|receiver| receiver.bodies().concat()).concat();
        let lines = ["stdout", "told", "events.jsonl"].map(|file| read(&self.dir.join(file))).concat();
        let entries = self.journal.journalctl(&[]).iter().map(ToString::to_string).collect::<String>();
        let rest = self.stream.events().iter().map(ToString::to_string).collect::<String>();
        #[cfg(feature = "kafka")]
        let rest =
            rest + &self.topic.records().iter().map(|record| record.event.to_string()).collect::<String>();
        [bodies, lines, entries, rest, self.collector.log(), self.syslog.text()].concat()
    }
}

/// Takes whole batches, fails at random, and is sometimes closed.
const PROGRAM: &str = "cd \"$(dirname \"$0\")\"; [ -e closed ] && exit 75; [ $((RANDOM % 8)) -eq 0 ] && exit 1\n\
                       cat > \"got.$$\"; got=$(wc -l < \"got.$$\"); [ \"$got\" -eq \"$IDLEWATCH_EVENTS\" ] && cat \"got.$$\" >> told; status=$?\n\
                       rm -f \"got.$$\"; exit $status\n";

/// As a shell has it: the output is appended to a file over all lives.
fn start(monitor: &mut Monitor) {
    let own = monitor.command();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" run >> \"$(dirname \"$2\")/stdout\""]);
    command.arg(own.get_program()).args(own.get_args());
    monitor.start_by(command);
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What must hold at any time.
fn look(monitor: &Monitor, most: &mut (u64, u64)) {
    let bytes =
        |name: &str| fs::metadata(monitor.dir.path().join("state").join(name)).map_or(0, |file| file.len());
    let journal = bytes("journal.db") + bytes("journal.db-wal");
    *most = (most.0.max(monitor.memory()), most.1.max(journal));
    assert!(journal < JOURNAL + BEYOND, "the journal has {journal} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_gone_every_consumer_gets_every_event() {
    let total = size("IDLEWATCH_JOINT_EVENTS", 300);
    let pause = Duration::from_secs(size("IDLEWATCH_JOINT_PAUSE", 1) as u64);
    let store = Store::new(USERS.map(|user| (user.to_owned(), "canary-imap".to_owned())));
    let server = Server::start(store, Behaviour::default()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut consumers = Consumers::start(dir.path()).await;
    let mut monitor = Monitor::in_dir(dir, "");
    let account = |user| {
        format!(
            "[[accounts]]\nid = \"{user}\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"{user}\"\npassword = {{ inline = \"canary-imap\" }}\n",
            server.addr().port()
        )
    };
    monitor.configure(&format!(
        "{}[journal]\nmax_bytes = \"8MiB\"\n[privacy]\nsubject = \"omit\"\naddresses = \"omit\"\nmessage_id = \"omit\"\n{}",
        USERS.map(account).concat(),
        consumers.configuration()
    ));
    start(&mut monitor);
    for user in USERS {
        monitor.wait("online", |events| states(events, user).last().is_some_and(|state| state == "online"));
    }
    let mut most = (0, 0);
    let mut turns = TURNS.to_vec();
    if cfg!(feature = "kafka") {
        turns.push("topic");
    }
    let mut sent = 0;
    server.store().deliver("odd", "INBOX", MAIL.as_bytes());
    for (turn, who) in turns.iter().enumerate() {
        consumers.go(who);
        let until = Instant::now() + pause;
        let here = total * (turn + 1) / turns.len() - sent;
        for n in 0..here {
            server.store().deliver(USERS[n % 4], "INBOX", MAIL.as_bytes());
            tokio::time::sleep(pause / (2 * here as u32)).await;
            if n % 50 == 0 {
                look(&monitor, &mut most);
            }
            if turn % 2 == 0 && n == here / 2 {
                monitor.kill();
                start(&mut monitor);
            }
        }
        sent += here;
        tokio::time::sleep(until.saturating_duration_since(Instant::now())).await;
        look(&monitor, &mut most);
        consumers.come_back(who);
    }
    monitor.wait_for_lines("\"action\":\"message.new\"", total + 1);
    let truth = monitor.events();
    let truth: Vec<_> = truth.iter().filter(|event| event["event"]["action"] == "message.new").collect();
    let place: BTreeMap<&str, (&str, u64)> = truth
        .iter()
        .map(|event| {
            let (account, uid) = (&event["idlewatch"]["account"]["id"], &event["idlewatch"]["imap"]["uid"]);
            (event["event"]["id"].as_str().unwrap(), (account.as_str().unwrap(), uid.as_u64().unwrap()))
        })
        .collect();
    assert_eq!((truth.len(), place.len()), (total + 1, total + 1), "the file has each once");
    turns.push("stdout");
    let mut report = String::new();
    for who in turns {
        let wanted: BTreeSet<&str> =
            place.iter().filter(|(_, place)| who != "hook" || place.0 != "odd").map(|(id, _)| *id).collect();
        let held = wait(&consumers, who, &wanted, &monitor).await;
        let twice = held.len() - wanted.len();
        report.push_str(&format!(" {who} {twice},"));
        assert!(twice == 0 || !["search", "logs", "bus"].contains(&who), "{who}: {twice} twice");
        in_order(who, &held, &place);
    }
    monitor.wait_log("now in the dead letters");
    look(&monitor, &mut most);
    assert!(most.0 < 160 << 20, "{} bytes of memory", most.0);
    assert_eq!(monitor.stop().code(), Some(0));
    let letters = read(&monitor.dir.path().join("state/dead-letters.jsonl"));
    assert_eq!(letters.lines().count(), 1, "{letters}");
    withheld("the outputs", &consumers.sent());
    withheld("the dead letters", &letters);
    let log = monitor.log();
    // Lines of TRACE hold what a server said, but no secret.
    withheld("the log", &log.lines().filter(|line| !line.contains(" TRACE ")).collect::<String>());
    let secrets = [SECRET, PASSWORD, "canary-key", "canary-token", "canary-otlp", "canary-imap"];
    let state = ["journal.db", "journal.db-wal"]
        .map(|name| fs::read(monitor.dir.path().join("state").join(name)).unwrap_or_default());
    let state = String::from_utf8_lossy(&state.concat()).into_owned();
    for secret in secrets {
        assert!(!log.contains(secret) && !state.contains(secret), "{secret}");
    }
    println!(
        "{total} events, {} consumers gone for {pause:?} each, the monitor killed 5 times: 0 lost; twice:{report} {} MiB of memory and {} MiB of journal at most",
        TURNS.len() + usize::from(cfg!(feature = "kafka")),
        most.0 >> 20,
        most.1 >> 20
    );
}

async fn wait(consumers: &Consumers, who: &str, wanted: &BTreeSet<&str>, monitor: &Monitor) -> Held {
    let end = Instant::now() + Duration::from_secs(180);
    loop {
        let held = consumers.held(who).await;
        let known: BTreeSet<&str> = held.iter().map(String::as_str).collect();
        if known == *wanted {
            return held;
        }
        let missing = wanted.difference(&known).count();
        assert!(Instant::now() < end, "{who} lacks {missing} of {}\n{}", wanted.len(), monitor.log());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What comes again may; what comes first comes in the mailbox's order.
fn in_order(who: &str, held: &Held, place: &BTreeMap<&str, (&str, u64)>) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for id in held.iter().filter(|id| known.insert(id.as_str())) {
        let (account, uid) = place[id.as_str()];
        let before = last.insert(account, uid).unwrap_or(0);
        assert!(before < uid, "{who}: {account} has {uid} behind {before}");
    }
}

fn withheld(where_to: &str, text: &str) {
    let found = text.find("canary").map(|at| text.get(at.saturating_sub(200)..(at + 100).min(text.len())));
    assert_eq!(found, None, "{where_to}");
}
