//! Refresh tokens that are good once, of monitors that share the accounts over one journal in PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::monitor::{Monitor, states};
use crate::support::postgres::{Database, Postgres};
use crate::support::scripted::{Peer, Scripted};
use crate::support::token_endpoint::TokenEndpoint;

const OWN: usize = 16;
const SHARED: usize = 4;

struct Cluster {
    postgres: Postgres,
    database: Database,
    server: Scripted,
    endpoint: TokenEndpoint,
    secrets: TempDir,
    /// More of the configuration.
    beside: String,
    nodes: BTreeMap<&'static str, Monitor>,
}

impl Cluster {
    /// Accounts with a grant each, and some that share one.
    async fn start() -> Self {
        let server = Scripted::start(|mut peer: Peer| async move {
            peer.say("* OK [CAPABILITY IMAP4rev1 IDLE SASL-IR AUTH=XOAUTH2] ready\r\n").await?;
            peer.behave().await
        })
        .await;
        let postgres = Postgres::start();
        let (database, endpoint) = (postgres.database(), TokenEndpoint::start(b"key"));
        let secrets = tempfile::tempdir().unwrap();
        for name in (1..=OWN).map(|n| format!("user{n}")).chain(["shared".to_owned()]) {
            let file = secrets.path().join(&name);
            fs::write(&file, endpoint.rotate_each(&name)).unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let (beside, nodes) = Default::default();
        Self { postgres, database, server, endpoint, secrets, beside, nodes }
    }

    fn configuration(&self) -> String {
        let grant = |name: &str, file: &str| {
            let (url, device) = (self.endpoint.url(), self.endpoint.device_url());
            let file = if file.is_empty() {
                String::new()
            } else {
                format!("refresh_token = {{ file = {:?} }}\n", self.secrets.path().join(file))
            };
            format!(
                "[oauth.{name}]\nflow = \"refresh_token\"\nclient_id = \"x\"\ntoken_url = \"{url}\"\ndevice_url = \"{device}\"\n{file}"
            )
        };
        let port = self.server.port();
        let account = |id: String, oauth: &str| {
            format!(
                "[[accounts]]\nid = \"{id}\"\nuser = \"{id}\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\noauth = \"{oauth}\"\n"
            )
        };
        let own: String = (1..=OWN).map(|n| account(format!("user{n}"), "own")).collect();
        let shared: String = (1..=SHARED).map(|n| account(format!("shared{n}"), "shared")).collect();
        let grants = grant("own", "{id}") + &grant("shared", "shared") + &grant("permitted", "");
        let keys = self.database.keys("2s");
        format!(
            "[connections.per_host]\nrate = \"1000/s\"\nmax_connecting = 100\n{grants}{own}{shared}{keys}{}",
            self.beside
        )
    }

    fn monitor(&self, name: &str, configuration: &str) -> Monitor {
        let monitor = Monitor::new(configuration);
        let config = fs::read_to_string(monitor.config()).unwrap();
        let named = config.replacen("instance = \"test\"", &format!("instance = \"{name}\""), 1);
        fs::write(monitor.config(), named).unwrap();
        monitor
    }

    fn join(&mut self, name: &'static str) {
        let mut monitor = self.monitor(name, &self.configuration());
        monitor.start();
        monitor.wait_log("watching");
        self.nodes.insert(name, monitor);
    }

    fn node(&mut self, name: &str) -> &mut Monitor {
        self.nodes.get_mut(name).unwrap()
    }

    fn ask(&self, sql: &str) -> String {
        self.postgres.ask(&self.database.name, sql)
    }

    /// Waits until these have all shards, each some, and all accounts are online there.
    fn wait_online(&self, names: &[&str]) {
        let owners = "SELECT string_agg(DISTINCT owner, ' ' ORDER BY owner) FROM idlewatch.shards";
        let least = format!(
            "SELECT min(n) >= {} FROM (SELECT count(*) AS n FROM idlewatch.shards GROUP BY owner) AS held",
            1024 / names.len() - 1
        );
        let online = format!(
            "SELECT sum((info->>'online')::int) FROM idlewatch.nodes WHERE name IN ('{}')",
            names.join("', '")
        );
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let found = [owners, &least, &online].map(|sql| self.ask(sql));
            if found == [names.join(" "), "t".to_owned(), (OWN + SHARED).to_string()] {
                break;
            }
            let logs: Vec<_> = self.nodes.values().map(Monitor::log).collect();
            let tails: Vec<_> =
                logs.iter().map(|log| log.lines().rev().take(8).collect::<Vec<_>>()).collect();
            assert!(Instant::now() < end, "{names:?}: {found:?} {:?} {tails:#?}", self.endpoint.shown());
            std::thread::sleep(Duration::from_millis(100));
        }
        self.assert_none_twice();
    }

    fn assert_none_twice(&self) {
        let shown = self.endpoint.shown();
        let different: BTreeSet<_> = shown.iter().collect();
        assert_eq!(different.len(), shown.len(), "{shown:?}");
    }

    fn run(&self, name: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.nodes[name].command().args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(!text.contains("canary"), "{text}");
        (output.status.code(), text)
    }

