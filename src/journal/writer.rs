//! The journal's own thread: groups what comes while a commit runs into the next one, and answers with receipts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::{error, info, warn};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};

use super::aggregate::Group;
use super::question::Question;
use super::recent::Recent;
use super::{
    Configured, Damage, Encoded, Entry, Journal, JournalError, JournalledEvent, LanePosition, Receipt,
    Unstored,
};
use crate::cluster::shard::{Holding, ShardSet};
use crate::event::{AccountId, Cursor, Event, EventBody, MailboxKey, MonitorState};
use crate::event_id;
use crate::memory::Memory;
use crate::messages::{Note, Undelivered};
use crate::refusals::Refusals;
use crate::text;
use crate::ticks;

/// Between tries while nothing can be written.
const RETRY: Duration = Duration::from_secs(2);

/// The longest that a lane's position waits for events to be committed with. It bounds what is sent twice after a
/// loss of power.
const POSITION: Duration = Duration::from_millis(200);

/// Events that all lanes have, beyond which they are forgotten at once: one deletion costs as much as many.
const MOST_PASSED: u64 = 1_000;

/// And how long fewer of them are kept.
const PASSED: Duration = Duration::from_secs(1);

/// The longest that shards which leave wait for outputs to take what they have told: what is not taken goes with them.
const LEAVING: Duration = Duration::from_secs(2);

/// How often it is looked whether it is taken.
const TAKEN: Duration = Duration::from_millis(20);

/// How often mailboxes that are gone are looked for.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where to ask the writer; cheap to clone.
#[derive(Clone, Debug)]
pub struct JournalHandle {
    requests: Sender<Request>,
    recent: Recent,
    /// The last sequence that is durable.
    news: watch::Receiver<u64>,
    health: watch::Receiver<JournalHealth>,
    holding: watch::Receiver<Holding>,
    forgotten: Arc<Mutex<Option<UnboundedReceiver<Vec<AccountId>>>>>,
    dropped: Dropped,
}

/// Events that outputs which are not required will not get any more, by the output's name, since the start.
#[derive(Clone, Debug, Default)]
pub struct Dropped(Arc<Mutex<HashMap<String, u64>>>);

impl Dropped {
    fn add(&self, output: &str, events: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(output.to_owned()).or_default();
        *count = count.saturating_add(events);
    }

    /// Of one output, those included that were not for it.
    pub fn of(&self, output: &str) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(output).copied().unwrap_or(0)
    }
}

/// How the journal is, for those who ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalHealth {
    /// Bytes of events that wait for an output.
    pub bytes: u64,
    /// How many may.
    pub max_bytes: u64,
    /// So many wait, and nothing is let in.
    pub full: bool,
    /// Nothing can be written at the moment.
    pub blocked: Option<Blocked>,
    /// When something last became durable.
    pub committed_at: Option<Timestamp>,
    /// What was found damaged.
    pub damage: Damage,
}

/// What keeps the journal from being written, and passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// There is no room on the disk.
    #[error("the journal's disk is full")]
    DiskFull,
    /// The database does not answer.
    #[error("the journal's database cannot be reached")]
    Unreachable,
    /// Not all of it, where only what needs a damaged page waits.
    #[error("a part of the journal's database cannot be read")]
    Unreadable,
}

impl Blocked {
    /// Whether that is what a failure means.
    pub(super) fn by(failure: &JournalError) -> Option<Self> {
        match failure {
            JournalError::DiskFull => Some(Self::DiskFull),
            JournalError::Unreachable => Some(Self::Unreachable),
            JournalError::Unreadable => Some(Self::Unreadable),
            JournalError::TakenOver | JournalError::Failed(_) | JournalError::Closed => None,
        }
    }

    fn tell(self) {
        match self {
            Self::DiskFull => warn!("the journal's disk is full: nothing is fetched until there is room"),
            Self::Unreachable => {
                warn!("the journal's database cannot be reached: nothing is fetched until it can be")
            }
            Self::Unreadable => {
                warn!("a part of the journal's database cannot be read: what needs it waits until it can be")
            }
        }
    }

    fn tell_end(self) {
        match self {
            Self::DiskFull => info!("there is room for the journal again"),
            Self::Unreachable => info!("the journal's database answers again"),
            Self::Unreadable => info!("all that is asked of the journal's database can be read again"),
        }
    }
}

impl From<Blocked> for JournalError {
    fn from(blocked: Blocked) -> Self {
        match blocked {
            Blocked::DiskFull => Self::DiskFull,
            Blocked::Unreachable => Self::Unreachable,
            Blocked::Unreadable => Self::Unreadable,
        }
    }
}

/// What the writer has to know of a lane.
#[derive(Clone, Debug)]
pub struct LaneSpec {
    /// The output's name.
    pub name: String,
    /// Whether events wait for it.
    pub required: bool,
    /// If not: the most that wait.
    pub queue_max_events: u64,
}

impl LaneSpec {
    /// In place of a lane whose output is no more: no output has no name.
    fn gone() -> Self {
        Self { name: String::new(), required: false, queue_max_events: u64::MAX }
    }

    fn is_gone(&self) -> bool {
        self.name.is_empty()
    }
}

#[derive(Debug)]
enum Request {
    Commit { entry: Entry, answer: oneshot::Sender<Result<Receipt, Undelivered>> },
    Delivered { lane: usize, position: LanePosition, answer: oneshot::Sender<Result<(), JournalError>> },
    Save,
    Ask(Question),
    Cursor { key: MailboxKey, answer: CursorAnswer },
    Configured(Configured),
    Lanes { specs: Vec<LaneSpec>, answer: oneshot::Sender<Result<Places, JournalError>> },
    Left { shards: ShardSet },
    Describe(String),
    Settle { answer: oneshot::Sender<u64> },
}

/// The number of each lane, and where it stands.
type Places = Vec<(usize, LanePosition)>;

type CursorAnswer = oneshot::Sender<Result<Option<Cursor>, JournalError>>;

