//! What the kernel knows of a process. Root may need to ask: idlewatch closes its memory to others.

use std::fs::read_to_string;

use super::Result;

/// KiB that the process has for itself: Private_Clean + Private_Dirty.
///
/// # Errors
/// Where the kernel does not tell.
pub fn private_kib(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    Ok(private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum())
}

/// Milliseconds of CPU so far, in user and kernel, in steps of a clock tick.
///
/// # Errors
/// Where the kernel does not tell.
pub fn cpu_millis(pid: u32) -> Result<f64> {
    let stat = read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("stat has another form")?;
    let ticks = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() * 1000.0 / rustix::param::clock_ticks_per_second() as f64)
}

/// Milliseconds of CPU of all threads that there are, to the nanosecond.
///
/// # Errors
/// Where the kernel does not tell.
pub fn fine_cpu_millis(pid: u32) -> Result<f64> {
    let mut nanos = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(stat) = read_to_string(task?.path().join("schedstat")) else { continue };
        nanos += stat.split(' ').next().and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    }
    Ok(nanos / 1e6)
}
