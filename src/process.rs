//! What the process asks of the kernel.

use log::{info, warn};

use crate::demand::Demand;
use crate::text::counted;

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

/// What can be foreseen is said before it is met.
pub fn announce(demand: &Demand) {
    let connections = counted(demand.connections, "connection");
    let at_most = if demand.at_most { "at most " } else { "" };
    info!("{at_most}{connections}: about {} MiB of memory", demand.memory() >> 20);
    let ports = local_ports();
    if let Some((host, connections)) = demand.short_of_ports(ports) {
        warn!(
            host:% = host;
            "{connections} connections to one host, and {ports} ports here towards one address: where it has only one, \
             raise net.ipv4.ip_local_port_range"
        );
    }
}

/// Ports that connections towards one address may come from; Linux's default where nobody tells.
fn local_ports() -> u64 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    ports(&range).unwrap_or(28_232)
}

fn ports(range: &str) -> Option<u64> {
    let (first, last) = range.trim().split_once(char::is_whitespace)?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.trim().parse().ok()?);
    last.checked_sub(first).map(|others| others + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports_is_counted() {
        assert_eq!(ports("32768\t60999\n"), Some(28_232));
        assert_eq!((ports(""), ports("9 a"), ports("9 8")), (None, None, None));
    }
}
