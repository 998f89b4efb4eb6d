//! Every key that there is, once: what is known, the reference and the schema are all made of this.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its type in JSON schema.
    pub kind: Kind,
    /// Its default as TOML; empty where there is none.
    pub default: &'static str,
    /// What it is.
    pub doc: &'static str,
}

/// The types.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A string.
    Text,
    /// A boolean.
    Boolean,
    /// A number.
    Number,
    /// An array of strings.
    Texts,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A table of strings.
    TextTable,
    /// A table with these keys.
    Table(&'static [Key]),
    /// An array of tables with these keys.
    Tables(&'static [Key]),
    /// Where a password comes from.
    Secret,
    /// A string, or a table with these keys.
    TextOr(&'static [Key]),
}

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default, doc }
}

/// Keys of later versions: known to be unknown.
pub const LATER: &[&str] = &["oauth2", "providers", "schema"];

/// `[monitor]`
pub const MONITOR: &[Key] = &[
    key("instance", Kind::Text, "", "Name of this monitor in every event. Default: the host name."),
    key(
        "state_dir",
        Kind::Text,
        "",
        "Where the journal is. Default: $STATE_DIRECTORY, else $XDG_STATE_HOME/idlewatch.",
    ),
    key("shutdown_timeout", Kind::Text, "\"10s\"", "The time to stop in."),
    key(
        "reload_on_change",
        Kind::Boolean,
        "false",
        "Read the configuration again when its files change, as at SIGHUP; they are looked at every 5 s.",
    ),
    key("require_state", Kind::Boolean, "false", "Refuse to start without state: it may have been lost."),
];

/// `tls_options`
pub const TLS_OPTIONS: &[Key] = &[
    key(
        "backend",
        Kind::Choice(&["rustls", "native"]),
        "\"rustls\"",
        "The TLS library; `native` is the operating system's.",
    ),
    key("ca_file", Kind::Text, "", "PEM file of roots, in place of the system's."),
    key(
        "min_version",
        Kind::Choice(&["1.0", "1.1", "1.2", "1.3"]),
        "\"1.2\"",
        "The lowest TLS version; below 1.2 with `native` only.",
    ),
    CLIENT_CERT,
    CLIENT_KEY,
    PIN_SHA256,
    PIN_ONLY,
];

const CLIENT_CERT: Key = key(
    "client_cert",
    Kind::Text,
    "",
    "PEM file of our own certificate, and of those between it and its root, for servers that ask who we are.",
);
const CLIENT_KEY: Key =
    key("client_key", Kind::Text, "", "PEM file of its key; PKCS#8 (BEGIN PRIVATE KEY) with `native`.");
const PIN_SHA256: Key = key(
    "pin_sha256",
    Kind::Texts,
    "[]",
    "The server's key has to be one of these, besides all else: SHA-256 of its SubjectPublicKeyInfo, base64 or hex.",
);
const PIN_ONLY: Key = key(
    "pin_only",
    Kind::Boolean,
    "false",
    "A pinned key is enough, for certificates that sign themselves: chain, name and dates are not looked at.",
);

/// `keepalive`
pub const KEEPALIVE: &[Key] = &[
    key(
        "idle",
        Kind::Text,
        "\"30s\"",
        "The longest silence before the first probe; each connection takes half of it to all of it, so that probes do not meet.",
    ),
    key("interval", Kind::Text, "\"10s\"", "Between probes."),
    key("count", Kind::Number, "3", "Unanswered probes until the link is dead."),
];

/// `password`: exactly one of these.
pub const SECRET: &[Key] = &[
    key("env", Kind::Text, "", "An environment variable."),
    key("file", Kind::Text, "", "A file; one line end at its end is no part of the password."),
    key("command", Kind::Texts, "", "A program and its arguments; no shell."),
    key("credential", Kind::Text, "", "A file in $CREDENTIALS_DIRECTORY (systemd)."),
    key(
        "secret",
        Kind::Text,
        "",
        "\"NAME:SECRET\": [secrets.NAME] tells it, of many accounts by one process.",
    ),
    key("inline", Kind::Text, "", "The password itself; not recommended."),
];

/// `[oauth.X]`
pub const OAUTH: &[Key] = &[
    key(
        "flow",
        Kind::Choice(&["refresh_token", "client_credentials", "service_account", "token_command"]),
        "",
        "How access tokens are had: docs/oauth2.md.",
    ),
    key("client_id", Kind::Text, "", "The application, as the authorization server knows it."),
    key("client_secret", Kind::Secret, "", "Its secret; public clients have none."),
    key(
        "refresh_token",
        Kind::Secret,
        "",
        "For flow = \"refresh_token\"; `idlewatch oauth login` fetches one where it is not set.",
    ),
    key("tenant", Kind::Text, "", "The Microsoft 365 tenant, in place of token_url and device_url."),
    key("token_url", Kind::Text, "", "Where tokens are had. Default: the provider's."),
    key(
        "device_url",
        Kind::Text,
        "",
        "Where `oauth login` asks for a code (RFC 8628). Default: the provider's.",
    ),
    key("scopes", Kind::Texts, "", "What access is asked for. Default: the provider's."),
    key("key", Kind::Secret, "", "For flow = \"service_account\": Google's JSON key file."),
    key(
        "command",
        Kind::Texts,
        "",
        "For flow = \"token_command\": a program and its arguments that prints a token.",
    ),
];

