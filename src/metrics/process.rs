//! What every process has: `process_*`, as Prometheus clients of other languages name it. Read from `/proc`.

use std::fs;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Clock ticks a second, as `/proc` counts: the same on every Linux.
const TICKS: f64 = 100.0;

/// This process, now. What cannot be read is left out.
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix("process");
    let gauge = |value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge
    };
    if let Some((resident, virtual_)) = memory() {
        let help = "Resident memory size in bytes";
        registry.register_with_unit("resident_memory", help, Unit::Bytes, gauge(resident));
        let help = "Virtual memory size in bytes";
        registry.register_with_unit("virtual_memory", help, Unit::Bytes, gauge(virtual_));
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        let open = (open.count() as u64).saturating_sub(1);
        registry.register("open_fds", "Number of open file descriptors", gauge(open));
    }
    if let Ok((limit, _)) = rlimit::getrlimit(rlimit::Resource::NOFILE) {
        registry.register("max_fds", "Maximum number of open file descriptors", gauge(limit));
    }
    if let Some(cpu) = cpu_seconds() {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(cpu);
        let help = "Total user and system CPU time spent in seconds";
        registry.register_with_unit("cpu", help, Unit::Seconds, counter);
    }
    registry
}

fn memory() -> Option<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
    };
    Some((of("VmRSS:")?, of("VmSize:")?))
}

/// Fields 14 and 15 of `stat`, counted from behind the name, which may hold anything.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().ok());
    Some(ticks.sum::<Option<f64>>()? / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_known() {
        assert!(memory().is_some_and(|(resident, virtual_)| resident > 1 << 20 && virtual_ > resident));
        assert!(cpu_seconds().is_some_and(|seconds| seconds < 10_000.0));
    }
}
