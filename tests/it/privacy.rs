//! What an output may not know is nowhere but in the journal.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use crate::support::monitor::{Monitor, states, told};
use crate::support::receiver::{Answer, Receiver, SECRET};

/// H22: a subject that holds a secret, and the people of a message.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_withheld_is_in_no_output_no_log_and_no_dead_letter() {
    let store = Store::new([("canary.user@example.com".to_owned(), "pw".to_owned())]);
    let server = Server::start(store, Behaviour::default()).await.unwrap();
    let receiver = Receiver::start([]);
    receiver.reject("message.new");
    let mut monitor = Monitor::new(&format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"canary.user@example.com\"\npassword = {{ inline = \"pw\" }}\n\
         [privacy]\nsubject = \"omit\"\naddresses = \"domain\"\nmessage_id = \"omit\"\nattachment_names = \"omit\"\nhash_key = {{ inline = \"key\" }}\n\
         [outputs.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\nsecret = {{ inline = \"{SECRET}\" }}\nprivacy = {{ addresses = \"hash\" }}\n\
         [outputs.open]\ntype = \"file\"\npath = \"open.jsonl\"\nprivacy = {{ subject = \"include\" }}\n",
        server.addr().port(),
        receiver.port
    ));
    monitor.start();
    monitor.wait("online", |events| states(events, "work").last().is_some_and(|state| state == "online"));
    let mail = "From: Canary Bird <canary.bird@example.org>\r\nTo: canary.two@example.net\r\nMessage-ID: <canary.id@example.org>\r\n\
                Subject: your canary.secret is 1234\r\n\r\nhi\r\n";
    server.store().deliver("canary.user@example.com", "INBOX", mail.as_bytes());
    let events = monitor.wait("told", |events| told(events, "work") == [1]);
    monitor.wait_log("now in the dead letters");
    assert_eq!(monitor.stop().code(), Some(0));
    let read = |name: &str| fs::read_to_string(monitor.dir.path().join(name)).unwrap();
    let message = events.iter().find(|event| event["event"]["action"] == "message.new").unwrap();
    assert_eq!(message["email"]["from"]["address"], serde_json::json!(["example.org"]));
    assert_eq!(message["message"], "new message in work/INBOX from example.org: (subject withheld)");
    let redacted: Vec<_> =
        message["idlewatch"]["redacted"].as_array().unwrap().iter().filter_map(|f| f.as_str()).collect();
    assert!(redacted.contains(&"email.subject") && redacted.contains(&"user.name"), "{redacted:?}");
    let open = read("open.jsonl");
    assert!(open.contains("your canary.secret is 1234"));
    let letters = read("state/dead-letters.jsonl");
    assert!(letters.contains("h.") && letters.contains("@example.org"), "{letters}");
    for (what, text) in [
        ("the file", read("events.jsonl")),
        ("the open file", open.replace("your canary.secret", "")),
        ("the dead letters", letters),
        ("what was asked of the webhook", receiver.asked().concat()),
    ] {
        assert!(!text.to_lowercase().contains("canary"), "{what}: {text}");
    }
    let said = monitor.log();
    let said: Vec<_> = said.lines().filter(|line| !line.contains(" TRACE ")).collect();
    assert!(!said.concat().to_lowercase().contains("canary"), "{said:#?}");
}

