//! Plays `tests/transcripts/*.imap` against the whole path from bytes to findings: as they stand, byte by byte, and
//! cut at random places.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use idlewatch::account::lifecycle::SessionEnd;
use idlewatch::account::milestone::Milestone;
use idlewatch::account::outlet::Delivers;
use idlewatch::account::pump::pump;
use idlewatch::event::{Cursor, GapReason, MailboxKey, MailboxName};
use idlewatch::imap::changes::WantedChanges;
use idlewatch::imap::command::{Credentials, Proof};
use idlewatch::imap::conversation::{Delivery, Finding, Goal, Plan, Security, ToldFrom, Until, Watch};
use idlewatch::imap::ending::Ending;
use idlewatch::imap::refusal::Refusal;
use idlewatch::imap::rounds::{Choice, LookUp, LookedUp, Newcomers};
use idlewatch::imap::search::{Criteria, Key};
use idlewatch::imap::stops::Met;
use idlewatch::imap::summary::Wanted;
use idlewatch::imap::suspects::{Suspects, Visits};
use idlewatch::journal::sqlite::SqliteJournal;
use idlewatch::journal::{Entry, Journal, Receipt};
use idlewatch::mailbox_choice::MailboxChoice;
use idlewatch::messages::{Batch, Checkpoint, Replaces, Undelivered};
use idlewatch::wire::link::{Link, LinkError};
use idlewatch::wire::tls::TlsError;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::{oneshot, watch};

#[derive(Clone, Debug)]
pub struct Transcript {
    name: String,
    plan: Vec<(String, String)>,
    pub checkpoint: Option<Cursor>,
    pub script: Vec<Line>,
    expected: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum Line {
    Say(Vec<u8>),
    Hear(String),
    Tls,
    Close,
    Stop,
}

/// All of them, in the order of their files.
pub fn all() -> Vec<Transcript> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "imap"));
    files.sort();
    files.iter().flat_map(|file| parse(file)).collect()
}

fn parse(file: &Path) -> Vec<Transcript> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut found: Vec<Transcript> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            let name = format!("{}: {name}", file.file_name().unwrap().to_string_lossy());
            found.push(Transcript { name, plan: vec![], checkpoint: None, script: vec![], expected: vec![] });
            continue;
        }
        let Some(current) = found.last_mut() else { continue };
        let say = |text: String| Line::Say(text.into_bytes());
        if let Some(rest) = line.strip_prefix("=> ") {
            current.expected.push(rest.to_owned());
        } else if let Some(rest) = line.strip_prefix("plan: ") {
            let pairs = rest.split(' ').map(|pair| pair.split_once('=').unwrap());
            current.plan = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        } else if let Some(rest) = line.strip_prefix("checkpoint: ") {
            current.checkpoint = Some(cursor(rest));
        } else if let Some(rest) = line.strip_prefix("S: ") {
            current.script.push(say(format!("{rest}\r\n")));
        } else if let Some(rest) = line.strip_prefix("E: ") {
            current.script.push(Line::Say(unescape(rest)));
        } else if let Some(rest) = line.strip_prefix("R: ") {
            let (count, text) = rest.split_once(' ').unwrap();
            current.script.push(Line::Say(unescape(text).repeat(count.parse().unwrap())));
        } else if let Some(rest) = line.strip_prefix("F: ") {
            current.script.push(say(full_fetch(rest)));
        } else if let Some(rest) = line.strip_prefix("C: ") {
            current.script.push(Line::Hear(rest.to_owned()));
        } else {
            match line {
                "tls" => current.script.push(Line::Tls),
                "close" => current.script.push(Line::Close),
                "stop" => current.script.push(Line::Stop),
                "" => {}
                comment if comment.starts_with('#') => {}
                other => panic!("{}: {other}", current.name),
            }
        }
    }
    found
}

