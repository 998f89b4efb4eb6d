//! Faults of the network below TCP, made by packet filter rules for one port of the loopback.

use std::process::Command;
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::support::filter::Rule;
use crate::support::isolated::{isolated, shell};
use crate::support::monitor::{Monitor, states, told};

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

fn deliver(server: &Server) {
    let to: String = (0..200).map(|n| format!("To: someone{n}@example.org\r\n")).collect();
    server.store().deliver("bob", "INBOX", format!("Subject: x\r\n{to}\r\n").as_bytes());
}

/// Accounts on this server, and on another one whose network is well.
fn accounts(server: &Server, well: &Server) -> String {
    let account = |id: &str, server: &Server| {
        format!(
            "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n",
            server.addr().port()
        )
    };
    let impatient = "command_timeout = \"2s\"\nconnect_timeout = \"2s\"\nkeepalive = { idle = \"1s\", interval = \"1s\", count = 2 }\n";
    format!("[defaults]\n{impatient}{}{}", account("sick", server), account("well", well))
}

/// The sick network comes after `online`, and is well again at the end: nothing is lost, and the other account is told
/// its mail meanwhile.
async fn survives(rule: &str, noticed: bool) {
    let (sick, well) = (server().await, server().await);
    let mut monitor = Monitor::new(&accounts(&sick, &well));
    monitor.start();
    let online = |events: &[serde_json::Value], id| states(events, id) == ["online"];
    monitor.wait("online", |events| online(events, "sick") && online(events, "well"));
    let fault = Rule::new(sick.addr().port(), rule);
    deliver(&sick);
    deliver(&well);
    monitor.wait("the other one is told", |events| told(events, "well") == [1]);
    if noticed {
        let events = monitor.wait("noticed", |events| states(events, "sick") == ["online", "backoff"]);
        assert!(
            events.iter().all(|event| event["error"]["type"] != "auth"),
            "a network is no wrong password"
        );
    }
    drop(fault);
    let events = monitor.wait("told", |events| told(events, "sick") == [1]);
    assert_eq!(states(&events, "well"), ["online"]);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Half-open: neither side hears of the other any more. Keepalive notices, whatever IDLE's period is.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_drop_is_noticed_while_idling() {
    survives("drop", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_packets_that_are_dropped_stall_and_are_no_wrong_password() {
    survives("meta length > 300 drop", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_by_a_box_in_between_is_survived() {
    survives("reject with tcp reset", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_packets_make_it_slower_only() {
    survives("numgen random mod 100 < 30 drop", false).await;
}

/// Every byte comes half a second late, both ways.
async fn delayed(to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let ((client_in, client_out), (server_in, server_out)) =
                (client.into_split(), server.into_split());
            tokio::spawn(delay(client_in, server_out));
            tokio::spawn(delay(server_in, client_out));
        }
    });
    port
}

async fn delay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let (late, mut due) = tokio::sync::mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((at, bytes)) = due.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        let _ = late.send((Instant::now() + Duration::from_millis(500), bytes[..n].to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_of_round_trip_makes_it_slower_only() {
    let far = server().await;
    let port = delayed(far.addr().port()).await;
    let text = format!(
        "[[accounts]]\nid = \"far\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n"
    );
    let mut monitor = Monitor::new(&text);
    monitor.start();
    monitor.wait("online", |events| states(events, "far") == ["online"]);
    for _ in 0..20 {
        deliver(&far);
    }
    monitor.wait("told", |events| told(events, "far") == (1..=20).collect::<Vec<_>>());
}

/// No descriptor is left: what is connected goes on, what is cut waits, and comes back when there are some again.
#[tokio::test(flavor = "multi_thread")]
async fn descriptors_that_run_out_delay_new_connections_only() {
    let (sick, well) = (server().await, server().await);
    let mut monitor = Monitor::new(&accounts(&sick, &well));
    monitor.start();
    monitor.wait("online", |events| ["sick", "well"].iter().all(|id| states(events, id) == ["online"]));
    let pid = monitor.pid().to_string();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let highest =
        open.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse::<u32>().unwrap()).max().unwrap();
    let limit = |limit: u32| {
        let status =
            Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:1024")]).status();
        assert!(status.unwrap().success());
    };
    // Only numbers below the limit are given, and none of those is free.
    limit(3.min(highest));
    sick.drop_connections();
    deliver(&sick);
    deliver(&well);
    monitor.wait("the other one is told", |events| told(events, "well") == [1]);
    monitor.wait("noticed", |events| states(events, "sick") == ["online", "backoff"]);
    limit(1024);
    monitor.wait("told", |events| told(events, "sick") == [1]);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// A connection cannot even be begun. Nobody but the network is to blame, and who is connected stays so.
#[tokio::test(flavor = "multi_thread")]
async fn no_local_port_and_no_route_are_faults_of_the_network_and_pass() {
    if !isolated("network::no_local_port_and_no_route_are_faults_of_the_network_and_pass") {
        return;
    }
    let (sick, well) = (server().await, server().await);
    let mut monitor = Monitor::new(&accounts(&sick, &well));
    monitor.start();
    monitor.wait("online", |events| ["sick", "well"].iter().all(|id| states(events, id) == ["online"]));
    let port = sick.addr().port();
    let ports = |range| format!("echo {range} > /proc/sys/net/ipv4/ip_local_port_range");
    // The rules of this network are asked before its own addresses.
    shell("ip rule add pref 100 lookup local; ip rule del pref 0; ip route add unreachable default table 9");
    let faults = [
        ("address not available", ports("40000 40001"), ports("32768 60999")),
        (
            "network unreachable",
            format!("ip rule add pref 9 dport {port} unreachable"),
            "ip rule del pref 9".into(),
        ),
        (
            "host unreachable",
            format!("ip rule add pref 9 dport {port} lookup 9"),
            "ip rule del pref 9".into(),
        ),
    ];
    for (n, (words, begin, end)) in (1..).zip(faults) {
        shell(&begin);
        let connect = |_| std::net::TcpStream::connect(("127.0.0.1", port)).ok();
        let taken: Vec<_> = (0..2).map_while(connect).collect();
        sick.drop_connections();
        deliver(&sick);
        deliver(&well);
        monitor.wait("the other one is told", |events| told(events, "well").len() == n);
        // The event is of the end of the connection, the log has each try.
        monitor.wait_log(words);
        shell(&end);
        monitor.wait("told", |events| told(events, "sick").len() == n);
        drop(taken);
    }
    let events = monitor.events();
    let mut errors = events.iter().filter_map(|event| event["error"]["type"].as_str());
    assert!(errors.all(|error| error == "connect"));
    assert_eq!(
        states(&events, "sick"),
        ["online", "backoff", "online", "backoff", "online", "backoff", "online"]
    );
    assert_eq!(states(&events, "well"), ["online"]);
    assert_eq!(monitor.stop().code(), Some(0));
}
