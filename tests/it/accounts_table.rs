//! Accounts in the table of the journal's database: brought there, read, changed while the monitor runs.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use data_encoding::BASE64;
use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use serde_json::Value;

use crate::reload::connections;
use crate::support::monitor::{Monitor, states, told};
use crate::support::postgres::{Database, Postgres, shared};

const PASSWORD: &str = "CANARY-of-the-table";

async fn server(users: usize) -> Server {
    let store = Store::new((0..users).map(|user| (format!("u{user}"), PASSWORD.to_owned())));
    Server::start(store, Behaviour::default()).await.unwrap()
}

/// The table, over defaults with these keys more.
fn monitor(server: &Server, database: &Database, defaults: &str, list: &str) -> Monitor {
    Monitor::new(&format!(
        "[connections.per_host]\nrate = \"5000/s\"\nmax_connecting = 200\n[defaults]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"{{id}}\"\n{defaults}\n[[account_lists]]\ndatabase = true\n{list}\n{}",
        server.addr().port(),
        database.keys("2s")
    ))
}

fn inline() -> String {
    format!("password = {{ inline = \"{PASSWORD}\" }}")
}

/// `accounts ...`: how it ended, and all of its words.
fn accounts(monitor: &Monitor, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = monitor.command();
    let output = command.current_dir(monitor.dir.path()).arg("accounts").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Brings a list into the table: what was told.
fn import(monitor: &Monitor, name: &str, list: &str, flags: &[&str]) -> String {
    fs::write(monitor.dir.path().join(name), list).unwrap();
    let (code, _, told) = accounts(monitor, &[&["import", name][..], flags].concat());
    assert_eq!(code, Some(0), "{told}");
    told
}

fn online(monitor: &Monitor, ids: &[String]) -> Vec<Value> {
    monitor.wait("online", |events| {
        let online = |id: &String| states(events, id).last().is_some_and(|state| state == "online");
        ids.iter().all(online)
    })
}

fn ask(database: &Database, sql: &str) -> String {
    shared().ask(&database.name, sql)
}

/// A thousand of them; what changes is touched, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_accounts_of_the_table_are_watched_and_follow_its_changes() {
    const COUNT: usize = 1000;
    let (server, database) = (server(COUNT + 1).await, shared().database());
    let mut monitor = monitor(&server, &database, &inline(), "");
    let list = |ids: std::ops::Range<usize>, label: &str| {
        let mut text = "id,labels.team\n".to_owned();
        for id in ids {
            writeln!(text, "u{id},{}", if id == 7 { label } else { "a" }).unwrap();
        }
        text
    };
    let first = list(0..COUNT, "a");
    let dry = import(&monitor, "a.csv", &first, &["--dry-run"]);
    assert!(
        dry.contains("1000 accounts added, 0 changed, 0 unchanged, 0 deleted (nothing is written"),
        "{dry}"
    );
    assert_eq!(ask(&database, "SELECT to_regclass('idlewatch.accounts') IS NULL"), "t");
    let done = import(&monitor, "a.csv", &first, &[]);
    assert!(done.contains("1000 accounts added, 0 changed, 0 unchanged, 0 deleted\n"), "{done}");
    monitor.start();
    let ids: Vec<_> = (0..COUNT).map(|id| format!("u{id}")).collect();
    online(&monitor, &ids);
    let port = server.addr().port();
    let before = connections(&monitor, port);
    assert_eq!(before.len(), COUNT);

    let again = import(&monitor, "a.csv", &first, &["--delete-missing"]);
    assert!(again.contains("0 accounts added, 0 changed, 1000 unchanged, 0 deleted"), "{again}");
    let done = import(&monitor, "b.csv", &list(1..COUNT + 1, "b"), &["--delete-missing"]);
    assert!(done.contains("1 account added, 1 changed, 998 unchanged, 1 deleted"), "{done}");
    monitor.wait_log("1 account added, 1 removed, 1 changed, 998 as before");
    let events = online(&monitor, &["u1000".to_owned(), "u7".to_owned()]);
    assert_eq!(states(&events, "u1000"), ["online"]);
    let after = connections(&monitor, port);
    assert_eq!((after.len(), after.intersection(&before).count()), (COUNT, COUNT - 2));
    assert!((8..COUNT).all(|id| states(&events, &format!("u{id}")) == ["online"]));
    assert_eq!(ask(&database, "SELECT count(*) FROM idlewatch.accounts WHERE deleted"), "1");

    // A row that is broken is told, and its account goes on; the others are taken.
    let broken = "UPDATE idlewatch.accounts SET config = '{\"prot\": 1}' WHERE id = 'u9'; UPDATE idlewatch.accounts SET deleted = true WHERE id = 'u10'";
    ask(&database, broken);
    monitor.wait_log("idlewatch.accounts: u9.prot: warning: unknown key");
    monitor.wait_log("0 accounts added, 1 removed, 0 changed, 999 as before");
    server.store().deliver("u9", "INBOX", b"Subject: x\r\n\r\nhi\r\n");
    let events = monitor.wait("told", |events| told(events, "u9") == [1]);
    assert_eq!(states(&events, "u9"), ["online"]);
    assert_eq!(connections(&monitor, port).intersection(&after).count(), COUNT - 1);
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(!monitor.log().contains(PASSWORD));
}

