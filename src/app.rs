//! The composition root: builds everything, waits for signals, and takes it down in order.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures::future::BoxFuture;
use jiff::Timestamp;
use log::{error, info, warn};

use crate::account::idle_period::IdlePeriods;
use crate::account::pipelining::Pipelines;
use crate::account::session::Wires;
use crate::admin::server::{Admin, Listeners};
use crate::config::settings::Settings;
use crate::coordinator::actor::{Coordinator, CoordinatorContext};
use crate::coordinator::file_changes::{self, Seen};
use crate::coordinator::heartbeat::Heartbeats;
use crate::coordinator::reload::Loader;
use crate::coordinator::table::{self, Look};
use crate::demand::Demand;
use crate::event::{Action, Event, EventBody, MonitorState};
use crate::event_id;
use crate::exit::Exit;
use crate::filter::in_force::FiltersInForce;
use crate::journal::StateOrigin;
use crate::messages::{Deliver, Drain, Reload, ReopenFiles, StartAccounts, StopAccounts, Summarize};
use crate::metrics::Metrics;
use crate::once::{self, Pass};
use crate::process;
use crate::service;
use crate::signals::{Signal, Signals};
use crate::sink::{Fatal, Sink, SinkHandle, SinkOptions, StateUse};
use crate::text::counted;
use crate::ticks::Ticks;

/// What `run` may be told besides the configuration.
#[derive(Debug, Default)]
pub struct RunOptions {
    /// Reads the configuration again at SIGHUP.
    pub loader: Option<Loader>,
    /// Move a damaged journal aside and start anew.
    pub new_state: bool,
    /// One look at every account, and the end; else for ever.
    pub once: Option<Pass>,
    /// What becomes of the state.
    pub state: StateUse,
    /// Outputs that take nothing this time.
    pub at_rest: Vec<String>,
}

/// Runs the monitor until a signal, `stop`, or a failure that cannot be survived.
pub fn run(settings: &Settings, options: &RunOptions, stop: BoxFuture<'static, ()>) -> Exit {
    let demand = Demand::of(settings);
    if let Err(error) = process::reserve_descriptors(demand.connections) {
        error!("{error}");
        return Exit::CannotStart;
    }
    // Of accounts that are read as their shards come nothing is known yet.
    if settings.table.is_none() || demand.connections > 0 {
        process::announce(&demand);
    }
    let system = System::new();
    let exit = system.block_on(monitor(settings, options, stop));
    // To drop it would wait for threads that may hang in a write for ever.
    std::mem::forget(system);
    exit
}

async fn monitor(settings: &Settings, options: &RunOptions, stop: BoxFuture<'static, ()>) -> Exit {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            error!("signals cannot be handled: {error}");
            return Exit::CannotStart;
        }
    };
    let metrics = Metrics::new();
    let mut stop = stop;
    // Whoever stands by does so for weeks, perhaps.
    let attended = options.loader.as_ref().filter(|_| settings.monitor.reload_on_change);
    let attended = attended.map(|loader| (Seen::now(loader.files().to_vec()), loader.clone()));
    let mut reload = false;
    let started = tokio::select! {
        started = Sink::start_with(sink_options(settings, options, metrics.clone())) => started,
        () = stand_by(settings) => return Exit::CannotStart,
        () = asked_to_stop(&mut signals, &mut stop, &mut reload) => return Ended::Asked.exit(options),
    };
    let mut sink = match started {
        Ok(sink) => sink,
        Err(error) => {
            error!("{error}");
            return error.exit();
        }
    };
    // Only the monitor itself is to be asked how it is.
    let listeners =
        if is_monitor(options) { Listeners::open(&settings.http).await } else { Ok(Listeners::default()) };
    let listeners = match listeners {
        Ok(listeners) => listeners,
        Err(error) => {
            error!("{error}");
            return Exit::CannotStart;
        }
    };
    let ticks = match Ticks::start() {
        Ok(ticks) => ticks,
        Err(error) => {
            error!("there can be no timer: {error}");
            return Exit::CannotStart;
        }
    };
    let arbiters = arbiters();
    let filters = FiltersInForce::new(settings.filters.clone());
    let (look_for_rows, asked) = Look::channel();
    let context = context(settings, options, &filters, &arbiters, &sink, metrics, look_for_rows).await;
    let look = options.once.clone().map(|pass| once::look(pass, context.pass(context.settings.clone())));
    let coordinator = Coordinator::new(context, ticks.clone()).start();
    let heartbeats = Heartbeats::start(&arbiters.iter().map(Arbiter::handle).collect::<Vec<_>>(), &ticks);
    actix_rt::spawn(service::attend(coordinator.clone(), heartbeats.clone(), ticks));
    if let Some((seen, loader)) = attended {
        actix_rt::spawn(file_changes::attend(seen, loader, coordinator.clone()));
    }
    if options.loader.is_some()
        && let Some(database) = &settings.journal.database
    {
        table::attend((**database).clone(), asked, &coordinator);
    }
    let admin = match listeners.serve(&coordinator, &heartbeats, settings.journal.database.as_deref()) {
        Ok(admin) => admin,
        Err(error) => {
            error!("http: {error}");
            return Exit::CannotStart;
        }
    };
    if look.is_none() {
        service::ready();
    }
    // A journal that is full lets nothing in: that is no start that hangs, and a signal must be heard all the same.
    let announced = announce(settings, options, sink.addr.clone(), sink.origin, sink.restored);
    let announced = tokio::select! {
        () = announced => Ok(()),
        ended = wait(&mut signals, &mut sink, &coordinator, &mut stop) => Err(ended.exit(options)),
    };
    let exit = match (announced, look) {
        (Ok(()), None) => {
            coordinator.do_send(StartAccounts);
            if reload {
                coordinator.do_send(Reload);
            }
            wait(&mut signals, &mut sink, &coordinator, &mut stop).await.exit(options)
        }
        (Ok(()), Some(look)) => tokio::select! {
            exit = look => exit,
            ended = wait(&mut signals, &mut sink, &coordinator, &mut stop) => ended.exit(options),
        },
        (Err(exit), _) => exit,
    };
    service::stopping();
    let at_once = shut_down(settings, options, &coordinator, admin, &sink, &filters, &mut signals).await;
    for arbiter in arbiters {
        arbiter.stop();
    }
    at_once.unwrap_or(exit)
}

