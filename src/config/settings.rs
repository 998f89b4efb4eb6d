//! The valid configuration: what the rest of the program may rely on. Only `config::validate` makes it.

mod outputs;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use globset::{Glob, GlobSet};
use jiff::Timestamp;

pub use self::outputs::{
    ElasticsearchSettings, EndpointSettings, ExecSettings, HttpLogin, JournaldSettings, KafkaCompression,
    KafkaSettings, LokiSettings, NatsSettings, OtlpSettings, OutputKind, RedisSettings, RotationSettings,
    SaslLogin, SaslMechanism, SyslogServer, SyslogSettings, SyslogTransport, WebhookBody, WebhookSettings,
};
use super::providers::Chosen;
use super::rows::RowReader;
use crate::cluster::shard::ShardSet;
use crate::event::{AccountId, AccountIdentity, Action};
use crate::filter::Filters;
use crate::imap::conversation::ToldFrom;
use crate::imap::search::Criteria;
use crate::mailbox_choice::MailboxChoice;
use crate::oauth::grant::Grant;
use crate::privacy::Rules;
use crate::secrets::SecretSource;

/// All of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[monitor]`
    pub monitor: MonitorSettings,
    /// `[[accounts]]` in the order of the files, then those of `[[account_lists]]`; with templates and defaults applied.
    pub accounts: Vec<Arc<Account>>,
    /// Accounts are left out by flags: what is not there is not gone.
    pub narrowed: bool,
    /// What was read of the table `accounts`, where one of `[[account_lists]]` is that.
    pub table: Option<TableReading>,
    /// `[connections]`
    pub connections: ConnectionSettings,
    /// `[journal]`
    pub journal: JournalSettings,
    /// `[events]`
    pub events: EventSettings,
    /// `[outputs.X]`; never empty (one stdout where none is configured).
    pub outputs: Vec<OutputSettings>,
    /// `[filters.X]`, in the order of the files.
    pub filters: Arc<Filters>,
    /// `[http]`
    pub http: HttpSettings,
    /// `metrics.per_account`
    pub metrics: MetricSettings,
    /// `[log]`
    pub log: LogSettings,
}

/// The table `accounts` in the journal's database, as far as it was read.
#[derive(Clone, Debug)]
pub struct TableReading {
    /// The rows of these shards were read.
    pub shards: ShardSet,
    /// The accounts that are rows.
    pub ids: HashSet<AccountId>,
    /// Rows that are no accounts: what is watched by these names stays as it is.
    pub broken: HashSet<AccountId>,
    /// Reads rows as this configuration has them.
    pub reader: Arc<RowReader>,
}

impl TableReading {
    /// Whether all of its accounts are known.
    pub fn is_whole(&self) -> bool {
        self.shards == ShardSet::ALL
    }
}

/// Where the table `accounts` is.
#[derive(Clone, Debug)]
pub struct TableSettings {
    /// The journal's database.
    pub database: DatabaseSettings,
    /// What its passwords are sealed with: the first seals, all of them open.
    pub seal_keys: Vec<SecretSource>,
}

/// `[monitor]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorSettings {
    /// `idlewatch.instance` of every event.
    pub instance: Arc<str>,
    /// Where the journal, the lock and the dead letters are.
    pub state_dir: PathBuf,
    /// The time to stop in.
    pub shutdown_timeout: Duration,
    /// Refuse to start without state.
    pub require_state: bool,
    /// Read the configuration again when its files change.
    pub reload_on_change: bool,
}

/// One account. What it has in common with others is shared.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// Id, user, host, port and labels.
    pub identity: Arc<AccountIdentity>,
    /// `false`: known, but not watched.
    pub enabled: bool,
    /// How it logs in.
    pub login: LoginMeans,
    /// Who connects for it; one for all accounts that have it from the same place.
    pub proxy: Option<Arc<ProxySettings>>,
    /// How it is watched; equal policies are one.
    pub policy: Arc<Policy>,
}

/// `proxy`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySettings {
    /// What it speaks.
    pub protocol: ProxyProtocol,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Who we are to it.
    pub credentials: Option<ProxyCredentials>,
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// SOCKS5 (RFC 1928); names are resolved by the proxy.
    Socks5,
    /// CONNECT (RFC 9110 section 9.3.6).
    Http,
}

/// `proxy.user` and `proxy.password`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyCredentials {
    /// The user.
    pub user: String,
    /// Where the password comes from.
    pub password: SecretSource,
}

/// `password`, `oauth` or `sasl`
#[derive(Clone, Debug, PartialEq)]
pub enum LoginMeans {
    /// Where the password comes from.
    Password(SecretSource),
    /// Where access tokens come from.
    OAuth(Arc<Grant>),
    /// The file of our certificate, which TLS shows: SASL EXTERNAL.
    Certificate(SecretSource),
}