fn cursor(text: &str) -> Cursor {
    let mut words = text.split(' ');
    let uid_validity = words.next().unwrap().parse().unwrap();
    let mut cursor = Cursor::baseline(uid_validity, 1, None);
    for (key, value) in words.map(|word| word.split_once('=').unwrap()) {
        match key {
            "next" => cursor.uid_next = value.parse().unwrap(),
            "seen" => cursor.seen = value.parse().unwrap(),
            "modseq" => cursor.modseq = value.parse().ok(),
            "changes" => cursor.changes = value.parse().ok(),
            "gone" => cursor.gone = Some(value.parse().unwrap()),
            "lookback" => cursor.look_back = value.parse().ok(),
            "blind" => cursor.blind_since = Some(value.parse().unwrap()),
            other => panic!("{other}"),
        }
    }
    cursor
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('r')) => bytes.push(b'\r'),
            ('\\', Some('n')) => bytes.push(b'\n'),
            ('\\', Some('0')) => bytes.push(0),
            ('\\', Some('x')) => {
                let hex: String = chars.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&hex, 16).unwrap());
            }
            ('\\', Some(other)) => bytes.extend(other.to_string().bytes()),
            (c, _) => bytes.extend(c.to_string().bytes()),
        }
    }
    bytes
}

/// `unseen,from:boss,not-subject:sale`
fn criteria(text: &str) -> Arc<Criteria> {
    let key = |word: &str| match word.split_once(':') {
        None => Key::Unseen,
        Some(("from", text)) => Key::From(text.to_owned()),
        Some((_, text)) => Key::Not(Box::new(Key::Subject(text.to_owned()))),
    };
    Arc::new(Criteria::new(text.split(',').map(key).collect()).unwrap())
}

fn full_fetch(rest: &str) -> String {
    let mut words = rest.splitn(3, ' ');
    let (seq, uid, subject) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let header = format!("From: Alice <alice@example.org>\r\nSubject: {subject}\r\n\r\n");
    format!(
        "* {seq} FETCH (UID {uid} FLAGS (\\Recent) INTERNALDATE \"22-Nov-2026 21:25:01 +0000\" RFC822.SIZE 120 \
         BODYSTRUCTURE (\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 20 1) \
         BODY[HEADER.FIELDS (FROM SUBJECT)] {{{}}}\r\n{header})\r\n",
        header.len()
    )
}

