//! From batches to outputs: the journal first, then one lane per output.

pub mod actor;
mod attempts;
pub mod batch;
pub mod dead_letters;
mod echo;
pub mod encode;
pub(crate) mod exchange;
pub mod health;
mod held;
mod lane;
mod lanes;
pub mod output;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use secrecy::ExposeSecret;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

pub use self::actor::Sink;
use self::dead_letters::DeadLetters;
use self::health::OutputHealth;
use self::lanes::Lanes;
use self::output::OutputError;
use crate::config::settings::{DatabaseSettings, EventSettings, JournalSettings, OutputSettings, Settings};
use crate::event::Action;
use crate::exit::Exit;
use crate::journal::lock::StateLock;
use crate::journal::sqlite::SqliteJournal;
use crate::journal::{Journal, JournalError, JournalHandle, LanePosition, LaneSpec, OpenError, StateOrigin};
use crate::metrics::Metrics;
use crate::privacy::Privacy;
use crate::secrets::SecretError;

/// What a sink is made of.
#[derive(Clone, Debug)]
pub struct SinkOptions {
    /// Where the journal is.
    pub state_dir: PathBuf,
    /// Wait while a journal in a database is another's, or away.
    pub waits: bool,
    /// Refuse to start without state.
    pub require_state: bool,
    /// Move a damaged journal aside.
    pub new_state: bool,
    /// What becomes of the state.
    pub state: StateUse,
    /// The names of outputs that take nothing this time: events wait in the journal for them.
    pub at_rest: Vec<String>,
    /// Its bounds.
    pub journal: JournalSettings,
    /// The outputs; at least one.
    pub outputs: Vec<OutputSettings>,
    /// How events are written.
    pub events: EventSettings,
    /// Whose they are.
    pub instance: Arc<str>,
    /// What is counted.
    pub metrics: Metrics,
}

/// What becomes of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateUse {
    /// It is read and written.
    #[default]
    Kept,
    /// It is read once, and never written.
    Read,
    /// It is neither read nor written.
    Apart,
}

/// A running sink.
#[derive(Debug)]
pub struct SinkHandle {
    /// Where batches go.
    pub addr: Addr<Sink>,
    /// Where checkpoints are read.
    pub journal: JournalHandle,
    /// Whether there was state before.
    pub origin: StateOrigin,
    /// An output file held what the journal does not know of: the state is older than the file.
    pub restored: bool,
    /// How each output does, in their order.
    pub outputs: Vec<OutputHealth>,
    /// Hears of failures that end the process.
    pub fatal: FatalReceiver,
    _lock: Option<StateLock>,
}

/// Hears of failures that end the process.
#[derive(Debug)]
pub struct FatalReceiver(mpsc::UnboundedReceiver<Fatal>);

impl FatalReceiver {
    /// The first failure; never, while all is well.
    pub async fn recv(&mut self) -> Fatal {
        match self.0.recv().await {
            Some(fatal) => fatal,
            None => std::future::pending().await,
        }
    }
}

/// What the process cannot go on with.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Whoever read our stdout is gone.
    #[error("stdout was closed by its reader; what it did not take is kept for the next start")]
    StdoutClosed,
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Fatal {
    /// The process's exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Journal(JournalError::TakenOver) => Exit::Locked,
            Self::StdoutClosed | Self::Journal(_) => Exit::Io,
        }
    }
}

/// Why a sink cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SinkStartError {
    /// The journal cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It can be opened and not used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What has to be hashed cannot be: nothing is sent then.
    #[error("the hash_key of outputs.{name}: {error}")]
    HashKey {
        /// Which.
        name: String,
        /// Why.
        error: SecretError,
    },
    /// An output cannot be built.
    #[error("outputs.{name}: {error}")]
    Output {
        /// Which.
        name: String,
        /// Why.
        error: OutputError,
    },
}