/// Each mistake with its line, and nothing is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_with_mistakes_is_not_imported() {
    let (server, database) = (server(1).await, shared().database());
    let monitor = monitor(&server, &database, &inline(), "");
    import(&monitor, "good.csv", "id\nu0\n", &[]);
    let before = ask(&database, "SELECT * FROM idlewatch.accounts");
    let bad = format!(
        "{{\"id\":\"u1\"}}\n{{\"id\":\"u2\",\"prot\":1}}\n{{\"id\":\"u1\"}}\n{{\"id\":\"u3\",\"password\":{{\"inline\":\"{PASSWORD}\"}}}}\n{{\"id\":\"u4\",\"password\":{{\"file\":\"pw\"}}}}\n[]\n"
    );
    fs::write(monitor.dir.path().join("bad.jsonl"), bad).unwrap();
    let (code, _, told) = accounts(&monitor, &["import", "bad.jsonl", "--delete-missing"]);
    assert_eq!(code, Some(78), "{told}");
    for expected in [
        "bad.jsonl:2: prot: unknown key; did you mean \"port\"?",
        "bad.jsonl:3: id: \"u1\" is the id of another account already, at bad.jsonl:1",
        "bad.jsonl:4: password: an inline password is kept in the database sealed only: there is no `seal_keys`",
        "bad.jsonl:5: password: in the database, the path of a file has to be absolute",
        "bad.jsonl:6: expected a JSON object, one a line",
        "error: 5 problems in the configuration",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert!(!told.contains(PASSWORD), "{told}");
    let (code, _, told) = accounts(&monitor, &["import", "none.csv"]);
    assert!(code == Some(78) && told.contains("none.csv: No such file"), "{told}");
    assert_eq!(ask(&database, "SELECT * FROM idlewatch.accounts"), before);
}

