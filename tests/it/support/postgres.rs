//! A real PostgreSQL, in a directory of its own.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use idlewatch::config::settings::{DatabaseServer, DatabaseSettings};
use idlewatch::secrets::SecretSource;
use secrecy::SecretString;
use tempfile::TempDir;

use super::certificates;
use super::process::{Server, free_port, open_dir};

pub const PASSWORD: &str = "canary-of-postgres";

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

const LISTEN: &str = "127.0.0.1,127.0.0.2";

/// Its superuser is `postgres`, by the socket; `idlewatch` has to show a password.
pub struct Postgres {
    dir: TempDir,
    pub port: u16,
    /// More of its settings.
    options: String,
    server: Option<Server>,
}

impl Postgres {
    /// Its certificate is that of `localhost`, signed by [`Self::authority`].
    pub fn start_with_tls() -> Self {
        let certificates = open_dir();
        certificates::write(certificates.path());
        let (from, owned) = (certificates.path(), ["-o", "postgres", "-m", "600", "-t"]);
        let mut postgres = Self::start();
        let mut install = Command::new("install");
        install.args(owned).arg(postgres.data()).arg(from.join("good.pem")).arg(from.join("good.key"));
        assert!(install.status().unwrap().success());
        std::fs::copy(from.join("ca.pem"), postgres.authority()).unwrap();
        postgres.kill();
        postgres.options = "-c ssl=on -c ssl_cert_file=good.pem -c ssl_key_file=good.key".to_owned();
        postgres.launch();
        postgres
    }

    /// Takes connections at this address too, from whoever reaches it there.
    pub fn listen_at(&mut self, address: Ipv4Addr) {
        self.kill();
        let rules = self.data().join("pg_hba.conf");
        let mut file = File::options().append(true).open(rules).unwrap();
        writeln!(file, "host all all samenet scram-sha-256").unwrap();
        self.options = format!("-c listen_addresses={LISTEN},{address}");
        self.launch();
    }

    /// Another server that follows this one, asynchronously.
    pub fn standby(&self) -> Self {
        let standby =
            Self { dir: open_dir(), port: free_port(), options: self.options.clone(), server: None };
        let made =
            Command::new("install").args(["-d", "-o", "postgres", "-m", "700"]).arg(standby.data()).status();
        assert!(made.unwrap().success());
        let mut copy = as_postgres("pg_basebackup");
        copy.arg("-h").arg(self.data()).args([
            "-p",
            &self.port.to_string(),
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            "-D",
        ]);
        let copied = copy.arg(standby.data()).output().unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let mut standby = standby;
        standby.launch();
        standby
    }