/// `[secrets.X]`
pub const SECRETS: &[Key] = &[key(
    "exec",
    Kind::Texts,
    "",
    "A program and its arguments that tells many secrets at once: docs/oauth2.md.",
)];

/// Keys of `[defaults]` and `[templates.X]`.
pub const DEFAULTS: &[Key] = &[
    key("enabled", Kind::Boolean, "true", "`false`: known, but not watched."),
    key(
        "provider",
        Kind::Text,
        "",
        "What is not said is filled in from this: a name like \"gmail\" (docs/providers.md), or X of [providers.X]. Guessed from the domain of `user` where there is no host.",
    ),
    key("host", Kind::Text, "", "The IMAP server."),
    key("port", Kind::Number, "993", "Its port; 143 unless tls = \"implicit\"."),
    key("tls", Kind::Choice(TLS), "\"implicit\"", "`none` only to loopback, or with allow_plaintext."),
    key("tls_options", Kind::Table(TLS_OPTIONS), "", "The TLS policy."),
    key(
        "allow_plaintext",
        Kind::Boolean,
        "false",
        "tls = \"none\" to a host that is not loopback: passwords go in clear.",
    ),
    key("allow_preauth", Kind::Boolean, "false", "Accept a server that greets with PREAUTH."),
    key("user", Kind::Text, "", "The login name."),
    key("password", Kind::Secret, "", "Exactly one of env, file, command, credential, secret, inline."),
    key("oauth", Kind::Text, "", "The [oauth.X] that access tokens come from, in place of a password."),
    key(
        "sasl",
        Kind::Choice(&["external"]),
        "",
        "In place of a password: `external` logs in by tls_options.client_cert (SASL EXTERNAL).",
    ),
    key(
        "mailboxes",
        Kind::Texts,
        "[\"INBOX\"]",
        "The mailboxes to watch, `/` between levels: names, globs (`*` within a level, `**` across levels), special uses (\\Sent); `!` before what is left out: docs/mailboxes.md.",
    ),
    key(
        "max_connections",
        Kind::Number,
        "5",
        "Connections of the account at most; where there are more mailboxes, or patterns, some share one.",
    ),
    key(
        "initial",
        Kind::Text,
        "\"baseline\"",
        "What a first contact tells: baseline (nothing), all, or since:<duration>.",
    ),
    key(
        "search",
        Kind::Table(SEARCH),
        "",
        "Only messages that the server finds by these are fetched and told; all of it has to hold: docs/filters.md.",
    ),
    key("idle_refresh", Kind::Text, "\"9m\"", "IDLE is issued anew after this; below 29m (RFC 2177)."),
    key(
        "poll_interval",
        Kind::Text,
        "\"60s\"",
        "For servers without a working IDLE. One that announces IDLE and pushes nothing is found out after two idle_refresh.",
    ),
    key(
        "proxy",
        Kind::TextOr(PROXY),
        "\"none\"",
        "\"socks5h://host:1080\" or \"http://host:3128\" (CONNECT), which resolves names too; or { url, user, password = { file = \"...\" } }; \"none\" in place of one named below: docs/network.md.",
    ),
    key("source_address", Kind::Text, "", "The address of this machine that connections come from."),
    key(
        "ip_version",
        Kind::Choice(&["auto", "4", "6", "prefer4", "prefer6"]),
        "\"auto\"",
        "Which addresses of the host are tried; `auto` is the resolver's order.",
    ),
    key("connect_timeout", Kind::Text, "\"10s\"", "TCP per address, TLS, greeting: each."),
    key("command_timeout", Kind::Text, "\"30s\"", "A command without a byte of answer."),
    key("keepalive", Kind::Table(KEEPALIVE), "", "TCP keepalive: how fast a dead link is noticed."),
    key("labels", Kind::TextTable, "", "`labels.*` of every event."),
];

/// `proxy`, as a table
pub const PROXY: &[Key] = &[
    key("url", Kind::Text, "", "\"socks5h://host:1080\" or \"http://host:3128\"."),
    key("user", Kind::Text, "", "Who we are to it."),
    key("password", Kind::Secret, "", "Exactly one of env, file, command, credential, inline."),
];

