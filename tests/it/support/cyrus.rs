//! A real Cyrus IMAP 3.6, unpacked by `scripts/unpack cyrus ...`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::certificates;
use super::process::{Server, free_port, open_dir};

pub struct Cyrus {
    pub dir: TempDir,
    pub imap: u16,
    pub imaps: u16,
    _server: Server,
}

impl Cyrus {
    /// With `user1`, password `secret`.
    pub fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cyrus");
        assert!(
            root.join("usr/lib/cyrus/bin/imapd").exists(),
            "run scripts/unpack cyrus ... (apt-get download)"
        );
        let dir = open_dir();
        let root = copy(&root, dir.path());
        let (imap, imaps) = (free_port(), free_port());
        certificates::write(dir.path());
        configure(dir.path(), &root, imap, imaps);
        let d = dir.path().display().to_string();
        add_user(dir.path());
        let owned = Command::new("chown").args(["-R", "mail:mail", &d]).status().unwrap();
        assert!(owned.success());
        let command = format!(
            "{0}/usr/lib/cyrus/bin/master -D -C {d}/imapd.conf -M {d}/cyrus.conf -p {d}/master.pid",
            root.display()
        );
        let libraries = root.join("usr/lib/x86_64-linux-gnu").display().to_string();
        let env = [("LD_LIBRARY_PATH", libraries.as_str()), ("CYRUS_USER", "mail")];
        let server = Server::start(&command, &env, &[imap, imaps], &dir.path().join("log"));
        let server = Self { dir, imap, imaps, _server: server };
        // The first login makes the user's INBOX.
        server.say(&["a LOGIN user1 secret", "b LOGOUT"], "");
        server
    }

    /// One message to the INBOX, by APPEND.
    pub fn deliver(&self, subject: &str) {
        self.deliver_to("INBOX", subject);
    }

    /// A new mailbox.
    pub fn create(&self, mailbox: &str) {
        self.say(&["a LOGIN user1 secret", &format!("b CREATE \"{mailbox}\""), "c LOGOUT"], "");
    }

    /// Another client of `user1` does this in the INBOX.
    pub fn in_inbox(&self, commands: &[&str]) {
        let tagged = commands.iter().zip(1..).map(|(command, n)| format!("c{n} {command}"));
        let tagged: Vec<_> = tagged.collect();
        let all = ["a LOGIN user1 secret", "b SELECT INBOX"].into_iter();
        let all: Vec<_> = all.chain(tagged.iter().map(String::as_str)).chain(["z LOGOUT"]).collect();
        self.say(&all, "");
    }

    /// One message, by APPEND.
    pub fn deliver_to(&self, mailbox: &str, subject: &str) {
        let message = format!("From: sender@example.org\r\nSubject: {subject}\r\n\r\nhello\r\n");
        let append = format!("b APPEND \"{mailbox}\" {{{}+}}", message.len());
        self.say(&["a LOGIN user1 secret", &append, "c LOGOUT"], &message);
    }

    /// What all sessions have said so far.
    pub fn heard(&self) -> String {
        let files = fs::read_dir(self.dir.path().join("conf/log/user1")).unwrap();
        let read = |file: std::io::Result<fs::DirEntry>| fs::read(file.ok()?.path()).ok();
        let files: Vec<Vec<u8>> = files.filter_map(read).collect();
        String::from_utf8_lossy(&files.concat()).into_owned()
    }

    fn say(&self, commands: &[&str], literal: &str) {
        let stream = TcpStream::connect(("127.0.0.1", self.imap)).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut writer = stream;
        for command in commands {
            let literal = if command.ends_with("+}") { format!("{literal}\r\n") } else { String::new() };
            writer.write_all(format!("{command}\r\n{literal}").as_bytes()).unwrap();
            let tag = command.split(' ').next().unwrap();
            let answer = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with(tag)).unwrap();
            assert!(answer.starts_with(&format!("{tag} OK")), "{answer}");
        }
    }
}

/// Cyrus runs as the user mail, who cannot enter every build directory.
fn copy(root: &Path, dir: &Path) -> PathBuf {
    let copied = Command::new("cp").arg("-r").arg(root.join("usr")).arg(dir).status().unwrap();
    assert!(copied.success());
    dir.to_owned()
}

fn configure(dir: &Path, root: &Path, imap: u16, imaps: u16) {
    let (d, bin) = (dir.display(), root.join("usr/lib/cyrus/bin").display().to_string());
    for name in [
        "conf/socket",
        "conf/db",
        "conf/proc",
        // A directory of a user's name has it write down what that user says.
        "conf/log/user1",
        "conf/user",
        "conf/quota",
        "conf/lock",
        "spool",
        "socket",
    ] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    let imapd = format!(
        "configdirectory: {d}/conf\npartition-default: {d}/spool\ndefaultpartition: default\nproc_path: {d}/conf/proc\nmboxname_lockpath: {d}/conf/lock\n\
         admins: cyrusadmin\nservername: localhost\ndefaultdomain: localhost\nvirtdomains: off\naltnamespace: yes\nunixhierarchysep: yes\nallowplaintext: yes\n\
         sasl_pwcheck_method: auxprop\nsasl_auxprop_plugin: sasldb\nsasl_sasldb_path: {d}/sasldb2\nsasl_mech_list: PLAIN LOGIN\nloginrealms: localhost\n\
         autocreate_quota: 0\nautocreate_post: yes\nautocreate_users: anyone\nidlesocket: {d}/socket/idle\nlmtpsocket: {d}/socket/lmtp\nnotifysocket: {d}/socket/notify\n\
         imapidlepoll: 60\nexpunge_mode: immediate\ndelete_mode: immediate\ntls_server_cert: {d}/good.pem\ntls_server_key: {d}/good.key\n\
         tls_sessions_db_path: {d}/conf/tls_sessions.db\nsyslog_prefix: cyrus\nsievedir: {d}/conf/sieve\nconversations: 0\n"
    );
    fs::write(dir.join("imapd.conf"), imapd).unwrap();
    let services = format!(
        "START {{\n recover cmd=\"{bin}/ctl_cyrusdb -C {d}/imapd.conf -r\"\n}}\nSERVICES {{\n \
         imap cmd=\"{bin}/imapd -C {d}/imapd.conf -U 250\" listen=\"127.0.0.1:{imap}\" prefork=1 maxchild=50\n \
         imaps cmd=\"{bin}/imapd -s -C {d}/imapd.conf -U 250\" listen=\"127.0.0.1:{imaps}\" prefork=0 maxchild=50\n}}\n\
         EVENTS {{\n checkpoint cmd=\"{bin}/ctl_cyrusdb -C {d}/imapd.conf -c\" period=30\n}}\nDAEMON {{\n idled cmd=\"{bin}/idled -C {d}/imapd.conf\"\n}}\n"
    );
    fs::write(dir.join("cyrus.conf"), services).unwrap();
}

fn add_user(dir: &Path) {
    let mut child = Command::new("/usr/sbin/saslpasswd2")
        .args(["-p", "-c", "-u", "localhost", "-f"])
        .arg(dir.join("sasldb2"))
        .arg("user1")
        .stdin(Stdio::piped())
        .spawn()
        .expect("install sasl2-bin (see tests/packages.txt)");
    child.stdin.take().unwrap().write_all(b"secret").unwrap();
    assert!(child.wait().unwrap().success());
}
