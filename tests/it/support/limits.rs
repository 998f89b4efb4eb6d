//! Limits that the kernel sets to one process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A control group; gone with the value, once its processes are.
pub struct Group(PathBuf);

impl Group {
    /// Of so many bytes of memory: whoever wants more is killed.
    pub fn of_memory(bytes: u64) -> Self {
        Self::new("memory", ("memory.limit_in_bytes", &bytes.to_string()), ("memory.max", &bytes.to_string()))
    }

    /// Of so many percent of one core.
    pub fn of_cpu(percent: u32) -> Self {
        let quota = (percent * 1000).to_string();
        Self::new("cpu", ("cpu.cfs_quota_us", &quota), ("cpu.max", &format!("{quota} 100000")))
    }

    /// In the first or in the second version of control groups, whichever has the controller.
    fn new(controller: &str, first: (&str, &str), second: (&str, &str)) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("idlewatch_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = Path::new("/sys/fs/cgroup");
        let (parent, (file, value)) = match root.join(controller) {
            own if own.is_dir() => (own, first),
            _ => (root.to_owned(), second),
        };
        let group = Self(parent.join(name));
        fs::create_dir(&group.0).expect("control groups, and root");
        fs::write(group.0.join(file), value).unwrap();
        group
    }

    /// Whether somebody had to wait for his turn.
    pub fn was_felt(&self) -> bool {
        let stat = fs::read_to_string(self.0.join("cpu.stat")).unwrap();
        let throttled = stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")).unwrap();
        throttled != "0"
    }

    /// This process belongs to it from now on.
    pub fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes may take a moment to be gone.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
