//! Servers that want to know who we are, and servers that are known by their key.

use std::path::Path;
use std::process::Command;

use crate::support::certificates;
use crate::support::dovecot::{Dovecot, EXPIRED, GOOD};
use crate::support::monitor::{Monitor, states, told};
use crate::support::process::{Server, free_port, open_dir};

const BACKENDS: [&str; 2] = ["rustls", "native"];

fn account(id: &str, user: &str, host: &str, port: u16, tls_options: &str) -> String {
    format!(
        "[[accounts]]\nid = \"{id}\"\nhost = \"{host}\"\nport = {port}\nuser = \"{user}\"\npassword = {{ inline = \"secret\" }}\ntls_options = {{ {tls_options} }}\n"
    )
}

/// The keys of a client certificate.
fn client(dir: &Path, name: &str) -> String {
    let file = |ending: &str| dir.join(format!("{name}.{ending}"));
    format!(", client_cert = {:?}, client_key = {:?}", file("pem"), file("key"))
}

#[test]
fn only_whoever_has_the_right_certificate_is_let_in() {
    let wants = "ssl_ca = <%DIR%/ca.pem\nssl_verify_client_cert = yes\nssl_require_crl = no\nauth_ssl_require_client_cert = yes\n";
    let server = Dovecot::start_with(2, wants);
    let dir = server.file("");
    let (mut text, mut right, mut wrong) = (String::new(), Vec::new(), Vec::new());
    for (backend, user) in BACKENDS.into_iter().zip(["user1", "user2"]) {
        let base = format!("backend = \"{backend}\", ca_file = {:?}", server.ca_file());
        let ids = ["right", "stranger", "missing"].map(|kind| format!("{kind}-{backend}"));
        for (id, options) in ids.iter().zip([client(&dir, "client"), client(&dir, "stranger"), String::new()])
        {
            text += &account(id, user, GOOD, server.imaps, &format!("{base}{options}"));
        }
        let [good, bad @ ..] = ids;
        right.push(good);
        wrong.extend(bad);
    }
    let mut monitor = Monitor::new(&text);
    monitor.start();
    monitor.wait("online", |events| right.iter().all(|id| states(events, id) == ["online"]));
    let events = monitor.wait("refused", |events| wrong.iter().all(|id| !states(events, id).is_empty()));
    for id in &wrong {
        assert!(!states(&events, id).contains(&"online".to_owned()), "{id}: {events:#?}");
    }
    server.deliver(&["user1".to_owned(), "user2".to_owned()], "for those inside");
    monitor.wait("told", |events| right.iter().all(|id| told(events, id).len() == 1));
}

/// Dovecot takes the user from the certificate; one of another user opens nothing.
#[test]
fn a_certificate_alone_logs_in_and_only_as_its_own_user() {
    let wants = "ssl_ca = <%DIR%/ca.pem\nssl_verify_client_cert = yes\nssl_require_crl = no\nauth_ssl_username_from_cert = yes\n\
                 ssl_cert_username_field = commonName\nauth_mechanisms = plain external\n\
                 passdb {\n driver = static\n mechanisms = external\n args = nopassword=y\n}\n";
    let server = Dovecot::start_with(2, wants);
    let dir = server.file("");
    let mut text = String::new();
    let mut expected = Vec::new();
    for backend in BACKENDS {
        let base = format!("backend = \"{backend}\", ca_file = {:?}", server.ca_file());
        let client = client(&dir, "client");
        for (id, user, state) in [("own", "monitor", "online"), ("other", "user2", "auth_failed")] {
            let id = format!("{id}-{backend}");
            text += &account(&id, user, GOOD, server.imaps, &format!("{base}{client}"))
                .replace("password = { inline = \"secret\" }", "sasl = \"external\"");
            expected.push((id, state));
        }
        let id = format!("unknown-{backend}");
        text += &account(
            &id,
            "monitor",
            GOOD,
            server.imaps,
            &format!("{base}{}", self::client(&dir, "stranger")),
        )
        .replace("password = { inline = \"secret\" }", "sasl = \"external\"");
        expected.push((id, ""));
    }
    let mut monitor = Monitor::new(&text);
    monitor.start();
    let events = monitor
        .wait("all have tried", |events| expected.iter().all(|(id, _)| !states(events, id).is_empty()));
    for (id, state) in &expected {
        match *state {
            "" => assert!(!states(&events, id).contains(&"online".to_owned()), "{id}: {events:#?}"),
            state => assert_eq!(states(&events, id), [state], "{id}: {events:#?}"),
        }
    }
    server.deliver(&["monitor".to_owned()], "by certificate");
    monitor.wait("told", |events| {
        BACKENDS.iter().all(|backend| told(events, &format!("own-{backend}")).len() == 1)
    });
}

