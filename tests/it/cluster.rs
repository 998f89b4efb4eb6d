//! Several monitors that share the accounts, over one journal in PostgreSQL: they come, go, die, sleep, and are cut off.

// What was measured is for whoever runs the proofs at length.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use serde_json::Value;

use crate::admin::{address, http, request};
use crate::http::Description;
use crate::proofs::size;
use crate::support::filter::Rule;
use crate::support::monitor::Monitor;
use crate::support::namespace::Namespace;
use crate::support::postgres::{Database, Postgres};
use crate::support::receiver::{Receiver, SECRET};

mod rolling;

const ACCOUNTS: usize = 60;

/// Monitors by their names, with the same accounts of one server.
struct Cluster {
    accounts: usize,
    /// They go before the database, which else waits at its end for all that are connected.
    nodes: BTreeMap<&'static str, Monitor>,
    server: Server,
    postgres: Postgres,
    database: Database,
    /// Where the monitors reach both.
    mail_address: Ipv4Addr,
    database_address: Ipv4Addr,
    /// More of the configuration of all of them.
    beside: String,
    /// In place of this in it, that.
    aliases: Option<(String, String)>,
    ttl: &'static str,
    /// Logins a second.
    pace: usize,
    /// What was delivered, for each account.
    delivered: u64,
}

/// Notes each message that a commit stores; what changes hands is not stored anew.
const AUDIT: &str = "CREATE TABLE audit (id text);
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.action = 'message.new' AND current_query() LIKE '%commit_round%' THEN
            INSERT INTO public.audit VALUES (new.payload::jsonb ->> 'id');
        END IF;
        RETURN new;
    END $$;
    CREATE TRIGGER audit AFTER INSERT ON idlewatch.events FOR EACH ROW EXECUTE FUNCTION audit();
    GRANT INSERT ON audit TO idlewatch";

impl Cluster {
    /// An output of its monitors beside their files, in small batches.
    fn hook(&mut self) -> Receiver {
        let receiver = Receiver::start([]);
        receiver.reject("no such text");
        self.beside = format!(
            "[outputs.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\nsecret = {{ inline = \"{SECRET}\" }}\ninclude = [\"message.new\"]\nbatch = {{ max_events = 10 }}\n",
            receiver.port
        );
        receiver
    }

    async fn start() -> Self {
        Self::of(ACCOUNTS).await
    }

    async fn of(accounts: usize) -> Self {
        Self::at(Ipv4Addr::LOCALHOST, Postgres::start(), Ipv4Addr::LOCALHOST, accounts).await
    }

    /// One of its monitors may be in this network.
    async fn around(apart: &Namespace, accounts: usize) -> Self {
        let mut postgres = Postgres::start();
        postgres.listen_at(apart.database);
        Self::at(apart.mail, postgres, apart.database, accounts).await
    }

    async fn at(
        mail_address: Ipv4Addr,
        postgres: Postgres,
        database_address: Ipv4Addr,
        accounts: usize,
    ) -> Self {
        let users = (1..=accounts).map(|n| (format!("user{n}"), "pw".to_owned()));
        let store = Store::new(users);
        let server = Server::start_at(mail_address.into(), store, Behaviour::default()).await.unwrap();
        let database = postgres.database();
        Self {
            accounts,
            server,
            postgres,
            database,
            mail_address,
            database_address,
            nodes: BTreeMap::new(),
            beside: String::new(),
            aliases: None,
            ttl: "2s",
            pace: 1000,
            delivered: 0,
        }
    }

    /// Follows the database; its monitors know both.
    fn standby(&mut self) -> Postgres {
        let standby = self.postgres.standby();
        let (one, other, host) = (self.postgres.port, standby.port, self.database_address);
        self.aliases = Some((format!(":{one}/"), format!(":{one},{host}:{other}/")));
        standby
    }

