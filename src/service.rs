//! What the service manager is told (sd_notify): nothing, where none listens.

use std::time::{Duration, Instant};

use actix::Addr;
use log::warn;
use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::time::sleep;

use crate::coordinator::actor::Coordinator;
use crate::coordinator::heartbeat::Heartbeats;
use crate::messages::GetStatus;
use crate::status::MonitorStatus;
use crate::ticks::{TICK, Ticks};

/// Whoever has the journal by then was never standing by.
const SOON: Duration = Duration::from_secs(5);

/// By then accounts were begun.
const FIRST: Duration = Duration::from_secs(1);

/// The monitor has begun: configuration, state and outputs are open. Accounts need not be online for that, nor need the journal
/// have room.
pub fn ready() {
    tell(&NotifyState::Ready);
}

/// A monitor that waits for another's journal does what it is there for. Never ends.
pub async fn stand_by() {
    sleep(SOON).await;
    tell(&NotifyState::Ready);
    tell(&NotifyState::Status("standing by"));
    let Some(patience) = watchdog_enabled() else { return std::future::pending().await };
    let mut clock = tokio::time::interval(patience / 2);
    loop {
        clock.tick().await;
        tell(&NotifyState::Watchdog);
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
pub async fn attend(coordinator: Addr<Coordinator>, heartbeats: Heartbeats, mut ticks: Ticks) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let watchdog = watchdog_enabled();
    let more_often = watchdog.and_then(more_often);
    let mut told = String::new();
    sleep(more_often.unwrap_or(FIRST).min(FIRST)).await;
    loop {
        if watchdog.is_some() && heartbeats.all_alive(Instant::now()) {
            tell(&NotifyState::Watchdog);
        }
        let Ok(status) = coordinator.send(GetStatus).await else { return };
        let line = status_line(&status);
        if line != told {
            tell(&NotifyState::Status(&line));
            told = line;
        }
        match more_often {
            // They may just have been woken, together with us.
            _ if watchdog.is_some() && !heartbeats.all_alive(Instant::now()) => sleep(FIRST).await,
            Some(period) => sleep(period).await,
            None if ticks.next().await.is_none() => return,
            None => {}
        }
    }
}

/// Where a tick is too seldom for a watchdog of such a patience: twice in that, as systemd advises.
fn more_often(patience: Duration) -> Option<Duration> {
    Some(patience / 2).filter(|period| *period < TICK)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_fed_at_ticks_unless_it_is_impatient() {
        let fed = |seconds| more_often(Duration::from_secs(seconds));
        // The unit that is shipped, and half of it.
        assert_eq!((fed(60), fed(30)), (None, None));
        assert_eq!(
            (fed(29), fed(1)),
            (Some(Duration::from_millis(14_500)), Some(Duration::from_millis(500)))
        );
    }
}