/// A lane's position on its way to the disk.
#[derive(Debug)]
pub struct Saving {
    answered: oneshot::Receiver<Result<(), JournalError>>,
    requests: Sender<Request>,
}

impl Saving {
    /// Until it is durable; it waits for nothing else any more.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub async fn done(mut self) -> Result<(), JournalError> {
        if let Ok(answer) = self.answered.try_recv() {
            return answer;
        }
        self.requests.send(Request::Save).map_err(|_| JournalError::Closed)?;
        self.answered.await.map_err(|_| JournalError::Closed)?
    }
}

impl JournalHandle {
    /// Starts the writer's thread. `failed` hears of a failure that cannot be survived.
    ///
    /// # Errors
    /// When the lanes cannot be set up, or there is no thread to be had.
    pub fn start(
        mut journal: Box<dyn Journal>,
        lanes: Vec<LaneSpec>,
        max_bytes: u64,
        failed: impl FnOnce(JournalError) + Send + 'static,
    ) -> Result<(Self, Vec<LanePosition>), JournalError> {
        let names: Vec<_> = lanes.iter().map(|lane| lane.name.clone()).collect();
        let positions = journal.lanes(&names)?;
        let (bytes, last) = (journal.bytes(), journal.last()?);
        let (requests, inbox) = channel();
        let (told, news) = watch::channel(last);
        let (tell_health, health) =
            watch::channel(JournalHealth { bytes, max_bytes, ..JournalHealth::default() });
        let (tell_holding, holding) = watch::channel(journal.holding());
        let (tell_forgotten, forgotten) = unbounded_channel();
        let recent = Recent::new(positions.iter().map(|position| position.sequence).collect());
        let lanes = lanes.into_iter().zip(positions.clone()).collect();
        let dropped = Dropped::default();
        let mut writer = Writer {
            journal,
            begun: false,
            lanes,
            max_bytes,
            bytes,
            last,
            told,
            tell_health,
            tell_holding,
            tell_forgotten,
            leaving: None,
            tidied: false,
            committed_at: None,
            recent: recent.clone(),
            waiting: VecDeque::new(),
            positions: Positions::default(),
            asked: Vec::new(),
            postponed: Vec::new(),
            unreadable: Unreadable::default(),
            full: false,
            losing: HashSet::new(),
            dropped: dropped.clone(),
            blocked: None,
            passed: 0,
            forgotten: 0,
            forgotten_at: Instant::now(),
            alive_at: Instant::now(),
            cleared_at: None,
            comparing: None,
            compare_at: None,
        };
        writer.begin()?;
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                let done = writer.run(&inbox).or_else(|failure| writer.unless_left(failure));
                drop(writer);
                if let Err(error) = done {
                    failed(error);
                }
            })
            .map_err(|error| JournalError::Failed(error.to_string()))?;
        let forgotten = Arc::new(Mutex::new(Some(forgotten)));
        Ok((Self { requests, recent, news, health, holding, forgotten, dropped }, positions))
    }

    /// Makes an entry durable.
    ///
    /// # Errors
    /// When the journal has failed, or is closed.
    pub async fn commit(&self, entry: Entry) -> Result<Receipt, Undelivered> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Commit { entry, answer }).map_err(|_| Undelivered::JournalFailed)?;
        answered.await.unwrap_or(Err(Undelivered::JournalFailed))
    }

    /// What was told of a mailbox lately.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn memory(&self, key: MailboxKey) -> Result<Memory, JournalError> {
        self.ask(|answer| Request::Ask(Question::Memory { key, answer })).await?
    }

    /// The refused logins of an account.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn refusals(&self, account: &AccountId) -> Result<Refusals, JournalError> {
        let account = account.clone();
        self.ask(|answer| Request::Ask(Question::Refusals { account, answer })).await?
    }

    /// How long IDLE may last, by host, where that was learned.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn idle_periods(&self) -> Result<Vec<(String, Duration)>, JournalError> {
        self.ask(|answer| Request::Ask(Question::IdlePeriods { answer })).await?
    }

    /// The hosts that do not take commands that are sent ahead.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn unpipelined(&self) -> Result<Vec<String>, JournalError> {
        self.ask(|answer| Request::Ask(Question::Unpipelined { answer })).await?
    }

    /// Keeps a note, before anything that is asked of the journal after it. Nobody waits for it.
    pub fn note(&self, note: Note) {
        let (answer, _) = oneshot::channel();
        let _ = self.requests.send(Request::Commit { entry: Entry::new(note.into()), answer });
    }

    /// Mailboxes of accounts that are not among these are forgotten one day. Nobody waits for it.
    pub fn configured(&self, accounts: Configured) {
        let _ = self.requests.send(Request::Configured(accounts));
    }

    /// The cursor of a mailbox. Comes only once nothing of the mailbox waits for its commit any more: who began from an
    /// older one would tell messages twice. And only once it is known since when the mailbox was not watched.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn cursor(&self, key: MailboxKey) -> Result<Option<Cursor>, JournalError> {
        self.ask(|answer| Request::Cursor { key, answer }).await?
    }

    /// The next `most` events after a position.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn pending(&self, after: u64, most: usize) -> Result<Vec<JournalledEvent>, JournalError> {
        if let Some(events) = self.recent.after(after, most) {
            return Ok(events);
        }
        self.ask(|answer| Request::Ask(Question::Pending { after, most, answer })).await?
    }

    /// Whether anything at all waits behind `sequence`, for whomever to tell.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn has_after(&self, sequence: u64) -> Result<bool, JournalError> {
        self.ask(|answer| Request::Ask(Question::HasAfter { sequence, answer })).await?
    }

    /// An output took everything up to `position`. It becomes durable with the next events, or soon, or when
    /// [`Saving::done`] asks for it; a later one of the lane replaces it.
    pub fn delivered(&self, lane: usize, position: LanePosition) -> Saving {
        let (answer, answered) = oneshot::channel();
        self.recent.taken(lane, position.sequence);
        // Where nobody takes it, nobody answers.
        let _ = self.requests.send(Request::Delivered { lane, position, answer });
        Saving { answered, requests: self.requests.clone() }
    }

    /// Other lanes than before, known by their names: those that stay keep their numbers and positions, those that are gone
    /// hold nothing back. The number and the position of each.
    ///
    /// # Errors
    /// When the journal cannot be written: nothing has changed then.
    pub async fn set_lanes(&self, specs: Vec<LaneSpec>) -> Result<Places, JournalError> {
        self.ask(|answer| Request::Lanes { specs, answer }).await?
    }

    /// The monitor is about to end: remembers when; how many events some required output still lacks.
    pub async fn settle(&self) -> u64 {
        self.ask(|answer| Request::Settle { answer }).await.unwrap_or_default()
    }

    /// Tells when there are new events: the last sequence that is durable.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.clone()
    }

    /// Tells which accounts, by their shards, are to be watched here.
    pub fn holding(&self) -> watch::Receiver<Holding> {
        self.holding.clone()
    }

    /// Tells of accounts that are not where they seemed to be: the journal has lost what it had taken of them. One may ask for it.
    pub fn forgotten(&self) -> Option<UnboundedReceiver<Vec<AccountId>>> {
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// No account of these shards is watched here any more: others may have them, once nothing of theirs is on its way.
    pub fn left(&self, shards: ShardSet) {
        let _ = self.requests.send(Request::Left { shards });
    }

    /// What is said of our accounts to those who look at the whole: their states, as a JSON object.
    pub fn describe(&self, accounts: String) {
        let _ = self.requests.send(Request::Describe(accounts));
    }

    /// What outputs that are not required have lost.
    pub fn dropped(&self) -> Dropped {
        self.dropped.clone()
    }

    /// How it is.
    pub fn health(&self) -> JournalHealth {
        *self.health.borrow()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, JournalError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).map_err(|_| JournalError::Closed)?;
        answered.await.map_err(|_| JournalError::Closed)
    }
}