    fn configuration(&self) -> String {
        let (host, port) = (self.mail_address, self.server.addr().port());
        let account = |n| {
            format!(
                "[[accounts]]\nid = \"user{n}\"\nhost = \"{host}\"\nport = {port}\ntls = \"none\"\nallow_plaintext = true\nuser = \"user{n}\"\npassword = {{ inline = \"pw\" }}\n"
            )
        };
        let accounts: String = (1..=self.accounts).map(account).collect();
        format!(
            "[connections.per_host]\nrate = \"{}/s\"\n{accounts}{}allow_plaintext = true\n{}",
            self.pace,
            self.database.keys_at(self.database_address, self.ttl),
            self.beside
        )
    }

    /// The first monitor: every mailbox has its baseline.
    fn begin(&mut self, name: &'static str) {
        self.join(name);
        self.wait("all online", || {
            self.nodes.values().any(|node| logins(&node.events()).len() == self.accounts)
        });
    }

    /// A monitor that was not there before.
    fn join(&mut self, name: &'static str) {
        self.join_by(name, Monitor::command);
    }

    /// In a network of its own.
    fn join_in(&mut self, apart: &Namespace, name: &'static str) {
        self.join_by(name, |node| apart.within(&node.command()));
    }

    fn join_by(&mut self, name: &'static str, command: impl FnOnce(&Monitor) -> Command) {
        let monitor = Monitor::new(&self.configuration());
        let config = std::fs::read_to_string(monitor.config()).unwrap();
        let config = self.aliases.iter().fold(config, |config, (from, to)| config.replace(from, to));
        let named = config.replacen("instance = \"test\"", &format!("instance = \"{name}\""), 1);
        std::fs::write(monitor.config(), named).unwrap();
        self.nodes.insert(name, monitor);
        self.run(name, command);
        self.node(name).wait_log("watching");
    }

    /// It was here before.
    fn begin_again(&mut self, name: &str) {
        self.run(name, Monitor::command);
    }

    fn run(&mut self, name: &str, command: impl FnOnce(&Monitor) -> Command) {
        let node = self.node(name);
        let mut command = command(node);
        // All that is said of thousands of connections would be what it mostly does.
        command.arg("run").env("RUST_LOG", "info");
        node.start_by(command);
    }

    fn ask(&self, sql: &str) -> String {
        self.postgres.ask(&self.database.name, sql)
    }

    /// How many shards each has; nobody: an empty name.
    fn shards(&self) -> BTreeMap<String, usize> {
        let rows = self.ask("SELECT owner, count(*) FROM idlewatch.shards GROUP BY owner");
        let row =
            |row: &str| row.split_once('|').map(|(name, count)| (name.to_owned(), count.parse().unwrap()));
        rows.lines().filter_map(row).collect()
    }

    /// Waits until exactly these have all the shards, in fair parts.
    fn wait_shared(&self, names: &[&str]) {
        let most = 1024usize.div_ceil(names.len());
        self.wait(&format!("shared by {names:?}"), || {
            let shards = self.shards();
            shards.keys().map(String::as_str).eq(names.iter().copied()) && shards.values().all(|n| *n <= most)
        });
    }

    /// Waits until these have all the shards, however many each.
    fn wait_taken_over(&self, names: &[&str]) {
        self.wait(&format!("taken over by {names:?}"), || {
            self.shards().keys().all(|name| names.contains(&name.as_str()))
        });
    }