impl SinkStartError {
    /// The process's exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Open(OpenError::Locked { .. } | OpenError::Held { .. }) => Exit::Locked,
            Self::Output { error, .. } if error.is_busy() => Exit::Locked,
            _ => Exit::CannotStart,
        }
    }
}

impl Sink {
    /// Opens the journal and the outputs, and starts everything.
    ///
    /// # Errors
    /// Where one of them cannot be had.
    pub async fn start_with(options: SinkOptions) -> Result<SinkHandle, SinkStartError> {
        let (failed, fatal) = mpsc::unbounded_channel();
        let (opening, journal_failed) = (options.clone(), failed.clone());
        // Disks and databases take their time.
        let opened = spawn_blocking(move || open(&opening, journal_failed));
        let Opened { lock, journal, origin, positions } =
            opened.await.map_err(|error| JournalError::Failed(error.to_string()))??;
        let last = *journal.news().borrow();
        let (stop, stopped) = watch::channel(false);
        let (reopen, reopened) = watch::channel(0);
        let mut lanes = Lanes {
            journal: journal.clone(),
            dead_letters: DeadLetters::in_dir(&options.state_dir),
            failed,
            stopped,
            reopened,
            running: Vec::new(),
            options,
        };
        let mut restored = false;
        for (settings, place) in lanes.options.outputs.clone().iter().zip(positions.into_iter().enumerate()) {
            if !lanes.options.at_rest.contains(&settings.name) {
                restored |= lanes.start(place, settings, last).await?;
            }
        }
        let (outputs, metrics) = (lanes.healths(), lanes.options.metrics.clone());
        let addr = Self::new(journal.clone(), stop, reopen, lanes, metrics).start();
        let fatal = FatalReceiver(fatal);
        Ok(SinkHandle { addr, journal, origin, restored, outputs, fatal, _lock: lock })
    }
}

/// A journal whose writer runs.
struct Opened {
    /// Of its directory, where it is written.
    lock: Option<StateLock>,
    journal: JournalHandle,
    origin: StateOrigin,
    /// Where each lane stands.
    positions: Vec<LanePosition>,
}

fn open(options: &SinkOptions, failed: mpsc::UnboundedSender<Fatal>) -> Result<Opened, SinkStartError> {
    let (lock, mut journal, origin) = journal(options)?;
    let specs: Vec<LaneSpec> = options.outputs.iter().map(lane_spec).collect();
    if options.waits {
        wait_for_lanes(journal.as_mut(), &specs);
    }
    let (journal, positions) =
        JournalHandle::start(journal, specs, options.journal.max_bytes, move |error| {
            let _ = failed.send(error.into());
        })?;
    Ok(Opened { lock, journal, origin, positions })
}

/// Between two looks at what a start needs.
const RETRY: Duration = Duration::from_secs(2);

/// While a page of the database cannot be read without which no output can begin, or nobody is there. It was told.
fn wait_for_lanes(journal: &mut dyn Journal, specs: &[LaneSpec]) {
    let names: Vec<_> = specs.iter().map(|lane| lane.name.clone()).collect();
    while let Err(JournalError::Unreadable | JournalError::Unreachable) = journal.lanes(&names) {
        std::thread::sleep(RETRY);
    }
}

type Source = (Option<StateLock>, Box<dyn Journal>, StateOrigin);

/// The journal, and the lock of its directory where it is written.
fn journal(options: &SinkOptions) -> Result<Source, SinkStartError> {
    match options.state {
        StateUse::Kept => {
            let lock = StateLock::take(&options.state_dir)?;
            let (journal, origin) = match &options.journal.database {
                Some(database) => opened_in_database(database, options)?,
                None => in_file(options)?,
            };
            Ok((Some(lock), journal, origin))
        }
        StateUse::Read if options.journal.database.is_some() => Err(OpenError::Database(
            "only the state of a journal in a file can be read without keeping it".to_owned(),
        )
        .into()),
        StateUse::Read => {
            let (journal, origin) = SqliteJournal::copy_in_memory(&options.state_dir)?;
            Ok((None, Box::new(journal), origin))
        }
        StateUse::Apart => Ok((None, Box::new(SqliteJournal::in_memory()?), StateOrigin::Existing)),
    }
}

