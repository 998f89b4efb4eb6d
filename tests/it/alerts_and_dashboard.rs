//! What the package brings for Prometheus and Grafana, against a real Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use serde_json::Value;

#[cfg(all(feature = "nats", feature = "postgres"))]
use crate::joint::Consumers;
use crate::support::monitor::{Monitor, states};
#[cfg(all(feature = "nats", feature = "postgres"))]
use crate::support::postgres::Postgres;
use crate::support::process::free_port;
use crate::support::prometheus::{Prometheus, packaged, promtool};
use crate::support::token_endpoint::TokenEndpoint;

fn read(path: &str) -> String {
    fs::read_to_string(packaged(path)).unwrap()
}

/// The values of `key: value` in YAML that has each on a line of its own, or in `- { alertname: X, …`.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(move |line| line.split_once(key))
        .map(|(_, value)| value.split([',', ' ']).next().unwrap())
}

#[test]
fn every_alert_fires_as_it_should_and_says_what_to_do() {
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let output = promtool(&arguments);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
    }
    let (alerts, tests) = (read("prometheus/alerts.yml"), read("prometheus/alerts_test.yml"));
    let named: BTreeSet<&str> = values(&alerts, "- alert: ").collect();
    let tested: BTreeSet<&str> = values(&tests, "alertname: ").collect();
    assert!(named.len() > 10 && named == tested, "{:?}", named.symmetric_difference(&tested));
    let troubleshooting = read("../docs/troubleshooting.md");
    for alert in named {
        assert!(troubleshooting.contains(&format!("\n### {alert}\n")), "{alert}");
        let anchor = format!("runbook: docs/troubleshooting.md#{}\n", alert.to_lowercase());
        assert!(alerts.contains(&anchor), "{alert}");
    }
}

/// Whatever is counted is shown somewhere, but for accounts that were asked for by name.
#[test]
fn every_metric_is_in_a_panel_or_an_alert() {
    let shown = read("grafana/idlewatch.json") + &read("prometheus/alerts.yml");
    let (names, table) = (names(&shown), read("../docs/operations.md"));
    let rows = table.lines().filter(|line| line.starts_with("| `idlewatch_"));
    let documented: BTreeSet<String> =
        rows.flat_map(|row| self::names(row.split('|').nth(1).unwrap())).collect();
    assert!(documented.len() > 30, "{documented:?}");
    let missing: Vec<_> = documented.difference(&names).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The metrics that a text names; of a histogram's series, the histogram.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter: char| !is_part(letter)).filter(|word| word.starts_with("idlewatch_"));
    let series = ["_seconds_bucket", "_seconds_count"];
    let name = |word: &str| match series.iter().find_map(|end| word.strip_suffix(end)) {
        Some(name) => format!("{name}_seconds"),
        None => word.to_owned(),
    };
    words.map(name).collect()
}

/// What the panels show, as Grafana would ask it.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| (panel["title"].as_str().unwrap(), target["expr"].as_str().unwrap()))
    });
    targets
        .map(|(title, expression)| {
            let asked = expression.replace("$instance", ".+").replace("$__rate_interval", "20s");
            (title.to_owned(), asked)
        })
        .collect()
}

/// All that a dashboard may show: an account that is refused, one with access tokens, a mailbox that was made anew, an output that
/// may lose events.
fn configuration(server: &Server, endpoint: &TokenEndpoint, port: u16) -> String {
    let account = |id: &str, login: &str| {
        format!(
            "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"{id}\"\n{login}\n",
            server.addr().port()
        )
    };
    let password = "password = { inline = \"CANARY-prometheus-7\" }";
    let oauth = format!(
        "[oauth.x]\nflow = \"client_credentials\"\nclient_id = \"tokens\"\nclient_secret = {{ inline = \"canary\" }}\ntoken_url = \"{}\"\nscopes = [\"imap\"]\n",
        endpoint.url()
    );
    let second = "[outputs.second]\ntype = \"file\"\npath = \"second.jsonl\"\nrequired = false\n";
    let accounts = [account("a", password), account("b", password), account("tokens", "oauth = \"x\"")];
    format!("{second}[http]\nlisten = \"127.0.0.1:{port}\"\n{oauth}{}", accounts.concat())
}

