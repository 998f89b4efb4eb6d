//! What the process asks of the kernel.

use log::warn;

/// Descriptors for the journal, outputs, name lookups and the like, beside one per connection.
const SPARE: u64 = 256;

/// No core dump and no other process of the user may read the memory: passwords are in it.
pub fn keep_secrets() {
    if let Err(error) = rlimit::setrlimit(rlimit::Resource::CORE, 0, 0) {
        warn!("core dumps cannot be switched off: {error}");
    }
    let behavior = rustix::process::DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(behavior) {
        warn!("the memory cannot be closed to other processes: {error}");
    }
}

/// Too few descriptors for all connections, even at the hard limit.
#[derive(Debug, thiserror::Error)]
#[error(
    "{connections} connections need {needed} file descriptors, and the limit is {limit}: raise it (`ulimit -Hn`, \
     LimitNOFILE= of the service), or set connections.max_total"
)]
pub struct TooFewDescriptors {
    connections: u64,
    needed: u64,
    limit: u64,
}

/// Raises the limit of open files as far as it goes: one per connection, and the default of 1,024 is soon reached.
///
/// # Errors
/// Where that is not enough.
pub fn reserve_descriptors(connections: u64) -> Result<(), TooFewDescriptors> {
    let needed = connections.saturating_add(SPARE);
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < needed => Err(TooFewDescriptors { connections, needed, limit }),
        Ok(_) => Ok(()),
        Err(error) => {
            warn!("the limit of open files cannot be raised: {error}");
            Ok(())
        }
    }
}
