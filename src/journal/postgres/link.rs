//! The one connection to the database: made when it is needed, given up when anything is wrong with it.

use std::collections::HashSet;
use std::future::Future;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use secrecy::ExposeSecret;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::tls::{MakeTlsConnect, NoTls, TlsConnect};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Row, Socket};

use super::failure::Failure;
use super::secured::Secure;
use crate::backoff::full_jitter;
use crate::config::settings::{DatabaseServer, DatabaseSettings};
use crate::text;
use crate::wire::tls::TlsContexts;

/// For one server to let us in.
const CONNECT: Duration = Duration::from_secs(5);

/// For a statement, and its answer. The server gives up before us.
const ANSWER: Duration = Duration::from_secs(15);

/// For those that go through whole tables.
const LONG_ANSWER: Duration = Duration::from_secs(600);

/// The longest wait between two tries to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Nobody else's settings of the role or the database count. No transaction of ours waits for us, and nobody waits for one.
const SET_UP: &str = "SET search_path = idlewatch; SET statement_timeout = '10s'; SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '5s'; SET default_transaction_isolation = 'read committed';
    SET default_transaction_read_only = off; SET client_min_messages = error";

/// Once a page cannot be read: whoever goes through a whole table meets it, and by an index only who needs it.
const BY_INDEX: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
    SET jit = off; DISCARD PLANS";

/// The most pages that are told.
const MOST_TOLD: usize = 100;

/// What mends a table.
const RESTORE: &str = "promote a standby, or restore a backup; an index by REINDEX";

/// What a statement is given.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The connection, and the thread's own runtime, which runs only while something is asked.
#[derive(Debug)]
pub(super) struct Link {
    runtime: Runtime,
    wire: Wire,
}

#[derive(Debug)]
struct Wire {
    settings: DatabaseSettings,
    contexts: TlsContexts,
    client: Option<Client>,
    /// How many connections there were.
    connections: u64,
    /// What of it cannot be read, as far as that was told.
    unreadable: HashSet<String>,
    /// Failures in a row, and until when nothing is tried.
    failures: u32,
    retry_at: Option<Instant>,
}

impl Link {
    pub(super) fn new(settings: &DatabaseSettings) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let wire = Wire {
            settings: settings.clone(),
            contexts: TlsContexts::default(),
            client: None,
            connections: 0,
            unreadable: HashSet::new(),
            failures: 0,
            retry_at: None,
        };
        Ok(Self { runtime: runtime.map_err(|error| Failure::away(error.to_string()))?, wire })
    }

    /// Which connection it is: another one may be to another server, which knows less.
    pub(super) fn generation(&self) -> u64 {
        self.wire.connections
    }

    /// How many pages could not be read so far.
    pub(super) fn unreadable(&self) -> u64 {
        self.wire.unreadable.len() as u64
    }

    /// Connects, where there is no connection: which one it is.
    pub(super) fn open(&mut self) -> Result<u64, Failure> {
        self.runtime.block_on(self.wire.client()).map(drop)?;
        Ok(self.generation())
    }

    /// One statement, in one round trip.
    pub(super) fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failure> {
        self.runtime.block_on(self.wire.query(sql, parameters, ANSWER))
    }

    /// One that goes through whole tables.
    pub(super) fn query_all(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failure> {
        self.batch("SET statement_timeout = '590s'")?;
        let rows = self.runtime.block_on(self.wire.query(sql, parameters, LONG_ANSWER));
        if matches!(rows, Ok(_) | Err(Failure::Unreadable(_))) {
            self.batch("SET statement_timeout = '10s'")?;
        }
        rows
    }

    /// Several statements without parameters: one transaction.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), Failure> {
        self.runtime.block_on(self.wire.batch(sql, ANSWER))
    }

    /// The same, of those that go through whole tables and say themselves how long each may take.
    pub(super) fn batch_all(&mut self, sql: &str) -> Result<(), Failure> {
        self.runtime.block_on(self.wire.batch(sql, LONG_ANSWER))
    }
}

impl Wire {
    async fn query(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
        patience: Duration,
    ) -> Result<Vec<Row>, Failure> {
        let client = self.client().await?;
        let answer = within(patience, client.query_typed(sql, parameters)).await;
        match &answer {
            // The connection is as good as before.
            Err(Failure::Unreadable(words)) => self.note_unreadable(words).await,
            _ => return self.judge(answer),
        }
        answer
    }

    /// Each page is told once, for it is asked for again and again.
    async fn note_unreadable(&mut self, words: &str) {
        let is_new = self.unreadable.len() < MOST_TOLD && self.unreadable.insert(words.to_owned());
        if let Some(client) = self.client.as_ref().filter(|_| is_new) {
            tell_unreadable(words, name_of(client, words).await.unwrap_or_default());
        }
    }

    async fn batch(&mut self, sql: &str, patience: Duration) -> Result<(), Failure> {
        let client = self.client().await?;
        let answer = within(patience, client.batch_execute(sql)).await;
        self.judge(answer)
    }

    /// Whatever went wrong, what comes next begins on a new connection.
    fn judge<T>(&mut self, answer: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &answer {
            self.client = None;
            self.rest(failure);
        }
        answer
    }