fn write_key(monitor: &Monitor, name: &str, key: u8) {
    let path = monitor.dir.path().join(name);
    fs::write(&path, BASE64.encode(&[key; 32]) + "\n").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Sealed there, opened here, and nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_password_logs_in_and_stands_nowhere_in_clear() {
    let (server, database) = (server(2).await, shared().database());
    let mut monitor = monitor(&server, &database, "", "seal_keys = [{ file = \"seal.key\" }]");
    write_key(&monitor, "seal.key", 1);
    let list = format!(
        "{{\"id\":\"u0\",\"password\":{{\"inline\":\"{PASSWORD}\"}}}}\n{{\"id\":\"u1\",\"password\":{{\"inline\":\"wrong-canary\"}}}}\n"
    );
    import(&monitor, "a.jsonl", &list, &[]);
    let dump = ask(
        &database,
        "SELECT id, config, encode(secret, 'escape'), encode(secret, 'hex') FROM idlewatch.accounts",
    );
    let hex = data_encoding::HEXLOWER.encode(PASSWORD.as_bytes());
    assert!(dump.contains("u0|{}|") && !dump.contains(PASSWORD) && !dump.contains(&hex), "{dump}");
    monitor.start();
    monitor.wait("logged in, and refused", |events| {
        let last = |id| states(events, id).last().cloned();
        last("u0").as_deref() == Some("online") && last("u1").as_deref() == Some("auth_failed")
    });

    // What was wrong is mended by another import; a key that is replaced still opens, and a new import seals anew.
    write_key(&monitor, "new.key", 2);
    let keys = |keys: &str| {
        let text = fs::read_to_string(monitor.config()).unwrap();
        let (head, rest) = text.split_once("seal_keys = ").unwrap();
        let (_, tail) = rest.split_once('\n').unwrap();
        fs::write(monitor.config(), format!("{head}seal_keys = {keys}\n{tail}")).unwrap();
    };
    keys("[{ file = \"new.key\" }, { file = \"seal.key\" }]");
    monitor.signal("HUP");
    monitor.wait_log("the configuration was read again");
    let list = list.replace("wrong-canary", PASSWORD);
    let done = import(&monitor, "a.jsonl", &list, &[]);
    assert!(done.contains("0 accounts added, 2 changed, 0 unchanged"), "{done}");
    let events = online(&monitor, &["u1".to_owned()]);
    assert_eq!(states(&events, "u0"), ["online"], "the same password, sealed otherwise, is no change");
    assert!(import(&monitor, "a.jsonl", &list, &[]).contains("2 unchanged"));

    // Without secrets, with them for the owner alone, and never over a file that is there.
    let (code, lines, left_out) = accounts(&monitor, &["export"]);
    assert_eq!((code, lines.as_str()), (Some(0), "{\"id\":\"u0\"}\n{\"id\":\"u1\"}\n"), "{left_out}");
    assert!(left_out.contains("2 passwords left out"), "{left_out}");
    assert_eq!(accounts(&monitor, &["export", "--with-secrets"]).0, Some(2));
    let (code, lines, words) = accounts(&monitor, &["export", "out.jsonl", "--with-secrets"]);
    assert_eq!((code, lines.as_str()), (Some(0), ""), "{words}");
    let out = monitor.dir.path().join("out.jsonl");
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&out).unwrap().matches(PASSWORD).count(), 2);
    assert_eq!(accounts(&monitor, &["export", "out.jsonl", "--with-secrets"]).0, Some(74));
    assert!(import(&monitor, "again.jsonl", &fs::read_to_string(out).unwrap(), &[]).contains("2 unchanged"));

    // A key that opens nothing: told, and whoever is watched goes on.
    write_key(&monitor, "new.key", 3);
    keys("[{ file = \"new.key\" }]");
    monitor.signal("HUP");
    for id in ["u0", "u1"] {
        monitor.wait_log(&format!(
            "idlewatch.accounts: {id}: warning: no key of `seal_keys` opens the sealed password"
        ));
    }
    monitor.wait_log("0 accounts added, 0 removed, 0 changed, 2 as before");
    server.store().deliver("u0", "INBOX", b"Subject: x\r\n\r\nhi\r\n");
    monitor.wait("told", |events| told(events, "u0") == [1]);
    assert_eq!(monitor.stop().code(), Some(0));
    let said = monitor.log() + &left_out + &words;
    assert!(!said.contains(PASSWORD) && !said.contains("wrong-canary"));
    assert!(![1, 2, 3].iter().any(|key| said.contains(&BASE64.encode(&[*key; 32]))), "{said}");
}

