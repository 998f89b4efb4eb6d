//! What each fuzz target does with its bytes: the suite and `fuzz/` run the same.

use std::cell::{Cell, OnceCell, RefCell};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::LocalBoxFuture;
use idlewatch::account::outlet::Delivers;
use idlewatch::account::pump::pump;
use idlewatch::config::settings::LoginMeans;
use idlewatch::config::{from_text, from_texts};
use idlewatch::event::{
    AccountIdentity, Cursor, Event, EventBody, MailboxKey, MailboxName, NewMessage, Source,
};
use idlewatch::imap::changes::WantedChanges;
use idlewatch::imap::command::{Credentials, Proof};
use idlewatch::imap::conversation::{Delivery, Finding, Goal, Plan, Security, ToldFrom, Until, Watch};
use idlewatch::imap::reply::{AttachmentPart, FetchItems, MAX_TEXT, Reply, StatusText, Structure};
use idlewatch::imap::search::{Criteria, Key};
use idlewatch::imap::summary::{Wanted, summarize};
use idlewatch::imap::titles::TitleQuery;
use idlewatch::imap::utf7;
use idlewatch::journal::sqlite::SqliteJournal;
use idlewatch::journal::{Entry, Journal, Receipt};
use idlewatch::messages::{Batch, Checkpoint, Replaces, Undelivered};
use idlewatch::secrets::SecretSource;
use idlewatch::sink::encode::{Encoder, EncoderSettings, Format};
use idlewatch::text::is_deceptive;
use idlewatch::uid_set::UidSet;
use idlewatch::wire::link::{Link, LinkError};
use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::sync::{oneshot, watch};

/// A server's bytes become the same bounded replies, however they are cut.
pub fn replies(said: &[u8]) {
    for logged_in in [false, true] {
        let (heard, end) = heard(said, said.len().max(1), logged_in);
        heard.iter().for_each(|reply| assert_bounded(reply, said));
        assert_eq!((heard, end), self::heard(said, 7, logged_in));
    }
}

fn heard(said: &[u8], most_at_once: usize, logged_in: bool) -> (Vec<Reply>, LinkError) {
    let (ours, mut theirs) = duplex(most_at_once);
    let server = async move { theirs.write_all(said).await };
    let client = async move {
        let mut link = Link::new(ours);
        if logged_in {
            link.logged_in();
        }
        let mut heard = Vec::new();
        loop {
            match link.next().await {
                Ok(reply) => heard.push(reply),
                Err(end) => return (heard, end),
            }
        }
    };
    block_on(async { tokio::join!(client, server) }).0
}

fn assert_bounded(reply: &Reply, said: &[u8]) {
    match reply {
        Reply::Tagged { text: StatusText { text, .. }, .. }
        | Reply::Untagged { text: StatusText { text, .. }, .. } => {
            assert!(text.len() <= MAX_TEXT);
            assert!(!text.contains(PARKED) || contains(said, PARKED.as_bytes()), "{text}");
        }
        Reply::Fetch(items) => {
            assert!(items.uid != Some(0));
            assert!(items.structure.as_ref().is_none_or(|structure| structure.attachments.len() <= 20));
        }
        Reply::Unreadable { excerpt } => assert_harmless(excerpt),
        _ => {}
    }
}

/// The guard's own word.
const PARKED: &str = "IDLEWATCH-PARKED";

/// In a server's script: here it hears a line of the client out.
pub const HEAR: u8 = 0x16;
/// Here the monitor is asked to stop.
pub const STOP: u8 = 0x17;
/// Here it closes.
pub const CLOSE: u8 = 0x18;

/// What a plan is made of: the first two bytes of a conversation.
pub mod choice {
    pub const STARTTLS: u16 = 1;
    pub const IMPLICIT: u16 = 1 << 1;
    pub const PREAUTH: u16 = 1 << 2;
    pub const CHECKPOINT: u16 = 1 << 3;
    pub const ALL: u16 = 1 << 4;
    pub const SINCE: u16 = 1 << 5;
    pub const CAUTION: u16 = 1 << 6;
    pub const EIGHT_BIT: u16 = 1 << 7;
    pub const LIST: u16 = 1 << 8;
    pub const TITLES: u16 = 1 << 9;
    pub const SEARCH: u16 = 1 << 10;
    pub const ONCE: u16 = 1 << 11;
    pub const TOKEN: u16 = 1 << 12;
    pub const CHANGES: u16 = 1 << 13;
}