/// Every expression has an answer, and all of those that are missing are told.
#[tokio::test(flavor = "multi_thread")]
async fn every_panel_of_the_dashboard_shows_what_a_real_prometheus_scraped() {
    let dashboard: Value = serde_json::from_str(&read("grafana/idlewatch.json")).unwrap();
    let mut unseen = expressions(&dashboard);
    // There is none here: the test below has one.
    unseen.retain(|(_, expression)| !expression.contains("idlewatch_cluster_"));
    let alerts = read("prometheus/alerts.yml");
    unseen.extend(values(&alerts, "- record: ").map(|rule| ("a recording rule".to_owned(), rule.to_owned())));
    assert!(unseen.len() > 30, "{}", unseen.len());
    let users = ["a", "b", "tokens"].map(|user| (user.to_owned(), "CANARY-prometheus-7".to_owned()));
    let server = Server::start(Store::new(users), Behaviour::default()).await.unwrap();
    server.store().set_password("b", "another");
    let endpoint = TokenEndpoint::start(b"a key that signs what is not read here");
    let port = free_port();
    let mut monitor = Monitor::new(&configuration(&server, &endpoint, port));
    monitor.start();
    monitor
        .wait("judged", |events| states(events, "a") == ["online"] && states(events, "b") == ["auth_failed"]);
    let prometheus = Prometheus::start(port);
    let end = Instant::now() + Duration::from_secs(90);
    // A rate is seen only of what is counted after a first scrape: a login among it.
    while prometheus.query("idlewatch_imap_connect_duration_seconds_count").is_empty() {
        assert!(Instant::now() < end, "nothing was scraped");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.store().change("a", "INBOX", |mailbox| mailbox.uid_validity += 1);
    server.drop_connections();
    while !unseen.is_empty() {
        assert!(Instant::now() < end, "{unseen:#?}\n{}", monitor.log());
        server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
        tokio::time::sleep(Duration::from_millis(500)).await;
        unseen.retain(|(_, expression)| !prometheus.query(expression).iter().any(|value| value.is_finite()));
    }
    assert!(prometheus.query("ALERTS{alertname=\"IdlewatchDown\"}").is_empty());
    assert_eq!(prometheus.query("ALERTS{alertname=\"IdlewatchAuthFailures\"}"), [1.0]);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// A part of the dashboard, from its title to the next.
#[cfg(all(feature = "nats", feature = "postgres"))]
fn row(dashboard: &Value, title: &str) -> Value {
    let panels = dashboard["panels"].as_array().unwrap();
    let after = panels.iter().skip_while(|panel| panel["title"] != title).skip(1);
    let row: Vec<_> = after.take_while(|panel| panel["type"] != "row").collect();
    serde_json::json!({ "panels": row })
}

/// Whatever takes events is in each panel of outputs, and the journal in its own, wherever it is.
#[cfg(all(feature = "nats", feature = "postgres"))]
#[tokio::test(flavor = "multi_thread")]
async fn outputs_of_every_type_and_a_journal_in_a_database_are_in_their_panels() {
    let dashboard: Value = serde_json::from_str(&read("grafana/idlewatch.json")).unwrap();
    let (of_outputs, of_journal): (Vec<_>, Vec<_>) = expressions(&row(&dashboard, "Outputs"))
        .into_iter()
        // Of an output that may lose events, only: the test above has one.
        .filter(|(_, expression)| !expression.contains("capacity_events"))
        .partition(|(_, expression)| expression.contains("output"));
    let of_cluster = expressions(&row(&dashboard, "Cluster"));
    assert!(
        of_outputs.len() > 5 && of_journal.len() > 2 && of_cluster.len() > 3,
        "{of_outputs:?} {of_journal:?}"
    );
    let users = [("a".to_owned(), "pw".to_owned())];
    let server = Server::start(Store::new(users), Behaviour::default()).await.unwrap();
    let mut postgres = Postgres::start();
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let consumers = Consumers::start(dir.path()).await;
    let outputs = consumers.configuration();
    let mut names: BTreeSet<String> =
        values(&outputs, "[outputs.").map(|name| name.trim_end_matches(']').to_owned()).collect();
    names.insert("file".to_owned());
    assert!(names.len() > 10, "{names:?}");
    let mut monitor = Monitor::in_dir(
        dir,
        &format!(
            "{outputs}[http]\nlisten = \"127.0.0.1:{port}\"\n{}[[accounts]]\nid = \"a\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\n\
             user = \"a\"\npassword = {{ inline = \"pw\" }}\n",
            postgres.database().keys("2s"),
            server.addr().port()
        ),
    );
    monitor.start();
    monitor.wait("online", |events| states(events, "a") == ["online"]);
    let prometheus = Prometheus::start(port);
    let end = Instant::now() + Duration::from_secs(120);
    let mut unseen = of_outputs;
    while !unseen.is_empty() {
        assert!(Instant::now() < end, "{unseen:#?}\n{}", monitor.log());
        server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
        tokio::time::sleep(Duration::from_millis(500)).await;
        unseen.retain(|(_, expression)| prometheus.labels::<BTreeSet<_>>(expression, "output") != names);
    }
    for name in &names {
        let delivered = format!("idlewatch_output_events_total{{output=\"{name}\",result=\"delivered\"}}");
        assert!(prometheus.query(&delivered)[0] > 0.0, "{name}");
    }
    for (title, expression) in of_journal.into_iter().chain(of_cluster) {
        assert!(prometheus.query(&expression)[0].is_finite(), "{title}: {expression}");
    }
    assert_eq!(prometheus.query("idlewatch_journal_blocked"), [0.0]);
    postgres.kill();
    server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
    while prometheus.query("idlewatch_journal_blocked") != [1.0] {
        assert!(Instant::now() < end, "{}", monitor.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