/// `[providers.X]`
pub const PROVIDER: &[Key] = &[
    key("host", Kind::Text, "", "The IMAP server."),
    key("port", Kind::Number, "993", "Its port; 143 unless tls = \"implicit\"."),
    key("tls", Kind::Choice(TLS), "\"implicit\"", "As of an account."),
    key("tls_options", Kind::Table(TLS_OPTIONS), "", "The TLS policy."),
    key("idle_refresh", Kind::Text, "\"9m\"", "As of an account."),
    key("poll_interval", Kind::Text, "\"60s\"", "As of an account."),
    key("max_connections", Kind::Number, "5", "As of an account."),
    key("rate", Kind::Text, "", "Connections begun to its host. Default: that of [connections.per_host]."),
    key(
        "login",
        Kind::Choice(&["address", "local"]),
        "\"address\"",
        "`local`: of an address in one of `domains`, the part before the @ is the login name.",
    ),
    key(
        "auth",
        Kind::Texts,
        "[\"password\"]",
        "What it takes: password, app-password (one made for this program), oauth.",
    ),
    key("domains", Kind::Texts, "[]", "Addresses that it is guessed from: \"example.com\", \"example.*\"."),
    key(
        "sasl_ir",
        Kind::Boolean,
        "true",
        "`false`: no initial response with AUTHENTICATE, even if it is offered.",
    ),
    key("auth_url", Kind::Text, "", "Where a person permits access (OAuth2)."),
    key("token_url", Kind::Text, "", "Where tokens come from (OAuth2)."),
    key("device_url", Kind::Text, "", "Where a device asks for a code (RFC 8628)."),
    key("scopes", Kind::Texts, "[]", "What access is asked for (OAuth2)."),
];

/// `tls`
const TLS: &[&str] = &["implicit", "starttls", "none"];

/// `search`: parts of texts, whatever their case.
pub const SEARCH: &[Key] = &[
    key("from", Kind::Text, "", "Part of From."),
    key("to", Kind::Text, "", "Part of To."),
    key("cc", Kind::Text, "", "Part of Cc."),
    key("subject", Kind::Text, "", "Part of the subject."),
    key("body", Kind::Text, "", "Part of the body: slow on some servers."),
    key("header", Kind::Text, "", "\"Name: part of its value\"; \"Name:\" where it has only to be there."),
    key("not_from", Kind::Text, "", "Not a part of From."),
    key("not_to", Kind::Text, "", "Not a part of To."),
    key("not_subject", Kind::Text, "", "Not a part of the subject."),
    key("not_header", Kind::Text, "", "As `header`, and not there."),
    key("larger", Kind::Text, "", "Larger than this: \"1MiB\"."),
    key("smaller", Kind::Text, "", "Smaller than this."),
    key("unseen", Kind::Boolean, "false", "Not read yet when it is looked for."),
    key("flagged", Kind::Boolean, "false", "Flagged when it is looked for."),
];

/// `[connections]`
pub const CONNECTIONS: &[Key] = &[
    key("max_total", Kind::Number, "", "Connections in all; as many as there are mailboxes where not set."),
    key("max_connecting", Kind::Number, "200", "Connections that are set up at the same time."),
    key(
        "rate",
        Kind::Text,
        "",
        "Connections begun a second in all: \"100/s\", \"600/min\"; no bound where not set.",
    ),
    key("per_host", Kind::Table(PER_HOST), "", "The same, per host."),
];

/// `[connections.per_host]`
pub const PER_HOST: &[Key] = &[
    key("max_connecting", Kind::Number, "10", "Set up at the same time to one host."),
    key("rate", Kind::Text, "\"10/s\"", "Begun to one host; slower while it complains of too many."),
];

/// `[journal]`
pub const JOURNAL: &[Key] = &[
    key("max_bytes", Kind::Text, "\"1GiB\"", "Bytes of waiting events at which FETCH pauses."),
    key(
        "url",
        Kind::Text,
        "",
        "Where it is kept. Default: in a file, state_dir/journal.db. postgres://user@host:5432/database: in PostgreSQL (feature postgres), docs/cluster.md.",
    ),
    key("password", Kind::Secret, "", "With url: the user's password."),
    key("tls_options", Kind::Table(OUTPUT_TLS), "", "With url: the TLS policy."),
    key(
        "allow_plaintext",
        Kind::Boolean,
        "false",
        "With url: ?sslmode=disable to a host that is not loopback: mail metadata goes in clear.",
    ),
    key(
        "ttl",
        Kind::Text,
        "\"15s\"",
        "With url: a monitor that shows no life for so long has lost the journal to another that stands by.",
    ),
];

/// The actions.
pub const ACTIONS: &[&str] = &[
    "message.new",
    "message.flags",
    "message.expunged",
    "account.state",
    "mailbox.reset",
    "mailbox.gap",
    "monitor.state",
];

