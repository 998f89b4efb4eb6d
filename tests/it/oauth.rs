//! Logins by access tokens: a real Dovecot that validates them, and a token endpoint that misbehaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use assert_cmd::assert::OutputAssertExt;
use idlewatch::metrics::Metrics;
use idlewatch::oauth::exchange::TokenError;
use idlewatch::oauth::grant::{Client, Flow, Grant};
use idlewatch::oauth::store::Store;
use idlewatch::oauth::tokens::Tokens;
use idlewatch::secrets::SecretSource;
use serde_json::Value;

use crate::support::dovecot::{Dovecot, GOOD, TOKEN_KEY};
use crate::support::monitor::{Monitor, states, told};
use crate::support::scripted::{Peer, Scripted};
use crate::support::token_endpoint::{Fault, INVALID_GRANT, TokenEndpoint, token};

/// One account for each of `users`; `more` of the configuration comes after.
fn accounts(server: &Dovecot, users: &[&str], oauth: &str, more: &str) -> String {
    let mut text = format!(
        "[connections]\nper_host = {{ max_connecting = 50, rate = \"100/s\" }}\n[defaults]\nhost = \"{GOOD}\"\nport = {}\n{oauth}\n[defaults.tls_options]\nca_file = {:?}\n",
        server.imaps,
        server.ca_file()
    );
    for user in users {
        text.push_str(&format!("[[accounts]]\nid = \"{user}\"\nuser = \"{user}\"\n"));
    }
    text + more
}

/// `[oauth.x]` by refresh token for `user`.
fn refreshing(endpoint: &TokenEndpoint, user: &str, token: &str) -> String {
    format!(
        "[oauth.x]\nflow = \"refresh_token\"\nclient_id = \"{user}\"\ntoken_url = \"{}\"\nrefresh_token = {{ inline = \"{token}\" }}\n",
        endpoint.url()
    )
}

fn last_state(events: &[Value], account: &str) -> Option<Value> {
    let own = |event: &&Value| {
        event["idlewatch"]["account"]["id"] == account && event["idlewatch"]["account"]["state"].is_string()
    };
    events.iter().rfind(own).cloned()
}

fn is_online(events: &[Value], account: &str) -> bool {
    states(events, account).last().is_some_and(|state| state == "online")
}

fn told_of(events: &[Value], account: &str) -> (String, String, String) {
    let event = last_state(events, account).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (
        text(&event["idlewatch"]["account"]["state"]),
        text(&event["error"]["type"]),
        text(&event["error"]["code"]),
    )
}

fn assert_keeps_secrets(monitor: &Monitor) {
    let log = monitor.log();
    for secret in ["canary", "eyJ", "Bearer"] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
    let events = fs::read_to_string(monitor.output()).unwrap();
    assert!(!events.contains("canary") && !events.contains("eyJ"));
}

/// By a command, so that it is the server that judges the token.
#[test]
fn a_real_server_takes_good_tokens_and_says_what_is_wrong_with_others() {
    let server = Dovecot::start(5);
    let dir = tempfile::tempdir().unwrap();
    let users = ["user1", "user2", "user3", "user4"];
    for (user, token) in [
        ("user1", token(TOKEN_KEY, "user1", 600)),
        ("user2", token(TOKEN_KEY, "user2", -60)),
        ("user3", token(b"another key, and as long as that", "user3", 600)),
        ("user4", token(TOKEN_KEY, "user5", 600)),
    ] {
        fs::write(dir.path().join(user), token).unwrap();
    }
    let command = format!(
        "[oauth.x]\nflow = \"token_command\"\ncommand = [\"cat\", \"{}/{{id}}\"]\n",
        dir.path().display()
    );
    let mut monitor = Monitor::new(&accounts(&server, &users, "oauth = \"x\"", &command));
    monitor.start();
    let events = monitor.wait("all judged", |events| {
        users
            .iter()
            .all(|user| states(events, user).iter().any(|state| state == "online" || state == "auth_failed"))
    });
    assert!(is_online(&events, "user1"));
    for user in &users[1..] {
        let told = told_of(&events, user);
        assert_eq!(
            told,
            ("auth_failed".to_owned(), "auth".to_owned(), "AUTHENTICATIONFAILED".to_owned()),
            "{user}"
        );
        let message = last_state(&events, user).unwrap()["error"]["message"].to_string();
        assert!(message.contains("token: invalid_token"), "{user}: {message}");
    }
    server.deliver(&["user1".to_owned()], "by token");
    monitor.wait("told", |events| told(events, "user1").len() == 1);
    monitor.stop();
    assert_keeps_secrets(&monitor);
}