    /// It hears nothing more of the one that it follows.
    pub fn stop_following(&self) {
        self.ask("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
        self.ask("postgres", "SELECT pg_reload_conf()");
    }

    /// Makes it the one that takes writes.
    pub fn promote(&self) {
        assert_eq!(self.ask("postgres", "SELECT pg_promote()"), "t");
    }

    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn start() -> Self {
        assert!(Path::new(PROGRAMS).exists(), "install postgresql-15 (see tests/packages.txt)");
        let mut postgres = Self { dir: open_dir(), port: free_port(), options: String::new(), server: None };
        let data = postgres.data();
        std::fs::create_dir(&data).unwrap();
        assert!(Command::new("chown").arg("postgres").arg(&data).status().unwrap().success());
        let options = [
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--no-sync",
            "--encoding=UTF8",
            "--data-checksums",
            "-D",
        ];
        let made = as_postgres("initdb").args(options).arg(&data).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres.launch();
        postgres.ask("postgres", &format!("CREATE ROLE idlewatch LOGIN PASSWORD '{PASSWORD}'"));
        postgres
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn launch(&mut self) {
        let data = self.data().display().to_string();
        let command = format!(
            "setpriv --reuid=postgres --regid=postgres --clear-groups {PROGRAMS}/postgres -D {data} -k {data} -p {} \
             -c listen_addresses={LISTEN} -c fsync=off -c max_connections=50 {}",
            self.port, self.options
        );
        self.server = Some(Server::start(&command, &[], &[self.port], &self.dir.path().join("log")));
        let end = Instant::now() + Duration::from_secs(60);
        while !self.psql("postgres", "SELECT 1").status().unwrap().success() {
            assert!(Instant::now() < end, "it does not come up");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn kill(&mut self) {
        self.server.as_ref().unwrap().kill();
        self.server = None;
    }

    /// Ends it as its administrator does: what it has in memory is in its files then.
    pub fn stop(&mut self) {
        self.server.as_ref().unwrap().signal("INT");
        self.server = None;
    }

    /// The file of a table.
    pub fn file(&self, database: &str, table: &str) -> PathBuf {
        self.data().join(self.ask(database, &format!("SELECT pg_relation_filepath('{table}')")))
    }

    /// `STOP` to the server and to all that work for it.
    pub fn sleep(&self) {
        let server = self.server.as_ref().unwrap();
        // First the one that would start more of them.
        server.signal("STOP");
        children(server).iter().for_each(|child| signal("STOP", child));
    }

    /// `CONT` to all of them but one.
    pub fn wake_but(&self, asleep: &str) {
        let server = self.server.as_ref().unwrap();
        children(server).iter().filter(|child| *child != asleep).for_each(|child| signal("CONT", child));
        server.signal("CONT");
    }

    /// Puts the process that serves the monitor to sleep, in a moment when it holds no lock: its number.
    pub fn stop_backend(&self) -> String {
        let asked = "SELECT pid, state FROM pg_stat_activity WHERE application_name = 'idlewatch'";
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let known = self.ask("postgres", asked);
            let pid = known.split('|').next().unwrap().to_owned();
            signal("STOP", &pid);
            if self.ask("postgres", asked) == format!("{pid}|idle") {
                return pid;
            }
            signal("CONT", &pid);
            assert!(Instant::now() < end, "{known}");
        }
    }

    fn psql(&self, database: &str, sql: &str) -> Command {
        let mut command = as_postgres("psql");
        let (socket, port) = (self.data(), self.port.to_string());
        command.arg("-h").arg(socket).args(["-p", &port, "-d", database, "-X", "-q", "-A", "-t", "-c", sql]);
        command
    }

    /// What psql answers to the superuser.
    pub fn ask(&self, database: &str, sql: &str) -> String {
        let answer = self.psql(database, sql).output().unwrap();
        assert!(answer.status.success(), "{sql}: {}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8(answer.stdout).unwrap().trim().to_owned()
    }

    /// A database that nobody has used.
    pub fn database(&self) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("mail{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.ask("postgres", &format!("CREATE DATABASE {name} OWNER idlewatch"));
        Database { name, port: self.port }
    }
}

fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(format!("{PROGRAMS}/{program}"));
    command.current_dir("/");
    command
}

pub struct Database {
    pub name: String,
    pub port: u16,
}

impl Database {
    /// As the configuration says it.
    pub fn keys(&self, ttl: &str) -> String {
        self.keys_at(Ipv4Addr::LOCALHOST, ttl)
    }

    /// The same, at another of its addresses.
    pub fn keys_at(&self, address: Ipv4Addr, ttl: &str) -> String {
        let Self { name, port } = self;
        format!(
            "[journal]\nurl = \"postgres://idlewatch@{address}:{port}/{name}?sslmode=disable\"\npassword = {{ inline = \"{PASSWORD}\" }}\nttl = \"{ttl}\"\n"
        )
    }

    pub fn settings(&self, ttl: Duration) -> DatabaseSettings {
        DatabaseSettings {
            servers: vec![DatabaseServer { host: "127.0.0.1".to_owned(), port: self.port }],
            user: "idlewatch".to_owned(),
            name: self.name.clone(),
            password: Some(SecretSource::Inline(SecretString::from(PASSWORD))),
            tls_options: None,
            ttl,
        }
    }
}

/// Turns bits of a page of a file over, which no checksum takes for whole. Once more, and it is as it was.
pub fn turn_over(file: &Path, page: u64) {
    let file = File::options().read(true).write(true).open(file).unwrap();
    let (mut bytes, place) = ([0; 64], page * 8192 + 4096);
    file.read_exact_at(&mut bytes, place).unwrap();
    file.write_all_at(&bytes.map(|byte| !byte), place).unwrap();
}

/// Its children, which have sessions of their own.
fn children(server: &Server) -> Vec<String> {
    let found = Command::new("pgrep").args(["-P", &server.leader()]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A signal to one process.
pub fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), pid]).status().unwrap().success());
}

/// One for all tests that let it live; it ends with the process.
pub fn shared() -> &'static Postgres {
    static SHARED: LazyLock<Postgres> = LazyLock::new(Postgres::start);
    &SHARED
}
