//! Compresses and removes files that ended, on a thread of its own: that may take long, and nobody waits for it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use flate2::Compression;
use flate2::write::GzEncoder;
use log::warn;

use super::rotation::{GZ, PART, Step, plan};
use crate::config::settings::RotationSettings;

/// The archive of one file.
#[derive(Debug)]
pub(super) struct Archive {
    wake: SyncSender<()>,
}

impl Archive {
    /// Looks through what there is at once: a crash may have left something half done.
    pub(super) fn open(path: PathBuf, settings: RotationSettings) -> io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        // Not a task: a large file must not keep the process from ending.
        std::thread::Builder::new()
            .name("archive".to_owned())
            .spawn(move || keep(&path, &settings, &woken))?;
        let archive = Self { wake };
        archive.tidy();
        Ok(archive)
    }

    /// A file has ended.
    pub(super) fn tidy(&self) {
        // Where it is full, it will look again anyway.
        let _ = self.wake.try_send(());
    }
}

fn keep(path: &Path, settings: &RotationSettings, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        if let Err(error) = tidy(path, settings) {
            warn!("{}: files that ended cannot be kept in order: {error}", path.display());
        }
    }
}

fn tidy(path: &Path, settings: &RotationSettings) -> io::Result<()> {
    let dir = directory(path);
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let names = names_beside(path)?;
    let (remove, compress): (Vec<_>, Vec<_>) =
        plan(settings, &file, &names).into_iter().partition(|step| matches!(step, Step::Remove(_)));
    // What goes makes room for what is compressed; one that fails keeps none of the others.
    let steps = remove.into_iter().chain(compress).map(|step| take(dir, step));
    steps.fold(Ok(()), Result::and)
}

fn take(dir: &Path, step: Step) -> io::Result<()> {
    match step {
        Step::Remove(name) => fs::remove_file(dir.join(name)),
        Step::Compress(name) => compress(dir, &name).inspect_err(|_| {
            let _ = fs::remove_file(dir.join(format!("{name}{PART}")));
        }),
    }
}

/// The whole is durable before the original goes.
fn compress(dir: &Path, name: &str) -> io::Result<()> {
    let (plain, part) = (dir.join(name), dir.join(format!("{name}{PART}")));
    let mut from = File::open(&plain)?;
    let mode = from.metadata()?.mode() & 0o777;
    let to = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&part)?;
    let mut gz = GzEncoder::new(to, Compression::default());
    io::copy(&mut from, &mut gz)?;
    gz.finish()?.sync_all()?;
    fs::rename(&part, dir.join(format!("{name}{GZ}")))?;
    sync_directory(&plain)?;
    fs::remove_file(&plain)
}

/// All names in the directory of a file.
pub(super) fn names_beside(path: &Path) -> io::Result<Vec<String>> {
    Ok(fs::read_dir(directory(path))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect())
}

/// The directory of a file.
fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Names are durable only then.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}