fn search() -> Arc<Criteria> {
    let not = Key::Not(Box::new(Key::Subject("Größe".to_owned())));
    Arc::new(Criteria::new(vec![Key::Unseen, Key::From("a".to_owned()), not]).unwrap())
}

fn plan(choices: u16) -> Plan {
    let has = |choice| choices & choice != 0;
    let mailbox: MailboxName = if has(choice::EIGHT_BIT) { "INBOX/Größe" } else { "INBOX" }.into();
    let told_from = if has(choice::ALL) { Some(Timestamp::MIN) } else { "2026-01-02T00:00:00Z".parse().ok() };
    let watch = Watch {
        mailbox: mailbox.clone(),
        checkpoint: has(choice::CHECKPOINT).then(|| Cursor {
            changes: Some(10),
            gone: Some(UidSet::new()),
            ..Cursor::baseline(7, 11, Some(10))
        }),
        told_from: told_from.filter(|_| has(choice::ALL | choice::SINCE)).map(ToldFrom::Time),
        caution: if has(choice::CAUTION) { 5 } else { 0 },
        search: has(choice::SEARCH).then(search),
        changes: WantedChanges { flags: has(choice::CHANGES), expunges: has(choice::CHANGES) },
        until: if has(choice::ONCE) { Until::CaughtUp } else { Until::Stopped },
    };
    Plan {
        goal: match () {
            () if has(choice::LIST) => Goal::ListMailboxes,
            () if has(choice::TITLES) => Goal::Titles(Box::new(TitleQuery {
                mailbox,
                count: 3,
                since: told_from.filter(|_| has(choice::SINCE)),
                criteria: has(choice::SEARCH).then(search),
            })),
            () => Goal::Watch(Box::new(watch)),
        },
        security: match () {
            () if has(choice::STARTTLS) => Security::StartTls,
            () if has(choice::IMPLICIT) => Security::Implicit,
            () => Security::Plain,
        },
        allow_preauth: has(choice::PREAUTH),
        credentials: Credentials {
            user: "bob".to_owned(),
            proof: match () {
                () if has(choice::TOKEN) => Proof::AccessToken("t0k".into()),
                () if has(choice::EIGHT_BIT) => Proof::Password("pä".into()),
                () => Proof::Password("secret".into()),
            },
        },
        sasl_ir: true,
        pipelining: true,
        idle_refresh: Duration::from_secs(540),
        poll_interval: Duration::from_secs(60),
        greeting_timeout: Duration::from_secs(10),
        command_timeout: Duration::from_secs(30),
        tag_prefix: "t".into(),
        wanted: Arc::new(Wanted::default()),
    }
}

/// Whatever a server says: the conversation ends, tells nothing twice, changes no mailbox, and keeps its password.
pub fn conversation(data: &[u8]) {
    let Some((choices, script)) = data.split_first_chunk() else { return };
    let plan = plan(u16::from_le_bytes(*choices));
    let needs_tls = plan.security == Security::StartTls;
    let secured = Cell::new(false);
    let secure = async |stream: DuplexStream| {
        secured.set(true);
        Ok(stream)
    };
    let memory = Memory::of(&plan);
    let (ours, theirs) = duplex(1 << 16);
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let (_, said) = runtime.unwrap().block_on(async {
        let client = pump(Link::new(ours), plan, &memory, |_| {}, secure, watch::channel(0).1, stopped);
        let life = async { tokio::join!(client, serve(script, theirs, stop)) };
        tokio::time::timeout(Duration::from_secs(24 * 3600), life).await.expect("it ends")
    });
    let commands = commands(&said);
    for command in &commands {
        assert_changes_nothing(command);
    }
    assert!(!needs_tls || secured.get() || !commands.iter().any(|command| is_login(command)));
}

