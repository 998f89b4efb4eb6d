//! What the service manager is told (sd_notify): nothing, where none listens.

use std::time::{Duration, Instant};

use actix::Addr;
use log::warn;
use sd_notify::{NotifyState, notify, watchdog_enabled};

use crate::coordinator::actor::Coordinator;
use crate::coordinator::heartbeat::Heartbeats;
use crate::messages::GetStatus;
use crate::status::MonitorStatus;

/// Whoever has the journal by then was never standing by.
const SOON: Duration = Duration::from_secs(5);

/// How often the status line is written anew.
const STATUS: Duration = Duration::from_secs(10);

/// By then accounts were begun.
const FIRST: Duration = Duration::from_secs(1);

/// The monitor has begun: configuration, state and outputs are open. Accounts need not be online for that, nor need the journal
/// have room.
pub fn ready() {
    tell(&NotifyState::Ready);
}

/// A monitor that waits for another's journal does what it is there for. Never ends.
pub async fn stand_by() {
    tokio::time::sleep(SOON).await;
    tell(&NotifyState::Ready);
    tell(&NotifyState::Status("standing by"));
    let mut clock = tokio::time::interval(watchdog_enabled().map_or(STATUS, |patience| patience / 2));
    loop {
        clock.tick().await;
        if watchdog_enabled().is_some() {
            tell(&NotifyState::Watchdog);
        }
    }
}

/// It ends.
pub fn stopping() {
    tell(&NotifyState::Stopping);
}

fn tell(state: &NotifyState<'_>) {
    if let Err(error) = notify(std::slice::from_ref(state)) {
        warn!("the service manager cannot be told {state}: {error}");
    }
}

/// Keeps the watchdog quiet for as long as all threads do their work, and the status line true.
pub async fn attend(coordinator: Addr<Coordinator>, heartbeats: Heartbeats) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let watchdog = watchdog_enabled();
    let period = watchdog.map_or(STATUS, |patience| (patience / 2).min(STATUS));
    let mut clock = tokio::time::interval_at(tokio::time::Instant::now() + period.min(FIRST), period);
    let mut told = String::new();
    loop {
        clock.tick().await;
        if watchdog.is_some() && heartbeats.all_alive(Instant::now()) {
            tell(&NotifyState::Watchdog);
        }
        let Ok(status) = coordinator.send(GetStatus).await else { return };
        let line = status_line(&status);
        if line != told {
            tell(&NotifyState::Status(&line));
            told = line;
        }
    }
}

fn status_line(status: &MonitorStatus) -> String {
    let count = |state: &str| status.accounts.get(state).copied().unwrap_or_default();
    let watched: usize = status.accounts.values().sum::<usize>() - count("disabled");
    let troubles: usize = status.troubles.iter().map(|group| group.accounts).sum();
    let mut line = format!("online {}/{watched}", count("online"));
    if troubles > 0 {
        line.push_str(&format!(", {troubles} in trouble"));
    }
    if !status.ready {
        line.push_str(", not ready");
    }
    line
}
