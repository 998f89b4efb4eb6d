//! The lanes that run, one per output: started, exchanged while they run, ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use actix_rt::task::JoinHandle;
use log::{info, warn};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::attempts::Attempts;
use super::dead_letters::DeadLetters;
use super::encode::{Encoder, EncoderSettings};
use super::exchange::{Exchange, stays_open};
use super::health::{LaneHealth, OutputHealth};
use super::held::Held;
use super::lane::{Lane, Refit, Terms};
use super::output::{Around, Output, OutputError, Past};
use super::{Fatal, SinkOptions, SinkStartError, lane_spec, most_held, privacy, taken};
use crate::cluster::shard::ShardSet;
use crate::config::settings::OutputSettings;
use crate::diagnostics;
use crate::journal::{JournalHandle, LanePosition};
use crate::privacy::Rule;

/// Longer than that, what an output lies on is taken to hang.
const OPENING: Duration = Duration::from_secs(30);

/// All lanes of a sink.
pub(super) struct Lanes {
    /// `outputs` are those in force.
    pub(super) options: SinkOptions,
    pub(super) journal: JournalHandle,
    pub(super) dead_letters: DeadLetters,
    pub(super) failed: mpsc::UnboundedSender<Fatal>,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) reopened: watch::Receiver<u64>,
    pub(super) running: Vec<Running>,
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lanes({})", self.running.len())
    }
}

/// A lane that runs. It is let go when this is dropped, at its next step.
#[derive(Debug)]
pub(super) struct Running {
    health: OutputHealth,
    refits: mpsc::UnboundedSender<Refit>,
    task: Option<JoinHandle<()>>,
}

impl Running {
    fn tell_removed(&self) {
        let OutputHealth { name, .. } = &self.health;
        match self.health.waiting() {
            0 => info!(output:% = name; "the output is removed; it had everything"),
            lacked => {
                warn!(output:% = name; "the output is removed; what it lacked, up to {lacked} events, goes to it no more")
            }
        }
    }
}

impl Lanes {
    /// What an output may know, and how it is told.
    async fn terms(&self, settings: &OutputSettings) -> Result<Terms, SinkStartError> {
        Ok(Terms {
            include: taken(settings, &self.options.events),
            batch_max_events: settings.batch_max_events,
            batch_max_delay: settings.batch_max_delay,
            target: settings.kind.target(),
            privacy: privacy(settings).await?,
            encoder: Encoder::new(EncoderSettings::new(&self.options, settings)),
        })
    }