/// Speaks the server's part; all that the client said.
async fn serve(script: &[u8], stream: DuplexStream, stop: oneshot::Sender<()>) -> Vec<u8> {
    let (reader, mut writer) = tokio::io::split(stream);
    let (mut reader, mut stop, mut heard) = (BufReader::new(reader), Some(stop), Vec::new());
    for piece in script.split_inclusive(|byte| matches!(*byte, HEAR | STOP | CLOSE)) {
        let (bytes, mark) = match piece {
            [bytes @ .., mark @ (HEAR | STOP | CLOSE)] => (bytes, *mark),
            bytes => (bytes, 0),
        };
        if writer.write_all(bytes).await.is_err() {
            break;
        }
        match mark {
            HEAR => drop(reader.read_until(b'\n', &mut heard).await),
            STOP => drop(stop.take().map(|stop| stop.send(()))),
            CLOSE => drop(writer.shutdown().await),
            _ => {}
        }
    }
    while reader.read_until(b'\n', &mut heard).await.is_ok_and(|length| length > 0) {}
    heard
}

/// The commands in what a client said, as a server counts them: a literal belongs to its command.
fn commands(mut said: &[u8]) -> Vec<Vec<u8>> {
    let mut commands: Vec<Vec<u8>> = Vec::new();
    let mut goes_on = false;
    while !said.is_empty() {
        let end = said.iter().position(|&byte| byte == b'\n').map_or(said.len(), |at| at + 1);
        let (line, rest) = said.split_at(end);
        let length = announced(line);
        let (literal, rest) = rest.split_at(length.unwrap_or(0).min(rest.len()));
        if !goes_on {
            commands.push(Vec::new());
        }
        commands.last_mut().unwrap().extend([line, literal].concat());
        (goes_on, said) = (length.is_some(), rest);
    }
    commands
}

fn announced(line: &[u8]) -> Option<usize> {
    let inside = line.strip_suffix(b"}\r\n")?;
    let inside = inside.strip_suffix(b"+").unwrap_or(inside);
    std::str::from_utf8(inside.rsplit(|&byte| byte == b'{').next()?).ok()?.parse().ok()
}

fn assert_changes_nothing(command: &[u8]) {
    const KNOWN: &[&str] = &[
        "CAPABILITY\r\n",
        "STARTTLS\r\n",
        "LOGIN ",
        "AUTHENTICATE PLAIN",
        "AUTHENTICATE OAUTHBEARER",
        "AUTHENTICATE XOAUTH2",
        "ID (",
        "ENABLE UTF8=ACCEPT\r\n",
        "ENABLE QRESYNC\r\n",
        "ENABLE UTF8=ACCEPT QRESYNC\r\n",
        "STATUS \"INBOX\" (HIGHESTMODSEQ)\r\n",
        "STATUS \"INBOX/",
        "LIST \"\" ",
        "EXAMINE ",
        "UID FETCH ",
        "UID SEARCH ",
        "FETCH ",
        "NOOP\r\n",
        "NOTIFY SET (",
        "IDLE\r\n",
        "LOGOUT\r\n",
    ];
    let name = command.splitn(2, |&byte| byte == b' ').nth(1);
    let is_known = name.is_some_and(|name| KNOWN.iter().any(|known| name.starts_with(known.as_bytes())));
    // DONE, and the responses of a SASL exchange.
    let has_no_tag = matches!(command, b"DONE\r\n" | b"\r\n" | b"AQ==\r\n");
    assert!(is_known || has_no_tag || is_response(command), "{}", command.escape_ascii());
    assert!(!contains(command, b" BODY[") && !contains(command, b"(BODY["), "{}", command.escape_ascii());
}

fn is_login(command: &[u8]) -> bool {
    contains(command, b" LOGIN ") || contains(command, b" AUTHENTICATE ") || is_response(command)
}

