//! Little memory and little CPU: it is killed and begins again, or becomes slower, and every message is told once. And an idle monitor takes nearly none.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use crate::support::faults::Stream;
use crate::support::limits::Group;
use crate::support::monitor::{Monitor, states, told};

async fn server() -> Server {
    Server::start(Store::new([("bob".to_owned(), "pw".to_owned())]), Behaviour::default()).await.unwrap()
}

fn account(id: &str, server: &Server) -> String {
    format!(
        "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n",
        server.addr().port()
    )
}

/// L18: the kernel's killer of processes, in the middle of a burst.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_for_want_of_memory_writes_every_message_once() {
    let server = server().await;
    let mut monitor = Monitor::new(&account("work", &server));
    let message = |size| {
        let recipients: String = (0..size).map(|n| format!("To: someone{n}@example.org\r\n")).collect();
        format!("Subject: x\r\n{recipients}\r\n")
    };
    let mut last = 0;
    for round in 1..=4 {
        monitor.start();
        monitor.wait("online", |events| states(events, "work").len() == round);
        // What it has already is not counted.
        let group = Group::of_memory(256 << 10);
        group.take(monitor.pid());
        for size in (0..1000).step_by(20) {
            for _ in 0..20 {
                last = u64::from(server.store().deliver("bob", "INBOX", message(size).as_bytes()).unwrap());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            if !monitor.is_alive() {
                break;
            }
        }
        assert_eq!(monitor.wait_end().signal(), Some(9));
    }
    assert!(!told(&monitor.events(), "work").is_empty(), "killed too early to prove anything");
    monitor.start();
    let events = monitor.wait("told", |events| told(events, "work").len() as u64 >= last);
    assert_eq!(told(&events, "work"), (1..=last).collect::<Vec<_>>());
    assert_eq!(monitor.stop().code(), Some(0));
}

/// L19: no deadline is missed, and nobody connects again.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenth_of_a_processor_makes_it_slower_only() {
    let server = server().await;
    let ids = ["a", "b", "c", "d", "e"];
    let mut monitor = Monitor::new(&ids.map(|id| account(id, &server)).concat());
    monitor.start();
    let group = Group::of_cpu(10);
    group.take(monitor.pid());
    monitor.wait("online", |events| ids.iter().all(|id| states(events, id) == ["online"]));
    let stream = Stream::start(server.store(), Duration::from_millis(20));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let last = stream.end().await;
    let events = monitor.wait("told", |events| ids.iter().all(|id| told(events, id).len() as u64 >= last));
    for id in ids {
        assert_eq!(told(&events, id), (1..=last).collect::<Vec<_>>(), "{id}");
        assert_eq!(states(&events, id), ["online"], "{id}");
    }
    assert!(group.was_felt());
    assert_eq!(monitor.stop().code(), Some(0));
}

/// How often each thread has woken.
fn wakes(pid: u32) -> BTreeMap<String, usize> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|thread| thread.unwrap());
    let times = |thread: &fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|times| times.trim().parse().ok()).unwrap_or_default()
    };
    threads.map(|thread| (thread.file_name().into_string().unwrap(), times(&thread))).collect()
}

/// Each wake finds a processor that sleeps: there is one for each thread at each tick, and nothing between. With timers of tokio's there were three for each.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_monitor_wakes_once_a_tick() {
    let server = server().await;
    let mut monitor = Monitor::new(&account("work", &server));
    monitor.start();
    monitor.wait("online", |events| states(events, "work") == ["online"]);
    // Its start ends with the progress after ten seconds, and goes on after sixty with a note of which accounts there are.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (start, before) = (Instant::now(), wakes(monitor.pid()));
    tokio::time::sleep(Duration::from_secs(31)).await;
    let after = wakes(monitor.pid());
    let ticks = usize::try_from(start.elapsed().as_secs()).unwrap() / 15 + 1;
    let woken = |thread: &String| after[thread] - before.get(thread).copied().unwrap_or_default();
    let times: Vec<_> = after.keys().map(woken).collect();
    assert!(times.iter().all(|times| *times <= 2 * ticks), "{times:?} in {ticks} ticks");
    assert!(
        times.iter().filter(|times| **times >= 2).count() >= 2,
        "some of them are there for it: {times:?}"
    );
    assert_eq!(monitor.stop().code(), Some(0));
}