/// `[http]`
pub const HTTP: &[Key] = &[
    key(
        "listen",
        Kind::Text,
        "",
        "Address and port of status, health and metrics, like \"127.0.0.1:9464\"; not served over TCP where not set. Beyond loopback only with a token.",
    ),
    key(
        "token",
        Kind::Secret,
        "",
        "At least 16 characters, asked for over TCP: `Authorization: Bearer`, and in browsers as the password; with it, changes are taken too. Read at the start.",
    ),
    key(
        "socket",
        Kind::Text,
        "",
        "Unix socket that `idlewatch status` and others ask. Default: $RUNTIME_DIRECTORY/idlewatch.sock, else idlewatch.sock in state_dir.",
    ),
];

/// `[metrics]`
pub const METRICS: &[Key] = &[key(
    "per_account",
    Kind::Texts,
    "[]",
    "Globs of accounts that have metrics of their own, at most 200; others are counted together only.",
)];

/// `[events]`
pub const EVENTS: &[Key] = &[
    key(
        "include",
        Kind::Texts,
        "[\"message.new\", \"account.state\", \"mailbox.reset\", \"mailbox.gap\", \"monitor.state\"]",
        "The actions that are on; besides these there are \"message.flags\" and \"message.expunged\".",
    ),
    key("max_bytes", Kind::Number, "8000", "The longest line; longer ones are shortened, never split."),
    key("max_addresses", Kind::Number, "20", "The longest address list."),
    key("attachments", Kind::Boolean, "true", "Fetch BODYSTRUCTURE."),
    key("headers", Kind::Texts, "[]", "Further headers to tell."),
];

