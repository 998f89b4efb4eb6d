//! The signals that the monitor hears, as what they mean.

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::exit::Exit;

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, SIGTERM.
    Stop(StopSignal),
    /// SIGHUP: read the configuration again, and open the files anew.
    Reload,
    /// SIGUSR1: open the files anew.
    Reopen,
    /// SIGUSR2: write a summary to the log.
    Summarize,
}

/// Which signal asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT
    Interrupt,
    /// SIGTERM
    Terminate,
}

impl StopSignal {
    /// How a process ends that this stopped at once.
    pub fn exit(self) -> Exit {
        match self {
            Self::Interrupt => Exit::Interrupted,
            Self::Terminate => Exit::Terminated,
        }
    }
}

/// `SIGXFSZ`
const FILE_SIZE_EXCEEDED: i32 = 25;

/// Signals within this time mean the same.
const ONE_WISH: Duration = Duration::from_millis(500);

/// All of them; while this lives, none has its default effect.
#[derive(Debug)]
pub struct Signals {
    interrupt: Stream,
    terminate: Stream,
    hangup: Stream,
    user1: Stream,
    user2: Stream,
    /// Caught so that a file that has grown to the process's limit is an error of a write, and not the end.
    _file_size: Stream,
}

impl Signals {
    /// Heard from now on.
    ///
    /// # Errors
    /// Where the kernel does not let us.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            _file_size: signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED))?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Stop(StopSignal::Interrupt),
            _ = self.terminate.recv() => Signal::Stop(StopSignal::Terminate),
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user1.recv() => Signal::Reopen,
            _ = self.user2.recv() => Signal::Summarize,
        }
    }

    /// A second wish to stop. `timeout(1)` and terminals signal a process and its group at once: that is one wish.
    pub async fn stop_again(&mut self) -> StopSignal {
        let first = Instant::now();
        loop {
            match self.next().await {
                Signal::Stop(signal) if first.elapsed() >= ONE_WISH => return signal,
                _ => {}
            }
        }
    }
}