    /// Nobody was ever refused, and nothing secret is told.
    fn assert_calm(&self) {
        for monitor in self.nodes.values() {
            let log = monitor.log();
            assert!(!log.contains("canary") && !log.contains("panicked"), "{log}");
            let events = monitor.events();
            for id in (1..=OWN).map(|n| format!("user{n}")).chain((1..=SHARED).map(|n| format!("shared{n}")))
            {
                assert!(!states(&events, &id).contains(&"auth_failed".to_owned()), "{id}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_tokens_that_are_good_once_follow_their_accounts() {
    let mut cluster = Cluster::start().await;
    cluster.join("a");
    cluster.wait_online(&["a"]);
    let first = cluster.endpoint.shown().len();
    assert_eq!(first, OWN + 1);
    cluster.join("b");
    cluster.wait_online(&["a", "b"]);
    let moved = cluster.endpoint.shown().len();
    assert!(moved > first, "what moved was asked for anew");
    // It has what b has not, and knows nothing of what b has rotated.
    cluster.node("a").kill();
    cluster.wait_online(&["b"]);
    cluster.node("a").start();
    cluster.wait_online(&["a", "b"]);
    cluster.join("c");
    cluster.wait_online(&["a", "b", "c"]);
    let (code, shown) = cluster.run("a", &["cluster", "drain", "b"]);
    assert_eq!(code, Some(0), "{shown}");
    cluster.wait_online(&["a", "c"]);
    assert!(cluster.endpoint.shown().len() > moved + OWN / 4);
    // A person's command takes its turn.
    let (code, shown) = cluster.run("b", &["oauth", "refresh", "-a", "user3"]);
    assert!(code == Some(0) && shown.contains("refresh token kept"), "{shown}");
    cluster.assert_none_twice();
    let known = cluster.ask("SELECT count(*) FROM idlewatch.tokens WHERE kept IS NOT NULL AND taken_by = ''");
    assert_eq!(known, (OWN + 1).to_string());
    for node in cluster.nodes.values_mut() {
        assert_eq!(node.stop().code(), Some(0));
        assert!(!node.dir.path().join("state/tokens").exists(), "nothing is kept on the machine");
    }
    cluster.assert_calm();
}

/// On one machine, for the monitor of another; sealed.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_permits_access_on_any_machine() {
    let mut cluster = Cluster::start().await;
    cluster.endpoint.rotate_from("canary-nobody-has-this");
    let key = cluster.secrets.path().join("seal");
    fs::write(&key, data_encoding::BASE64.encode(&[7; 32])).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    cluster.beside = format!("[[account_lists]]\ndatabase = true\nseal_keys = [{{ file = {key:?} }}]\n");
    let port = cluster.server.port();
    let configuration = cluster.configuration();
    let (head, _) = configuration.split_once("[[accounts]]").unwrap();
    let configuration = format!(
        "{head}[[accounts]]\nid = \"ann\"\nuser = \"ann\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\noauth = \"permitted\"\n{}{}",
        cluster.database.keys("2s"),
        cluster.beside
    );
    for name in ["here", "there"] {
        let monitor = cluster.monitor(name, &configuration);
        cluster.nodes.insert(name, monitor);
    }
    let (code, shown) = cluster.run("here", &["oauth", "login", "-a", "ann"]);
    assert!(code == Some(0) && shown.contains("the refresh token is kept"), "{shown}");
    let (code, shown) = cluster.run("there", &["oauth", "show", "-a", "ann"]);
    assert!(
        code == Some(0) && shown.contains("refresh token kept") && shown.contains("permitted"),
        "{shown}"
    );
    cluster.node("there").start();
    cluster.node("there").wait("online", |events| states(events, "ann").contains(&"online".to_owned()));
    cluster.assert_none_twice();
    let stored = cluster.ask("SELECT encode(kept, 'escape') FROM idlewatch.tokens");
    assert!(!stored.contains("canary") && !stored.contains("refresh"), "{stored}");
    assert_eq!(cluster.ask("SELECT name, is_sealed FROM idlewatch.tokens"), "permitted~ann|t");
    cluster.node("there").stop();
    cluster.assert_calm();
}

/// What a provider has given in the moment in which the database goes is the only one that is good.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_token_is_kept_before_it_is_used_however_long_the_database_is_away() {
    let mut cluster = Cluster::start().await;
    cluster.endpoint.hold(true);
    cluster.join("a");
    let endpoint = cluster.endpoint.clone();
    cluster.node("a").wait("asked for", |_| endpoint.shown().len() >= 8);
    cluster.postgres.kill();
    cluster.endpoint.hold(false);
    let waits = "the rotated refresh token waits to be kept";
    let node = &cluster.nodes["a"];
    node.wait("waits", |_| node.log().matches(waits).count() >= 8);
    assert_eq!(cluster.server.connections(), 0, "nobody logs in by what may be lost");
    cluster.postgres.launch();
    cluster.wait_online(&["a"]);
    assert_eq!(cluster.endpoint.shown().len(), OWN + 1);
    assert_eq!(cluster.node("a").stop().code(), Some(0));
    cluster.assert_calm();
}