    /// A database that fails is not asked again at once, by whomever. Its words are told once.
    fn rest(&mut self, failure: &Failure) {
        if self.failures == 0 {
            warn!("the journal's database: {failure}");
        }
        self.failures = self.failures.saturating_add(1);
        let pause = full_jitter(Duration::from_millis(500), self.failures, rand::random()).min(LONGEST_PAUSE);
        self.retry_at = Some(Instant::now() + pause);
    }

    async fn client(&mut self) -> Result<&Client, Failure> {
        let open = self.client.take().filter(|client| !client.is_closed());
        let client = match open {
            Some(client) => client,
            None => self.connect().await?,
        };
        Ok(self.client.insert(client))
    }

    async fn connect(&mut self) -> Result<Client, Failure> {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return Err(Failure::away("it failed a moment ago"));
        }
        let connected = self.connected().await;
        if let Err(failure) = &connected {
            self.rest(failure);
            return connected;
        }
        if std::mem::take(&mut self.failures) > 0 {
            info!("the journal's database: connected");
        }
        self.retry_at = None;
        self.connections += 1;
        connected
    }

    async fn connected(&self) -> Result<Client, Failure> {
        let config = self.config().await?;
        let client = match &self.settings.tls_options {
            Some(options) => {
                let made = self.contexts.rustls_config(options);
                let tls = made.map_err(|error| Failure::Refused(text::line(&error.to_string(), 200)))?;
                connect(&config, Secure(tls)).await?
            }
            None => connect(&config, NoTls).await?,
        };
        within(ANSWER, client.batch_execute(SET_UP)).await?;
        if !self.unreadable.is_empty() {
            within(ANSWER, client.batch_execute(BY_INDEX)).await?;
        }
        Ok(client)
    }

    /// With the password as it is now: it may have been changed.
    async fn config(&self) -> Result<Config, Failure> {
        let DatabaseSettings { servers, user, name, password, tls_options, .. } = &self.settings;
        let mut config = Config::new();
        config.user(user).dbname(name).application_name("idlewatch").connect_timeout(CONNECT);
        config.target_session_attrs(TargetSessionAttrs::ReadWrite).tcp_user_timeout(ANSWER);
        config.keepalives_idle(Duration::from_secs(30)).keepalives_interval(Duration::from_secs(10));
        config.ssl_mode(if tls_options.is_some() { SslMode::Require } else { SslMode::Disable });
        for DatabaseServer { host, port } in servers {
            // A path is a directory with a socket.
            config.host(host).port(*port);
        }
        if let Some(password) = password {
            let secret = password.resolve().await.map_err(|error| Failure::Refused(error.to_string()))?;
            config.password(secret.expose_secret());
        }
        Ok(config)
    }
}

/// Its other half runs on this thread while something is asked, and ends with the client.
async fn connect<T>(config: &Config, tls: T) -> Result<Client, Failure>
where
    T: MakeTlsConnect<Socket> + Send + 'static,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let patience = CONNECT * u32::try_from(config.get_hosts().len()).unwrap_or(1).saturating_mul(2);
    let (client, connection) = within(patience, config.connect(tls)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            log::debug!("the journal's database: {}", Failure::of(&error));
        }
    });
    Ok(client)
}

/// The file that PostgreSQL names where it cannot read a page of it, of the database's own tablespace.
fn relation_of(words: &str) -> Option<u32> {
    let (_, path) = words.split_once(" of relation base/")?;
    let digits = path.split_once('/')?.1.split(|char: char| !char.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The name of the relation that cannot be read, where that is to be had, and whether it is an index. From here on as little
/// as possible is read on this connection.
async fn name_of(client: &Client, words: &str) -> Result<Option<(String, bool)>, Failure> {
    within(ANSWER, client.batch_execute(BY_INDEX)).await?;
    let Some(file) = relation_of(words) else { return Ok(None) };
    let sql = "SELECT format('%I.%I', nspname, relname) AS name, relkind = 'i' AS is_index
        FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = pg_filenode_relation(0, $1)";
    let rows = within(ANSWER, client.query_typed(sql, &[(&file, Type::OID)])).await?;
    let named = |row: &Row| Some((row.try_get("name").ok()?, row.try_get("is_index").ok()?));
    Ok(rows.first().and_then(named))
}

fn tell_unreadable(words: &str, name: Option<(String, bool)>) {
    let (what, remedy) = match name {
        Some((name, true)) => (format!("the index {name}"), format!("REINDEX INDEX {name}")),
        Some((name, false)) => (format!("the table {name}"), RESTORE.to_owned()),
        None => ("a part of what it has".to_owned(), RESTORE.to_owned()),
    };
    error!(
        "the journal's database cannot read {what}: {words}; what needs it waits until it is mended: {remedy}"
    );
}

async fn within<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Failure> {
    match timeout(patience, answer).await {
        Ok(answer) => answer.map_err(|error| Failure::of(&error)),
        Err(_) => Err(Failure::away(format!("no answer for {patience:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_in_what_postgresql_says() {
        for (words, file) in [
            ("invalid page in block 1 of relation base/5/16385 (XX001)", Some(16385)),
            ("invalid page in block 1 of relation base/5/16385_vm (XX001)", Some(16385)),
            ("invalid page in block 1 of relation pg_tblspc/9/PG_15_1/5/16385 (XX001)", None),
            ("index \"cursors_pkey\" contains unexpected zero page at block 1 (XX002)", None),
            ("invalid page in block 1 of relation base/5/", None),
        ] {
            assert_eq!(relation_of(words), file, "{words}");
        }
    }
}