struct Writer {
    journal: Box<dyn Journal>,
    /// It is recorded since when nobody watched; there may be no room for that yet.
    begun: bool,
    lanes: Vec<(LaneSpec, LanePosition)>,
    max_bytes: u64,
    bytes: u64,
    last: u64,
    told: watch::Sender<u64>,
    tell_health: watch::Sender<JournalHealth>,
    tell_holding: watch::Sender<Holding>,
    tell_forgotten: UnboundedSender<Vec<AccountId>>,
    leaving: Option<Leaving>,
    /// Others may have all of it: nothing more is shown of us.
    tidied: bool,
    committed_at: Option<Timestamp>,
    recent: Recent,
    /// Entries that have to wait for room.
    waiting: VecDeque<(Entry, oneshot::Sender<Result<Receipt, Undelivered>>)>,
    positions: Positions,
    /// Cursors that were asked for.
    asked: Vec<(MailboxKey, CursorAnswer)>,
    /// What else is asked once more, since there was no answer to be had.
    postponed: Vec<Question>,
    /// What needs a page of the database that cannot be read.
    unreadable: Unreadable,
    full: bool,
    /// The lanes for which events are dropped.
    losing: HashSet<usize>,
    dropped: Dropped,
    /// Why the last commit was in vain.
    blocked: Option<Blocked>,
    /// Events up to here are of no use to any lane.
    passed: u64,
    /// Events up to here are gone already.
    forgotten: u64,
    forgotten_at: Instant,
    /// When it was last remembered that the monitor lives.
    alive_at: Instant,
    /// When mailboxes that are gone were last forgotten; not before it is known which accounts there are.
    cleared_at: Option<Instant>,
    /// The accounts that there are, while what is known is compared with them.
    comparing: Option<Configured>,
    /// When that goes on, where it could not.
    compare_at: Option<Instant>,
}

/// Shards whose accounts are watched no more, and what of them was told.
#[derive(Debug)]
struct Leaving {
    shards: ShardSet,
    /// Nothing of them comes after this.
    last: u64,
    since: Instant,
}

/// What waits for a page of the database that a person has to mend. Everything else goes on.
#[derive(Default)]
struct Unreadable {
    entries: Vec<(Entry, oneshot::Sender<Result<Receipt, Undelivered>>)>,
    questions: Vec<Question>,
    /// Whether shards could not be looked at, claimed, or let go.
    shards: bool,
    /// Whether places of outputs could not be stored.
    positions: bool,
    tried_at: Option<Instant>,
    /// Whether somebody was told.
    told: bool,
}

impl Unreadable {
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.questions.is_empty() && !self.shards && !self.positions
    }

    /// Whether some of it is tried once more now.
    fn is_due(&mut self) -> bool {
        let waits = !self.entries.is_empty() || !self.questions.is_empty();
        let due = waits && self.tried_at.is_none_or(|at| at.elapsed() >= RETRY);
        if due {
            self.tried_at = Some(Instant::now());
        }
        due
    }

    /// Whether one of this mailbox waits.
    fn holds(&self, key: &MailboxKey) -> bool {
        self.entries.iter().any(|(entry, _)| entry.is_of(key))
    }
}

/// Positions of lanes that are not durable yet.
#[derive(Default)]
struct Positions {
    taken: Vec<(usize, LanePosition)>,
    receivers: Vec<oneshot::Sender<Result<(), JournalError>>>,
    /// When they are to be durable at the latest.
    due: Option<Instant>,
}

impl Positions {
    fn add(
        &mut self,
        lane: usize,
        position: LanePosition,
        answer: oneshot::Sender<Result<(), JournalError>>,
    ) {
        self.taken.push((lane, position));
        self.receivers.push(answer);
        self.due.get_or_insert_with(|| Instant::now() + POSITION);
    }

    fn hurry(&mut self) {
        self.due = self.due.map(|_| Instant::now());
    }

    fn are_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }
}

#[derive(Default)]
struct Round {
    entries: Vec<Entry>,
    receivers: Vec<oneshot::Sender<Result<Receipt, Undelivered>>>,
    positions: Positions,
    group: Group,
    /// Whether the journal is full, where that is to be told.
    full: Option<bool>,
}