    fn wait(&self, what: &str, wanted: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(120);
        while !wanted() {
            assert!(Instant::now() < end, "{what}: {}", self.how_it_is());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn how_it_is(&self) -> String {
        let logs: Vec<_> =
            self.nodes.iter().map(|(name, node)| format!("{name}:\n{}", tail(&node.log()))).collect();
        let all = self.accounts * usize::try_from(self.delivered).unwrap();
        format!(
            "{:?}, {} of {all} told\n{}\n{}",
            self.shards(),
            self.told().messages.len(),
            self.ask("SELECT * FROM idlewatch.lanes ORDER BY node, name"),
            logs.join("\n")
        )
    }

    /// So many more messages in every mailbox.
    fn deliver(&mut self, count: u64) {
        for _ in 0..count {
            for n in 1..=self.accounts {
                self.server.store().deliver(&format!("user{n}"), "INBOX", b"Subject: x\r\n\r\nhi\r\n");
            }
        }
        self.delivered += count;
    }

    /// Waits until every message was told, by whomever; how many lines that took.
    fn wait_told(&self) -> Told {
        let all: BTreeSet<_> = (1..=self.accounts)
            .flat_map(|n| (1..=self.delivered).map(move |uid| (format!("user{n}"), uid)))
            .collect();
        self.wait("all told", || self.told().messages == all);
        self.told()
    }

    fn told(&self) -> Told {
        let mut told = Told::default();
        for lines in
            self.nodes.values().map(|node| std::fs::read_to_string(node.output()).unwrap_or_default())
        {
            let complete = lines.rfind('\n').map_or("", |end| &lines[..end]);
            for line in complete.lines().filter(|line| line.contains(NEW)) {
                let event: Value = serde_json::from_str(line).unwrap();
                told.lines += 1;
                told.ids.insert(text(&event["event"]["id"]));
                let uid = event["idlewatch"]["imap"]["uid"].as_u64().unwrap();
                told.messages.insert((text(&event["idlewatch"]["account"]["id"]), uid));
            }
        }
        told
    }

    /// What each says of itself.
    fn troubles(&self) -> String {
        let status = |node: &Monitor| node.command().arg("status").output().unwrap().stdout;
        self.nodes.values().map(|node| String::from_utf8_lossy(&status(node)).into_owned()).collect()
    }

    /// Lines that tell a message, not looked at any closer: there may be many of them.
    fn lines(&self) -> usize {
        let lines =
            self.nodes.values().map(|node| std::fs::read_to_string(node.output()).unwrap_or_default());
        lines.map(|lines| lines.matches(NEW).count()).sum()
    }

    /// Each message was told, by one line.
    fn wait_told_once(&self) {
        let told = self.wait_told();
        assert_eq!((told.lines, told.ids.len()), (told.messages.len(), told.messages.len()));
    }

    /// Each message was told, and by one id; and none was stored twice.
    fn wait_stored_once(&self) {
        let told = self.wait_told();
        assert_eq!(told.ids.len(), told.messages.len());
        let stored = self.ask("SELECT count(*), count(DISTINCT id) FROM audit");
        let messages = told.messages.len();
        assert_eq!(stored, format!("{messages}|{messages}"));
    }

    /// What these outputs were told is known to be told: a takeover repeats nothing.
    fn wait_taken(&self, outputs: &[&str]) {
        let outputs = outputs.join("', '");
        let open = format!(
            "SELECT count(*) FROM idlewatch.events JOIN idlewatch.lanes USING (node)
                WHERE action = 'message.new' AND name IN ('{outputs}') AND position < sequence AND name <> ALL (had)"
        );
        self.wait("taken", || self.ask(&open) == "0");
    }

    /// Waits until all that was sent was told, by one id each, and stored once.
    fn wait_sent(&self, sent: usize) {
        let all_told = || self.lines() >= sent && self.told().messages.len() == sent;
        // A busy machine works off what came meanwhile.
        let (mut lines, mut moved, end) = (0, Instant::now(), Instant::now() + Duration::from_secs(600));
        while !all_told() && Instant::now() < end {
            let now = self.lines();
            if now > lines {
                (lines, moved) = (now, Instant::now());
            }
            let stuck = moved.elapsed() > Duration::from_secs(60);
            assert!(!stuck, "{now} of {sent} lines, and no more in a minute: {}", self.troubles());
            std::thread::sleep(Duration::from_secs(1));
        }
        let told = self.told();
        let stored = self.ask("SELECT count(*), count(DISTINCT id) FROM audit");
        println!("{sent} messages: told by {} lines, stored {stored}", told.lines);
        assert_eq!((told.ids.len(), stored), (sent, format!("{sent}|{sent}")));
    }

    fn node(&mut self, name: &str) -> &mut Monitor {
        self.nodes.get_mut(name).unwrap()
    }
}

/// One message after the other, to all accounts in turn.
struct Traffic {
    over: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Traffic {
    /// So many a second.
    fn start(cluster: &Cluster, rate: usize) -> Self {
        let (store, accounts) = (cluster.server.store().clone(), cluster.accounts);
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = std::thread::spawn(move || {
            let (start, mut sent) = (Instant::now(), 0_usize);
            while !ends.load(Ordering::Relaxed) {
                let user = format!("user{}", sent * 7919 % accounts + 1);
                store.deliver(&user, "INBOX", b"Subject: x\r\n\r\nhi\r\n");
                sent += 1;
                let due = start + Duration::from_secs_f64(sent as f64 / rate as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            sent
        });
        Self { over, thread }
    }

    /// How many were sent.
    fn stop(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

const NEW: &str = "\"action\":\"message.new\"";

#[derive(Default)]
struct Told {
    lines: usize,
    ids: BTreeSet<String>,
    messages: BTreeSet<(String, u64)>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn tail(log: &str) -> String {
    let told = log.lines().filter(|line| !line.contains(" TRACE ") && !line.contains(" DEBUG "));
    told.collect::<Vec<_>>().into_iter().rev().take(12).collect::<Vec<_>>().join("\n")
}

/// How often an account came online at a monitor.
fn logins(events: &[Value]) -> BTreeMap<String, usize> {
    let mut logins = BTreeMap::new();
    for event in events.iter().filter(|event| event["idlewatch"]["account"]["state"] == "online") {
        *logins.entry(text(&event["idlewatch"]["account"]["id"])).or_default() += 1;
    }
    logins
}

#[tokio::test(flavor = "multi_thread")]
async fn monitors_that_come_and_go_share_the_accounts_and_only_what_moves_logs_in_again() {
    let mut cluster = Cluster::start().await;
    cluster.begin("a");
    cluster.deliver(1);
    cluster.wait_told_once();
    cluster.join("b");
    cluster.deliver(1);
    cluster.wait_shared(&["a", "b"]);
    cluster.deliver(1);
    cluster.wait_told_once();
    let before = logins(&cluster.node("a").events());
    assert!(before.len() == ACCOUNTS && before.values().all(|n| *n == 1), "what stays goes on: {before:?}");
    let moved = logins(&cluster.node("b").events());
    assert!(moved.len() > ACCOUNTS / 5 && moved.len() < ACCOUNTS, "{moved:?}");
    assert_eq!(cluster.node("b").stop().code(), Some(0));
    cluster.wait_shared(&["a"]);
    cluster.deliver(1);
    cluster.wait_told_once();
    let after = logins(&cluster.node("a").events());
    for (account, count) in after {
        assert_eq!(count, 1 + usize::from(moved.contains_key(&account)), "{account}");
    }
    assert_eq!(cluster.node("a").stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_monitor_had_is_taken_over_by_all_that_live() {
    let mut cluster = Cluster::start().await;
    cluster.begin("a");
    cluster.ask(AUDIT);
    cluster.join("b");
    cluster.join("c");
    cluster.wait_shared(&["a", "b", "c"]);
    cluster.deliver(5);
    cluster.wait_told_once();
    cluster.deliver(5);
    cluster.node("c").kill();
    cluster.deliver(5);
    cluster.wait_shared(&["a", "b"]);
    cluster.deliver(5);
    cluster.wait_stored_once();
    // Under the same name it is there again, and what it had is its own again.
    let before = cluster.node("c").events();
    cluster.begin_again("c");
    cluster.wait_shared(&["a", "b", "c"]);
    cluster.deliver(5);
    cluster.wait_stored_once();
    assert!(cluster.node("c").events().len() > before.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_was_asleep_stores_nothing_of_what_went_to_others() {
    let mut cluster = Cluster::start().await;
    cluster.begin("a");
    cluster.ask(AUDIT);
    cluster.join("b");
    cluster.wait_shared(&["a", "b"]);
    cluster.deliver(5);
    cluster.wait_told_once();
    cluster.node("b").signal("STOP");
    cluster.deliver(10);
    cluster.wait_shared(&["a"]);
    cluster.wait_told();
    // Its connections have heard of all that came, and of this.
    cluster.deliver(5);
    cluster.node("b").signal("CONT");
    cluster.node("b").wait_log("went to others");
    cluster.wait_shared(&["a", "b"]);
    cluster.deliver(5);
    cluster.wait_stored_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_is_cut_off_from_the_database_keeps_still_while_others_have_its_accounts() {
    let apart = Namespace::new();
    let mut cluster = Cluster::around(&apart, ACCOUNTS).await;
    cluster.begin("a");
    cluster.ask(AUDIT);
    cluster.join_in(&apart, "b");
    cluster.wait_shared(&["a", "b"]);
    cluster.deliver(5);
    cluster.wait_told_once();
    cluster.wait_watched_once();
    let ended = cluster.ended();
    let cut = apart.cut();
    cluster.deliver(5);
    cluster.wait_shared(&["a"]);
    cluster.deliver(5);
    cluster.wait_told();
    // Nobody tells it: it has waited for an answer.
    cluster.node("b").wait_log("the journal's database cannot be reached");
    assert_eq!(cluster.ended(), ended, "its mailboxes are as near as before");
    drop(cut);
    cluster.wait_shared(&["a", "b"]);
    cluster.deliver(5);
    cluster.wait_stored_once();
}

/// What waits for an output goes on waiting elsewhere, and what others of its outputs had is not told by them again.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_an_output_is_inherited_with_what_is_known_of_it() {
    let mut cluster = Cluster::start().await;
    let receiver = cluster.hook();
    cluster.begin("a");
    cluster.join("b");
    cluster.wait_shared(&["a", "b"]);
    cluster.deliver(1);
    cluster.wait_told_once();
    cluster.wait_taken(&["file", "hook"]);
    let away = Rule::new(receiver.port, "reject with tcp reset");
    cluster.deliver(3);
    cluster.wait_told_once();
    cluster.wait_taken(&["file"]);
    cluster.node("b").kill();
    cluster.wait_shared(&["a"]);
    cluster.deliver(1);
    cluster.wait_told_once();
    drop(away);
    let all = ACCOUNTS * 5;
    cluster.wait("the receiver has it", || {
        let taken = receiver.taken();
        taken.iter().map(|event| text(&event["event"]["id"])).collect::<BTreeSet<_>>().len() == all
    });
    // In the order of each mailbox: what the dead one may have told, without hearing an answer, and then on from there.
    let mut uids: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for event in receiver.taken() {
        let teller = (text(&event["idlewatch"]["account"]["id"]), text(&event["idlewatch"]["instance"]));
        uids.entry(teller).or_default().push(event["idlewatch"]["imap"]["uid"].as_u64().unwrap());
    }
    for (teller, told) in uids {
        assert!(told.is_sorted_by(|one, next| one + 1 == *next), "{teller:?}: {told:?}");
    }
    cluster.wait_told_once();
}

/// Each of them has a batch in hand, and waits to offer it again, when some of it goes to the other.
#[tokio::test(flavor = "multi_thread")]
async fn what_moves_while_an_output_is_away_is_told_to_it_once() {
    let mut cluster = Cluster::start().await;
    let receiver = cluster.hook();
    cluster.begin("a");
    cluster.join("b");
    cluster.wait_shared(&["a", "b"]);
    receiver.close(true);
    cluster.deliver(2);
    cluster.wait_told_once();
    cluster.wait_taken(&["file"]);
    let accounts = |cluster: &Cluster, name: &str| {
        let held = format!(
            "SELECT account FROM idlewatch.cursors JOIN idlewatch.shards ON id = shard WHERE owner = '{name}' ORDER BY account"
        );
        cluster.ask(&held).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let first: Vec<_> = accounts(&cluster, "a").into_iter().skip(1).collect();
    let mut moving = cluster.nodes["a"].command();
    let moved = moving.args(["cluster", "move"]).args(&first).args(["--to", "b"]).output().unwrap();
    assert_eq!(moved.status.code(), Some(0));
    cluster.wait("moved", || first.iter().all(|account| accounts(&cluster, "b").contains(account)));
    receiver.close(false);
    for node in cluster.nodes.values() {
        assert!(node.command().args(["outputs", "retry", "hook"]).status().unwrap().success());
    }
    let all = ACCOUNTS * 2;
    let ids =
        |taken: &[Value]| taken.iter().map(|event| text(&event["event"]["id"])).collect::<BTreeSet<_>>();
    cluster.wait("the receiver has it", || ids(&receiver.taken()).len() == all);
    cluster.wait("both have offered what they had", || {
        cluster.nodes.values().all(|node| {
            let listed = node.command().args(["outputs", "list", "--json"]).output().unwrap().stdout;
            let listed = String::from_utf8(listed).unwrap();
            let hook = listed.lines().find(|line| line.contains("\"hook\"")).unwrap();
            let hook: Value = serde_json::from_str(hook).unwrap();
            hook["waiting"] == 0
        })
    });
    let mut tellers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in receiver.taken() {
        let teller = text(&event["idlewatch"]["instance"]);
        tellers.entry(text(&event["event"]["id"])).or_default().push(teller);
    }
    assert!(tellers.values().all(|tellers| tellers.len() == 1), "{tellers:?}");
}

/// It knows nothing of who came last, nor of what was told last.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_forgets_who_has_what_loses_nothing() {
    let mut cluster = Cluster::start().await;
    let standby = cluster.standby();
    cluster.begin("a");
    cluster.deliver(3);
    cluster.wait_told_once();
    let at = |server: &Postgres| server.ask(&cluster.database.name, "SELECT last FROM idlewatch.nodes");
    cluster.wait("replicated", || at(&cluster.postgres) == at(&standby));
    standby.stop_following();
    let followers = "SELECT count(*) FROM pg_stat_replication";
    cluster.wait("apart", || cluster.postgres.ask("postgres", followers) == "0");
    cluster.join("b");
    cluster.wait_shared(&["a", "b"]);
    cluster.deliver(3);
    cluster.wait_told_once();
    cluster.postgres.kill();
    standby.promote();
    cluster.postgres = standby;
    cluster.deliver(3);
    // What it does not know is not there: it begins anew, as whoever restarts it sees to.
    assert_eq!(cluster.node("b").wait_end().code(), Some(75));
    cluster.begin_again("b");
    cluster.wait_shared(&["a", "b"]);
    cluster.deliver(1);
    let told = cluster.wait_told();
    assert_eq!(told.ids.len(), told.messages.len(), "what is told again has its id");
}

/// As before a rolling restart: nothing of it is dead, or waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_the_members_and_moves_accounts_between_them() {
    let mut cluster = Cluster::start().await;
    cluster.beside = "[http]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    cluster.begin("a");
    cluster.join("b");
    cluster.wait_shared(&["a", "b"]);
    let run = |cluster: &Cluster, arguments: &[&str]| {
        let output = cluster.nodes["a"].command().arg("cluster").args(arguments).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let member = |cluster: &Cluster, name: &str| {
        let shown = run(cluster, &["status", "--json"]).1;
        let rows = shown.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        rows.into_iter().find(|row| row["name"] == name).unwrap()
    };
    cluster.wait("each says what it has", || {
        let online = |name| member(&cluster, name)["accounts"]["online"].as_u64().unwrap_or(0);
        online("a") + online("b") == ACCOUNTS as u64
    });
    let (code, shown) = run(&cluster, &["status"]);
    assert!(code == Some(0) && shown.contains("\na  "), "{shown}");
    let by_http = |cluster: &Cluster, name: &str| {
        let get = |path| http(address(&cluster.nodes[name]), &request("GET", path, "localhost"));
        let answer = get("/api/v1/cluster");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let (served, path) = (get("/api/v1/openapi.json"), "/api/v1/cluster");
        let description = Description::new(served.split_once("\r\n\r\n").unwrap().1);
        description.check("GET", path, status, &answer);
        (status, serde_json::from_str::<Value>(answer.split_once("\r\n\r\n").unwrap().1).unwrap())
    };
    for name in ["a", "b"] {
        let (status, told) = by_http(&cluster, name);
        let shards: u64 = (0..2).filter_map(|n| told["members"][n]["shards"].as_u64()).sum();
        assert_eq!((status, told["well"].as_bool(), shards), (200, Some(true), 1024), "{told}");
        let metrics = http(address(&cluster.nodes[name]), &request("GET", "/metrics", "localhost"));
        for line in [
            "idlewatch_cluster_members{state=\"alive\"} 2".to_owned(),
            format!("idlewatch_cluster_accounts{{state=\"online\"}} {ACCOUNTS}"),
            "idlewatch_cluster_unwatched_shards 0".to_owned(),
        ] {
            assert!(metrics.contains(&format!("\n{line}\n")), "{line} in {metrics}");
        }
    }
    let online_at = |cluster: &Cluster, name: &str, account: &str| {
        let mut command = cluster.nodes[name].command();
        let listed = command.args(["accounts", "list", "--json"]).output().unwrap();
        String::from_utf8(listed.stdout).unwrap().contains(&format!("\"{account}\""))
    };
    for name in ["a", "b"] {
        assert_eq!(run(&cluster, &["move", "user7", "user9", "--to", name]).0, Some(0));
        cluster.wait("moved", || ["user7", "user9"].iter().all(|account| online_at(&cluster, name, account)));
    }
    assert_eq!(run(&cluster, &["move", "user7", "--to", "nobody"]).0, Some(2));
    assert_eq!(run(&cluster, &["move", "user7", "user9", "--anywhere"]).0, Some(0));
    cluster.deliver(1);
    let (code, shown) = run(&cluster, &["drain", "b"]);
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(
        (member(&cluster, "b")["state"].as_str(), cluster.shards()),
        (Some("draining"), [("a".to_owned(), 1024)].into())
    );
    cluster.deliver(1);
    cluster.wait_told_once();
    assert_eq!(run(&cluster, &["drain"]).0, Some(1), "there is nobody else");
    assert_eq!(run(&cluster, &["drain", "b", "--undo"]).0, Some(0));
    cluster.wait_shared(&["a", "b"]);
    assert_eq!(cluster.node("b").stop().code(), Some(0));
    assert_eq!(member(&cluster, "b")["state"], "left");
    cluster.wait_shared(&["a"]);
    cluster.postgres.kill();
    assert_eq!(by_http(&cluster, "a").0, 503);
    cluster.postgres.launch();
    cluster.node("a").kill();
    cluster.wait("silent", || member(&cluster, "a")["state"] == "silent");
    assert_eq!(run(&cluster, &["status"]).0, Some(1));
}

/// All of it in one life, under a steady stream of mail: `scripts/prove` has three thousand accounts and a thousand messages
/// a second.
#[tokio::test(flavor = "multi_thread")]
async fn under_steady_traffic_nothing_that_happens_loses_or_doubles_a_message() {
    let apart = Namespace::new();
    let mut cluster = Cluster::around(&apart, size("IDLEWATCH_CLUSTER_ACCOUNTS", 60)).await;
    cluster.ttl = "5s";
    let rate = size("IDLEWATCH_CLUSTER_RATE", 50);
    let asleep = Duration::from_secs(size("IDLEWATCH_CLUSTER_ASLEEP", 12) as u64);
    let standby = cluster.standby();
    cluster.begin("a");
    cluster.ask(AUDIT);
    cluster.join("b");
    cluster.join_in(&apart, "c");
    cluster.wait_shared(&["a", "b", "c"]);
    let traffic = Traffic::start(&cluster, rate);
    let step = |cluster: &Cluster, what: &str, names: &[&str]| {
        let since = Instant::now();
        cluster.wait_taken_over(names);
        let taken = since.elapsed().as_secs_f64();
        cluster.wait_shared(names);
        let shared = since.elapsed().as_secs_f64();
        println!("{what}: {names:?} have all after {taken:.1} s, in fair parts after {shared:.1} s");
    };
    cluster.node("b").kill();
    step(&cluster, "b killed", &["a", "c"]);
    cluster.begin_again("b");
    step(&cluster, "b is back", &["a", "b", "c"]);
    cluster.node("a").signal("STOP");
    std::thread::sleep(asleep);
    step(&cluster, "a asleep", &["b", "c"]);
    cluster.node("a").signal("CONT");
    step(&cluster, "a awake", &["a", "b", "c"]);
    cluster.join("d");
    step(&cluster, "d joined", &["a", "b", "c", "d"]);
    assert_eq!(cluster.node("d").stop().code(), Some(0));
    step(&cluster, "d left", &["a", "b", "c"]);
    let cut = apart.cut();
    step(&cluster, "c cut off", &["a", "b"]);
    drop(cut);
    step(&cluster, "c connected", &["a", "b", "c"]);
    cluster.postgres.kill();
    std::thread::sleep(Duration::from_secs(2));
    cluster.postgres.launch();
    step(&cluster, "the database killed and started", &["a", "b", "c"]);
    // What is committed from here on, the standby never hears of.
    standby.stop_following();
    std::thread::sleep(Duration::from_secs(1));
    cluster.postgres.kill();
    standby.promote();
    cluster.postgres = standby;
    step(&cluster, "the database dead, its standby promoted", &["a", "b", "c"]);
    let sent = traffic.stop();
    println!("{sent} messages were delivered");
    cluster.wait_sent(sent);
}

/// What keeps a reader waiting, a pipe here, is no reason to keep others waiting for their shards.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_hands_is_followed_while_a_reload_hangs() {
    let mut cluster = Cluster::start().await;
    cluster.begin("a");
    cluster.join("b");
    cluster.wait_shared(&["a", "b"]);
    let config = cluster.node("a").config();
    std::fs::remove_file(&config).unwrap();
    assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
    let before = cluster.node("a").log().len();
    cluster.node("a").signal("HUP");
    // It is open once somebody reads, and says nothing.
    let silent = std::fs::OpenOptions::new().write(true).open(&config).unwrap();
    cluster.deliver(1);
    let mut drain = cluster.node("b").command().args(["cluster", "drain", "a"]).spawn().unwrap();
    let since = |cluster: &Cluster| cluster.nodes["a"].log().split_off(before);
    cluster.wait("a lets the first go", || since(&cluster).contains("left to other monitors"));
    // Not only once the reader has given up.
    let log = since(&cluster);
    assert!(!log.contains("could not be read within"), "{log}");
    assert!(drain.wait().unwrap().success());
    assert_eq!(cluster.shards(), [("b".to_owned(), 1024)].into());
    cluster.deliver(1);
    cluster.wait_told_once();
    drop(silent);
}