impl Transcript {
    fn memory(&self) -> Option<Timestamp> {
        let (_, from) = self.plan.iter().find(|(key, _)| key == "memory")?;
        Some(from.parse().unwrap())
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.plan.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn mailbox(&self) -> MailboxName {
        self.get("mailbox").unwrap_or("INBOX").into()
    }

    /// `mailboxes=INBOX,Customers/** connections=3 beside=a,b known=a,b suspect=a strikes=2`
    fn choice(&self) -> Option<Choice> {
        let entries: Vec<_> = self.get("mailboxes")?.split(',').collect();
        let names = |key| self.get(key).into_iter().flat_map(|names| names.split(',')).map(MailboxName::from);
        Some(Choice {
            mailboxes: Arc::new(MailboxChoice::new(&entries).unwrap()),
            max_connections: self.get("connections").map_or(1, |most| most.parse().unwrap()),
            beside: names("beside").collect(),
            known: self.get("known").map(|_| names("known").collect()),
            newcomers: Newcomers::default(),
            suspects: self.suspects(),
            search: None,
            changes: self.changes(),
            until: if self.get("once") == Some("yes") { Until::CaughtUp } else { Until::Stopped },
        })
    }

    /// `changes=flags,expunges`
    fn changes(&self) -> WantedChanges {
        let wanted = |name| self.get("changes").is_some_and(|all| all.split(',').any(|one| one == name));
        WantedChanges { flags: wanted("flags"), expunges: wanted("expunges") }
    }

    /// `suspect=b strikes=2`: the connection broke so often while it was visited, and others had been.
    fn suspects(&self) -> Suspects {
        let mut suspects = Suspects::default();
        let visits = Visits { visiting: self.get("suspect").map(Into::into), cleared: vec![], proven: true };
        let strikes = self.get("strikes").map_or(1, |strikes| strikes.parse().unwrap());
        (0..strikes).for_each(|_| suspects.learn(&visits, true, false));
        suspects
    }

    fn plan(&self) -> Plan {
        let told_from = self.get("initial").and_then(|initial| match initial.strip_prefix("since:") {
            Some(date) => format!("{date}T00:00:00Z").parse().ok(),
            None => (initial == "all").then_some(Timestamp::MIN),
        });
        let watch = Watch {
            mailbox: self.mailbox(),
            checkpoint: self.checkpoint.clone(),
            told_from: told_from.map(ToldFrom::Time),
            caution: self.get("caution").map_or(0, |caution| caution.parse().unwrap()),
            search: self.get("search").map(criteria),
            changes: self.changes(),
            until: if self.get("once") == Some("yes") { Until::CaughtUp } else { Until::Stopped },
        };
        Plan {
            goal: self
                .choice()
                .map_or(Goal::Watch(Box::new(watch)), |choice| Goal::WatchMany(Box::new(choice))),
            security: match self.get("security") {
                Some("starttls") => Security::StartTls,
                Some("plain") => Security::Plain,
                _ => Security::Implicit,
            },
            allow_preauth: self.get("preauth") == Some("yes"),
            credentials: Credentials {
                user: self.get("user").unwrap_or("bob").to_owned(),
                proof: match self.get("token") {
                    Some(token) => Proof::AccessToken(token.into()),
                    None if self.get("certificate") == Some("yes") => Proof::Certificate,
                    None => Proof::Password(self.get("password").unwrap_or("secret").into()),
                },
            },
            pipelining: self.get("pipelining") != Some("no"),
            sasl_ir: self.get("sasl_ir") != Some("no"),
            idle_refresh: Duration::from_secs(540),
            poll_interval: Duration::from_secs(60),
            greeting_timeout: Duration::from_secs(10),
            command_timeout: Duration::from_secs(30),
            tag_prefix: "t".into(),
            wanted: Arc::new(Wanted::default()),
        }
    }
}

/// What came of it, in words.
type Told = Arc<Mutex<Vec<String>>>;

struct Memory {
    journal: Arc<Mutex<SqliteJournal>>,
    told: Told,
    last: Arc<Mutex<Option<Cursor>>>,
    /// There are many mailboxes, so each is named.
    many: bool,
    /// What the journal remembers: messages from then on, none of them known.
    from: Option<Timestamp>,
}

impl Delivers for Memory {
    fn deliver(&self, delivery: Delivery) -> LocalBoxFuture<'static, Result<Receipt, Undelivered>> {
        let uid_next = delivery.cursor.uid_validity;
        let of = if self.many { format!("{}: ", delivery.mailbox) } else { String::new() };
        for finding in &delivery.findings {
            let words = match finding {
                Finding::Message(message) => {
                    let subject = message.summary.subject.clone().unwrap_or_default();
                    let errors = message.summary.decode_errors.join(",");
                    format!("message {} {subject}{errors}", message.uid)
                }
                Finding::Flags(change) => {
                    format!("flags {} {} {}", change.uid, change.modseq, change.flags.join(" "))
                }
                Finding::Expunged(gone) => format!("expunged {}", gone.uid),
                Finding::Gap { reason: GapReason::Changes, lost, .. } => format!("changes {lost:?}"),
                Finding::Reset { previous, .. } => format!("reset {previous} {uid_next}"),
                Finding::Gap { uid_first: Some(first), uid_last: Some(last), .. } => {
                    format!("gap {first}:{last}")
                }
                Finding::Gap { recovered: Some(recovered), lost, .. } => {
                    format!(
                        "blind recovered={recovered} lost={}",
                        lost.map_or("?".to_owned(), |n| n.to_string())
                    )
                }
                Finding::Gap { .. } => "gap -".to_owned(),
            };
            self.told.lock().unwrap().push(of.clone() + &words);
        }
        *self.last.lock().unwrap() = Some(delivery.cursor.clone());
        let key = MailboxKey { account: "a".into(), mailbox: delivery.mailbox };
        let checkpoint = Some(Checkpoint { key, cursor: delivery.cursor, replaces: delivery.before.into() });
        let entry = Entry::new(Batch { checkpoint, ..Batch::default() });
        let receipt = self.journal.lock().unwrap().commit(&[entry], &[]).unwrap().remove(0).unwrap();
        async move {
            tokio::task::yield_now().await;
            Ok(receipt)
        }
        .boxed_local()
    }

