//! The moments at which all is done that is done now and then, by all threads: what wakes alone finds the processor and its caches asleep, each time.
//!
//! Their timer is the kernel's and wakes its thread once. One of tokio wakes it up to three times, as it moves from slots of 4 s to some of 64 ms, and of 1 ms.

use std::io;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use futures::{Stream, stream};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// From one to the next.
pub const TICK: Duration = Duration::from_secs(15);

/// What all moments are counted from.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The first moment after this one for what is done once in `period`: of two periods, all moments of a multiple are the other one's too.
pub fn after(moment: Instant, period: Duration) -> Instant {
    first_after(*ORIGIN, moment, period)
}

fn first_after(origin: Instant, moment: Instant, period: Duration) -> Instant {
    let since = moment.saturating_duration_since(origin).as_nanos();
    let rest = since.checked_rem(period.as_nanos()).and_then(|rest| u64::try_from(rest).ok());
    moment + period.saturating_sub(Duration::from_nanos(rest.unwrap_or_default()))
}

/// Hears of each tick. Whoever is late hears of the last one.
#[derive(Clone, Debug)]
pub struct Ticks(watch::Receiver<()>);

impl Ticks {
    /// They go on for as long as the thread that calls this.
    ///
    /// # Errors
    /// Where there can be no timer.
    pub fn start() -> io::Result<Self> {
        let mut timer = timer(TICK)?;
        let (tell, ticks) = Self::by_hand();
        actix_rt::spawn(async move { while expired(&mut timer).await.is_ok() && tell.send(()).is_ok() {} });
        Ok(ticks)
    }

    /// They come as somebody likes.
    pub fn by_hand() -> (watch::Sender<()>, Self) {
        let (tell, ticks) = watch::channel(());
        (tell, Self(ticks))
    }

    /// Waits for the next; `None` once there are no more.
    pub async fn next(&mut self) -> Option<()> {
        self.0.changed().await.ok()
    }

    /// One `item` for each.
    pub fn map_to<T: Copy>(self, item: T) -> impl Stream<Item = T> {
        stream::unfold(
            self,
            move |mut ticks| async move { Some((item, ticks.next().await.map(|()| ticks)?)) },
        )
    }
}

/// It is no pipe, but of tokio's types that take a descriptor this one only reads it.
fn timer(period: Duration) -> io::Result<pipe::Receiver> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let now = Instant::now();
    // One of no time at all would never end.
    let first = after(now, period).saturating_duration_since(now).max(Duration::from_nanos(1));
    let timespec = |time: Duration| time.try_into().map_err(io::Error::other);
    let times = Itimerspec { it_interval: timespec(period)?, it_value: timespec(first)? };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
    pipe::Receiver::from_owned_fd_unchecked(timer)
}

/// Waits until it has, once or more often, since the last time.
async fn expired(timer: &mut pipe::Receiver) -> io::Result<()> {
    timer.read_u64_le().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_less_often_has_its_moments_among_the_others() {
        let origin = Instant::now();
        let at = |milliseconds| origin + Duration::from_millis(milliseconds);
        let first = |moment, period| first_after(origin, at(moment), Duration::from_millis(period));
        for (moment, often, seldom) in [
            (0, 15_000, 30_000),
            (1, 15_000, 30_000),
            (14_999, 15_000, 30_000),
            (15_000, 30_000, 30_000),
            (29_999, 30_000, 30_000),
            (30_000, 45_000, 60_000),
            (3_600_001, 3_615_000, 3_630_000),
        ] {
            assert_eq!((first(moment, 15_000), first(moment, 30_000)), (at(often), at(seldom)), "{moment}");
        }
        assert_eq!(first(700, 500), at(1000));
        assert_eq!(first(700, 0), at(700), "always");
        let before = origin.checked_sub(Duration::from_secs(1)).unwrap();
        assert_eq!(first_after(origin, before, TICK), before + TICK, "no later than that");
    }

    #[actix_rt::test]
    async fn a_tick_is_heard_by_all_and_the_end_too() {
        let (tell, mut ticks) = Ticks::by_hand();
        let mut others = Box::pin(ticks.clone().map_to(7));
        tell.send(()).unwrap();
        tell.send(()).unwrap();
        assert_eq!(ticks.next().await, Some(()));
        assert_eq!(futures::StreamExt::next(&mut others).await, Some(7));
        drop(tell);
        assert_eq!(ticks.next().await, None, "two that nobody waited for are one");
        assert_eq!(futures::StreamExt::next(&mut others).await, None);
    }

    #[actix_rt::test]
    async fn a_timer_expires_again_and_again() {
        let mut timer = timer(Duration::from_millis(1)).unwrap();
        for _ in 0..3 {
            expired(&mut timer).await.unwrap();
        }
    }
}
