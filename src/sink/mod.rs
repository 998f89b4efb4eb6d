//! From batches to outputs: the journal first, then one lane per output.

pub mod actor;
mod attempts;
pub mod batch;
pub mod dead_letters;
pub mod encode;
pub mod health;
mod held;
mod lane;
pub mod output;

use std::path::PathBuf;
use std::sync::Arc;

use actix::prelude::*;
use secrecy::ExposeSecret;
use tokio::sync::{mpsc, watch};

pub use self::actor::Sink;
use self::dead_letters::DeadLetters;
use self::encode::{Encoder, EncoderSettings};
use self::health::{LaneHealth, OutputHealth};
use self::held::Held;
use self::lane::Lane;
use self::output::{Around, Output, OutputError, Past};
use crate::config::settings::{EventSettings, JournalSettings, OutputSettings};
use crate::event::Action;
use crate::exit::Exit;
use crate::journal::lock::StateLock;
use crate::journal::sqlite::SqliteJournal;
use crate::journal::{JournalError, JournalHandle, LanePosition, LaneSpec, OpenError, StateOrigin};
use crate::metrics::Metrics;
use crate::privacy::Privacy;
use crate::secrets::SecretError;

/// What a sink is made of.
#[derive(Clone, Debug)]
pub struct SinkOptions {
    /// Where the journal is.
    pub state_dir: PathBuf,
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
            Self::Open(OpenError::Locked { .. }) => Exit::Locked,
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
        let (lock, journal, origin) = journal(&options)?;
        let (failed, fatal) = mpsc::unbounded_channel();
        let specs = options.outputs.iter().map(|output| LaneSpec {
            name: output.name.clone(),
            required: output.required,
            queue_max_events: output.queue_max_events,
        });
        let journal_failed = failed.clone();
        let (journal, positions) =
            JournalHandle::start(journal, specs.collect(), options.journal.max_bytes, move |error| {
                let _ = journal_failed.send(error.into());
            })?;
        let last = *journal.news().borrow();
        let (stop, stopped) = watch::channel(false);
        let (reopen, reopened) = watch::channel(0);
        let names: Arc<[String]> = options.outputs.iter().map(|output| output.name.clone()).collect();
        let dead_letters = DeadLetters::in_dir(&options.state_dir);
        let (mut lanes, mut healths) = (Vec::new(), Vec::new());
        let mut restored = false;
        for (index, (settings, position)) in options.outputs.iter().zip(positions).enumerate() {
            if options.at_rest.contains(&settings.name) {
                continue;
            }
            let (output, was_restored) = open(settings, &position, &options, &journal, last)?;
            restored |= was_restored;
            let (health, watched) = watch::channel(LaneHealth::new(position.sequence));
            healths.push(OutputHealth {
                name: settings.name.clone(),
                kind: settings.kind.name(),
                required: settings.required,
                health: watched,
                news: journal.news(),
            });
            let lane = Lane {
                index,
                name: settings.name.clone(),
                include: taken(settings, &options.events),
                privacy: privacy(settings).await?,
                outputs: names.clone(),
                batch_max_events: settings.batch_max_events,
                batch_max_delay: settings.batch_max_delay,
                encoder: Encoder::new(EncoderSettings::new(&options, settings)),
                output,
                sent: position.sequence,
                held: held(settings, &options, position.sequence),
                position,
                saving: None,
                journal: journal.clone(),
                dead_letters: dead_letters.clone(),
                health,
                failed: failed.clone(),
                stopped: stopped.clone(),
                reopened: reopened.clone(),
            };
            lanes.push(actix_rt::spawn(lane.run()));
        }
        let addr = Self::new(journal.clone(), stop, reopen, lanes, options.metrics).start();
        let fatal = FatalReceiver(fatal);
        Ok(SinkHandle { addr, journal, origin, restored, outputs: healths, fatal, _lock: lock })
    }
}

/// The journal, and the lock of its directory where it is written.
fn journal(options: &SinkOptions) -> Result<(Option<StateLock>, SqliteJournal, StateOrigin), SinkStartError> {
    match options.state {
        StateUse::Kept => {
            let lock = StateLock::take(&options.state_dir)?;
            let (journal, origin) =
                SqliteJournal::open(&options.state_dir, options.require_state, options.new_state)?;
            Ok((Some(lock), journal, origin))
        }
        StateUse::Read => {
            let (journal, origin) = SqliteJournal::copy_in_memory(&options.state_dir)?;
            Ok((None, journal, origin))
        }
        StateUse::Apart => Ok((None, SqliteJournal::in_memory()?, StateOrigin::Existing)),
    }
}

/// What is on, and what the output takes of it.
fn taken(settings: &OutputSettings, events: &EventSettings) -> Vec<Action> {
    settings.include.iter().copied().filter(|action| events.include.contains(action)).collect()
}

fn open(
    settings: &OutputSettings,
    position: &LanePosition,
    options: &SinkOptions,
    journal: &JournalHandle,
    last: u64,
) -> Result<(Output, bool), SinkStartError> {
    // One batch.
    let most_bytes = settings.batch_max_events.saturating_mul(options.events.max_bytes + 1) as u64;
    let past = Past { position, most_bytes, last };
    Output::open(settings, &Around { past, instance: &options.instance, journal })
        .map_err(|error| SinkStartError::Output { name: settings.name.clone(), error })
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
fn held(settings: &OutputSettings, options: &SinkOptions, position: u64) -> Held {
    let most = options.journal.max_bytes / 2 / options.events.max_bytes.max(1) as u64;
    Held::new(settings.kind.hold(), most.min(100_000), position)
}