#[test]
fn one_token_serves_all_accounts_of_a_tenant() {
    let server = Dovecot::start(1);
    let endpoint = TokenEndpoint::start(TOKEN_KEY);
    let mut text = accounts(&server, &[], "user = \"user1\"\noauth = \"x\"", "");
    (0..30).for_each(|n| text.push_str(&format!("[[accounts]]\nid = \"a{n}\"\n")));
    let oauth = format!(
        "[oauth.x]\nflow = \"client_credentials\"\nclient_id = \"user1\"\nclient_secret = {{ inline = \"canary\" }}\ntoken_url = \"{}\"\nscopes = [\"imap\"]\n",
        endpoint.url()
    );
    let mut monitor = Monitor::new(&format!("{text}{oauth}"));
    monitor.start();
    monitor.wait("online", |events| (0..30).all(|n| is_online(events, &format!("a{n}"))));
    assert_eq!(endpoint.given(), 1);
    let form = &endpoint.forms()[0];
    assert_eq!((form["grant_type"].as_str(), form["scope"].as_str()), ("client_credentials", "imap"));
    monitor.stop();
    assert_keeps_secrets(&monitor);
}

#[test]
fn a_service_account_speaks_for_each_mailbox() {
    let server = Dovecot::start(20);
    let endpoint = TokenEndpoint::start(TOKEN_KEY);
    let dir = tempfile::tempdir().unwrap();
    let key = serde_json::json!({
        "type": "service_account", "client_email": "robot@p.example", "private_key_id": "k",
        "private_key": include_str!("../data/service-account-test-key.pem"),
    });
    fs::write(dir.path().join("key.json"), key.to_string()).unwrap();
    fs::set_permissions(dir.path().join("key.json"), fs::Permissions::from_mode(0o600)).unwrap();
    let oauth = format!(
        "[oauth.x]\nflow = \"service_account\"\nkey = {{ file = {:?} }}\ntoken_url = \"{}\"\n",
        dir.path().join("key.json"),
        endpoint.url()
    );
    let users: Vec<String> = (1..=20).map(|n| format!("user{n}")).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut monitor = Monitor::new(&accounts(&server, &names, "oauth = \"x\"", &oauth));
    monitor.command().args(["check", "--no-network"]).assert().success();
    monitor.start();
    monitor.wait("online", |events| users.iter().all(|user| is_online(events, user)));
    assert_eq!(endpoint.given(), 20);
    assert!(endpoint.busiest() <= 8, "{} requests at the same time", endpoint.busiest());
    monitor.stop();
    assert_keeps_secrets(&monitor);
}