    /// On a thread of its own: a file system that hangs would keep ours, and no pool has to wait for it at the end.
    async fn open(
        &self,
        settings: &OutputSettings,
        position: &LanePosition,
        last: u64,
    ) -> Result<(Output, bool), SinkStartError> {
        // One batch.
        let most_bytes = settings.batch_max_events.saturating_mul(self.options.events.max_bytes + 1) as u64;
        let (own, position) = (settings.clone(), position.clone());
        let (instance, journal) = (self.options.instance.clone(), self.journal.clone());
        let (runtime, (done, opened)) = (Handle::current(), oneshot::channel());
        let _ = thread::Builder::new().name("open".to_owned()).spawn(move || {
            let _within = runtime.enter();
            let past = Past { position: &position, most_bytes, last };
            let around = Around { past, instance: &instance, journal: &journal };
            drop(done.send(Output::open(&own, &around)));
        });
        let opened = match timeout(OPENING, opened).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(_)) => Err(OutputError::Client("it could not be opened".to_owned())),
            Err(_) => Err(OutputError::Client(format!("it could not be opened within {OPENING:?}"))),
        };
        opened.map_err(|error| SinkStartError::Output { name: settings.name.clone(), error })
    }

    /// One more, at a start. Whether its file held more than the journal knows of.
    pub(super) async fn start(
        &mut self,
        (index, position): (usize, LanePosition),
        settings: &OutputSettings,
        last: u64,
    ) -> Result<bool, SinkStartError> {
        let (output, restored) = self.open(settings, &position, last).await?;
        let terms = self.terms(settings).await?;
        self.run(index, position, settings, terms, output);
        Ok(restored)
    }

    fn run(
        &mut self,
        index: usize,
        position: LanePosition,
        settings: &OutputSettings,
        terms: Terms,
        output: Output,
    ) {
        let (health, watched) = watch::channel(LaneHealth::new(position.sequence));
        let (refits, refitted) = mpsc::unbounded_channel();
        let urge = Arc::new(Notify::new());
        let lane = Lane {
            index,
            name: settings.name.clone(),
            terms,
            output,
            sent: position.sequence,
            held: Held::new(settings.kind.hold(), most_held(&self.options), position.sequence),
            position,
            saving: None,
            journal: self.journal.clone(),
            holding: self.journal.holding(),
            taken_of: ShardSet::default(),
            attempts: Attempts::default(),
            rests_until: None,
            dead_letters: self.dead_letters.clone(),
            health,
            metrics: self.options.metrics.clone(),
            failed: self.failed.clone(),
            stopped: self.stopped.clone(),
            reopened: self.reopened.clone(),
            urged: urge.clone(),
            refits: refitted,
        };
        let health = OutputHealth {
            name: settings.name.clone(),
            kind: settings.kind.name(),
            required: settings.required,
            capacity: capacity(settings),
            health: watched,
            news: self.journal.news(),
            dropped: self.journal.dropped(),
            urge,
        };
        let task = Some(actix_rt::spawn(lane.run()));
        self.running.push(Running { health, refits, task });
    }

    /// How each output does, in their order.
    pub(super) fn healths(&self) -> Vec<OutputHealth> {
        let of =
            |output: &OutputSettings| self.running.iter().find(|running| running.health.name == output.name);
        self.options.outputs.iter().filter_map(of).map(|running| running.health.clone()).collect()
    }

    /// What ends once all lanes have, each with how it does.
    pub(super) fn tasks(&mut self) -> Vec<(OutputHealth, JoinHandle<()>)> {
        let task = |running: &mut Running| Some((running.health.clone(), running.task.take()?));
        self.running.iter_mut().filter_map(task).collect()
    }

    /// Other outputs than before. All that is new is built first: where that fails nothing has changed. Lanes that stay
    /// go on where they are.
    pub(super) async fn exchange(&mut self, desired: Vec<OutputSettings>) -> Result<(), SinkStartError> {
        let exchange = Exchange::between(&self.options.outputs, &desired);
        let mut built = HashMap::new();
        let last = *self.journal.news().borrow();
        let at_rest = |output: &&OutputSettings| !self.options.at_rest.contains(&output.name);
        for settings in exchange.changed.iter().chain(&exchange.added).copied().filter(at_rest) {
            let before = self.options.outputs.iter().find(|known| known.name == settings.name);
            let output = match before {
                Some(before) if stays_open(before, settings) => None,
                _ => Some(self.open(settings, &LanePosition::default(), last).await?.0),
            };
            built.insert(settings.name.clone(), (self.terms(settings).await?, output));
        }
        info!("outputs: {exchange}");
        let placed = self.journal.set_lanes(desired.iter().map(lane_spec).collect()).await?;
        self.running.retain(|running| {
            let stays = desired.iter().any(|output| output.name == running.health.name);
            if !stays {
                running.tell_removed();
            }
            stays
        });
        for (settings, place) in desired.iter().zip(placed) {
            if let Some((terms, output)) = built.remove(&settings.name) {
                self.put(settings, place, terms, output);
            }
        }
        if desired.iter().any(|output| output.privacy.rules.addresses != Rule::Include) {
            diagnostics::withhold_addresses();
        }
        self.options.outputs = desired;
        Ok(())
    }

    fn put(
        &mut self,
        settings: &OutputSettings,
        (index, position): (usize, LanePosition),
        terms: Terms,
        output: Option<Output>,
    ) {
        let running = self.running.iter_mut().find(|running| running.health.name == settings.name);
        let held = (settings.kind.hold(), most_held(&self.options));
        match (running, output) {
            (Some(running), output) => {
                let health = &mut running.health;
                health.kind = settings.kind.name();
                (health.required, health.capacity) = (settings.required, capacity(settings));
                let _ = running.refits.send(Refit { terms, output, kind: settings.kind.clone(), held });
            }
            (None, Some(output)) => self.run(index, position, settings, terms, output),
            (None, None) => {}
        }
    }
}

fn capacity(settings: &OutputSettings) -> Option<u64> {
    (!settings.required).then_some(settings.queue_max_events)
}
