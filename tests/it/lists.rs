//! Accounts from lists, as their users have them: files in, events or errors out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use crate::support::action;
use crate::support::monitor::{Monitor, states, told};

const MAIL: &[u8] = b"From: Eve <eve@example.org>\r\nSubject: hello\r\n\r\nhi\r\n";

fn template(port: u16) -> String {
    format!(
        "[templates.local]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nuser = \"{{id}}\"\npassword = {{ file = \"secrets/{{id}}\" }}\n\
         [[account_lists]]\npath = \"accounts.csv\"\ntemplate = \"local\"\n[[account_lists]]\npath = \"accounts.d/*.jsonl\"\ntemplate = \"local\"\n"
    )
}

fn write(monitor: &Monitor, name: &str, text: impl AsRef<[u8]>) {
    let path = monitor.dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn run(monitor: &Monitor, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = monitor.command().args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Without the directory of the test.
fn local(text: &str, dir: &Path) -> String {
    text.replace(&format!("{}/", dir.display()), "")
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_of_lists_come_online_and_their_mail_is_told() {
    let users = ["ann", "bob", "cid", "dan"];
    let store = Store::new(users.map(|user| (user.to_owned(), format!("CANARY-pw-{user}"))));
    let server = Server::start(store, Behaviour::default()).await.unwrap();
    let mut monitor = Monitor::new(&template(server.addr().port()));
    for user in users {
        write(&monitor, &format!("secrets/{user}"), format!("CANARY-pw-{user}\n"));
    }
    write(
        &monitor,
        "accounts.csv",
        "id,user,labels.dept,enabled\r\nann,,\"sales, north\",\r\nrobert,bob,,false\r\n",
    );
    write(&monitor, "accounts.d/20.jsonl", "{\"id\":\"dan\",\"labels\":{\"dept\":\"lab\"}}\n");
    write(&monitor, "accounts.d/10.jsonl", "{\"id\":\"cid\"}\n\n");
    let (code, summary, errors) = run(&monitor, &["check", "--no-network"]);
    assert_eq!(code, Some(78), "robert has no secret file: {errors}");
    assert!(errors.contains("accounts.csv:3: password: ") && summary.is_empty(), "{errors}");
    write(&monitor, "secrets/robert", "CANARY-pw-bob\n");
    assert!(run(&monitor, &["check", "--no-network"]).1.starts_with("ok: 4 accounts"));
    monitor.start();
    for user in ["ann", "cid", "dan"] {
        monitor.wait("online", |events| !states(events, user).is_empty());
        server.store().deliver(user, "INBOX", MAIL);
        monitor.wait("told", |events| told(events, user) == [1]);
    }
    let events = monitor.events();
    let labels = |user: &str| {
        let mut own = events.iter().filter(|event| event["idlewatch"]["account"]["id"] == user);
        own.find(|event| action(event) == "message.new").unwrap()["labels"].clone()
    };
    assert_eq!(labels("ann")["dept"], "sales, north");
    assert_eq!(labels("dan")["dept"], "lab");
    assert!(states(&events, "robert").is_empty());
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(!format!("{events:?}{}", monitor.log()).contains("CANARY-pw"));
}

#[test]
fn mistakes_in_lists_have_their_lines() {
    let monitor = Monitor::new(&template(1));
    write(&monitor, "accounts.csv", "id,port,password.inline\na,x,CANARY-1\nb,1\n\na,2,CANARY-2\n");
    write(&monitor, "accounts.d/1.jsonl", "{\"id\":\"b\"}\n{\"id\":\"c\",\"prot\":1}\n{\"id\":\"a\"}\n");
    write(&monitor, "accounts.d/2.jsonl", b"{\"id\":\"d\"}\n{\"id\":\"\xff\"}\n");
    let (code, _, errors) = run(&monitor, &["check", "--no-network"]);
    let errors = local(&errors, monitor.dir.path());
    assert_eq!(code, Some(78));
    for told in [
        "accounts.csv:2: port: expected an integer, found string \"x\"\n",
        "accounts.csv:3: expected 3 cells, one per column, found 2\n",
        "accounts.csv:5: id: \"a\" is the id of another account already, at accounts.csv:2\n",
        "accounts.d/1.jsonl:2: prot: unknown key; did you mean \"port\"?\n",
        "accounts.d/1.jsonl:3: id: \"a\" is the id of another account already, at accounts.csv:2\n",
        "accounts.d/2.jsonl:2:1: not UTF-8\n",
    ] {
        assert!(local(&errors, monitor.dir.path()).contains(told), "{told}: {errors}");
    }
    assert!(!errors.contains("CANARY"), "{errors}");
    fs::remove_dir_all(monitor.dir.path().join("accounts.d")).unwrap();
    fs::remove_file(monitor.dir.path().join("accounts.csv")).unwrap();
    let (_, _, errors) = run(&monitor, &["check", "--no-network"]);
    let errors = local(&errors, monitor.dir.path());
    assert!(
        errors.contains("idlewatch.toml:14:1: account_lists[0].path: accounts.csv: No such file"),
        "{errors}"
    );
    assert!(
        errors.contains("idlewatch.toml:17:1: account_lists[1].path: warning: no file matches"),
        "{errors}"
    );
}

#[test]
fn thousands_of_bad_rows_fit_on_a_page_and_json_has_them_all() {
    let monitor = Monitor::new(&template(1));
    let rows: String = (0..3000).map(|n| format!("a{n},x\n")).collect();
    write(&monitor, "accounts.csv", format!("id,port\n{rows}"));
    let (code, _, errors) = run(&monitor, &["check", "--no-network"]);
    assert_eq!((code, errors.lines().count()), (Some(78), 23), "{errors}");
    assert!(errors.contains("accounts.csv: and 5980 more errors\n"), "{errors}");
    let (_, json, _) = run(&monitor, &["check", "--no-network", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["issues"].as_array().unwrap().len() >= 6000);
}

#[test]
fn the_configuration_is_shown_with_the_places_of_its_accounts() {
    let exec = "[outputs.x]\ntype = \"exec\"\ncommand = [\"true\"]\nenvironment = { KEY = \"CANARY\" }\n";
    let monitor = Monitor::new(&(template(1) + exec));
    write(&monitor, "accounts.csv", "id,mailboxes,password.inline\na,A|B,\nb,,CANARY\n");
    write(&monitor, "accounts.d/1.jsonl", "{\"id\":\"c\",\"labels.x\":\"y\"}\n");
    let (code, text, _) = run(&monitor, &["config", "print"]);
    let text = local(&text, monitor.dir.path());
    assert_eq!(code, Some(0));
    for shown in [
        "# accounts.csv:2\n[[accounts]]\nid = \"a\"\nmailboxes = [\"A\", \"B\"]\ntemplate = \"local\"\n",
        "[accounts.password]\ninline = \"[redacted]\"\n",
        "[outputs.x.environment]\nKEY = \"[redacted]\"\n",
        "# accounts.d/1.jsonl:1\n[[accounts]]\nid = \"c\"\ntemplate = \"local\"\n\n[accounts.labels]\nx = \"y\"\n",
    ] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    assert!(!text.contains("CANARY") && !text.contains("account_lists"), "{text}");
    let again = Monitor::new("");
    fs::write(again.config(), text).unwrap();
    write(&again, "secrets/a", "x");
    write(&again, "secrets/c", "x");
    assert!(run(&again, &["check", "--no-network"]).1.starts_with("ok: 3 accounts, 4 mailboxes"));
    let (_, paths, _) = run(&monitor, &["config", "path"]);
    assert_eq!(local(&paths, monitor.dir.path()), "idlewatch.toml\naccounts.csv\naccounts.d/1.jsonl\n");
}

/// One file an account, for tools that write one file each.
#[test]
fn ten_thousand_files_are_ten_thousand_accounts() {
    let template = template(1);
    let (template, _) = template.split_once("[[account_lists]]").unwrap();
    let monitor = Monitor::new(&template.replace("file = \"secrets/{id}\"", "env = \"PATH\""));
    for n in 0..10_000 {
        let text = format!("[[accounts]]\nid = \"a{n}\"\ntemplate = \"local\"\nlabels.n = \"{n}\"\n");
        write(&monitor, &format!("conf.d/{n:05}.toml"), text);
    }
    let (code, summary, errors) = run(&monitor, &["check", "--no-network"]);
    assert!(code == Some(0) && summary.starts_with("ok: 10000 accounts"), "{summary}{errors}");
}

/// Whole and quickly; `IDLEWATCH_LIST_ACCOUNTS` says how many.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_is_online_whole_and_its_mail_is_told_once() {
    let many = std::env::var("IDLEWATCH_LIST_ACCOUNTS").map_or(300, |many| many.parse().unwrap());
    let users: Vec<_> = (0..many).map(|n| format!("user{n:05}")).collect();
    let store = Store::new(users.iter().map(|user| (user.clone(), format!("CANARY-pw-{user}"))));
    let server = Server::start(store, Behaviour::default()).await.unwrap();
    let port = server.addr().port();
    let wide = "[connections]\nrate = \"1000/s\"\n[connections.per_host]\nrate = \"1000/s\"\n";
    let template = format!(
        "[templates.local]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nuser = \"{{id}}\"\n"
    );
    let list = "[[account_lists]]\npath = \"accounts.csv\"\ntemplate = \"local\"\n";
    let mut monitor = Monitor::new(&format!("{wide}{template}{list}"));
    let rows: String = users.iter().map(|user| format!("{user},CANARY-pw-{user}\n")).collect();
    write(&monitor, "accounts.csv", format!("id,password.inline\n{rows}"));
    fs::set_permissions(monitor.dir.path().join("accounts.csv"), fs::Permissions::from_mode(0o600)).unwrap();
    monitor.start();
    monitor.wait_for_lines("\"state\":\"online\"", many);
    for user in &users {
        server.store().deliver(user, "INBOX", MAIL);
    }
    monitor.wait_for_lines("\"message.new\"", many);
    assert_eq!(monitor.stop().code(), Some(0));
    let events = monitor.events();
    let told = events.iter().filter(|event| action(event) == "message.new");
    let mut told: Vec<_> = told.map(|event| event["idlewatch"]["account"]["id"].as_str().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(told, users);
}