/// A receiver that may know everything repeats it: that is no reason to have it in the log, the status or the dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_repeats_of_a_mail_or_of_a_login_is_not_passed_on() {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    let server = Server::start(store, Behaviour::default()).await.unwrap();
    let receiver = Receiver::start((0..5).map(|_| Answer::Repeat(422)).chain([Answer::Repeat(401)]));
    let mut monitor = Monitor::new(&format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n\
         [outputs.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\nsecret = {{ inline = \"{SECRET}\" }}\n\
         token = {{ inline = \"canary.token\" }}\ninclude = [\"message.new\"]\n",
        server.addr().port(),
        receiver.port
    ));
    monitor.start();
    monitor.wait("online", |events| states(events, "work").last().is_some_and(|state| state == "online"));
    let mail = "From: Bird <bird@example.org>\r\nSubject: your canary.secret is 1234\r\n\r\nhi\r\n";
    server.store().deliver("bob", "INBOX", mail.as_bytes());
    monitor.wait_log("now in the dead letters");
    server.store().deliver("bob", "INBOX", mail.as_bytes());
    monitor.wait_log("the answer is 401");
    let status = monitor.command().args(["status", "--json"]).output().unwrap();
    assert_eq!(monitor.stop().code(), Some(0));
    let letters = fs::read_to_string(monitor.dir.path().join("state/dead-letters.jsonl")).unwrap();
    let letter: serde_json::Value = serde_json::from_str(letters.trim()).unwrap();
    let (status, said) = (String::from_utf8(status.stdout).unwrap(), monitor.log());
    let said: String = said.lines().filter(|line| !line.contains(" TRACE ")).collect();
    for (what, text) in
        [("the reason", &letter["reason"].to_string()), ("the status", &status), ("the log", &said)]
    {
        assert!(text.contains("Bearer [secret]") && !text.contains("canary"), "{what}: {text}");
    }
    assert!(letters.contains("your canary.secret is 1234"), "the event itself is whole");
}

/// The same for those that are no files: a program, syslog, the journal.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_withheld_reaches_no_program_no_syslog_and_no_journal() {
    let store = Store::new([("canary.user@example.com".to_owned(), "pw".to_owned())]);
    let server = Server::start(store, Behaviour::default()).await.unwrap();
    let mut monitor = Monitor::new("");
    let dir = monitor.dir.path().to_owned();
    let sockets = ["syslog", "journal"].map(|name| UnixDatagram::bind(dir.join(name)).unwrap());
    sockets.iter().for_each(|socket| socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap());
    // The program fails once, with all that it got in its mouth.
    let script = format!("cd {dir:?}; tee -a told | tail -n 1 >&2; mkdir once || exit 0; exit 1");
    monitor.configure(&format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"canary.user@example.com\"\npassword = {{ inline = \"pw\" }}\n\
         [privacy]\nsubject = \"omit\"\naddresses = \"domain\"\nmessage_id = \"omit\"\nattachment_names = \"omit\"\n\
         [outputs.exec]\ntype = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\ninclude = [\"message.new\"]\n\
         [outputs.syslog]\ntype = \"syslog\"\nurl = \"unix://{}\"\ninclude = [\"message.new\"]\n\
         [outputs.journal]\ntype = \"journald\"\nsocket = \"journal\"\ninclude = [\"message.new\"]\n",
        server.addr().port(),
        dir.join("syslog").display()
    ));
    monitor.start();
    monitor.wait("online", |events| states(events, "work").last().is_some_and(|state| state == "online"));
    let mail = "From: Canary Bird <canary.bird@example.org>\r\nTo: canary.two@example.net\r\nMessage-ID: <canary.id@example.org>\r\n\
                Subject: your canary.secret is 1234\r\n\r\nhi\r\n";
    server.store().deliver("canary.user@example.com", "INBOX", mail.as_bytes());
    let datagrams = sockets.map(|socket| {
        let mut datagram = vec![0; 1 << 16];
        let length = socket.recv(&mut datagram).unwrap();
        String::from_utf8_lossy(&datagram[..length]).into_owned()
    });
    monitor.wait_log("the output takes events again");
    assert_eq!(monitor.stop().code(), Some(0));
    let told = fs::read_to_string(dir.join("told")).unwrap();
    let said = monitor.log();
    let said: String = said.lines().filter(|line| !line.contains(" TRACE ")).collect();
    assert!(said.contains("it ended with 1: {"), "{said}");
    for text in datagrams.iter().chain([&told, &said]) {
        assert!(text.contains("message.new") && !text.to_lowercase().contains("canary"), "{text}");
    }
}
