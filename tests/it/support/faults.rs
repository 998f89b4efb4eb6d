//! Faults of the machine, made to happen and taken back however the test ends.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use idlewatch::demo::store::Store;
use tokio::task::JoinHandle;

/// A file system mounted for a test. Declared after the monitor on it, it would go first: lazily, so that it can.
pub struct Mount(PathBuf);

impl Mount {
    /// A tmpfs of so many bytes.
    pub fn tmpfs(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs", text(at)]);
        Self(at.to_owned())
    }

    /// The directory, read-only for whoever opens something in it from now on.
    pub fn read_only(at: &Path) -> Self {
        run("mount", &["--bind", text(at), text(at)]);
        let mount = Self(at.to_owned());
        run("mount", &["-o", "remount,ro,bind", text(at)]);
        mount
    }

    /// Takes all the room there is.
    pub fn fill(&self) {
        let mut ballast = File::create(self.0.join("ballast")).unwrap();
        for size in [4096, 1] {
            while ballast.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    /// Takes all the files there can be, but for `spare`.
    pub fn fill_with_files(&self, spare: usize) {
        let name = |n: usize| self.0.join(format!("ballast-{n}"));
        let taken = (0..).take_while(|n| File::create(name(*n)).is_ok()).count();
        (taken.saturating_sub(spare)..taken).for_each(|n| fs::remove_file(name(n)).unwrap());
    }

    /// Gives them back.
    pub fn free_files(&self) {
        let files = fs::read_dir(&self.0).unwrap().map(|file| file.unwrap().path());
        let ballast = files.filter(|path| path.to_string_lossy().contains("ballast-"));
        ballast.for_each(|path| fs::remove_file(path).unwrap());
    }

    /// Gives some of it back.
    pub fn spare(&self, bytes: u64) {
        let ballast = File::options().write(true).open(self.0.join("ballast")).unwrap();
        ballast.set_len(ballast.metadata().unwrap().len().saturating_sub(bytes)).unwrap();
    }

    /// Gives it back.
    pub fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
}

/// `command`, with `injection` into its system calls on `paths`; the process is the command's own, the tracer another.
pub fn strace(command: &Command, paths: &[&Path], injections: &[&str]) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    for path in paths {
        traced.arg("-P").arg(path);
    }
    for injection in injections {
        traced.args(["-e", &format!("inject={injection}")]);
    }
    traced.arg(command.get_program()).args(command.get_args());
    traced
}

/// Mail for bob that comes all the time.
pub struct Stream {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Stream {
    pub fn start(store: &Store, every: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, store) = (stop.clone(), store.clone());
        let task = tokio::spawn(async move {
            let mut last = 0;
            while !stopped.load(Ordering::Relaxed) {
                last = u64::from(deliver(&store));
                tokio::time::sleep(every).await;
            }
            last
        });
        Self { stop, task }
    }

    /// Ends it; the last UID.
    pub async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// One message for bob; its UID.
pub fn deliver(store: &Store) -> u32 {
    store.deliver("bob", "INBOX", b"From: Eve <eve@example.org>\r\nSubject: news\r\n\r\nhi\r\n").unwrap()
}

/// A copy of a directory's files; a socket that a killed process left is none.
pub fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}