/// What PLAIN (with either password), OAUTHBEARER and XOAUTH2 send where there is no SASL-IR.
fn is_response(line: &[u8]) -> bool {
    matches!(
        line,
        b"AGJvYgBzZWNyZXQ=\r\n"
            | b"AGJvYgBww6Q=\r\n"
            | b"bixhPWJvYiwBYXV0aD1CZWFyZXIgdDBrAQE=\r\n"
            | b"dXNlcj1ib2IBYXV0aD1CZWFyZXIgdDBrAQE=\r\n"
    )
}

/// A journal, and what it was given last.
struct Memory {
    mailbox: MailboxName,
    journal: OnceCell<RefCell<SqliteJournal>>,
    begins_with: Option<Cursor>,
    last: RefCell<Option<Cursor>>,
}

impl Memory {
    fn of(plan: &Plan) -> Self {
        let (mailbox, last) = match &plan.goal {
            Goal::Watch(watch) => (watch.mailbox.clone(), watch.checkpoint.clone()),
            _ => (MailboxName::inbox(), None),
        };
        Self { mailbox, journal: OnceCell::new(), begins_with: last.clone(), last: RefCell::new(last) }
    }

    /// A journal that holds what the conversation began with.
    fn begun(&self, key: &MailboxKey) -> SqliteJournal {
        let mut journal = SqliteJournal::in_memory().unwrap();
        let checkpoint = self.begins_with.clone().map(|cursor| Checkpoint {
            key: key.clone(),
            cursor,
            replaces: Replaces::Nothing,
        });
        journal.commit(&[Entry::new(Batch { checkpoint, ..Batch::default() })], &[]).unwrap();
        journal
    }

    fn assert_tells_once(&self, Delivery { findings, cursor, .. }: &Delivery) {
        let last = self.last.borrow();
        let begins = findings.iter().any(|finding| matches!(finding, Finding::Reset { .. }));
        let mut seen = match &*last {
            Some(last) if !begins && last.uid_validity == cursor.uid_validity => last.seen.clone(),
            _ => Default::default(),
        };
        for finding in findings {
            if let Finding::Message(message) = finding {
                assert_eq!(message.uid_validity, cursor.uid_validity);
                assert!(seen.insert(message.uid), "{} is told twice", message.uid);
            }
        }
        seen.subtract(&cursor.seen);
        assert!(seen.is_empty(), "{seen} would be told again");
    }
}

impl Delivers for Memory {
    fn deliver(&self, delivery: Delivery) -> LocalBoxFuture<'static, Result<Receipt, Undelivered>> {
        self.assert_tells_once(&delivery);
        let key = MailboxKey { account: "a".into(), mailbox: self.mailbox.clone() };
        let mut journal = self.journal.get_or_init(|| RefCell::new(self.begun(&key))).borrow_mut();
        let replaces = delivery.before.into();
        let checkpoint = Some(Checkpoint { key: key.clone(), cursor: delivery.cursor, replaces });
        let batch = Batch { checkpoint, ..Batch::default() };
        let receipt = journal.commit(&[Entry::new(batch)], &[]).unwrap().remove(0).unwrap();
        assert_eq!(journal.cursor(&key).unwrap().as_ref(), receipt.cursor());
        *self.last.borrow_mut() = receipt.cursor().cloned();
        async move {
            tokio::task::yield_now().await;
            Ok(receipt)
        }
        .boxed_local()
    }

    fn recall(
        &self,
        _: &MailboxName,
    ) -> LocalBoxFuture<'static, Result<idlewatch::memory::Memory, Undelivered>> {
        let memory = idlewatch::memory::Memory { from: Some(Timestamp::UNIX_EPOCH), ..Default::default() };
        futures::future::ready(Ok(memory)).boxed_local()
    }
}

