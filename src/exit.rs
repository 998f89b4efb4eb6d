//! How a command ends: one table of exit codes.

/// How a command ends; the README has the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All well.
    Ok,
    /// `status`: events cannot be kept.
    Degraded,
    /// The command line.
    Usage,
    /// `status`: nobody answers.
    NotRunning,
    /// Finished, with failures of some accounts.
    SomeFailed,
    /// No account could be reached.
    Unreachable,
    /// Every login was refused; the monitor is not to be asked by this user.
    Refused,
    /// Journal damaged or not writable, no output, no signals.
    CannotStart,
    /// Output or journal I/O failed for good.
    Io,
    /// Another process holds the state, or writes the output file.
    Locked,
    /// The configuration.
    Config,
    /// A second SIGINT.
    Interrupted,
    /// A second SIGTERM.
    Terminated,
}

impl Exit {
    /// This one, where something went wrong; else the other.
    pub fn and(self, other: Self) -> Self {
        if self == Self::Ok { other } else { self }
    }

    /// The process's exit code (sysexits where they fit).
    pub const fn code(self) -> i32 {
        match self {
            Self::Ok => 0,
            Self::SomeFailed | Self::Degraded => 1,
            Self::Usage => 2,
            Self::NotRunning => 3,
            Self::Unreachable => 69,
            Self::CannotStart => 71,
            Self::Io => 74,
            Self::Locked => 75,
            Self::Refused => 77,
            Self::Config => 78,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}