    fn look_up(&self, asked: LookUp) -> LocalBoxFuture<'static, Result<LookedUp, Undelivered>> {
        let mut journal = self.journal.lock().unwrap();
        let mut cursor = |mailbox| journal.cursor(&MailboxKey { account: "a".into(), mailbox }).unwrap();
        let checkpoint = cursor(asked.mailbox);
        let inheritance = asked.formerly.into_iter().filter_map(cursor).collect();
        let told_from =
            (asked.met != Met::AtFirst).then(|| ToldFrom::Time("2026-11-22T00:00:00Z".parse().unwrap()));
        futures::future::ready(Ok(LookedUp { checkpoint, told_from, inheritance })).boxed_local()
    }

    fn recall(
        &self,
        _: &MailboxName,
    ) -> LocalBoxFuture<'static, Result<idlewatch::memory::Memory, Undelivered>> {
        let memory = idlewatch::memory::Memory { from: self.from, ..Default::default() };
        futures::future::ready(Ok(memory)).boxed_local()
    }
}

fn ending(end: &SessionEnd) -> String {
    let refused = |name: &str, refusal: &Refusal| format!("{name}({:?}) {}", refusal.why, refusal.text);
    match end {
        SessionEnd::Link { error: LinkError::Closed, .. } => "Closed".to_owned(),
        SessionEnd::Link { error: LinkError::Io(_), .. } => "Closed".to_owned(),
        SessionEnd::Conversation(ending) => match ending {
            Ending::Bye(refusal) => refused("Bye", refusal),
            Ending::LoginRefused(refusal) => refused("LoginRefused", refusal),
            Ending::MailboxRefused(refusal) => refused("MailboxRefused", refusal),
            Ending::CommandRefused { refusal, .. } => refused("CommandRefused", refusal),
            Ending::TimedOut { awaiting } => format!("TimedOut {awaiting}"),
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    }
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    Bytes,
    Random(u64),
}

/// Speaks the server's part; what the client says must be what the script says.
async fn serve(
    script: Vec<Line>,
    stream: DuplexStream,
    cut: Cut,
    tls: Arc<Mutex<bool>>,
    stop: oneshot::Sender<()>,
) -> Result<(), String> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut lines = BufReader::new(reader);
    let mut random = StdRng::seed_from_u64(match cut {
        Cut::Random(seed) => seed,
        _ => 0,
    });
    let mut stop = Some(stop);
    let mut script = VecDeque::from(script);
    while let Some(line) = script.pop_front() {
        match line {
            Line::Say(mut bytes) => {
                // Lines that the server says in a row come in one piece.
                while let (Cut::Whole, Some(Line::Say(more))) = (cut, script.front()) {
                    bytes.extend(more);
                    script.pop_front();
                }
                *tls.lock().unwrap() = matches!(script.front(), Some(Line::Tls));
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let size = match cut {
                        Cut::Whole => rest.len(),
                        Cut::Bytes => 1,
                        Cut::Random(_) => random.random_range(1..=rest.len()),
                    };
                    if writer.write_all(&rest[..size]).await.is_err() {
                        return Ok(());
                    }
                    rest = &rest[size..];
                    tokio::task::yield_now().await;
                }
            }
            Line::Hear(pattern) => {
                let mut heard = Vec::new();
                lines.read_until(b'\n', &mut heard).await.map_err(|error| error.to_string())?;
                let heard = String::from_utf8_lossy(&heard).trim_end().to_owned();
                if !matches(&pattern, &heard) {
                    return Err(format!("the client said {heard:?}, not {pattern:?}"));
                }
            }
            Line::Tls => {}
            Line::Stop => drop(stop.take().map(|stop| stop.send(()))),
            Line::Close => {
                let _ = writer.shutdown().await;
            }
        }
    }
    // The script is over: the server says nothing more, and hears out what there is.
    let mut more = String::new();
    let _ = lines.read_line(&mut more).await;
    drop(stop);
    if more.is_empty() { Ok(()) } else { Err(format!("the client went on with {more:?}")) }
}