/// The facilities of syslog, by their numbers (RFC 5424 section 6.2.1).
pub const FACILITIES: &[&str] = &[
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

/// `[outputs.X]`
pub const OUTPUT: &[Key] = &[
    key(
        "type",
        Kind::Choice(&[
            "stdout",
            "file",
            "webhook",
            "nats",
            "syslog",
            "exec",
            "journald",
            "elasticsearch",
            "loki",
            "otlp",
            "redis",
            "kafka",
        ]),
        "",
        "Where to: docs/outputs.md.",
    ),
    key("path", Kind::Text, "", "file: the file."),
    key(
        "rotate",
        Kind::Table(ROTATE),
        "",
        "file: when the monitor itself begins a new one; logrotate may do so instead.",
    ),
    key(
        "url",
        Kind::Text,
        "",
        "webhook: where to POST; http:// to loopback only, or with allow_plaintext. nats: tls://host:4222 or nats://host:4222. syslog: tls://host:6514, tcp://host:601, udp://host:514, unix:///dev/log. elasticsearch, loki, otlp: like webhook, with the path of the API added. redis: rediss://host:6379 or redis://host:6379, and /1 for another database.",
    ),
    key("secret", Kind::Secret, "", "webhook: requests are signed with it (HMAC-SHA256)."),
    key(
        "subject",
        Kind::Text,
        "\"idlewatch.{account}.{action}\"",
        "nats: also {mailbox}, {instance}; `.` in a value becomes %2E.",
    ),
    key(
        "stream",
        Kind::Text,
        "",
        "nats: the stream; by default the one that takes the subject. None is ever made. redis: its key, idlewatch by default.",
    ),
    key("jetstream", Kind::Boolean, "true", "nats: always; nothing else says whether an event arrived."),
    key("credentials", Kind::Secret, "", "nats: the content of a .creds file."),
    key(
        "hold",
        Kind::Text,
        "\"10m\"",
        "nats: how long events stay in the journal after the acknowledgement, which is not durable; 0s for servers with sync_interval: always. syslog over tcp:// and tls://: 30s, after they were written.",
    ),
    key("facility", Kind::Choice(FACILITIES), "\"daemon\"", "syslog: the facility."),
    key("app_name", Kind::Text, "\"idlewatch\"", "syslog: APP-NAME. journald: SYSLOG_IDENTIFIER."),
    key(
        "max_bytes",
        Kind::Number,
        "",
        "The longest line; longer events are shortened. Default: events.max_bytes, which is the bound for all. syslog: the longest message with its header, 8192; udp://: 2048.",
    ),
    key(
        "token",
        Kind::Secret,
        "",
        "nats: a token. webhook, elasticsearch, loki, otlp: sent as `Authorization: Bearer`.",
    ),
    key("api_key", Kind::Secret, "", "elasticsearch: an API key, as it is encoded."),
    key(
        "user",
        Kind::Text,
        "",
        "elasticsearch, loki, otlp: HTTP Basic authentication, with `password`. redis: whose password it is. kafka: who logs in by SASL.",
    ),
    key("password", Kind::Secret, "", "elasticsearch, loki, otlp, redis, kafka: the password of `user`."),
    key(
        "brokers",
        Kind::Texts,
        "",
        "kafka: some of the brokers, like [\"tls://kafka1.example.com:9093\"]; kafka:// without TLS.",
    ),
    key("topic", Kind::Text, "\"idlewatch\"", "kafka: the topic."),
    key(
        "compression",
        Kind::Choice(&["none", "gzip", "snappy", "lz4"]),
        "\"none\"",
        "kafka: how records are compressed.",
    ),
    key(
        "sasl",
        Kind::Choice(&["plain", "scram-sha-256", "scram-sha-512"]),
        "\"scram-sha-512\"",
        "kafka: how `user` logs in.",
    ),
    key(
        "max_len",
        Kind::Number,
        "1000000",
        "redis: about how many entries the stream keeps, read or not; 0: all.",
    ),
    key(
        "index",
        Kind::Text,
        "\"logs-{dataset}-default\"",
        "elasticsearch: the index or data stream; {dataset} is idlewatch.message and the like, {date} the event's day.",
    ),
    key("tenant", Kind::Text, "", "loki: sent as X-Scope-OrgID."),
    key(
        "labels",
        Kind::TextTable,
        "",
        "loki: labels of every stream, beside service_name, event_action and level.",
    ),
    key(
        "structured_metadata",
        Kind::Boolean,
        "true",
        "loki: event_id and idlewatch_account_id beside the line; false for servers before 3.0.",
    ),
    key("headers", Kind::TextTable, "", "webhook, elasticsearch, loki, otlp: further headers."),
    key(
        "body",
        Kind::Choice(&["ndjson", "json", "single", "binary"]),
        "\"ndjson\"",
        "webhook: one object a line; one array; one event a request; one CloudEvent a request, its attributes as headers.",
    ),
    key("tls_options", Kind::Table(OUTPUT_TLS), "", "The TLS policy; of outputs that connect."),
    key(
        "proxy",
        Kind::Text,
        "",
        "webhook, elasticsearch, loki, otlp: http://, https://, socks5:// or socks5h://; the environment's are not used.",
    ),
    key(
        "allow_plaintext",
        Kind::Boolean,
        "false",
        "http://, nats://, redis://, kafka://, tcp:// and udp:// to other hosts: mail metadata goes in clear.",
    ),
    key("connect_timeout", Kind::Text, "\"10s\"", "TCP and TLS."),
    key(
        "timeout",
        Kind::Text,
        "\"30s\"",
        "A whole exchange, or run of a program; nats: 5s; syslog, journald, redis: 10s.",
    ),
    key("command", Kind::Texts, "", "exec: the program and its arguments; no shell is between."),
    key(
        "environment",
        Kind::TextTable,
        "",
        "exec: variables for the program, beside PATH, HOME, LANG, LC_ALL, TZ and TMPDIR; no place for secrets.",
    ),
    key("concurrency", Kind::Number, "1", "exec: programs at the same time; each gets a share of the batch."),
    key("socket", Kind::Text, "\"/run/systemd/journal/socket\"", "journald: where it listens."),
    key("required", Kind::Boolean, "true", "Events wait in the journal for it."),
    key("include", Kind::Texts, "", "The actions it takes of those that are on. Default: all."),
    key(
        "format",
        Kind::Choice(&["auto", "ecs", "flat", "cloudevents", "pretty"]),
        "",
        "`ecs`, `flat`, `cloudevents`: JSON lines; `auto` (stdout): pretty on a terminal.",
    ),
    key("batch", Kind::Table(BATCH), "", "How much is written at once."),
    key("queue", Kind::Table(QUEUE), "", "For outputs that are not required."),
    key("privacy", Kind::Table(PRIVACY), "", "Over [privacy], key by key."),
];

/// `[privacy]`
pub const PRIVACY: &[Key] = &[
    key("subject", Kind::Choice(&["include", "hash", "omit"]), "\"include\"", "The subject."),
    key(
        "addresses",
        Kind::Choice(&["include", "domain", "hash", "omit"]),
        "\"include\"",
        "All addresses with their names, and the login name.",
    ),
    key(
        "message_id",
        Kind::Choice(&["include", "domain", "hash", "omit"]),
        "\"include\"",
        "Message-ID and In-Reply-To.",
    ),
    key(
        "attachment_names",
        Kind::Choice(&["include", "hash", "omit"]),
        "\"include\"",
        "The names of attachments.",
    ),
    key("hash_key", Kind::Secret, "", "The key of hashes (HMAC-SHA256); needed for \"hash\"."),
];

/// `[outputs.X.tls_options]`: rustls alone.
pub const OUTPUT_TLS: &[Key] = &[
    key("ca_file", Kind::Text, "", "PEM file of roots, in place of the system's."),
    key("min_version", Kind::Choice(&["1.2", "1.3"]), "\"1.2\"", "The lowest TLS version."),
    CLIENT_CERT,
    CLIENT_KEY,
    PIN_SHA256,
    PIN_ONLY,
];

/// `[outputs.X.rotate]`
pub const ROTATE: &[Key] = &[
    key(
        "max_bytes",
        Kind::Text,
        "",
        "The file ends once it has so many, like \"100MiB\"; at most a batch later.",
    ),
    key(
        "max_age",
        Kind::Text,
        "",
        "The file ends before the first event that comes so long after its begin, like \"1d\".",
    ),
    key("keep", Kind::Number, "10", "So many that ended are kept; older ones are removed."),
    key("compress", Kind::Choice(&["none", "gzip"]), "\"none\"", "gzip: all that ended but the last one."),
];

/// `[outputs.X.batch]`
pub const BATCH: &[Key] = &[
    key("max_events", Kind::Number, "100", "Events at once."),
    key("max_delay", Kind::Text, "\"0s\"", "How long an event may wait for others to go with it."),
];

/// `[outputs.X.queue]`
pub const QUEUE: &[Key] = &[key("max_events", Kind::Number, "10000", "The oldest beyond are dropped.")];

/// `[filters.X]`
pub const FILTER: &[Key] = &[
    key(
        "action",
        Kind::Choice(&["drop", "keep", "tag", "route"]),
        "",
        "drop: not told; keep: no later filter drops it; tag: with `labels`; route: to `outputs` only.",
    ),
    key(
        "any",
        Kind::Tables(CONDITION),
        "",
        "Applies where one of these holds, like [{ from = \"*@example.net\" }].",
    ),
    key("all", Kind::Tables(CONDITION), "", "Applies where all of these hold."),
    key("none", Kind::Tables(CONDITION), "", "Applies where none of these holds."),
    key("accounts", Kind::Texts, "", "Only messages of these accounts: globs of ids."),
    key(
        "mailboxes",
        Kind::Texts,
        "",
        "Only messages in these mailboxes: globs, `*` within a level, `**` across levels.",
    ),
    key("labels", Kind::TextTable, "", "For action = \"tag\": `labels.*` of the event."),
    key("outputs", Kind::Texts, "", "For action = \"route\": names of outputs."),
];

/// Conditions of filters: all of one table have to hold.
pub const CONDITION: &[Key] = &[
    key("from", Kind::Text, "", "An address of From: a glob, or \"re:\" and a regular expression."),
    key("to", Kind::Text, "", "An address of To, Cc or Bcc."),
    key("subject", Kind::Text, "", "The subject."),
    key("header", Kind::Table(HEADER), "", "A header, by name."),
    key("header_exists", Kind::Text, "", "The name of a header that is there."),
    key("size_over", Kind::Text, "", "Larger than this: \"10MiB\"."),
    key("size_under", Kind::Text, "", "Smaller than this."),
    key("account", Kind::Text, "", "The account's id."),
    key("mailbox", Kind::Text, "", "The mailbox; `*` within a level, `**` across levels."),
    key("attachment_type", Kind::Text, "", "The media type of an attachment."),
    key("attachment_name", Kind::Text, "", "The name of an attachment."),
];

/// `header`
pub const HEADER: &[Key] =
    &[key("name", Kind::Text, "", "Its name."), key("matches", Kind::Text, "", "A pattern of its value.")];

/// `[log]`
pub const LOG: &[Key] = &[
    key(
        "level",
        Kind::Text,
        "\"info\"",
        "error, warn, info, debug, or a filter like \"info,idlewatch::wire=debug\".",
    ),
    key("format", Kind::Choice(&["auto", "text", "json"]), "\"auto\"", "Diagnostics on stderr."),
    key(
        "wire",
        Kind::Text,
        "",
        "A glob of accounts: what they and their servers say is logged, without secrets, but with what is fetched of messages.",
    ),
];

const TEMPLATE: Key = key("template", Kind::Text, "", "The [templates.X] that fills what is left out here.");

/// `[[account_lists]]`
pub const ACCOUNT_LIST: &[Key] = &[
    key(
        "path",
        Kind::Text,
        "",
        "A file, or a glob of files, *.csv (a header of keys like `labels.dept`, `|` between items) or *.jsonl.",
    ),
    key(
        "database",
        Kind::Boolean,
        "false",
        "In place of `path`: the table `accounts` in the database of journal.url, filled by `idlewatch accounts import`: docs/cluster.md.",
    ),
    key("template", Kind::Text, "", "The [templates.X] of rows that name none."),
    key(
        "seal_keys",
        Kind::Tables(SECRET),
        "",
        "Of the database: inline passwords are kept there sealed, with the first of these keys (32 bytes in base64), and opened with any.",
    ),
];

/// The top level.
pub const TOP: &[Key] = &[
    key("monitor", Kind::Table(MONITOR), "", "The monitor itself."),
    key("defaults", Kind::Table(DEFAULTS), "", "Every account starts from this."),
    key(
        "templates",
        Kind::Table(DEFAULTS),
        "",
        "Accounts that name it start from this; `{id}`, `{user}`, `{local}`, `{domain}` and `{labels.dept}` in user, host and names of secrets stand for the account's own.",
    ),
    key(
        "providers",
        Kind::Table(PROVIDER),
        "",
        "What `provider = \"NAME\"` stands for; the keys of a built-in one may be overridden: docs/providers.md.",
    ),
    key("accounts", Kind::Text, "", "One table per account."),
    key("account_lists", Kind::Text, "", "Accounts from files or from the journal's database, one a row."),
    key("connections", Kind::Table(CONNECTIONS), "", "How connections are paced."),
    key("journal", Kind::Table(JOURNAL), "", "Where events wait until every output has them."),
    key("events", Kind::Table(EVENTS), "", "What is told."),
    key("oauth", Kind::Table(OAUTH), "", "Where access tokens come from: docs/oauth2.md."),
    key("secrets", Kind::Table(SECRETS), "", "Programs that tell the secrets of many accounts."),
    key("outputs", Kind::Table(OUTPUT), "", "Where it goes; one stdout where none is configured."),
    key("privacy", Kind::Table(PRIVACY), "", "What every output may know: docs/outputs.md."),
    key("filters", Kind::Table(FILTER), "", "Which messages are told, in this order: docs/filters.md."),
    key("http", Kind::Table(HTTP), "", "For those who look after it: docs/operations.md."),
    key("metrics", Kind::Table(METRICS), "", "For Prometheus, at /metrics of http.listen."),
    key("log", Kind::Table(LOG), "", "Diagnostics."),
];

/// The keys of one account: its id, its template, and all of the defaults.
pub fn account() -> Vec<Key> {
    let id =
        key("id", Kind::Text, "", "Its name, part of every event id: [a-z0-9][a-z0-9._@+-]*, at most 128.");
    [id, TEMPLATE].into_iter().chain(DEFAULTS.iter().copied()).collect()
}

/// The columns that a list may have, but for labels: dotted keys of an account.
static COLUMNS: LazyLock<Vec<(String, Kind)>> = LazyLock::new(|| {
    let dotted = |key: &Key, keys: &[Key]| -> Vec<(String, Kind)> {
        keys.iter().map(|inner| (format!("{}.{}", key.name, inner.name), inner.kind)).collect()
    };
    let columns = |key: &Key| match key.kind {
        Kind::Table(keys) => dotted(key, keys),
        Kind::Secret => dotted(key, SECRET),
        Kind::TextTable => vec![(format!("{}.NAME", key.name), Kind::Text)],
        Kind::TextOr(_) => vec![(key.name.to_owned(), Kind::Text)],
        kind => vec![(key.name.to_owned(), kind)],
    };
    account().iter().flat_map(columns).collect()
});

/// Their names.
pub fn columns() -> impl Iterator<Item = &'static str> {
    COLUMNS.iter().map(|(name, _)| name.as_str())
}

