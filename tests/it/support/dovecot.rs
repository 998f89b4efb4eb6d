//! A real Dovecot 2.3 in a directory of its own. A server that cannot start fails the test.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::certificates;
use super::process::{Server, free_port, open_dir};

/// What each loopback address is for.
pub const GOOD: &str = "127.0.0.1";
pub const EXPIRED: &str = "127.0.0.2";
pub const WRONG_HOST: &str = "127.0.0.3";
pub const LOGIN_DISABLED: &str = "127.0.0.6";

/// What access tokens are signed by.
pub const TOKEN_KEY: &[u8] = b"key-of-the-tokens-of-tests-of-32-bytes-or-more";

pub struct Dovecot {
    dir: TempDir,
    pub imap: u16,
    pub imaps: u16,
    lmtp: u16,
    server: Option<Server>,
}

impl Dovecot {
    /// With users `user1` to `userN`, password `secret`.
    pub fn start(users: usize) -> Self {
        Self::start_with(users, "")
    }

    /// With more lines in its configuration; `%DIR%` is its directory.
    pub fn start_with(users: usize, more: &str) -> Self {
        assert!(
            Path::new("/usr/sbin/dovecot").exists(),
            "install dovecot-core dovecot-imapd dovecot-lmtpd (see tests/packages.txt)"
        );
        let dir = open_dir();
        let mut server = Self { dir, imap: free_port(), imaps: free_port(), lmtp: free_port(), server: None };
        certificates::write(server.dir.path());
        server.write_config(users, more);
        server.launch();
        server
    }

    pub fn ca_file(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// One of the certificates and keys.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_config(&self, users: usize, more: &str) {
        let d = self.dir.path().display();
        // Mail belongs to a numeric user of its own: Dovecot refuses root.
        let (imap, imaps, lmtp, uid) = (self.imap, self.imaps, self.lmtp, 10_000 + u32::from(self.imap));
        let config = format!(
            "base_dir = {d}/run\nstate_dir = {d}/state\nlog_path = {d}/dovecot.log\nprotocols = imap lmtp\n\
             listen = {GOOD}, {EXPIRED}, {WRONG_HOST}, {LOGIN_DISABLED}\nmail_fsync = never\nfirst_valid_uid = 1000\nmail_uid = {uid}\nmail_gid = {uid}\n\
             mail_location = maildir:%h/Maildir\nmail_home = {d}/mail/%n\nmail_max_userip_connections = 0\n\
             default_vsz_limit = 1G\ndefault_client_limit = 2000\ndefault_process_limit = 1000\n\
             auth_mechanisms = plain xoauth2 oauthbearer\ndisable_plaintext_auth = no\nauth_failure_delay = 0 secs\n\
             passdb {{\n driver = oauth2\n mechanisms = xoauth2 oauthbearer\n args = {d}/oauth2.conf\n}}\n\
             passdb {{\n driver = passwd-file\n mechanisms = plain\n args = username_format=%n {d}/users\n}}\n\
             userdb {{\n driver = static\n args = uid={uid} gid={uid} home={d}/mail/%n allow_all_users=yes\n}}\n\
             service anvil {{\n unix_listener anvil-auth-penalty {{\n  mode = 0\n }}\n}}\n\
             service imap-login {{\n service_count = 0\n client_limit = 1000\n inet_listener imap {{\n  port = {imap}\n }}\n inet_listener imaps {{\n  port = {imaps}\n  ssl = yes\n }}\n}}\n\
             service imap {{\n process_limit = 1000\n}}\n\
             service lmtp {{\n inet_listener lmtp {{\n  address = 127.0.0.1\n  port = {lmtp}\n }}\n}}\n\
             namespace inbox {{\n inbox = yes\n separator = /\n}}\n\
             ssl = yes\nssl_cert = <{d}/good.pem\nssl_key = <{d}/good.key\n\
             local {EXPIRED} {{\n ssl_cert = <{d}/expired.pem\n ssl_key = <{d}/expired.key\n}}\n\
             local {WRONG_HOST} {{\n ssl_cert = <{d}/wrong.pem\n ssl_key = <{d}/wrong.key\n}}\n\
             local {LOGIN_DISABLED} {{\n ssl = required\n disable_plaintext_auth = yes\n}}\n"
        );
        let more = more.replace("%DIR%", &d.to_string());
        fs::write(self.dir.path().join("dovecot.conf"), config + &more).unwrap();
        self.write_token_key();
        let users: String = (1..=users).map(|n| format!("user{n}:{{PLAIN}}secret::::::\n")).collect();
        fs::write(self.dir.path().join("users"), users).unwrap();
        fs::create_dir(self.dir.path().join("mail")).unwrap();
        Command::new("chown").arg(format!("{uid}:{uid}")).arg(self.dir.path().join("mail")).status().unwrap();
    }