/// Nothing changes while it is away, and what was changed meanwhile is taken once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_changes_nothing_and_is_waited_for() {
    let (mut postgres, server) = (Postgres::start(), server(2).await);
    let database = postgres.database();
    let mut monitor = monitor(&server, &database, &inline(), "");
    import(&monitor, "a.csv", "id\nu0\n", &[]);
    postgres.kill();
    assert_eq!(accounts(&monitor, &["import", "a.csv"]).0, Some(71));
    monitor.start();
    monitor.wait_log("the journal's database: ");
    postgres.launch();
    online(&monitor, &["u0".to_owned()]);
    let before = connections(&monitor, server.addr().port());
    postgres.kill();
    monitor.signal("HUP");
    monitor.wait_log("0 accounts added, 0 removed, 0 changed, 1 as before");
    assert_eq!(connections(&monitor, server.addr().port()), before);
    postgres.launch();
    import(&monitor, "b.csv", "id\nu1\n", &[]);
    let events = online(&monitor, &["u1".to_owned()]);
    assert_eq!(states(&events, "u0"), ["online"]);
    assert!(connections(&monitor, server.addr().port()).is_superset(&before));
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Whoever may write the table needs no other right, and whatever it does there is followed.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_others_write_move_and_take_away_are_followed() {
    let (server, database) = (server(4).await, shared().database());
    let mut monitor = monitor(&server, &database, &inline(), "");
    import(&monitor, "a.csv", "id\nu0\nu1\nu2\n", &[]);
    ask(
        &database,
        "CREATE ROLE writer; GRANT USAGE ON SCHEMA idlewatch TO writer; GRANT ALL ON idlewatch.accounts TO writer",
    );
    let write = |sql: &str| ask(&database, &format!("SET ROLE writer; {sql}"));
    monitor.start();
    online(&monitor, &["u0", "u1", "u2"].map(str::to_owned));
    let (port, watched) = (server.addr().port(), |count: usize| move |found: usize| found == count);
    let connected = |is: &dyn Fn(usize) -> bool| {
        monitor.wait("followed", |_| is(connections(&monitor, port).len()));
    };
    write("DELETE FROM idlewatch.accounts WHERE id = 'u0'");
    monitor.wait_log("0 accounts added, 1 removed, 0 changed, 2 as before");
    write("UPDATE idlewatch.accounts SET id = 'u3' WHERE id = 'u1'");
    monitor.wait_log("1 account added, 1 removed, 0 changed, 1 as before");
    online(&monitor, &["u3".to_owned()]);
    connected(&watched(2));
    // One that is written before and committed after another one's look is seen all the same.
    write(
        "BEGIN; INSERT INTO idlewatch.accounts (id, config) VALUES ('u0', '{}'); SELECT pg_sleep(7); COMMIT",
    );
    online(&monitor, &["u0".to_owned()]);
    connected(&watched(3));
    write("TRUNCATE idlewatch.accounts");
    monitor.wait_log("0 accounts added, 3 removed, 0 changed, 0 as before");
    connected(&watched(0));
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Whatever the flags leave out is left out when it comes, too, or becomes so.
#[tokio::test(flavor = "multi_thread")]
async fn flags_narrow_rows_whenever_they_are_read() {
    let (server, database) = (server(3).await, shared().database());
    let mut monitor = monitor(&server, &database, &inline(), "");
    import(&monitor, "a.csv", "id\nu0\nu1\n", &[]);
    let mut command = monitor.command();
    command.args(["run", "--account", "u[02]", "--mailbox", "INBOX"]);
    monitor.start_by(command);
    online(&monitor, &["u0".to_owned()]);
    import(&monitor, "b.csv", "id\nu2\n", &[]);
    online(&monitor, &["u2".to_owned()]);
    ask(&database, "UPDATE idlewatch.accounts SET config = '{\"mailboxes\": [\"Sent\"]}' WHERE id = 'u0'");
    monitor.wait_log("0 accounts added, 1 removed, 0 changed, 1 as before");
    ask(&database, "UPDATE idlewatch.accounts SET config = '{\"labels\": {\"x\": \"y\"}}' WHERE id = 'u1'");
    monitor.wait_log("of 1 row of the table, none is meant by --account or --mailbox");
    assert!(states(&monitor.events(), "u1").is_empty());
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Neither a table that comes with a reload nor keys that come late need a start.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_and_keys_that_come_later_are_read() {
    let (server, database) = (server(3).await, shared().database());
    let mut monitor = monitor(&server, &database, "", "seal_keys = [{ file = \"seal.key\" }]");
    write_key(&monitor, "seal.key", 1);
    let row = |id| format!("{{\"id\":\"{id}\",\"password\":{{\"inline\":\"{PASSWORD}\"}}}}\n");
    import(&monitor, "a.jsonl", &(row("u0") + &row("u1")), &[]);
    let (key, away) = (monitor.dir.path().join("seal.key"), monitor.dir.path().join("away"));
    fs::rename(&key, &away).unwrap();
    let with_table = fs::read_to_string(monitor.config()).unwrap();
    let (head, rest) = with_table.split_once("[[account_lists]]").unwrap();
    let (_, tail) = rest.split_once("[journal]").unwrap();
    let filed = format!("[[accounts]]\nid = \"u2\"\npassword = {{ inline = \"{PASSWORD}\" }}\n");
    fs::write(monitor.config(), format!("{head}{filed}[journal]{tail}")).unwrap();
    monitor.start();
    online(&monitor, &["u2".to_owned()]);
    fs::write(monitor.config(), format!("{with_table}{filed}")).unwrap();
    monitor.signal("HUP");
    monitor.wait_log("idlewatch.accounts: u0: warning: `seal_keys`: ");
    fs::rename(&away, &key).unwrap();
    online(&monitor, &["u0", "u1"].map(str::to_owned));
    // A row takes nothing from an account in a file, whatever becomes of the row.
    ask(&database, "INSERT INTO idlewatch.accounts (id, config) VALUES ('u2', '{}')");
    monitor.wait_log("idlewatch.accounts: u2.id: warning: \"u2\" is the id of another account already");
    monitor.signal("HUP");
    ask(&database, "DELETE FROM idlewatch.accounts WHERE id IN ('u1', 'u2')");
    monitor.wait_log("0 accounts added, 1 removed, 0 changed, 2 as before");
    let events = monitor.events();
    assert!(["u0", "u2"].iter().all(|id| states(&events, id) == ["online"]), "{events:?}");
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Each follows it for its own part.
#[tokio::test(flavor = "multi_thread")]
async fn monitors_that_share_the_accounts_share_the_table() {
    const COUNT: usize = 60;
    let (server, database) = (server(COUNT + 1).await, shared().database());
    let [mut a, mut b] = ["a", "b"].map(|name| {
        let monitor = monitor(&server, &database, &inline(), "");
        let config = fs::read_to_string(monitor.config()).unwrap();
        let named = config.replacen("instance = \"test\"", &format!("instance = \"{name}\""), 1);
        fs::write(monitor.config(), named).unwrap();
        monitor
    });
    let list: String = (0..COUNT).map(|id| format!("u{id}\n")).collect();
    import(&a, "a.csv", &format!("id\n{list}"), &[]);
    a.start();
    b.start();
    let watched = |monitor: &Monitor| connections(monitor, server.addr().port()).len();
    a.wait("shared", |_| {
        let (one, other) = (watched(&a), watched(&b));
        one + other == COUNT && one.min(other) >= COUNT / 4
    });
    import(&b, "b.csv", &format!("id\nu{COUNT}\n"), &[]);
    a.wait("one more", |_| watched(&a) + watched(&b) == COUNT + 1);
    let newest = format!("u{COUNT}");
    let begun = [&a, &b].map(|monitor| {
        let has_read = monitor.log().contains("the table of accounts changed");
        (has_read, states(&monitor.events(), &newest).is_empty())
    });
    assert!(begun == [(true, false), (false, true)] || begun == [(false, true), (true, false)], "{begun:?}");
    // What one leaves the other reads then, and knows what changed meanwhile; what is back with the first is forgotten.
    assert_eq!(a.stop().code(), Some(0));
    b.wait("all of them", |_| watched(&b) == COUNT + 1);
    let change = "UPDATE idlewatch.accounts SET deleted = true WHERE id = 'u0'; UPDATE idlewatch.accounts SET config = '{\"enabled\": false}' WHERE id = 'u1'";
    ask(&database, change);
    b.wait("without two", |_| watched(&b) == COUNT - 1);
    a.start();
    b.wait("shared again", |_| {
        let (one, other) = (watched(&a), watched(&b));
        one + other == COUNT - 1 && one.min(other) >= COUNT / 4
    });
    let known = |monitor: &Monitor| {
        let output = monitor.command().args(["status", "--json"]).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = |state: &str| status["accounts"][state].as_u64().unwrap_or_default();
        (of("online") as usize == watched(monitor), of("disabled"))
    };
    b.wait("each account is known to one", |_| {
        let known = [known(&a), known(&b)];
        known.iter().all(|(online, _)| *online) && known[0].1 + known[1].1 == 1
    });
    for monitor in [&mut a, &mut b] {
        assert_eq!(monitor.stop().code(), Some(0));
    }
}
