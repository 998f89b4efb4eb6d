//! A file system of its own, that may lose its power: what was not synced by then is gone.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

pub struct Disk {
    dir: TempDir,
}

fn run(command: &str, arguments: &[&str]) -> bool {
    let output = Command::new(command).args(arguments).output().expect(command);
    output.status.success()
}

impl Disk {
    /// An ext4 on a loop device; needs root.
    pub fn new() -> Self {
        let disk = Self { dir: tempfile::Builder::new().prefix("iwdisk").tempdir_in("/tmp").unwrap() };
        std::fs::File::create(disk.image()).unwrap().set_len(64 << 20).unwrap();
        assert!(run("mkfs.ext4", &["-q", "-F", disk.image().to_str().unwrap()]));
        std::fs::create_dir(disk.mount()).unwrap();
        disk.attach();
        disk
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    pub fn mount(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn attach(&self) {
        assert!(run(
            "mount",
            &["-o", "loop", self.image().to_str().unwrap(), self.mount().to_str().unwrap()]
        ));
    }

    /// All that was written so far stays, whatever comes.
    pub fn sync(&self) {
        assert!(run("sync", &["-f", self.mount().to_str().unwrap()]));
    }

    /// From now on nothing reaches the disk (EXT4_IOC_SHUTDOWN, without flushing the log).
    pub fn lose_power(&self) {
        let shutdown = "import fcntl, os, struct, sys\n\
                        fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";
        assert!(run("python3", &["-c", shutdown, self.mount().to_str().unwrap()]));
    }

    /// The machine starts again; nothing may have a file open.
    pub fn restart(&self) {
        assert!(run("umount", &[self.mount().to_str().unwrap()]));
        self.attach();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", self.mount().to_str().unwrap()]);
    }
}