    /// Access tokens are JWTs that Dovecot validates by itself: HS256, `sub` is the user.
    fn write_token_key(&self) {
        let (dir, keys) = (self.dir.path(), self.dir.path().join("keys/default/HS256"));
        let oauth2 = format!(
            "introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={}/keys/\nusername_attribute = sub\n",
            dir.display()
        );
        fs::write(dir.join("oauth2.conf"), oauth2).unwrap();
        fs::create_dir_all(&keys).unwrap();
        fs::write(keys.join("default"), data_encoding::BASE64.encode(TOKEN_KEY)).unwrap();
    }

    fn launch(&mut self) {
        let command = format!("/usr/sbin/dovecot -F -c {}", self.dir.path().join("dovecot.conf").display());
        let ports = [self.imap, self.lmtp];
        self.server = Some(Server::start(&command, &[], &ports, &self.dir.path().join("start.log")));
    }

    pub fn stop(&mut self) {
        self.server = None;
    }

    /// `kill -9` of all processes, and a new start.
    pub fn crash(&mut self) {
        self.server.as_ref().unwrap().kill();
        self.restart();
    }

    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    /// One message to each of `users`, by LMTP.
    pub fn deliver(&self, users: &[String], subject: &str) {
        self.try_deliver(users, subject).unwrap();
    }

    /// The same; a server that was just started may hang up.
    pub fn try_deliver(&self, users: &[String], subject: &str) -> io::Result<()> {
        let stream = TcpStream::connect(("127.0.0.1", self.lmtp))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        let mut expect = |code: &str| {
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                if !line.starts_with(code) {
                    return Err(io::Error::other(line));
                }
                if line.as_bytes().get(3) == Some(&b' ') {
                    return Ok(());
                }
            }
        };
        expect("220")?;
        writer.write_all(b"LHLO test\r\n")?;
        expect("250")?;
        writer.write_all(b"MAIL FROM:<sender@example.org>\r\n")?;
        expect("250")?;
        for user in users {
            writer.write_all(format!("RCPT TO:<{user}@example.org>\r\n").as_bytes())?;
            expect("250")?;
        }
        writer.write_all(b"DATA\r\n")?;
        expect("354")?;
        let message = format!(
            "From: Sender <sender@example.org>\r\nTo: all@example.org\r\nSubject: {subject}\r\n\r\nhello\r\n.\r\n"
        );
        writer.write_all(message.as_bytes())?;
        users.iter().try_for_each(|_| expect("250"))?;
        writer.write_all(b"QUIT\r\n")
    }

    /// One message to any mailbox, whether the server runs or not.
    pub fn save(&self, user: &str, mailbox: &str, subject: &str) {
        let conf = self.dir.path().join("dovecot.conf");
        let mut command = Command::new("doveadm");
        command.arg("-c").arg(conf).args(["save", "-u", user, "-m", mailbox]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let message = format!("From: Sender <sender@example.org>\r\nSubject: {subject}\r\n\r\nhello\r\n");
        child.stdin.take().unwrap().write_all(message.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{mailbox}: {subject}");
    }

    /// `doveadm`
    pub fn adm(&self, arguments: &[&str]) -> String {
        let conf = self.dir.path().join("dovecot.conf");
        let output = Command::new("doveadm").arg("-c").arg(conf).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends the connections of a user, if there are any.
    pub fn kick(&self, user: &str) {
        let conf = self.dir.path().join("dovecot.conf");
        Command::new("doveadm").arg("-c").arg(conf).args(["kick", user]).output().unwrap();
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("dovecot.log")).unwrap_or_default()
    }

    /// The headers that all sessions which logged out have fetched.
    pub fn headers_fetched(&self) -> u64 {
        let counts = self.log();
        let counts = counts.split("hdr_count=").skip(1).filter_map(|rest| rest.split(' ').next());
        counts.filter_map(|count| count.parse::<u64>().ok()).sum()
    }

    /// The server's own list of UIDs.
    pub fn uids(&self, user: &str) -> Vec<u64> {
        let found = self.adm(&["search", "-u", user, "mailbox", "INBOX", "all"]);
        found.lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect()
    }
}