/// The type of a column.
pub fn column(name: &str) -> Option<Kind> {
    if name.strip_prefix("labels.").is_some_and(|label| !label.is_empty()) {
        return Some(Kind::Text);
    }
    COLUMNS.iter().find(|(known, _)| known == name).map(|(_, kind)| *kind)
}

/// What may stand in braces in a template: what an account says of itself, and parts of its address; no password.
pub fn placeholders() -> impl Iterator<Item = &'static str> {
    let plain = |(name, kind): &'static (String, Kind)| {
        (!name.starts_with("password.") && !matches!(kind, Kind::Texts)).then_some(name.as_str())
    };
    ["local", "domain"].into_iter().chain(COLUMNS.iter().filter_map(plain))
}

/// Whether it is one.
pub fn is_placeholder(name: &str) -> bool {
    name.strip_prefix("labels.").is_some_and(|label| !label.is_empty())
        || placeholders().any(|known| known == name)
}

/// `config/reference.toml`
pub fn reference() -> String {
    let mut text = String::from(
        "# Every key of idlewatch's configuration with its default. Generated by `idlewatch config print --reference`.\n",
    );
    for section in TOP {
        let (head, name, keys) = match (section.name, section.kind) {
            ("accounts", _) => ("[[accounts]]", "accounts", account()),
            ("account_lists", _) => ("[[account_lists]]", "account_lists", ACCOUNT_LIST.to_vec()),
            ("oauth", _) => ("[oauth.NAME]", "oauth.NAME", OAUTH.to_vec()),
            ("secrets", _) => ("[secrets.NAME]", "secrets.NAME", SECRETS.to_vec()),
            ("outputs", _) => ("[outputs.NAME]", "outputs.NAME", OUTPUT.to_vec()),
            ("filters", _) => ("[filters.NAME]", "filters.NAME", FILTER.to_vec()),
            ("providers", _) => ("[providers.NAME]", "providers.NAME", PROVIDER.to_vec()),
            ("templates", _) => {
                let doc = "The keys of [defaults].";
                text.push_str(&format!("\n# {}\n# {doc}\n#[templates.NAME]\n", section.doc));
                continue;
            }
            (name, Kind::Table(keys)) => (&*format!("[{name}]"), name, keys.to_vec()),
            _ => continue,
        };
        text.push_str(&format!("\n# {}\n#{head}\n", section.doc));
        table(&keys, name, &mut text);
    }
    text
}