/// Whatever a sender writes: one line of JSON, no longer than it may be, that cannot deceive a terminal.
pub fn headers(header: &[u8]) {
    let name = Some(header.iter().take(300).copied().collect());
    let attachments = vec![AttachmentPart { name, mime_type: "application/pdf".to_owned(), size: Some(1) }];
    let items = FetchItems {
        header: Some(header.to_vec()),
        structure: Some(Structure { content_type: "multipart/mixed".to_owned(), attachments }),
        ..FetchItems::default()
    };
    let wanted = Wanted { headers: vec!["x-other".to_owned()], ..Wanted::default() };
    let event = new_message(1, summarize(&items, &wanted));
    for max_bytes in [2000, 8000] {
        let value = serde_json::from_str::<serde_json::Value>(&encoded(&event, max_bytes, Format::Ecs));
        assert_eq!(value.expect("it is JSON")["idlewatch"]["imap"]["uid"], 1);
    }
    encoded(&event, 8000, Format::Pretty { color: false });
}

fn new_message(uid: u32, summary: idlewatch::event::MessageSummary) -> Event {
    let message = NewMessage {
        mailbox: "INBOX".into(),
        role: None,
        messages: Some(3),
        uid_validity: 7,
        uid,
        source: Source::Idle,
        epoch_changed: false,
        summary,
    };
    let account = AccountIdentity {
        id: "work".into(),
        user: "bob@example.com".to_owned(),
        host: "imap.example.com".into(),
        port: 993,
        labels: Default::default(),
    };
    Event {
        at: Timestamp::UNIX_EPOCH,
        id: format!("id{uid}"),
        account: Some(Arc::new(account)),
        body: EventBody::MessageNew(Box::new(message)),
        filtered: None,
        redacted: Vec::new(),
    }
}

fn encoded(event: &Event, max_bytes: usize, format: Format) -> String {
    let mut out = Vec::new();
    Encoder::new(EncoderSettings { instance: "mon-1".into(), max_bytes, format }).line(1, event, &mut out);
    let line = String::from_utf8(out).expect("it is UTF-8");
    let line = line.strip_suffix('\n').expect("it ends");
    assert!(line.len() <= max_bytes, "{} bytes", line.len());
    assert_harmless(line);
    line.to_owned()
}

fn assert_harmless(text: &str) {
    assert!(!text.chars().any(|c| c.is_control() || is_deceptive(c)), "{text:?}");
}

/// Stands in the configuration as a password, and nowhere in what is said about it.
pub const CANARY: &str = "CANARY-pw-7f3a";

/// Whatever a configuration holds: settings, or problems in words, and never a password in them.
pub fn config(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let (settings, issues) = match from_text("t.toml", &text) {
        Ok((settings, warnings)) => (Some(settings), warnings),
        Err(issues) => {
            assert!(!issues.is_empty());
            (None, issues)
        }
    };
    let is_secret = text.parse::<toml::Table>().map_or(true, |table| !shows_canary(&table));
    for issue in &issues {
        assert!(!issue.message.is_empty(), "{issue:?}");
        assert_harmless(&issue.to_string());
        assert!(!is_secret || !issue.to_string().contains(CANARY), "{issue}");
    }
    assert!(!is_secret || !format!("{settings:?}").contains(CANARY));
}

/// Whatever a list of accounts holds, as CSV or as JSON lines: accounts, or problems in words, at a line of it.
pub fn lists(text: &[u8]) {
    const TEMPLATE: &str = "[templates.x]\nhost = \"{labels.a}.example\"\nuser = \"{local}\"\npassword = { file = \"/s/{id}.{user}\" }\n\
                            [[account_lists]]\ntemplate = \"x\"\npath = ";
    let text = String::from_utf8_lossy(text);
    for name in ["a.csv", "a.jsonl"] {
        match from_texts("t.toml", &format!("{TEMPLATE}\"{name}\"\n"), &[(name, &text)]) {
            Ok((settings, _)) => {
                for account in settings.accounts.iter().filter(|_| !text.contains("password")) {
                    let LoginMeans::Password(SecretSource::File(path)) = &account.login else {
                        panic!("{account:?}")
                    };
                    assert!(path.parent() == Some(Path::new("/s")), "{path:?}");
                    assert!(!path.ends_with(".."), "{path:?}");
                }
            }
            Err(issues) => {
                for issue in &issues {
                    assert!(!issue.message.is_empty() && !issue.origin.is_empty(), "{issue:?}");
                    assert_harmless(&issue.to_string());
                }
            }
        }
    }
}