/// How accounts are watched: all that is not about who they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The provider; `None` for a server of its own.
    pub provider: Option<Chosen>,
    /// How the connection is secured.
    pub tls: TlsMode,
    /// Its TLS policy; equal policies are one `Arc`, so that they share a context.
    pub tls_options: Arc<TlsOptions>,
    /// `tls = "none"` to a host that is not loopback.
    pub allow_plaintext: bool,
    /// A PREAUTH greeting is accepted (inside TLS only, or with `tls = "none"`).
    pub allow_preauth: bool,
    /// The mailboxes to watch.
    pub mailboxes: Arc<MailboxChoice>,
    /// Connections at most; never 0.
    pub max_connections: u32,
    /// What a first contact tells.
    pub initial: Initial,
    /// Only messages that the server finds by these are told.
    pub search: Option<Arc<Criteria>>,
    /// IDLE is issued anew after this.
    pub idle_refresh: Duration,
    /// NOOP interval where IDLE is missing.
    pub poll_interval: Duration,
    /// Our own address.
    pub source_address: Option<IpAddr>,
    /// Which addresses of the host are tried, and in which order.
    pub ip_version: IpVersion,
    /// TCP per address, TLS, greeting: each.
    pub connect_timeout: Duration,
    /// A command without a byte of answer.
    pub command_timeout: Duration,
    /// TCP keepalive.
    pub keepalive: Keepalive,
}

impl Policy {
    /// Whether mailboxes share a connection: where only the server knows how many there are, or there are too many.
    pub fn shares_a_connection(&self) -> bool {
        self.mailboxes.needs_listing() || self.mailboxes.names().len() > self.most_connections()
    }

    fn most_connections(&self) -> usize {
        usize::try_from(self.max_connections).unwrap_or(usize::MAX)
    }

    /// How many connections there may be.
    pub fn connections(&self) -> usize {
        if self.shares_a_connection() { self.most_connections() } else { self.mailboxes.names().len() }
    }
}

impl Account {
    /// The account's id.
    pub fn id(&self) -> &AccountId {
        &self.identity.id
    }

    /// `provider` in metrics: a preset's name, or `other`.
    pub fn provider_name(&self) -> Arc<str> {
        static OTHER: LazyLock<Arc<str>> = LazyLock::new(|| "other".into());
        self.provider.as_ref().map_or_else(|| OTHER.clone(), |chosen| chosen.provider.name.clone())
    }
}

/// An account has its policy: `account.tls`.
impl Deref for Account {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.policy
    }
}

/// `tls`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// TLS from the first byte.
    Implicit,
    /// STARTTLS (RFC 9051 section 6.2.1), required.
    StartTls,
    /// None: loopback, or `allow_plaintext`.
    None,
}

/// `ip_version`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// As the resolver orders them (RFC 6724).
    #[default]
    Auto,
    /// IPv4 only.
    Only4,
    /// IPv6 only.
    Only6,
    /// IPv4 first.
    Prefer4,
    /// IPv6 first.
    Prefer6,
}

/// `tls_options`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsOptions {
    /// The library.
    pub backend: TlsBackend,
    /// Roots in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The lowest version.
    pub min_version: TlsVersion,
    /// Who we are to servers that ask.
    pub client: Option<ClientCertificate>,
    /// The keys that a server may have; empty for any.
    pub pins: Vec<Pin>,
    /// A pinned key is enough: chain, name and dates of the certificate are not looked at.
    pub pin_only: bool,
}

/// SHA-256 of a SubjectPublicKeyInfo.
pub type Pin = [u8; 32];

/// `tls_options.client_cert` and `tls_options.client_key`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// PEM: the certificate, and those between it and the root.
    pub certificate: PathBuf,
    /// PEM: its key.
    pub key: PathBuf,
}

/// `tls_options.backend`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsBackend {
    /// rustls.
    Rustls,
    /// The operating system's library, by async-native-tls.
    Native,
}

/// `tls_options.min_version`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.0: `native` only.
    Tls10,
    /// 1.1: `native` only.
    Tls11,
    /// 1.2, the default.
    Tls12,
    /// 1.3: `rustls` only, since native-tls cannot ask for it.
    Tls13,
}

/// `initial`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Initial {
    /// Nothing that is there already.
    Baseline,
    /// Everything.
    All,
    /// Messages received (INTERNALDATE) within this time before the first contact.
    Since(Duration),
    /// Messages from there on: of the command line only.
    From(ToldFrom),
}

impl Initial {
    /// From where messages are told, for a first contact at `now`; `None` for [`Initial::Baseline`].
    pub fn told_from(self, now: Timestamp) -> Option<ToldFrom> {
        match self {
            Self::Baseline => None,
            Self::All => Some(ToldFrom::Time(Timestamp::MIN)),
            Self::Since(age) => Some(ToldFrom::Time(now.checked_sub(age).unwrap_or(Timestamp::MIN))),
            Self::From(from) => Some(from),
        }
    }
}