/// What the endpoint does wrong says nothing of the grant; what it says of the grant is a refused login.
#[test]
fn a_token_endpoint_that_is_down_is_no_refused_login() {
    let server = Dovecot::start(1);
    for (fault, state, kind, code) in [
        (Fault::Status(500, "", "{}"), "backoff", "connect", "token_endpoint"),
        (
            Fault::Status(302, "Location: http://169.254.169.254/\r\n", ""),
            "backoff",
            "connect",
            "token_endpoint",
        ),
        (Fault::Status(200, "", "no json"), "backoff", "connect", "token_endpoint"),
        (Fault::Huge, "backoff", "connect", "token_endpoint"),
        (Fault::Hang, "backoff", "timeout", "token_endpoint"),
        (Fault::Status(429, "Retry-After: 1800\r\n", ""), "throttled", "throttled", "token_endpoint"),
        (INVALID_GRANT, "auth_failed", "auth", "invalid_grant"),
        (Fault::Status(401, "", r#"{"error":"invalid_client"}"#), "auth_failed", "auth", "invalid_client"),
    ] {
        let endpoint = TokenEndpoint::start(TOKEN_KEY);
        endpoint.always(Some(fault.clone()));
        let text = accounts(&server, &["user1"], "oauth = \"x\"", &refreshing(&endpoint, "user1", "canary"));
        let mut monitor = Monitor::new(&text);
        monitor.start();
        let events = monitor.wait("trouble", |events| !states(events, "user1").is_empty());
        assert_eq!(
            told_of(&events, "user1"),
            (state.to_owned(), kind.to_owned(), code.to_owned()),
            "{fault:?}"
        );
        let event = last_state(&events, "user1").unwrap();
        if state == "throttled" {
            let wait = event["idlewatch"]["account"]["retry_in_ms"].as_u64().unwrap();
            assert!((1_700_000..=1_800_000).contains(&wait), "{wait}");
        }
        if code == "invalid_grant" {
            assert!(event["error"]["message"].as_str().unwrap().contains("idlewatch oauth login"), "{event}");
        }
        if state == "backoff" {
            endpoint.always(None);
            monitor.wait("online again", |events| is_online(events, "user1"));
            assert!(!states(&monitor.events(), "user1").contains(&"auth_failed".to_owned()), "{fault:?}");
        }
        monitor.stop();
        assert_keeps_secrets(&monitor);
    }
}

/// Each refresh token is good once: the newest outlives the process, and gives way to one that is configured anew.
#[test]
fn a_rotated_refresh_token_outlives_the_process() {
    let server = Dovecot::start(1);
    let endpoint = TokenEndpoint::start(TOKEN_KEY);
    endpoint.rotate_from("canary-first");
    let text =
        |token: &str| accounts(&server, &["user1"], "oauth = \"x\"", &refreshing(&endpoint, "user1", token));
    let mut monitor = Monitor::new(&text("canary-first"));
    for round in 1..=3 {
        monitor.start();
        monitor.wait("online", |events| {
            states(events, "user1").iter().filter(|state| *state == "online").count() == round
        });
        assert_eq!(endpoint.refresh_token(), format!("canary-rotated-{round}"));
        if round == 2 {
            monitor.kill();
        } else {
            monitor.stop();
        }
    }
    let file = monitor.dir.path().join("state/tokens/x.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    endpoint.rotate_from("canary-configured");
    monitor.configure(&text("canary-configured"));
    monitor.start();
    monitor.wait("the configured one is used", |events| {
        states(events, "user1").iter().filter(|state| *state == "online").count() == 4
    });
    monitor.stop();
    assert_keeps_secrets(&monitor);
}

/// It is told from one that was refused before, and tried at once.
#[test]
fn a_refused_grant_waits_for_another_one() {
    let server = Dovecot::start(1);
    let endpoint = TokenEndpoint::start(TOKEN_KEY);
    endpoint.rotate_from("canary-good");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("refresh");
    fs::write(&file, "canary-bad").unwrap();
    let oauth = format!(
        "[oauth.x]\nflow = \"refresh_token\"\nclient_id = \"user1\"\ntoken_url = \"{}\"\nrefresh_token = {{ file = {file:?} }}\n",
        endpoint.url()
    );
    let mut monitor = Monitor::new(&accounts(&server, &["user1"], "oauth = \"x\"", &oauth));
    monitor.start();
    monitor
        .wait("refused", |events| states(events, "user1").last().is_some_and(|state| state == "auth_failed"));
    monitor.stop();
    let asked = endpoint.forms().len();
    monitor.start();
    monitor.wait("still refused", |events| {
        states(events, "user1").iter().filter(|state| *state == "auth_failed").count() == 2
    });
    assert_eq!(endpoint.forms().len(), asked, "a restart tries nothing early");
    fs::write(&file, "canary-good").unwrap();
    monitor.wait("online", |events| is_online(events, "user1"));
    monitor.stop();
    assert_keeps_secrets(&monitor);
}

/// An endpoint that says of a token what it was shown, and that tokens live for no time at all.
#[tokio::test]
async fn what_an_endpoint_repeats_of_a_grant_is_in_no_error_and_a_life_of_nothing_is_not_believed() {
    let endpoint = TokenEndpoint::start(TOKEN_KEY);
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::new(Store::new(dir.path()));
    let inline = |secret: &str| Some(SecretSource::Inline(secret.into()));
    let client = Client {
        id: "user1".to_owned(),
        secret: inline("canary-client"),
        token_url: endpoint.url(),
        scopes: vec![],
    };
    let refresh_token = inline("canary-refresh");
    let flow = Flow::RefreshToken { client: client.clone(), refresh_token, device: None };
    let grant = Arc::new(Grant { name: "x".to_owned(), flow });
    let repeats =
        r#"{"error":"invalid_grant","error_description":"canary-refresh of canary-client is revoked"}"#;
    endpoint.always(Some(Fault::Status(400, "", repeats)));
    let error = tokens.access(&grant).await.unwrap_err();
    assert!(error.to_string().contains("[secret] of [secret] is revoked"), "{error}");
    endpoint.always(None);
    endpoint.tokens_last(600, 0);
    let grant = Arc::new(Grant { name: "y".to_owned(), flow: Flow::ClientCredentials(client) });
    let access = tokens.access(&grant).await.unwrap();
    assert!(access.ticket.life.is_fresh(Instant::now()));
    let _ = tokens.access(&grant).await.unwrap();
    assert_eq!(endpoint.given(), 1);
}

/// The server's clock, or a revocation, may end a token before its time: another one is tried before it counts.
#[test]
fn a_token_that_ended_too_early_is_replaced_without_an_alarm() {
    let server = Dovecot::start(1);
    let endpoint = TokenEndpoint::start(TOKEN_KEY);
    endpoint.tokens_last(3, 40);
    let text = accounts(&server, &["user1"], "oauth = \"x\"", &refreshing(&endpoint, "user1", "canary"));
    let mut monitor = Monitor::new(&text);
    monitor.start();
    monitor.wait("online", |events| is_online(events, "user1"));
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(endpoint.given(), 1);
    server.kick("user1");
    let again =
        |events: &[Value]| states(events, "user1").iter().filter(|state| *state == "online").count() == 2;
    let events = monitor.wait("online again", again);
    assert!(!states(&events, "user1").contains(&"auth_failed".to_owned()), "{:?}", states(&events, "user1"));
    assert_eq!(endpoint.given(), 2);
    assert!(monitor.log().contains("token: invalid_token"), "the server has refused the first token");
    monitor.stop();
}

/// Microsoft 365 ends connections with their tokens.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_with_its_token_is_made_anew_without_an_alarm() {
    let endpoint = TokenEndpoint::start(TOKEN_KEY);
    let server = Scripted::start(|mut peer: Peer| async move {
        peer.say("* OK [CAPABILITY IMAP4rev1 IDLE SASL-IR AUTH=XOAUTH2] ready\r\n").await?;
        if peer.number <= 3 {
            peer.until("IDLE").await?;
            peer.say("+ idling\r\n* BYE Session invalidated - AccessTokenExpired\r\n").await?;
            return Ok(());
        }
        peer.behave().await
    })
    .await;
    let text = format!(
        "[[accounts]]\nid = \"user1\"\nuser = \"user1\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\noauth = \"x\"\n{}",
        server.port(),
        refreshing(&endpoint, "user1", "canary")
    );
    tokio::task::spawn_blocking(move || {
        let mut monitor = Monitor::new(&text);
        monitor.start();
        monitor.wait("four connections", |_| server.connections() >= 4);
        let events = monitor.wait("online", |events| is_online(events, "user1"));
        let calm = |state: &String| ["connecting", "online", "backoff"].contains(&state.as_str());
        assert!(states(&events, "user1").iter().all(calm), "{:?}", states(&events, "user1"));
        monitor.stop();
        assert_keeps_secrets(&monitor);
    })
    .await
    .unwrap();
}

/// Tokens of seconds, rotated each time, connections that are cut, mail all the time: none is lost, none told twice.
/// `IDLEWATCH_OAUTH_SECONDS=600` makes it ten minutes.
#[test]
fn no_message_is_lost_while_tokens_come_and_go() {
    let seconds = std::env::var("IDLEWATCH_OAUTH_SECONDS").map_or(15, |seconds| seconds.parse().unwrap());
    let server = Arc::new(Dovecot::start(1));
    let endpoint = TokenEndpoint::start(TOKEN_KEY);
    endpoint.tokens_last(4, 4);
    endpoint.rotate_from("canary-first");
    let text =
        accounts(&server, &["user1"], "oauth = \"x\"", &refreshing(&endpoint, "user1", "canary-first"));
    let mut monitor = Monitor::new(&text);
    monitor.start();
    monitor.wait("online", |events| is_online(events, "user1"));
    let start = Instant::now();
    let done = Arc::new(AtomicBool::new(false));
    let mail = {
        let (server, done) = (server.clone(), done.clone());
        std::thread::spawn(move || {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                sent += 1;
                server.deliver(&["user1".to_owned()], &format!("message {sent}"));
                std::thread::sleep(Duration::from_millis(150));
            }
        })
    };
    // In a long run each connection proves itself first (`backoff::PROVEN`, after a wait of 5 s at most), or the waits only grow.
    let life = Duration::from_millis(if seconds > 60 { 75_000 } else { 2_500 });
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        std::thread::sleep(life);
        server.kick("user1");
    }
    done.store(true, Ordering::Relaxed);
    mail.join().unwrap();
    let all = server.uids("user1");
    let events = monitor.wait("all told", |events| told(events, "user1").len() >= all.len());
    let mut uids = told(&events, "user1");
    uids.sort_unstable();
    assert_eq!(uids, all, "each once");
    assert!(!states(&events, "user1").contains(&"auth_failed".to_owned()));
    // Renewed at 80 to 90 % of 4 s, or by a login after that; never more often, and on a busy machine seldom.
    let (given, lived) = (endpoint.given() as u64, start.elapsed().as_secs());
    assert!(given >= 3 && given <= lived / 3 + 3, "{given} tokens in {lived} s");
    println!("{} messages, {given} tokens in {lived} s", all.len());
    monitor.stop();
    assert_keeps_secrets(&monitor);
}