impl Writer {
    fn run(&mut self, inbox: &Receiver<Request>) -> Result<(), JournalError> {
        let mut blocked = false;
        loop {
            let patience = if blocked { RETRY } else { self.patience() };
            let request = match inbox.recv_timeout(patience) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            self.begin()?;
            if self.alive_due() <= Instant::now() {
                self.remember_alive()?;
            }
            if self.comparing.is_none() && self.cleared_at.is_some_and(|at| at.elapsed() >= DAY) {
                self.forget_gone()?;
            }
            let mut round = Round::default();
            let mut next = request;
            while let Some(request) = next {
                self.take(request, &mut round);
                next = if round.group.is_full() { None } else { inbox.try_recv().ok() };
            }
            blocked = self.finish(round)? || !self.begun;
            self.ask_again();
            // What was taken may have made room for what waits.
            while !blocked && !self.waiting.is_empty() && self.bytes < self.max_bytes {
                blocked = self.finish(Round::default())?;
            }
            self.hand_over()?;
            self.answer_cursors();
            self.compare()?;
            blocked |= !self.postponed.is_empty();
            if self.forgotten_at.elapsed() >= PASSED {
                self.forget()?;
            }
            self.tell_health();
        }
    }

    /// Whoever is late, once others may have everything, is told that we stop: nothing failed.
    fn has_left(&self, failure: &JournalError) -> bool {
        self.tidied && matches!(failure, JournalError::TakenOver)
    }

    fn unless_left(&self, failure: JournalError) -> Result<(), JournalError> {
        if self.has_left(&failure) { Ok(()) } else { Err(failure) }
    }

    fn tell_health(&mut self) {
        let Self { bytes, max_bytes, full, blocked, committed_at, .. } = *self;
        let damage = self.journal.damage();
        let unreadable = !self.unreadable.is_empty();
        if std::mem::replace(&mut self.unreadable.told, unreadable) != unreadable {
            if unreadable { Blocked::Unreadable.tell() } else { Blocked::Unreadable.tell_end() }
        }
        let blocked = blocked.or(unreadable.then_some(Blocked::Unreadable));
        let now = JournalHealth { bytes, max_bytes, full, blocked, committed_at, damage };
        self.tell_health.send_if_modified(|told| std::mem::replace(told, now) != now);
    }