/// What runs until it is told to stop.
fn is_monitor(options: &RunOptions) -> bool {
    options.once.is_none() && options.state == StateUse::Kept
}

/// A journal in a database may have to be waited for, and is no start that hangs.
async fn stand_by(settings: &Settings) {
    if settings.journal.database.is_some() {
        service::stand_by().await;
    }
    std::future::pending().await
}

/// Before there is anything to stop, or to read the configuration again for: that is kept in mind.
async fn asked_to_stop(signals: &mut Signals, stop: &mut BoxFuture<'static, ()>, reload: &mut bool) {
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop(_) => return,
                Signal::Reload => *reload = true,
                Signal::Reopen | Signal::Summarize => {}
            },
            () = stop.as_mut() => return,
        }
    }
}

fn sink_options(settings: &Settings, options: &RunOptions, metrics: Metrics) -> SinkOptions {
    SinkOptions {
        state_dir: settings.monitor.state_dir.clone(),
        waits: is_monitor(options),
        require_state: settings.monitor.require_state,
        new_state: options.new_state,
        state: options.state,
        at_rest: options.at_rest.clone(),
        journal: settings.journal.clone(),
        outputs: settings.outputs.clone(),
        events: settings.events.clone(),
        instance: settings.monitor.instance.clone(),
        metrics,
    }
}

fn arbiters() -> Vec<Arbiter> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (0..cores).map(|_| Arbiter::new()).collect()
}

async fn context(
    settings: &Settings,
    options: &RunOptions,
    filters: &FiltersInForce,
    arbiters: &[Arbiter],
    sink: &SinkHandle,
    metrics: Metrics,
    look: Look,
) -> CoordinatorContext {
    let (mut wires, prober) = Wires::counted(settings, metrics);
    // Whoever cannot read them learns them again.
    wires.idle_periods = IdlePeriods::learned(sink.journal.idle_periods().await.unwrap_or_default());
    wires.pipelines = Pipelines::learned(sink.journal.unpipelined().await.unwrap_or_default());
    CoordinatorContext {
        settings: settings.clone(),
        loader: options.loader.clone(),
        look,
        arbiters: arbiters.iter().map(Arbiter::handle).collect(),
        wires: wires.into(),
        prober,
        sink: sink.addr.clone().recipient(),
        exchange: sink.addr.clone().recipient(),
        journal: sink.journal.clone(),
        outputs: sink.outputs.clone(),
        include: included(settings),
        filters: filters.clone(),
    }
}

/// The actions that are on and that some output takes.
fn included(settings: &Settings) -> Arc<[Action]> {
    settings.events.told_by(&settings.outputs).collect()
}