/// `keepalive`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Unanswered probes until the link is dead.
    pub count: u32,
}

/// `[connections]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Connections at all; `None` for as many as there are mailboxes.
    pub max_total: Option<u32>,
    /// Set-ups (dial to login) at the same time.
    pub max_connecting: u32,
    /// The pause between two of them.
    pub period: Duration,
    /// Set-ups at the same time, per host.
    pub per_host_max_connecting: u32,
    /// The pause between two of them, per host.
    pub per_host_period: Duration,
}

/// `[journal]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// Bytes of waiting events at which FETCH pauses.
    pub max_bytes: u64,
    /// Where it is kept, unless in a file of the state directory.
    pub database: Option<Box<DatabaseSettings>>,
}

/// `journal.url` and what belongs to it: PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// Tried in this order; the one that takes writes is used.
    pub servers: Vec<DatabaseServer>,
    /// Who we are to it.
    pub user: String,
    /// The name of the database.
    pub name: String,
    /// Where the password comes from, where one is asked for.
    pub password: Option<SecretSource>,
    /// The TLS policy; `None`: in clear.
    pub tls_options: Option<TlsOptions>,
    /// Whoever shows no life for so long has lost the journal to whoever waits for it.
    pub ttl: Duration,
}

/// Where PostgreSQL listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseServer {
    /// Name or address, without brackets; or the directory of its Unix socket.
    pub host: String,
    /// Port; of a socket, too.
    pub port: u16,
}

impl DatabaseServer {
    /// Whether `host` is a directory.
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

/// `[events]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSettings {
    /// The actions that are on.
    pub include: Vec<Action>,
    /// The longest line, newline included not.
    pub max_bytes: usize,
    /// The longest address list.
    pub max_addresses: usize,
    /// Whether BODYSTRUCTURE is fetched.
    pub attachments: bool,
    /// Further headers, lower case.
    pub headers: Vec<String>,
}

impl EventSettings {
    /// The actions that are on and that some of these outputs take.
    pub fn told_by<'s>(&'s self, outputs: &'s [OutputSettings]) -> impl Iterator<Item = Action> + 's {
        let taken = |action: &Action| outputs.iter().any(|output| output.include.contains(action));
        self.include.iter().copied().filter(taken)
    }
}

/// `[outputs.X]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSettings {
    /// X: the name of its lane.
    pub name: String,
    /// Where to.
    pub kind: OutputKind,
    /// Events wait in the journal for it.
    pub required: bool,
    /// For outputs that are not required: the oldest beyond this many waiting events are dropped.
    pub queue_max_events: u64,
    /// The actions it takes.
    pub include: Vec<Action>,
    /// The form.
    pub format: OutputFormat,
    /// The longest line, where it is shorter than `events.max_bytes`; syslog counts its header too.
    pub max_bytes: Option<usize>,
    /// At most this many events at once.
    pub batch_max_events: usize,
    /// How long events may wait for others to go with them.
    pub batch_max_delay: Duration,
    /// `[privacy]`, and `[outputs.X.privacy]` over it.
    pub privacy: PrivacySettings,
}

/// `[privacy]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivacySettings {
    /// What becomes of what.
    pub rules: Rules,
    /// Where the key of hashes comes from; there is one where something is hashed.
    pub hash_key: Option<SecretSource>,
}

/// `format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// `pretty` on a terminal, else `ecs`.
    Auto,
    /// One nested ECS JSON object a line.
    Ecs,
    /// The same, flat: keys joined by `_`, lists by `, `.
    Flat,
    /// CloudEvents 1.0, with the ECS object as data.
    CloudEvents,
    /// One line for people.
    Pretty,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where to serve over TCP: loopback, unless there is a token.
    pub listen: Option<SocketAddr>,
    /// What whoever comes over TCP has to show.
    pub token: Option<SecretSource>,
    /// Where to serve the user that runs the monitor.
    pub socket: PathBuf,
}

/// `[metrics]`
#[derive(Clone, Debug, Default)]
pub struct MetricSettings {
    /// Globs of the accounts that have metrics of their own.
    pub per_account: GlobSet,
}

/// Characters of `http.token`: what is shorter can be guessed.
pub const SHORTEST_TOKEN: usize = 16;

/// What is said of one.
pub const TOO_SHORT: &str =
    "the token is shorter than 16 characters, and can be guessed: `openssl rand -hex 32` makes a good one";

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A filter as env_logger reads it.
    pub level: String,
    /// The form.
    pub format: LogFormat,
    /// Accounts whose conversations with their servers are logged.
    pub wire: Option<Glob>,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text; with journald's priorities where stderr goes there.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether `host` names this machine for sure: `localhost` or a loopback address.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