fn matches(pattern: &str, heard: &str) -> bool {
    let mut rest = heard;
    for (i, part) in pattern.split('…').enumerate() {
        match rest.find(part) {
            Some(at) if i > 0 || at == 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    rest.is_empty() || pattern.ends_with('…')
}

async fn play(transcript: &Transcript, cut: Cut) -> Result<Vec<String>, String> {
    let (ours, theirs) = tokio::io::duplex(1 << 22);
    let told: Told = Arc::default();
    let last = Arc::new(Mutex::new(None));
    let tls = Arc::new(Mutex::new(false));
    let mut journal = SqliteJournal::in_memory().unwrap();
    if let Some(cursor) = transcript.checkpoint.clone() {
        let key = MailboxKey { account: "a".into(), mailbox: transcript.mailbox() };
        let checkpoint = Some(Checkpoint { key, cursor, replaces: Replaces::Nothing });
        journal.commit(&[Entry::new(Batch { checkpoint, ..Batch::default() })], &[]).unwrap();
    }
    let journal = Arc::new(Mutex::new(journal));
    let memory = Memory {
        journal,
        many: transcript.choice().is_some(),
        told: told.clone(),
        last: last.clone(),
        from: transcript.memory(),
    };
    let (stop, stopped) = oneshot::channel();
    let server = serve(transcript.script.clone(), theirs, cut, tls.clone(), stop);
    let words = told.clone();
    let many = memory.many;
    let milestone = move |milestone: Milestone| match milestone {
        Milestone::LoggedIn => words.lock().unwrap().push("logged in".to_owned()),
        Milestone::Watching(mailbox) if many => words.lock().unwrap().push(format!("watching {mailbox}")),
        Milestone::Watching(_) => words.lock().unwrap().push("watching".to_owned()),
        Milestone::Beside(mailboxes) => {
            let names: Vec<_> = mailboxes.iter().map(MailboxName::as_str).collect();
            words.lock().unwrap().push(format!("beside {}", names.join(" ")).trim_end().to_owned());
        }
        Milestone::Toured(pace) => {
            let how = if pace.hears_all { "notify" } else { "rounds" };
            words.lock().unwrap().push(format!("toured {} {how}", pace.mailboxes));
        }
        Milestone::Unopened(mailbox, _) => words.lock().unwrap().push(format!("unopened {mailbox}")),
        Milestone::Shares(holding) if !holding.newcomers.is_empty() => {
            let mut names: Vec<_> = holding.newcomers.keys().map(MailboxName::as_str).collect();
            names.sort_unstable();
            words.lock().unwrap().push(format!("newcomers {}", names.join(" ")));
        }
        Milestone::MailboxesTruncated => words.lock().unwrap().push("truncated".to_owned()),
        Milestone::ChangesUntold(why) => words.lock().unwrap().push(format!("changes untold {why}")),
        Milestone::SearchRefused(why) => words.lock().unwrap().push(format!("search refused {why}")),
        Milestone::Pipelined { worked } => {
            let how = if worked { "worked" } else { "broke" };
            words.lock().unwrap().push(format!("pipelining {how}"));
        }
        Milestone::Alert(text) => words.lock().unwrap().push(format!("alert {text}")),
        _ => {}
    };
    let secure = async |stream: DuplexStream| match *tls.lock().unwrap() {
        true => Ok(stream),
        false => Err(TlsError::NotTls { host: "x".to_owned() }),
    };
    let client =
        pump(Link::new(ours), transcript.plan(), &memory, milestone, secure, watch::channel(0).1, stopped);
    let (outcome, served) = tokio::join!(client, server);
    served?;
    let mut told = told.lock().unwrap().clone();
    if transcript.expected.iter().any(|line| line.starts_with("cursor")) {
        let cursor = last.lock().unwrap().clone();
        let changes = |c: &Cursor| c.changes.map(|n| format!(" changes={n}")).unwrap_or_default();
        let gone = |c: &Cursor| c.gone.as_ref().map(|gone| format!(" gone={gone}")).unwrap_or_default();
        let shown = |c: Cursor| {
            let Cursor { uid_validity, uid_next, seen, .. } = &c;
            format!("cursor {uid_validity} next={uid_next} seen={seen}{}{}", changes(&c), gone(&c))
        };
        told.extend(cursor.map(shown));
    }
    if let Some(mailbox) = outcome.visits.visiting.filter(|_| outcome.died_fetching) {
        told.push(format!("died fetching {mailbox}"));
    }
    told.push(format!("end {}", ending(&outcome.end)));
    Ok(told)
}

fn check(transcript: &Transcript, cut: Cut) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let local = tokio::task::LocalSet::new();
    let hour = Duration::from_secs(3600);
    let told = local
        .block_on(&runtime, async { tokio::time::timeout(hour, play(transcript, cut)).await })
        .map_err(|_| "it never ended".to_owned())??;
    let fits = |(told, expected): (&String, &String)| {
        told == expected || (expected.starts_with("end ") && told.starts_with(expected.as_str()))
    };
    if told.len() == transcript.expected.len() && told.iter().zip(&transcript.expected).all(fits) {
        return Ok(());
    }
    Err(format!("told {told:#?}\nexpected {:#?}", transcript.expected))
}

/// Replies that never pause starve a timer; the deadline holds all the same.
#[tokio::test(start_paused = true)]
async fn a_flood_of_replies_does_not_outrun_the_deadline() {
    let local = tokio::task::LocalSet::new();
    let ended = local.run_until(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 24);
        let journal = Arc::new(Mutex::new(SqliteJournal::in_memory().unwrap()));
        let memory = Memory { journal, many: false, told: Told::default(), last: Arc::default(), from: None };
        let (_stop, stopped) = oneshot::channel();
        let transcript = Transcript {
            name: String::new(),
            plan: vec![],
            checkpoint: None,
            script: vec![],
            expected: vec![],
        };
        let secure = async |stream: DuplexStream| Ok(stream);
        let plan = Plan { command_timeout: Duration::from_secs(1), ..transcript.plan() };
        let client = pump(Link::new(ours), plan, &memory, |_| {}, secure, watch::channel(0).1, stopped);
        let flood = async {
            // More than the client takes in one turn, so that there is always something to read.
            let lines = b"* OK still thinking\r\n".repeat(60_000);
            for _ in 0..40 {
                if theirs.write_all(&lines).await.is_err() {
                    return;
                }
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            outcome = client => Some(ending(&outcome.end)),
            () = flood => None,
        }
    });
    assert_eq!(ended.await.as_deref(), Some("TimedOut CAPABILITY"));
}

#[test]
fn every_transcript_plays_whole_and_cut() {
    let transcripts = all();
    let mut failures = Vec::new();
    for transcript in &transcripts {
        let cuts = [Cut::Whole, Cut::Bytes, Cut::Random(1), Cut::Random(2), Cut::Random(3)];
        let cuts = if transcript.get("cut") == Some("no") { &cuts[..1] } else { &cuts[..] };
        let failed = cuts.iter().find_map(|&cut| check(transcript, cut).err().map(|why| (cut, why)));
        if let Some((cut, why)) = failed {
            failures.push(format!("{} ({cut:?}): {why}", transcript.name));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} failed:\n{}",
        failures.len(),
        transcripts.len(),
        failures.join("\n\n")
    );
    assert!(transcripts.len() >= 60, "only {} transcripts", transcripts.len());
}