#[test]
fn a_person_permits_access_by_a_code_on_another_device() {
    let server = Dovecot::start(1);
    let endpoint = TokenEndpoint::start(TOKEN_KEY);
    endpoint.rotate_from("canary-nobody-has-this");
    endpoint.pending(1);
    let oauth = format!(
        "[oauth.x]\nflow = \"refresh_token\"\nclient_id = \"user1\"\ntoken_url = \"{}\"\ndevice_url = \"{}\"\nscopes = [\"imap\", \"offline_access\"]\n",
        endpoint.url(),
        endpoint.device_url()
    );
    let mut monitor = Monitor::new(&accounts(&server, &["user1"], "oauth = \"x\"", &oauth));
    let run = |arguments: &[&str]| {
        let output = monitor.command().args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(!text.contains("canary") && !text.contains("eyJ"), "{text}");
        (output.status.code(), text)
    };
    let (code, text) = run(&["check", "--no-network"]);
    assert!(code == Some(0) && text.contains("idlewatch oauth login -a user1"), "{text}");
    let (code, text) = run(&["oauth", "refresh"]);
    assert!(code == Some(77) && text.contains("there is no refresh token yet"), "{code:?} {text}");
    let (code, text) = run(&["oauth", "login", "-a", "user1"]);
    assert!(code == Some(0) && text.contains("/activate") && text.contains("WDJB-MJHT"), "{code:?} {text}");
    assert_eq!(endpoint.forms()[0]["scope"], "imap offline_access");
    for command in ["show", "refresh", "show"] {
        let (code, text) = run(&["oauth", command]);
        assert!(code == Some(0) && text.contains("refresh token kept") && text.contains("scopes"), "{text}");
        assert!(text.contains("in 59 min") || text.contains("in 60 min"), "{text}");
    }
    monitor.start();
    monitor.wait("online", |events| is_online(events, "user1"));
    monitor.stop();
    assert_keeps_secrets(&monitor);
}