fn table(keys: &[Key], path: &str, text: &mut String) {
    let (inner, plain): (Vec<&Key>, Vec<&Key>) =
        keys.iter().partition(|key| matches!(key.kind, Kind::Table(_)));
    for key in plain {
        let value = match (key.default, key.kind) {
            ("", Kind::Secret) => "{ file = \"/etc/idlewatch/password\" }",
            ("", Kind::TextTable) => "{}",
            ("", Kind::Texts | Kind::Tables(_)) => "[]",
            ("", Kind::Number) => "1000",
            ("", _) => "\"\"",
            (default, _) => default,
        };
        text.push_str(&format!("# {}\n#{} = {value}\n", key.doc, key.name));
    }
    for key in inner {
        if let Kind::Table(keys) = key.kind {
            text.push_str(&format!("# {}\n#[{path}.{}]\n", key.doc, key.name));
            table(keys, &format!("{path}.{}", key.name), text);
        }
    }
}

/// `config/schema.json`
pub fn schema() -> Value {
    let mut properties = Map::new();
    for section in TOP {
        let value = match section.name {
            "accounts" => json!({"type": "array", "description": section.doc, "items": {
                "type": "object", "additionalProperties": false, "required": ["id"], "properties": tables(&account()) }}),
            "account_lists" => json!({"type": "array", "description": section.doc, "items": {
                "type": "object", "additionalProperties": false, "anyOf": [{"required": ["path"]}, {"required": ["database"]}],
                "properties": tables(ACCOUNT_LIST) }}),
            "templates" => json!({"type": "object", "description": section.doc, "additionalProperties": {
                "type": "object", "additionalProperties": false, "properties": tables(DEFAULTS) }}),
            "providers" => json!({"type": "object", "description": section.doc, "additionalProperties": {
                "type": "object", "additionalProperties": false, "properties": tables(PROVIDER) }}),
            "oauth" => json!({"type": "object", "description": section.doc, "additionalProperties": {
                "type": "object", "additionalProperties": false, "required": ["flow"], "properties": tables(OAUTH) }}),
            "secrets" => json!({"type": "object", "description": section.doc, "additionalProperties": {
                "type": "object", "additionalProperties": false, "required": ["exec"], "properties": tables(SECRETS) }}),
            "outputs" => json!({"type": "object", "description": section.doc, "additionalProperties": {
                "type": "object", "additionalProperties": false, "required": ["type"], "properties": tables(OUTPUT) }}),
            "filters" => json!({"type": "object", "description": section.doc, "additionalProperties": {
                "type": "object", "additionalProperties": false, "required": ["action"], "properties": tables(FILTER) }}),
            _ => schema_of(section),
        };
        properties.insert(section.name.to_owned(), value);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "idlewatch configuration",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn tables(keys: &[Key]) -> Value {
    Value::Object(keys.iter().map(|key| (key.name.to_owned(), schema_of(key))).collect())
}

fn schema_of(key: &Key) -> Value {
    let mut schema = match key.kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Number => json!({"type": "integer", "minimum": 0}),
        Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Choice(choices) => json!({"enum": choices}),
        Kind::TextTable => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Table(keys) => {
            json!({"type": "object", "additionalProperties": false, "properties": tables(keys)})
        }
        Kind::Tables(keys) => json!({"type": "array", "items": {
            "type": "object", "additionalProperties": false, "properties": tables(keys) }}),
        Kind::TextOr(keys) => json!({"oneOf": [{"type": "string"}, {
            "type": "object", "additionalProperties": false, "properties": tables(keys) }]}),
        Kind::Secret => {
            json!({"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false, "properties": tables(SECRET)})
        }
    };
    if let Some(object) = schema.as_object_mut() {
        object.insert("description".to_owned(), json!(key.doc));
    }
    schema
}
