//! Accounts whose servers are behind a proxy.

use serde_json::Value;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use crate::real_servers::{online, users};
use crate::support::dovecot::Dovecot;
use crate::support::monitor::{Monitor, states, told};
use crate::support::proxy::{Protocol, Proxy, RealProxy};

/// Nobody but the proxy knows it.
const NAME: &str = "mail.nowhere.invalid";

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

fn deliver(server: &Server) {
    server.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\n");
}

fn account(server: &Server, protocol: Protocol, port: u16, password: &str) -> String {
    format!(
        "[[accounts]]\nid = \"far\"\nhost = \"{NAME}\"\nport = {}\ntls = \"none\"\nallow_plaintext = true\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\nconnect_timeout = \"2s\"\nproxy = {{ url = \"{}://127.0.0.1:{port}\", user = \"me\", password = {{ inline = \"{password}\" }} }}\n",
        server.addr().port(),
        protocol.scheme()
    )
}

fn is_proxy_trouble(event: &Value) -> bool {
    event["error"]["type"] == "connect" && event["error"]["code"] == "proxy"
}

/// What greets first is not lost behind the proxy's answer, and names are resolved there only.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_name_only_the_proxy_knows_is_watched() {
    for protocol in [Protocol::Socks5, Protocol::Http] {
        let (server, proxy) = (server().await, Proxy::start(protocol).await);
        let mut monitor = Monitor::new(&account(&server, protocol, proxy.port, "open sesame"));
        monitor.start();
        monitor.wait("online", |events| states(events, "far") == ["online"]);
        deliver(&server);
        monitor.wait("told", |events| told(events, "far") == [1]);
        assert_eq!(proxy.targets(), [format!("{NAME}:{}", server.addr().port())]);
        assert!(!monitor.log().contains("sesame"), "a password in the log");
        assert_eq!(monitor.stop().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_us_is_no_refused_login() {
    for protocol in [Protocol::Socks5, Protocol::Http] {
        let (server, proxy) = (server().await, Proxy::start(protocol).await);
        let mut monitor = Monitor::new(&account(&server, protocol, proxy.port, "wrong"));
        monitor.start();
        let events = monitor.wait("refused", |events| states(events, "far") == ["backoff"]);
        let event = events.iter().find(|event| event["idlewatch"]["account"]["id"] == "far").unwrap();
        let message = event["error"]["message"].as_str().unwrap();
        assert!(is_proxy_trouble(event) && message.contains("it wants a user and a password"), "{event}");
        assert!(proxy.targets().is_empty() && !monitor.log().contains("wrong"));
        monitor.configure(&account(&server, protocol, proxy.port, "open sesame"));
        monitor.signal("HUP");
        monitor.wait("online", |events| states(events, "far").last().is_some_and(|state| state == "online"));
    }
}

/// It dies while a session runs through it, is away for a while, is there without a word, and is well again.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_dies_or_falls_silent_is_survived() {
    for protocol in [Protocol::Socks5, Protocol::Http] {
        let (server, proxy) = (server().await, Proxy::start(protocol).await);
        let port = proxy.port;
        let mut monitor = Monitor::new(&account(&server, protocol, port, "open sesame"));
        monitor.start();
        monitor.wait("online", |events| states(events, "far") == ["online"]);
        drop(proxy);
        deliver(&server);
        monitor.wait("noticed", |events| states(events, "far") == ["online", "backoff"]);
        monitor.wait_log(&format!("the proxy 127.0.0.1:{port}: 127.0.0.1 port {port}: "));
        let proxy = Proxy::on(protocol, port).await;
        monitor.wait("told", |events| told(events, "far") == [1]);
        proxy.fall_silent();
        proxy.cut();
        deliver(&server);
        monitor.wait_log(&format!("the proxy 127.0.0.1:{port}: no answer in 2s"));
        proxy.speak_again();
        let events = monitor.wait("told", |events| told(events, "far") == [1, 2]);
        assert!(events.iter().all(|event| event["error"]["type"] != "auth"));
    }
}

/// The proxy is well, and the server behind it is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_the_proxy_cannot_reach_is_told_in_its_words() {
    for (protocol, words) in [(Protocol::Socks5, "Connection refused"), (Protocol::Http, "502 Bad Gateway")] {
        let proxy = Proxy::start(protocol).await;
        let text = {
            let gone = server().await;
            account(&gone, protocol, proxy.port, "open sesame")
        };
        let mut monitor = Monitor::new(&text);
        monitor.start();
        let events = monitor.wait("refused", |events| states(events, "far") == ["backoff"]);
        let event = events.iter().find(|event| event["idlewatch"]["account"]["id"] == "far").unwrap();
        assert!(is_proxy_trouble(event), "{event}");
        assert!(event["error"]["message"].as_str().unwrap().contains(words), "{event}");
    }
}

/// microsocks and tinyproxy, with TLS and STARTTLS inside.
#[test]
fn real_proxies_lead_to_a_real_server() {
    let (server, users) = (Dovecot::start(4), users(4));
    let proxies = [Protocol::Socks5, Protocol::Http].map(|protocol| (protocol, RealProxy::start(protocol)));
    let mut text = format!(
        "[defaults]\nhost = \"localhost\"\npassword = {{ inline = \"secret\" }}\n[defaults.tls_options]\nca_file = {:?}\n",
        server.ca_file()
    );
    for (n, user) in users.iter().enumerate() {
        let (protocol, proxy) = &proxies[n / 2];
        let (tls, port) = [("implicit", server.imaps), ("starttls", server.imap)][n % 2];
        text += &format!(
            "[[accounts]]\nid = \"{user}\"\nuser = \"{user}\"\nport = {port}\ntls = \"{tls}\"\nproxy = {{ url = \"{}://localhost:{}\", user = \"me\", password = {{ inline = \"sesame\" }} }}\n",
            protocol.scheme(),
            proxy.port
        );
    }
    let mut monitor = Monitor::new(&text);
    monitor.start();
    monitor.wait("online", |events| online(events, &users));
    server.deliver(&users, "through proxies");
    monitor.wait("told", |events| users.iter().all(|user| told(events, user).len() == 1));
    assert_eq!(monitor.stop().code(), Some(0));
    monitor.configure(&text.replace("\"sesame\"", "\"closed\""));
    monitor.start();
    let events = monitor.wait("refused", |events| {
        users.iter().all(|user| states(events, user).last().is_some_and(|state| state == "backoff"))
    });
    let mut troubles = events.iter().filter(|event| event["error"]["type"].is_string());
    assert!(troubles.all(is_proxy_trouble), "{events:#?}");
}