/// OpenSSL ends the handshake itself; in TLS 1.3 the client hears of that after it.
#[test]
fn a_server_that_ends_tls_without_our_certificate_is_told_as_such() {
    let (dir, port) = (open_dir(), free_port());
    certificates::write(dir.path());
    let d = dir.path().display();
    let command = format!(
        "openssl s_server -accept 127.0.0.1:{port} -cert {d}/good.pem -key {d}/good.key -CAfile {d}/ca.pem -Verify 1 -verify_return_error -tls1_3 -quiet"
    );
    let _server = Server::start(&command, &[], &[port], &dir.path().join("s_server.log"));
    let text: String = BACKENDS
        .iter()
        .map(|backend| {
            let options = format!("backend = \"{backend}\", ca_file = {:?}", dir.path().join("ca.pem"));
            account(backend, "bob", GOOD, port, &options)
        })
        .collect();
    let mut monitor = Monitor::new(&text);
    monitor.start();
    let events = monitor.wait("refused", |events| {
        BACKENDS.iter().all(|backend| states(events, backend).contains(&"tls_failed".to_owned()))
    });
    for event in events.iter().filter(|event| event["idlewatch"]["account"]["state"] == "tls_failed") {
        assert_eq!(
            (event["error"]["type"].as_str(), event["error"]["code"].as_str()),
            (Some("tls"), Some("client_certificate")),
            "{event}"
        );
    }
}

/// As people make a pin.
fn pin(certificate: &Path) -> String {
    let line = format!(
        "openssl x509 -in {certificate:?} -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64"
    );
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_pinned_key_is_wanted_and_is_enough_only_where_that_is_said() {
    let server = Dovecot::start(1);
    let (good, expired) = (pin(&server.file("good.pem")), pin(&server.file("expired.pem")));
    let ca_file = format!(", ca_file = {:?}", server.ca_file());
    let mut text = String::new();
    let mut expected = Vec::new();
    for backend in BACKENDS {
        for (id, host, options, state) in [
            ("both", GOOD, format!("pin_sha256 = [\"{good}\"]{ca_file}"), "online"),
            ("alone", GOOD, format!("pin_sha256 = [\"sha256//{good}\"], pin_only = true"), "online"),
            ("self", EXPIRED, format!("pin_sha256 = [\"{expired}\"], pin_only = true"), "online"),
            ("other", GOOD, format!("pin_sha256 = [\"{expired}\"]{ca_file}"), "tls_failed"),
            ("other-alone", GOOD, format!("pin_sha256 = [\"{expired}\"], pin_only = true"), "tls_failed"),
            ("chain", GOOD, format!("pin_sha256 = [\"{good}\"]"), "tls_failed"),
            ("dates", EXPIRED, format!("pin_sha256 = [\"{expired}\"]{ca_file}"), "tls_failed"),
        ] {
            let id = format!("{id}-{backend}");
            let options = format!("backend = \"{backend}\", {options}");
            text += &account(&id, "user1", host, server.imaps, &options);
            expected.push((id, state));
        }
    }
    let mut monitor = Monitor::new(&text);
    monitor.start();
    let events = monitor
        .wait("all have tried", |events| expected.iter().all(|(id, _)| !states(events, id).is_empty()));
    for (id, state) in expected {
        assert_eq!(states(&events, &id), [state], "{id}: {events:#?}");
    }
    let told = |id: &str| {
        let own = events.iter().find(|event| event["idlewatch"]["account"]["id"] == id).unwrap();
        own["error"]["message"].as_str().unwrap().to_owned()
    };
    for backend in BACKENDS {
        let message = told(&format!("other-{backend}"));
        assert!(message.contains(&format!("its SHA-256 is {good}")), "{message}");
    }
}
