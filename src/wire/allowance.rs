//! What one connection may cost: a token bucket over bytes and responses, so that no server keeps a core busy.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Bytes at once: far more than an honest server has to say.
const BURST: u64 = 64 << 20;

/// Bytes a second after that.
const RATE: u64 = 8 << 20;

/// What a response costs besides its bytes: ten thousand a second at most, however short.
const RESPONSE: u64 = 800;

/// How long to wait for more, at the least.
const PAUSE: Duration = Duration::from_millis(100);

/// What is left of it.
#[derive(Debug)]
pub struct Allowance {
    spent: u64,
    since: Instant,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Allowance {
    /// All of it.
    pub fn new() -> Self {
        Self { spent: 0, since: Instant::now(), pause: None }
    }

    /// Bytes were read.
    pub fn read(&mut self, bytes: usize) {
        self.spent = self.spent.saturating_add(bytes as u64);
    }

    /// A response was made of them, or a record of TLS.
    pub fn response(&mut self) {
        self.spent = self.spent.saturating_add(RESPONSE);
    }

    /// Ready while something is left.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            if self.spent < BURST {
                return Poll::Ready(());
            }
            self.earn();
            if self.spent >= BURST {
                self.pause = Some(Box::pin(sleep(PAUSE)));
            }
        }
    }

    fn earn(&mut self) {
        let now = Instant::now();
        let earned = u128::from(RATE) * now.duration_since(self.since).as_millis() / 1000;
        self.spent = self.spent.saturating_sub(u64::try_from(earned).unwrap_or(u64::MAX));
        self.since = now;
    }
}

impl Default for Allowance {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_slowed_down_and_an_honest_burst_is_not() {
        let start = Instant::now();
        let mut allowance = Allowance::new();
        let flood = async |allowance: &mut Allowance, responses: u32| {
            for _ in 0..responses {
                poll_fn(|cx| allowance.poll_left(cx)).await;
                allowance.read(12);
                allowance.response();
            }
        };
        flood(&mut allowance, 80_000).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        flood(&mut allowance, 1_000_000).await;
        let seconds = start.elapsed().as_secs();
        assert!((90..120).contains(&seconds), "{seconds}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let rested = Instant::now();
        flood(&mut allowance, 80_000).await;
        assert_eq!(rested.elapsed(), Duration::ZERO, "who was quiet may burst again");
    }
}
