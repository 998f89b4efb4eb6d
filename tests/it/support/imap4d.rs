//! A real GNU mailutils imap4d: it announces IDLE and never pushes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::certificates;
use super::process::{Server, free_port, open_dir};

/// crypt(3) of "secret".
const HASH: &str =
    "$6$idlewatch$iMghsMlWI1N60dB3HOwojYEPJwxul1UjqZTQ1KwDmEO62jddlEA/kFZYRWEC9ujQfzFzFusCqBNq0vRowjhF.0";

pub struct Imap4d {
    pub dir: TempDir,
    pub imap: u16,
    _server: Server,
}

impl Imap4d {
    /// With `user1@example.test`, password `secret`.
    pub fn start() -> Self {
        assert!(Path::new("/usr/sbin/imap4d").exists(), "install mailutils-imap4d (see tests/packages.txt)");
        let dir = open_dir();
        let (imap, d) = (free_port(), dir.path().display().to_string());
        let uid = 10_000 + u32::from(imap);
        certificates::write(dir.path());
        fs::set_permissions(dir.path().join("good.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        fs::create_dir_all(dir.path().join("mail/user1")).unwrap();
        fs::create_dir(dir.path().join("users")).unwrap();
        fs::write(dir.path().join("mail/user1/INBOX"), "").unwrap();
        fs::write(
            dir.path().join("users/example.test"),
            format!("user1:{HASH}:{uid}:{uid}::{d}/mail/user1:/bin/sh\n"),
        )
        .unwrap();
        assert!(
            Command::new("chown")
                .args(["-R", &format!("{uid}:{uid}")])
                .arg(dir.path().join("mail"))
                .status()
                .unwrap()
                .success()
        );
        let config = format!(
            "logging {{ syslog no; }};\nauth {{ authentication clear; authentication \"generic\"; authorization clear; authorization \"virtdomain\"; }};\n\
             virtdomain {{ passwd-dir \"{d}/users\"; }};\nmailbox {{ mailbox-type mbox; }};\ncreate-home-dir no;\ntimeout 1800;\npidfile \"{d}/pid\";\n\
             mode daemon;\nforeground yes;\ntls {{ ssl-certificate-file \"{d}/good.pem\"; ssl-key-file \"{d}/good.key\"; }};\n\
             server 127.0.0.1:{imap} {{ tls-mode ondemand; }};\n"
        );
        fs::write(dir.path().join("imap4d.conf"), config).unwrap();
        let command = format!("/usr/sbin/imap4d --no-site-config --config-file={d}/imap4d.conf --foreground");
        let server = Server::start(&command, &[], &[imap], &dir.path().join("log"));
        Self { dir, imap, _server: server }
    }

    /// One message into the mbox.
    pub fn deliver(&self, subject: &str) {
        let mut mbox =
            fs::File::options().append(true).open(self.dir.path().join("mail/user1/INBOX")).unwrap();
        let text = format!(
            "From sender@example.org Mon Nov 23 10:00:00 2026\nFrom: sender@example.org\nSubject: {subject}\n\nhello\n\n"
        );
        mbox.write_all(text.as_bytes()).unwrap();
    }
}