type Kept = (Box<dyn Journal>, StateOrigin);

fn in_file(options: &SinkOptions) -> Result<Kept, OpenError> {
    let (journal, origin) =
        SqliteJournal::open(&options.state_dir, options.require_state, options.new_state)?;
    Ok((Box::new(journal), origin))
}

fn opened_in_database(database: &DatabaseSettings, options: &SinkOptions) -> Result<Kept, OpenError> {
    if options.new_state {
        let cause = "--new-state is for a journal in a file; here, a person drops the schema idlewatch";
        return Err(OpenError::Database(cause.to_owned()));
    }
    let owner = Owner { instance: &options.instance, state_dir: &options.state_dir };
    in_database(database, owner, options.require_state, options.waits)
}

/// The journal of a monitor that does not run, and has run before.
pub(crate) fn journal_at_rest(settings: &Settings) -> Result<Box<dyn Journal>, OpenError> {
    let (instance, state_dir) = (&settings.monitor.instance, &settings.monitor.state_dir);
    let (journal, _) = match &settings.journal.database {
        Some(database) => in_database(database, Owner { instance, state_dir }, true, false)?,
        None => {
            let (journal, origin) = SqliteJournal::open(state_dir, true, false)?;
            (Box::new(journal) as Box<dyn Journal>, origin)
        }
    };
    Ok(journal)
}

/// Whose a journal in a database is.
#[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "nobody's"))]
struct Owner<'a> {
    instance: &'a str,
    state_dir: &'a Path,
}

#[cfg(feature = "postgres")]
fn in_database(
    database: &DatabaseSettings,
    owner: Owner<'_>,
    require_state: bool,
    waits: bool,
) -> Result<Kept, OpenError> {
    use crate::journal::postgres::PostgresJournal;
    use crate::journal::postgres::lease::Opening;

    let machine = gethostname::gethostname().to_string_lossy().into_owned();
    let opening = Opening {
        name: owner.instance.to_owned(),
        owner: format!("{} (pid {})", owner.instance, std::process::id()),
        home: format!("{machine}:{}", owner.state_dir.display()),
        require_state,
        waits,
    };
    let (journal, origin) = PostgresJournal::open(database, &opening)?;
    Ok((Box::new(journal), origin))
}

#[cfg(not(feature = "postgres"))]
fn in_database(_: &DatabaseSettings, _: Owner<'_>, _: bool, _: bool) -> Result<Kept, OpenError> {
    Err(OpenError::Database("this build is without the feature postgres".to_owned()))
}

/// What is on, and what the output takes of it.
fn taken(settings: &OutputSettings, events: &EventSettings) -> Vec<Action> {
    settings.include.iter().copied().filter(|action| events.include.contains(action)).collect()
}

fn lane_spec(output: &OutputSettings) -> LaneSpec {
    LaneSpec {
        name: output.name.clone(),
        required: output.required,
        queue_max_events: output.queue_max_events,
    }
}

async fn privacy(settings: &OutputSettings) -> Result<Privacy, SinkStartError> {
    let rules = settings.privacy.rules;
    let key = match settings.privacy.hash_key.as_ref().filter(|_| rules.hashes()) {
        Some(source) => source.resolve().await,
        None => return Ok(Privacy::new(rules, b"")),
    };
    let key = key.map_err(|error| SinkStartError::HashKey { name: settings.name.clone(), error })?;
    Ok(Privacy::new(rules, key.expose_secret().as_bytes()))
}

/// At most half of the journal is for what is held.
fn most_held(options: &SinkOptions) -> u64 {
    let most = options.journal.max_bytes / 2 / options.events.max_bytes.max(1) as u64;
    most.min(100_000)
}