/// `monitor.state` events of a start: a state that was lost must not look like a quiet one.
async fn announce(
    settings: &Settings,
    options: &RunOptions,
    sink: Addr<Sink>,
    origin: StateOrigin,
    restored: bool,
) {
    // That somebody looks in now and then is no news.
    let mut states = if options.once.is_none() { vec![MonitorState::Started] } else { Vec::new() };
    if origin == StateOrigin::New {
        let place = match settings.journal.database {
            Some(_) => "the journal's database".to_owned(),
            None => settings.monitor.state_dir.display().to_string(),
        };
        warn!("there is no state in {place}: every mailbox begins with a baseline");
        states.push(MonitorState::StateNew);
    }
    if restored {
        states.push(MonitorState::StateRestored);
    }
    for state in states {
        tell(settings, &sink, state).await;
    }
}

async fn tell(settings: &Settings, sink: &Addr<Sink>, state: MonitorState) {
    if !included(settings).contains(&Action::MonitorState) {
        return;
    }
    let body = EventBody::MonitorState(state);
    let event = Event {
        at: Timestamp::now(),
        id: event_id::fresh(),
        account: None,
        body,
        filtered: None,
        redacted: Vec::new(),
    };
    if !matches!(sink.send(Deliver { batch: event.into() }).await, Ok(Ok(_))) {
        warn!("monitor.state {} could not be journalled", state.as_str());
    }
}

/// Accounts first (DONE, LOGOUT), then what they delivered last, then the outputs. A second signal ends at once, with an
/// exit code of its own.
async fn shut_down(
    settings: &Settings,
    options: &RunOptions,
    coordinator: &Addr<Coordinator>,
    admin: Admin,
    sink: &SinkHandle,
    filters: &FiltersInForce,
    signals: &mut Signals,
) -> Option<Exit> {
    let deadline = Instant::now() + settings.monitor.shutdown_timeout;
    let left = || deadline.saturating_duration_since(Instant::now());
    let orderly = async {
        // Most of the time is for the outputs: connections that do not answer LOGOUT are merely cut.
        let _ = coordinator.send(StopAccounts { deadline: left() / 2 }).await;
        if options.once.is_none() {
            let told = tell(settings, &sink.addr, MonitorState::Stopping);
            let _ = tokio::time::timeout(left() / 4, told).await;
        }
        let report = sink.addr.send(Drain { deadline: left() }).await.unwrap_or_default();
        if report.undelivered > 0 && options.state == StateUse::Kept {
            info!("kept in the journal for the next start: {}", counted(report.undelivered, "event"));
        }
        if filters.dropped() > 0 {
            info!("dropped by filters: {}", counted(filters.dropped(), "message"));
        }
        admin.stop().await;
        info!("stopped");
    };
    tokio::select! {
        () = orderly => None,
        signal = signals.stop_again() => {
            warn!("stopped at once by a second signal");
            Some(signal.exit())
        }
        () = tokio::time::sleep(left() + Duration::from_secs(1)) => {
            warn!("stopped: the time to stop in is over");
            None
        }
    }
}

/// Waits until something ends the monitor. Until then files are opened anew, and the configuration is read again.
async fn wait(
    signals: &mut Signals,
    sink: &mut SinkHandle,
    coordinator: &Addr<Coordinator>,
    stop: &mut BoxFuture<'static, ()>,
) -> Ended {
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = stop.as_mut() => return Ended::Asked,
            fatal = sink.fatal.recv() => return Ended::Failed(fatal),
        };
        match signal {
            Signal::Stop(_) => return Ended::Asked,
            Signal::Summarize => coordinator.do_send(Summarize),
            Signal::Reopen => sink.addr.do_send(ReopenFiles),
            Signal::Reload => {
                sink.addr.do_send(ReopenFiles);
                coordinator.do_send(Reload);
            }
        }
    }
}

/// Why it does not go on.
enum Ended {
    /// A signal, or whoever called.
    Asked,
    /// It cannot.
    Failed(Fatal),
}

impl Ended {
    fn exit(&self, options: &RunOptions) -> Exit {
        match self {
            Self::Asked if options.once.is_some() => once::interrupted(),
            Self::Asked => Exit::Ok,
            // Nothing is kept: whoever reads our stdout may leave when they have seen enough.
            Self::Failed(Fatal::StdoutClosed) if options.state != StateUse::Kept => Exit::Ok,
            Self::Failed(fatal) => {
                error!("{fatal}");
                fatal.exit()
            }
        }
    }
}