#[test]
fn the_passwords_of_many_accounts_are_told_by_one_process() {
    let server = Dovecot::start(40);
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("tell");
    let runs = dir.path().join("runs");
    fs::write(&script, format!("#!/bin/sh\necho run >> {}\ncat | sed -e 's/.*\"secrets\":\\[//' -e 's/\\].*//' -e 's/\"\\([^\"]*\\)\"/\"\\1\":{{\"value\":\"secret\"}}/g' -e 's/^/{{/' -e 's/$/}}/'\n", runs.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let users: Vec<String> = (1..=40).map(|n| format!("user{n}")).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    let secrets = format!("[secrets.vault]\nexec = [{script:?}]\n");
    let mut monitor =
        Monitor::new(&accounts(&server, &names, "password = { secret = \"vault:imap/{id}\" }", &secrets));
    monitor.command().args(["check", "--no-network"]).assert().success();
    monitor.start();
    monitor.wait("online", |events| users.iter().all(|user| is_online(events, user)));
    assert!(fs::read_to_string(&runs).unwrap().lines().count() <= 2, "as good as one process");
    monitor.stop();
    assert!(!monitor.log().contains("\"secret\""));
}

/// Ten hours of a paused clock: a token is renewed ahead, about once in 50 minutes, and whoever logs in finds one.
#[tokio::test(start_paused = true)]
async fn an_hour_is_lived_with_hardly_more_than_one_token() {
    let endpoint = TokenEndpoint::start(TOKEN_KEY);
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::new(Store::new(dir.path()));
    let client = Client { id: "user1".to_owned(), secret: None, token_url: endpoint.url(), scopes: vec![] };
    let grant = Arc::new(Grant { name: "x".to_owned(), flow: Flow::ClientCredentials(client) });
    // A blocking task keeps the clock from running ahead while the endpoint is waited for.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let held = tokio::task::spawn_blocking(move || stopped.recv());
    let first = tokens.access(&grant).await.unwrap();
    for minute in 0..600 {
        tokio::time::advance(Duration::from_secs(60)).await;
        let access = tokens.access(&grant).await.unwrap();
        assert!(access.ticket.life.is_fresh(tokio::time::Instant::now().into_std()), "{minute}");
    }
    let given = endpoint.given();
    assert!((11..=13).contains(&given), "{given} tokens in ten hours");
    drop((stop, first));
    let _ = held.await;
}

/// A thousand sessions that want the same token at the same time ask once; a refusal is shared as well.
#[tokio::test]
async fn a_thousand_logins_at_the_same_time_ask_once() {
    let endpoint = TokenEndpoint::start(TOKEN_KEY);
    let dir = tempfile::tempdir().unwrap();
    let client = Client { id: "user1".to_owned(), secret: None, token_url: endpoint.url(), scopes: vec![] };
    let grant = Arc::new(Grant { name: "x".to_owned(), flow: Flow::ClientCredentials(client) });
    let tokens = Tokens::new(Store::new(dir.path()));
    let all = futures::future::join_all((0..1000).map(|_| tokens.access(&grant))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(endpoint.forms().len(), 1);
    endpoint.always(Some(INVALID_GRANT));
    let metrics = Metrics::new();
    let others = Tokens::counted(Store::new(dir.path()), metrics.clone());
    let all = futures::future::join_all((0..1000).map(|_| others.access(&grant))).await;
    assert!(all.iter().all(|access| matches!(access, Err(TokenError::Refused { .. }))));
    assert_eq!(endpoint.forms().len(), 2);
    let counted = "idlewatch_oauth_token_refreshes_total{provider=\"other\",result=\"error\"} 1\n";
    assert!(metrics.encode(&[]).unwrap().contains(counted));
}

/// Two monitors, one grant, and a provider that takes each refresh token once.
#[cfg(feature = "postgres")]
#[test]
fn monitors_that_share_accounts_use_a_rotating_refresh_token_by_turns() {
    let server = Dovecot::start(1);
    let endpoint = TokenEndpoint::start(TOKEN_KEY);
    endpoint.rotate_from("canary-first");
    // So short that each renews it all the time.
    endpoint.tokens_last(600, 2);
    let postgres = crate::support::postgres::shared();
    let database = postgres.database();
    let ids: Vec<_> = (0..20).map(|n| format!("a{n}")).collect();
    let mut text = accounts(&server, &[], "user = \"user1\"\noauth = \"x\"", "");
    ids.iter().for_each(|id| text.push_str(&format!("[[accounts]]\nid = \"{id}\"\n")));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("key"), "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=\n").unwrap();
    let sealed = format!(
        "[[account_lists]]\ndatabase = true\nseal_keys = [{{ file = {:?} }}]\n",
        dir.path().join("key")
    );
    let text =
        format!("{text}{sealed}{}{}", refreshing(&endpoint, "user1", "canary-first"), database.keys("2s"));
    let start = |name: &str| {
        let mut monitor = Monitor::new(&text);
        let config = fs::read_to_string(monitor.config()).unwrap();
        fs::write(monitor.config(), config.replacen("\"test\"", &format!("{name:?}"), 1)).unwrap();
        monitor.start();
        monitor
    };
    let online = |monitor: &Monitor| {
        let listed =
            monitor.command().args(["accounts", "list", "--json", "--state", "online"]).output().unwrap();
        String::from_utf8_lossy(&listed.stdout).lines().count()
    };
    let mut first = start("first");
    first.wait("all online", |_| online(&first) == ids.len());
    let mut second = start("second");
    second.wait("shared", |_| online(&second) > 4 && online(&first) + online(&second) == ids.len());
    let before = endpoint.forms().len();
    second.wait("both renew it", |_| endpoint.forms().len() > before + 10);
    // Whoever dies between the answer and its writing down has lost a token, alone as with others.
    endpoint.tokens_last(600, 600);
    std::thread::sleep(Duration::from_secs(4));
    first.kill();
    second.wait("inherited", |_| online(&second) == ids.len());
    assert_eq!(second.stop().code(), Some(0));
    let used: Vec<_> = endpoint.forms().iter().map(|form| form["refresh_token"].clone()).collect();
    let once: std::collections::BTreeSet<_> = used.iter().collect();
    assert_eq!(once.len(), used.len(), "none twice: {used:?}");
    let kept = postgres.ask(&database.name, "SELECT is_sealed, encode(kept, 'escape') FROM idlewatch.tokens");
    assert!(kept.starts_with("t|") && !kept.contains("canary"), "{kept}");
    assert_keeps_secrets(&second);
}