    /// How long nothing has to be done unasked.
    fn patience(&self) -> Duration {
        let alive = self.alive_due().saturating_duration_since(Instant::now());
        let positions = self.positions.due.map(|due| due.saturating_duration_since(Instant::now()));
        let passed = self.passed > self.forgotten;
        let forget = passed.then(|| PASSED.saturating_sub(self.forgotten_at.elapsed()));
        let leaving = self.leaving.as_ref().map(|_| TAKEN);
        [Some(alive), positions, forget, leaving, self.compares_in()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(alive)
    }

    /// When accounts are to be compared, if they are.
    fn compares_in(&self) -> Option<Duration> {
        self.comparing.as_ref().filter(|_| self.begun && !self.tidied)?;
        let at = self.compare_at.map(|at| at.saturating_duration_since(Instant::now()));
        Some(at.unwrap_or_default())
    }

    /// When all others that do something now and then are awake, too.
    fn alive_due(&self) -> Instant {
        ticks::after(self.alive_at, self.journal.rhythm())
    }

    /// A full disk is no reason not to start: what waits can be sent, and the rest has to wait for room.
    fn begin(&mut self) -> Result<(), JournalError> {
        if !self.begun {
            let begun = self.journal.begin(Timestamp::now());
            self.begun = self.done_unless_blocked(begun)?;
            if self.begun && self.blocked == Some(Blocked::Unreadable) {
                self.unblock();
            }
            self.follow()?;
        }
        Ok(())
    }

    /// What was claimed came with events, perhaps, which wait for outputs.
    fn follow(&mut self) -> Result<(), JournalError> {
        let forgotten = self.journal.forgotten();
        if !forgotten.is_empty() {
            let _ = self.tell_forgotten.send(forgotten);
        }
        let now = self.journal.holding();
        let held = now.held;
        if !self.tell_holding.borrow().held.without(&held).is_empty() {
            // Nobody is to be told from memory what another tells.
            self.recent.forget(u64::MAX);
        }
        let changed = self.tell_holding.send_if_modified(|told| std::mem::replace(told, now) != now);
        self.leaving = self.leaving.take().filter(|leaving| leaving.shards.without(&held).is_empty());
        let last = self.journal.last()?;
        if last > self.last {
            // Whoever reads on from memory would not see them.
            self.recent.forget(u64::MAX);
            self.last = last;
        }
        self.bytes = self.journal.bytes();
        // Lanes that found only what is others' look once more when those have it.
        self.told.send_if_modified(|told| std::mem::replace(told, self.last) != self.last || changed);
        Ok(())
    }

    /// Only what is to leave now: what was said of it may be old, and said again.
    fn left(&mut self, shards: ShardSet) {
        let shards = shards.and(&self.journal.holding().leaving);
        if !shards.is_empty() && self.leaving.as_ref().is_none_or(|leaving| leaving.shards != shards) {
            self.positions.hurry();
            self.leaving = Some(Leaving { shards, last: self.last, since: Instant::now() });
        }
    }

    /// What leaves is others' once every output has what it told, or after a while.
    fn hand_over(&mut self) -> Result<(), JournalError> {
        let Some(leaving) = &self.leaving else { return Ok(()) };
        if taken(&self.lanes, &self.losing) < leaving.last && leaving.since.elapsed() < LEAVING {
            return Ok(());
        }
        let shards = leaving.shards;
        let done = self.journal.hand_over(&shards, Timestamp::now());
        if matches!(done, Err(JournalError::Unreadable)) {
            self.unreadable.shards = true;
            return Ok(());
        }
        if self.done_unless_blocked(done)? {
            self.leaving = None;
            // Before anything else of it is told; and there may be more to go.
            self.follow()?;
            self.remember_alive()?;
        }
        Ok(())
    }

    /// A full disk is no reason to end; the next time will do.
    fn remember_alive(&mut self) -> Result<(), JournalError> {
        self.alive_at = Instant::now();
        if self.begun && !self.tidied {
            let told = self.journal.alive(Timestamp::now());
            self.unreadable.shards = matches!(told, Err(JournalError::Unreadable));
            let done = self.unreadable.shards || self.done_unless_blocked(told)?;
            self.follow()?;
            // So little may find room where nothing else does.
            if done && self.blocked == Some(Blocked::Unreachable) {
                self.unblock();
            }
        }
        Ok(())
    }

    /// Whether it was done, or has to wait.
    fn done_unless_blocked(&mut self, result: Result<(), JournalError>) -> Result<bool, JournalError> {
        match result {
            Ok(()) => Ok(true),
            Err(failure) => self.block(failure).map(|()| false),
        }
    }

    /// What passes is told once, and waited for.
    fn block(&mut self, failure: JournalError) -> Result<(), JournalError> {
        let Some(blocked) = Blocked::by(&failure) else { return Err(failure) };
        if self.blocked.replace(blocked) != Some(blocked) {
            blocked.tell();
        }
        Ok(())
    }

    fn unblock(&mut self) {
        if let Some(blocked) = self.blocked.take() {
            blocked.tell_end();
        }
    }

    /// One step: what else there is to do goes on between them. Nothing is forgotten before the last, since who is back may not
    /// be noted yet.
    fn compare(&mut self) -> Result<(), JournalError> {
        let is_due = self.compares_in() == Some(Duration::ZERO);
        let Some(accounts) = self.comparing.as_mut().filter(|_| is_due) else { return Ok(()) };
        self.compare_at = None;
        match self.journal.compare(accounts) {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.comparing = None;
                self.forget_gone()
            }
            Err(failure) if failure.passes() => {
                self.compare_at = Some(Instant::now() + RETRY);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// What blocks it is no reason to end, nor to say that nothing can be written: tomorrow will do.
    fn forget_gone(&mut self) -> Result<(), JournalError> {
        self.cleared_at = Some(Instant::now());
        match self.journal.forget_gone(Timestamp::now()) {
            Ok(0) => Ok(()),
            Ok(forgotten) => {
                info!("forgotten, as gone for 30 days: {}", text::counted(forgotten, "mailbox"));
                Ok(())
            }
            Err(failure) if failure.passes() => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Nothing goes before the record of the blindness: a checkpoint would end what nobody knows of.
    fn commit(
        &mut self,
        entries: &[Entry],
        positions: &[(String, LanePosition)],
    ) -> Result<Vec<Result<Receipt, Unstored>>, JournalError> {
        match self.blocked {
            Some(blocked) if !self.begun => Err(blocked.into()),
            _ => self.journal.commit(entries, positions),
        }
    }

    fn take(&mut self, request: Request, round: &mut Round) {
        match request {
            Request::Commit { entry, answer } => {
                round.group.add(entry.len(), entry.bytes());
                self.waiting.push_back((entry, answer));
            }
            Request::Delivered { lane, position, answer } => self.positions.add(lane, position, answer),
            Request::Save => self.positions.hurry(),
            Request::Ask(question) => self.ask(question),
            Request::Cursor { key, answer } => self.asked.push((key, answer)),
            Request::Configured(accounts) => self.comparing = Some(accounts),
            Request::Lanes { specs, answer } => drop(answer.send(self.set_lanes(specs))),
            Request::Left { shards } => self.left(shards),
            Request::Describe(accounts) => self.journal.describe(accounts),
            Request::Settle { answer } => {
                let _ = self.forget();
                let _ = self.remember_alive();
                self.journal.tidy();
                self.tidied = true;
                let _ = answer.send(self.undelivered());
            }
        }
    }

    fn set_lanes(&mut self, specs: Vec<LaneSpec>) -> Result<Places, JournalError> {
        // What was taken by a lane that goes, or stays, is durable first.
        self.positions.hurry();
        self.finish(Round::default())?;
        let names: Vec<_> = specs.iter().map(|spec| spec.name.clone()).collect();
        let stored = self.journal.lanes(&names)?;
        for (index, (spec, position)) in self.lanes.iter_mut().enumerate() {
            if !names.contains(&spec.name) {
                (*spec, position.sequence) = (LaneSpec::gone(), u64::MAX);
                self.recent.taken(index, u64::MAX);
                self.losing.remove(&index);
            }
        }
        let places = specs.into_iter().zip(stored).map(|(spec, stored)| self.place(spec, stored)).collect();
        self.prune()?;
        Ok(places)
    }

    fn place(&mut self, spec: LaneSpec, stored: LanePosition) -> (usize, LanePosition) {
        let known = self.lanes.iter().position(|(known, _)| known.name == spec.name);
        let index = known.unwrap_or(self.lanes.len());
        match self.lanes.get_mut(index) {
            Some((known, _)) => *known = spec,
            None => {
                // What is gone already waits for nobody.
                let position = LanePosition { sequence: stored.sequence.max(self.passed), ..stored };
                self.recent.enter(position.sequence);
                self.lanes.push((spec, position));
            }
        }
        (index, self.lanes.get(index).map(|(_, position)| position.clone()).unwrap_or_default())
    }

    fn answer_cursors(&mut self) {
        for (key, answer) in std::mem::take(&mut self.asked) {
            let waits = self.waiting.iter().any(|(entry, _)| entry.is_of(&key));
            if !self.begun || waits || self.unreadable.holds(&key) {
                self.asked.push((key, answer));
            } else {
                self.ask(Question::Cursor { key, answer });
            }
        }
    }

    fn ask(&mut self, question: Question) {
        match question.past(self.passed).answer(self.journal.as_mut()) {
            Some((question, Blocked::Unreadable)) => self.unreadable.questions.push(question),
            Some((question, _)) => self.postponed.push(question),
            None => {}
        }
    }

    fn ask_again(&mut self) {
        let mut questions = std::mem::take(&mut self.postponed);
        if self.unreadable.is_due() {
            questions.append(&mut self.unreadable.questions);
            // Before what came after it.
            for waiting in self.unreadable.entries.drain(..).rev() {
                self.waiting.push_front(waiting);
            }
        }
        for question in questions {
            match question {
                // It may have moved meanwhile.
                Question::Cursor { key, answer } => self.asked.push((key, answer)),
                question => self.ask(question),
            }
        }
    }

    /// Commits the round; whether something has to wait for the disk.
    fn finish(&mut self, mut round: Round) -> Result<bool, JournalError> {
        // Where there is little room, what was taken is to make some.
        if self.positions.are_due() || self.bytes >= self.max_bytes / 2 {
            round.positions = std::mem::take(&mut self.positions);
        }
        self.admit(&mut round);
        if round.entries.is_empty() && round.positions.taken.is_empty() {
            return Ok(false);
        }
        if round.positions.taken.is_empty() {
            round.positions = std::mem::take(&mut self.positions);
        }
        let positions: Vec<_> = round
            .positions
            .taken
            .iter()
            .filter_map(|(lane, position)| Some((self.lanes.get(*lane)?.0.name.clone(), position.clone())))
            .collect();
        match self.commit(&round.entries, &positions) {
            Ok(receipts) => self.committed(round, receipts).map(|()| false),
            Err(JournalError::Unreadable) if !positions.is_empty() => {
                self.unreadable.positions = true;
                self.put_back(round, Blocked::Unreadable);
                Ok(true)
            }
            Err(failure) => match Blocked::by(&failure) {
                Some(blocked) => {
                    self.put_back(round, blocked);
                    self.block(failure).map(|()| true)
                }
                None => {
                    let late = self.has_left(&failure);
                    if !late {
                        error!("{failure}");
                    }
                    for answer in round.receivers {
                        let why = if late { Undelivered::Stopping } else { Undelivered::JournalFailed };
                        let _ = answer.send(Err(why));
                    }
                    Err(failure)
                }
            },
        }
    }

    /// Entries wait for the next try; places of lanes have to be offered again.
    fn put_back(&mut self, round: Round, blocked: Blocked) {
        for (entry, answer) in round.entries.into_iter().zip(round.receivers).rev() {
            self.waiting.push_front((entry, answer));
        }
        for answer in round.positions.receivers {
            let _ = answer.send(Err(blocked.into()));
        }
    }

    /// What waits may go in while there is room. Cursors without events need none.
    fn admit(&mut self, round: &mut Round) {
        let mut bytes = self.bytes;
        let mut kept = VecDeque::new();
        for (entry, answer) in self.waiting.drain(..) {
            if entry.mailbox().is_some_and(|key| self.unreadable.holds(key)) {
                self.unreadable.entries.push((entry, answer));
                continue;
            }
            let overtakes = |(waiting, _): &(Entry, _)| entry.mailbox().is_some_and(|key| waiting.is_of(key));
            if (entry.is_empty() || bytes < self.max_bytes) && !kept.iter().any(overtakes) {
                bytes += entry.bytes();
                round.entries.push(entry);
                round.receivers.push(answer);
            } else {
                kept.push_back((entry, answer));
            }
        }
        self.waiting = kept;
        let full = !self.waiting.is_empty();
        if full != self.full {
            round.full = Some(full);
            let state = if full { MonitorState::JournalFull } else { MonitorState::JournalOk };
            let body = EventBody::MonitorState(state);
            let event = Event {
                at: Timestamp::now(),
                id: event_id::fresh(),
                account: None,
                body,
                filtered: None,
                redacted: Vec::new(),
            };
            round.entries.push(Entry::new(event.into()));
        }
    }

    /// What needs a page that cannot be read waits for it, and holds up nothing else.
    fn set_aside(
        &mut self,
        round: Round,
        receipts: Vec<Result<Receipt, Unstored>>,
    ) -> (Round, Vec<Result<Receipt, Unstored>>) {
        let Round { entries, receivers, positions, group, full } = round;
        let mut kept = Round { positions, group, full, ..Round::default() };
        let mut answers = Vec::new();
        // Nobody waits for what the journal says of itself, which comes last.
        let receivers = receivers.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        for ((entry, receiver), answer) in entries.into_iter().zip(receivers).zip(receipts) {
            match (answer, receiver) {
                (Err(Unstored::Unreadable), Some(receiver)) => {
                    self.unreadable.entries.push((entry, receiver))
                }
                (Err(Unstored::Unreadable), None) => kept.full = None,
                (answer, receiver) => {
                    kept.entries.push(entry);
                    kept.receivers.extend(receiver);
                    answers.push(answer);
                }
            }
        }
        (kept, answers)
    }

    fn committed(
        &mut self,
        round: Round,
        receipts: Vec<Result<Receipt, Unstored>>,
    ) -> Result<(), JournalError> {
        let (round, receipts) = self.set_aside(round, receipts);
        if round.entries.is_empty() && round.positions.taken.is_empty() {
            return Ok(());
        }
        self.committed_at = Some(Timestamp::now());
        self.unblock();
        if let Some(full) = round.full {
            self.full = full;
            let words = if full { "is full" } else { "takes events again" };
            warn!("the journal {words}: {} of {} bytes wait for an output", self.bytes, self.max_bytes);
        }
        self.unreadable.positions &= round.positions.taken.is_empty();
        for (lane, position) in round.positions.taken {
            // A lane that is gone may still tell what it took: nothing waits for that.
            if let Some((_, known)) = self.lanes.get_mut(lane).filter(|(spec, _)| !spec.is_gone()) {
                *known = position;
            }
        }
        if let Some(last) =
            receipts.iter().flatten().filter_map(Receipt::sequences).map(|range| *range.end()).max()
        {
            self.last = self.last.max(last);
        }
        self.recent.add(numbered(round.entries, &receipts));
        // Before the receipts: the lanes are what somebody waits for. They write what is new once their places are durable.
        for answer in round.positions.receivers {
            let _ = answer.send(Ok(()));
        }
        self.told.send_if_modified(|told| std::mem::replace(told, self.last) != self.last);
        for (answer, receipt) in round.receivers.into_iter().zip(receipts) {
            let _ = answer.send(receipt.map_err(|_| Undelivered::Superseded));
        }
        self.prune()
    }

    /// Forgets what all lanes have. A lane that is not required holds back only so much, and nothing where the journal
    /// is full: the others must go on.
    fn prune(&mut self) -> Result<(), JournalError> {
        let last = self.last;
        self.bytes = self.journal.bytes();
        let full = self.bytes >= self.max_bytes;
        let held = self.lanes.iter().map(|(spec, position)| match spec.required {
            true => position.sequence,
            false if full => last,
            false => position.sequence.max(last.saturating_sub(spec.queue_max_events)),
        });
        let taken = held.min().unwrap_or(last);
        self.tell_dropped(taken);
        if taken > self.passed {
            self.passed = taken;
            self.recent.forget(taken);
        }
        let many = self.passed.saturating_sub(self.forgotten) >= MOST_PASSED;
        if many || self.bytes >= self.max_bytes / 2 { self.forget() } else { Ok(()) }
    }

    /// What is of no use any more goes.
    fn forget(&mut self) -> Result<(), JournalError> {
        self.forgotten_at = Instant::now();
        if self.passed > self.forgotten {
            match self.journal.forget(self.passed) {
                Ok(()) => self.forgotten = self.passed,
                // What is not forgotten now is forgotten next time.
                Err(failure) if failure.passes() => {}
                Err(failure) => return Err(failure),
            }
        }
        self.bytes = self.journal.bytes();
        Ok(())
    }

    /// Counts, and says so once when a lane that is not required begins to lose events, and when it has caught up.
    fn tell_dropped(&mut self, taken: u64) {
        for (index, (spec, position)) in self.lanes.iter().enumerate() {
            let loses = position.sequence < taken;
            let lost = taken.saturating_sub(position.sequence.max(self.passed));
            if lost > 0 {
                self.dropped.add(&spec.name, lost);
            }
            if loses && self.losing.insert(index) {
                warn!(output:% = spec.name; "the output is too slow, and not required: events are dropped for it");
            } else if !loses && self.losing.remove(&index) {
                warn!(output:% = spec.name; "the output has caught up: no more events are dropped for it");
            }
        }
    }

    fn undelivered(&self) -> u64 {
        let required = self.lanes.iter().filter(|(spec, _)| spec.required);
        required.map(|(_, position)| self.last.saturating_sub(position.sequence)).max().unwrap_or(0)
    }
}

/// The events of entries as lanes take them, with their bytes.
fn numbered(
    entries: Vec<Entry>,
    receipts: &[Result<Receipt, Unstored>],
) -> impl Iterator<Item = (JournalledEvent, u64)> {
    let sequences = receipts.iter().map(|receipt| receipt.as_ref().ok().and_then(Receipt::sequences));
    let events = entries.into_iter().zip(sequences);
    events.flat_map(|(entry, sequences)| {
        let number = |(sequence, Encoded { event, payload }): (u64, Encoded)| {
            (JournalledEvent { sequence, event, had: Vec::new() }, payload.len() as u64)
        };
        sequences.into_iter().flatten().zip(entry.events).map(number)
    })
}

/// Up to where every lane has what it is told; those that lose events are not waited for.
fn taken(lanes: &[(LaneSpec, LanePosition)], losing: &HashSet<usize>) -> u64 {
    let waited_for = lanes.iter().enumerate().filter(|(index, _)| !losing.contains(index));
    waited_for.map(|(_, (_, position))| position.sequence).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::MailboxKey;
    use crate::journal::sqlite::SqliteJournal;
    use crate::messages::{Batch, Checkpoint, Replaces};

    fn entry(id: &str) -> Entry {
        let body = EventBody::MonitorState(MonitorState::Started);
        let event = Event {
            at: Timestamp::UNIX_EPOCH,
            id: id.to_owned(),
            account: None,
            body,
            filtered: None,
            redacted: Vec::new(),
        };
        Entry::new(event.into())
    }

    fn start(max_bytes: u64, required: bool, queue: u64) -> JournalHandle {
        let lane = LaneSpec { name: "out".to_owned(), required, queue_max_events: queue };
        let journal = SqliteJournal::in_memory().unwrap();
        JournalHandle::start(Box::new(journal), vec![lane], max_bytes, |_| {}).unwrap().0
    }

    async fn pending(journal: &JournalHandle) -> Vec<String> {
        let events = journal.pending(0, 100).await.unwrap();
        let name = |event: JournalledEvent| match &event.event.body {
            EventBody::MonitorState(MonitorState::Started) => event.event.id.clone(),
            body => format!("{body:?}"),
        };
        events.into_iter().map(name).collect()
    }

    #[tokio::test]
    async fn a_receipt_comes_with_the_numbers_and_the_lanes_are_told() {
        let journal = start(1 << 20, true, 0);
        let mut news = journal.news();
        let receipt = journal.commit(entry("one")).await.unwrap();
        assert_eq!(receipt.sequences(), Some(1..=1));
        news.changed().await.unwrap();
        assert_eq!(*news.borrow(), 1);
        assert_eq!(journal.settle().await, 1);
        journal.delivered(0, LanePosition { sequence: 1, file: None }).done().await.unwrap();
        assert_eq!((pending(&journal).await.len(), journal.settle().await), (0, 0));
    }

    #[tokio::test]
    async fn lanes_come_and_go_and_those_that_stay_keep_their_places() {
        let lane = |name: &str| LaneSpec { name: name.to_owned(), required: true, queue_max_events: 1 };
        let journal = SqliteJournal::in_memory().unwrap();
        let lanes = vec![lane("stays"), lane("goes")];
        let (journal, _) = JournalHandle::start(Box::new(journal), lanes, 1 << 20, |_| {}).unwrap();
        for id in ["one", "two", "three"] {
            journal.commit(entry(id)).await.unwrap();
        }
        let at = |sequence| LanePosition { sequence, file: None };
        journal.delivered(1, at(1)).done().await.unwrap();
        // On its way to the disk.
        let _saving = journal.delivered(0, at(2));
        let places = journal.set_lanes(vec![lane("comes"), lane("stays")]).await.unwrap();
        assert_eq!(places, [(2, at(1)), (0, at(2))], "the first is of no use to anybody any more");
        journal.delivered(2, at(3)).done().await.unwrap();
        assert_eq!(journal.settle().await, 1, "the one that stays lacks the third");
        journal.delivered(0, at(3)).done().await.unwrap();
        assert_eq!(
            (pending(&journal).await.len(), journal.settle().await),
            (0, 0),
            "nobody else is waited for"
        );
        let places = journal.set_lanes(vec![lane("later")]).await.unwrap();
        assert_eq!(places, [(3, at(3))], "what is gone waits for nobody");
        journal.commit(entry("four")).await.unwrap();
        journal.delivered(1, at(1)).done().await.unwrap();
        journal.delivered(3, at(4)).done().await.unwrap();
        assert!(pending(&journal).await.is_empty(), "nor does what it tells too late hold anything back");
    }

    #[tokio::test]
    async fn a_full_journal_holds_the_receipt_back_until_there_is_room() {
        let journal = start(10, true, 0);
        journal.commit(entry("one")).await.unwrap();
        let handle = journal.clone();
        let mut second = tokio::spawn(async move { handle.commit(entry("two")).await });
        // The full journal says so itself, as an event.
        let mut news = journal.news();
        while pending(&journal).await.len() < 2 {
            news.changed().await.unwrap();
        }
        assert!(futures::poll!(&mut second).is_pending());
        journal.delivered(0, LanePosition { sequence: 2, file: None }).done().await.unwrap();
        assert!(second.await.unwrap().is_ok());
        let left = pending(&journal).await;
        assert!(left.contains(&"two".to_owned()) && left.iter().any(|e| e.contains("JournalOk")), "{left:?}");
    }

    /// Two lanes: one that is required and takes everything, one that is neither.
    #[tokio::test]
    async fn a_lane_that_is_not_required_does_not_fill_the_journal() {
        let lane =
            |name: &str, required| LaneSpec { name: name.to_owned(), required, queue_max_events: 1_000_000 };
        let lanes = vec![lane("well", true), lane("stuck", false)];
        let journal = SqliteJournal::in_memory().unwrap();
        let (journal, _) = JournalHandle::start(Box::new(journal), lanes, 1_000, |_| {}).unwrap();
        for n in 0..100 {
            let receipt = journal.commit(entry(&format!("event {n}"))).await.unwrap();
            let sequence = *receipt.sequences().unwrap().end();
            journal.delivered(0, LanePosition { sequence, file: None }).done().await.unwrap();
        }
    }

    #[test]
    fn what_leaves_waits_for_every_lane_that_is_to_have_it() {
        let lane = |required, sequence| {
            let spec = LaneSpec { name: "out".to_owned(), required, queue_max_events: 1 };
            (spec, LanePosition { sequence, file: None })
        };
        let lanes = [lane(true, 9), lane(false, 7), lane(false, 2)];
        assert_eq!(taken(&lanes, &HashSet::new()), 2);
        assert_eq!(taken(&lanes, &HashSet::from([2])), 7, "it is not to have what it is losing");
        assert_eq!(taken(&[], &HashSet::new()), u64::MAX);
    }

    /// The cursor of a mailbox whose batch waits for room is that batch's.
    #[tokio::test]
    async fn no_cursor_is_read_past_a_batch_that_waits() {
        let journal = start(10, true, 0);
        journal.commit(entry("one")).await.unwrap();
        let key = MailboxKey { account: "a".into(), mailbox: "INBOX".into() };
        let checkpoint = Some(Checkpoint {
            key: key.clone(),
            cursor: Cursor::baseline(7, 5, None),
            replaces: Replaces::Nothing,
        });
        let event = Event {
            at: Timestamp::UNIX_EPOCH,
            id: "two".to_owned(),
            account: None,
            body: EventBody::MonitorState(MonitorState::Started),
            filtered: None,
            redacted: Vec::new(),
        };
        let handle = journal.clone();
        let batch = Batch { events: vec![event], checkpoint, ..Batch::default() };
        let waits = tokio::spawn(async move { handle.commit(Entry::new(batch)).await });
        while pending(&journal).await.len() < 2 {
            tokio::task::yield_now().await;
        }
        let (handle, asked) = (journal.clone(), key.clone());
        let mut cursor = tokio::spawn(async move { handle.cursor(asked).await });
        let other = MailboxKey { account: "b".into(), ..key };
        assert_eq!(journal.cursor(other).await.unwrap(), None, "others are answered");
        assert!(futures::poll!(&mut cursor).is_pending());
        journal.delivered(0, LanePosition { sequence: 2, file: None }).done().await.unwrap();
        waits.await.unwrap().unwrap();
        assert_eq!(cursor.await.unwrap().unwrap(), Some(Cursor::baseline(7, 5, None)));
    }

    #[tokio::test]
    async fn a_lane_that_is_not_required_holds_back_only_so_much() {
        let journal = start(1 << 20, false, 2);
        for id in ["one", "two", "three", "four"] {
            journal.commit(entry(id)).await.unwrap();
        }
        assert_eq!(pending(&journal).await, ["three", "four"]);
        assert_eq!((journal.dropped().of("out"), journal.dropped().of("another")), (2, 0));
        journal.delivered(0, LanePosition { sequence: 4, file: None }).done().await.unwrap();
        journal.commit(entry("five")).await.unwrap();
        assert_eq!(journal.dropped().of("out"), 2, "what it took is not lost");
    }
}
