//! The status page in a real browser, as a person uses it.

use std::net::SocketAddr;

use idlewatch::demo::server::Server;

use crate::admin::{PASSWORD, accounts, address, online, server};
use crate::support::browser::Browser;
use crate::support::monitor::{Monitor, told};

/// A name that would do something, where it was not escaped.
const EVIL: &str = "<img src=x onerror=document.title='owned'>";

const MAIL: &[u8] = b"Subject: CANARY-subject\r\n\r\n";

/// A hundred and three accounts, one of which is refused and one of which has an evil mailbox.
async fn started() -> (Server, Monitor, SocketAddr) {
    let ids: Vec<String> = (0..103).map(|number| format!("user{number:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let server = server(&ids).await;
    server.store().deliver("user000", EVIL, MAIL);
    server.store().set_password("user102", "another");
    let (first, others) = ids.split_first().unwrap();
    let evil = accounts(&server, &[first]) + &format!("mailboxes = [\"INBOX\", {EVIL:?}]\n");
    let wide = "[connections.per_host]\nmax_connecting = 50\nrate = \"1000/s\"\n";
    let config = format!("{wide}[http]\nlisten = \"127.0.0.1:0\"\n{evil}{}", accounts(&server, others));
    let mut monitor = Monitor::new(&config);
    monitor.start();
    online(&monitor, &ids[..102]);
    let address = address(&monitor);
    (server, monitor, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_how_all_are_finds_one_and_is_told_what_comes() {
    let (server, mut monitor, address) = started().await;
    let browser = Browser::start(true);
    browser.open(&format!("http://{address}/"));
    browser.wait_for("102\nonline");
    browser.wait_for("1\nauth_failed");
    assert!(browser.text().contains("user099") && !browser.text().contains("user100"));

    // What comes is shown without being asked for, and what it says is text.
    server.store().deliver("user000", EVIL, MAIL);
    monitor.wait("told", |events| !told(events, "user000").is_empty());
    browser.wait_for("1 in the last hour");
    browser.wait_for(EVIL);
    // Whoever goes by keyboard stays where he is.
    browser.evaluate("document.querySelectorAll('.tiles a')[1].focus()");
    server.store().deliver("user000", EVIL, MAIL);
    browser.wait_for("2 in the last hour");
    let focused = browser.evaluate("return document.activeElement.getAttribute('href')");
    assert_eq!(focused, "?state=auth_failed#accounts");
    assert!(browser.evaluate("return document.title").as_str().unwrap().ends_with("idlewatch"));
    assert!(!browser.text().contains("CANARY"));

    browser.write("input[name=q]", "USER10\u{e007}");
    browser.wait_for("user101");
    let shown = browser
        .evaluate("return [...document.querySelectorAll('#accounts ~ div td a')].map(a => a.textContent)");
    assert_eq!(shown, serde_json::json!(["user100", "user101", "user102"]));

    browser.open(&format!("http://{address}/accounts/user102"));
    browser.wait_for("next try");
    browser.wait_for("idlewatch resume -a user102");
    // On a telephone nothing is wider than the screen.
    browser.open(&format!("http://{address}/"));
    browser.narrow(400);
    let width = browser.evaluate("return document.documentElement.scrollWidth - window.innerWidth");
    assert!(width.as_i64().unwrap() <= 0, "{width} pixels too wide");
    let complaints: Vec<_> = browser.complaints();
    assert!(complaints.iter().all(|complaint| complaint.contains("favicon.ico")), "{complaints:?}");
    assert!(!format!("{}{}", browser.text(), monitor.log()).contains(PASSWORD));
    drop(browser);
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_essentials_need_no_scripts() {
    let (_server, mut monitor, address) = started().await;
    let browser = Browser::start(false);
    browser.open(&format!("http://{address}/"));
    browser.wait_for("102\nonline");
    browser.write("input[name=q]", "user101\u{e007}");
    browser.wait_for("user101");
    assert!(!browser.text().contains("user100"));
    drop(browser);
    assert_eq!(monitor.stop().code(), Some(0));
}