/// Whether the canary is also something else than a password: a name, or a value that may be told.
fn shows_canary(table: &toml::Table) -> bool {
    let has = |text: &str| text.contains(CANARY);
    table.iter().any(|(key, value)| match value {
        _ if has(key) => true,
        toml::Value::String(text) => has(text) && !matches!(key.as_str(), "password" | "inline"),
        toml::Value::Table(table) => shows_canary(table),
        toml::Value::Array(items) => items.iter().any(|item| match item {
            toml::Value::Table(table) => shows_canary(table),
            item => has(&item.to_string()),
        }),
        _ => false,
    })
}

/// Whatever a mailbox is called: its name survives the wire.
pub fn utf7(wire: &[u8]) {
    let name = utf7::decode(wire);
    let encoded = utf7::encode(&name);
    assert!(encoded.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{encoded:?}");
    assert_eq!(utf7::decode(encoded.as_bytes()), name);
}

/// A state directory as a crash leaves it, and all that it may tell.
struct State {
    files: Vec<(String, Vec<u8>)>,
    events: Vec<Event>,
    cursors: Vec<Cursor>,
}

static STATE: LazyLock<State> = LazyLock::new(|| {
    let dir = scratch();
    let events: Vec<_> = (1..=40).map(|uid| new_message(uid, Default::default())).collect();
    let cursors: Vec<_> = (1..=2).map(|next| Cursor::baseline(7, next, Some(5))).collect();
    let entry = |events: &[Event], cursor: &Cursor| {
        let checkpoint =
            Some(Checkpoint { key: watched(), cursor: cursor.clone(), replaces: Replaces::Anything });
        Entry::new(Batch { events: events.to_vec(), checkpoint, ..Batch::default() })
    };
    let open = || SqliteJournal::open(dir.path(), false, false).unwrap().0;
    let mut journal = open();
    journal.lanes(&["out".to_owned()]).unwrap();
    journal.commit(&[entry(&events[..30], &cursors[0])], &[]).unwrap();
    // What is closed is in the database, what follows in its log.
    drop(journal);
    let mut journal = open();
    journal.commit(&[entry(&events[30..], &cursors[1])], &[]).unwrap();
    let read = |name: &str| (name.to_owned(), std::fs::read(dir.path().join(name)).unwrap());
    let files = ["journal.db", "journal.db-wal"].map(read).to_vec();
    State { files, events, cursors }
});

fn watched() -> MailboxKey {
    MailboxKey { account: "work".into(), mailbox: MailboxName::inbox() }
}

fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A damaged journal: every four bytes are a place, and what is done to the byte there; 0 cuts the file.
pub fn journal(damage: &[u8]) {
    let dir = scratch();
    let mut files = STATE.files.clone();
    for [high, middle, low, change] in damage.as_chunks().0 {
        let place = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        let file = place % files.len();
        let bytes = &mut files[file].1;
        let place = place / 2 % bytes.len().max(1);
        match bytes.get_mut(place) {
            Some(byte) if *change > 0 => *byte ^= change,
            _ => bytes.truncate(place),
        }
    }
    for (name, bytes) in &files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    match SqliteJournal::open(dir.path(), false, false) {
        Ok((mut journal, _)) => read(&mut journal),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn read(journal: &mut SqliteJournal) {
    for event in journal.pending(0, 100).unwrap_or_default() {
        assert!(STATE.events.contains(&event.event), "{event:?}");
    }
    if let Ok(Some(cursor)) = journal.cursor(&watched()) {
        // Since when nobody watches is told to people only, and has no checksum.
        let cursor = Cursor { blind_since: None, ..cursor };
        assert!(STATE.cursors.contains(&cursor), "{cursor:?}");
    }
    let _ = (journal.lanes(&["out".to_owned()]), journal.last(), journal.forget(1));
    let _ = journal.commit(&[Entry::new(Batch { events: STATE.events.clone(), ..Batch::default() })], &[]);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
