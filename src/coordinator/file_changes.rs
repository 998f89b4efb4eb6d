//! Whether the files of the configuration changed.
//!
//! They are looked at now and then: that sees what is renamed over them, links that point elsewhere now (a ConfigMap of Kubernetes) and
//! what another host wrote (NFS), which the kernel tells nobody of.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use actix::Addr;
use log::info;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::actor::Coordinator;
use super::reload::{Loader, READING};
use crate::config::{self, load};
use crate::messages::Reload;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(5);

/// Until a configuration that was refused is read again, though its files are the same: a secret may be there now that was not (a Secret of
/// Kubernetes comes when it likes). Nothing is told until it is good.
const AGAIN: Duration = Duration::from_secs(60);

/// A file as it lies there, behind all links; `None` where there is none.
type Print = Option<(u64, u64, u64, i64, i64)>;

type Prints = BTreeMap<PathBuf, Print>;

/// The files of a configuration as they were when it was read.
#[derive(Debug)]
pub struct Seen {
    files: Files,
    prints: Prints,
}

impl Seen {
    /// A look at these files, and at what they lead to.
    pub fn now(named: Vec<PathBuf>) -> Self {
        let mut files = Files { named, own: Prints::new(), lists: None };
        let prints = files.look();
        Self { files, prints }
    }
}

/// Has the configuration read again whenever its files are others than were read.
pub async fn attend(seen: Seen, loader: Loader, coordinator: Addr<Coordinator>) {
    let is_good = async || loader.load_within(READING).await.is_ok();
    let is_taken = async || matches!(coordinator.send(Reload).await, Ok(Ok(_)));
    attend_to(seen, is_good, is_taken).await;
}

async fn attend_to(
    Seen { mut files, prints }: Seen,
    is_good: impl AsyncFn() -> bool,
    is_taken: impl AsyncFn() -> bool,
) {
    let mut changes = Changes::since(prints);
    let mut refused: Option<Instant> = None;
    loop {
        let looked = spawn_blocking(move || {
            let prints = files.look();
            (files, prints)
        });
        let Ok((back, prints)) = looked.await else { return };
        files = back;
        let changed = changes.have_settled(prints);
        if changed {
            info!("the files of the configuration changed");
        }
        if changed || refused.is_some_and(|at| at.elapsed() >= AGAIN) {
            let taken = (changed || is_good().await) && is_taken().await;
            refused = (!taken).then(Instant::now);
        }
        sleep(PERIOD).await;
    }
}

/// The files of a configuration, and the lists that they name.
#[derive(Debug)]
struct Files {
    named: Vec<PathBuf>,
    own: Prints,
    lists: Option<Vec<PathBuf>>,
}

impl Files {
    fn look(&mut self) -> Prints {
        let own = prints(load::files(&self.named));
        // A glob finds new lists without a change of the file that has it.
        if own != self.own || self.lists.is_some() {
            self.lists = config::lists(&self.named);
        }
        self.own = own.clone();
        own.into_iter().chain(prints(self.lists.clone().unwrap_or_default())).collect()
    }
}

fn prints(files: Vec<PathBuf>) -> Prints {
    let print = |file: PathBuf| {
        let print =
            fs::metadata(&file).ok().map(|at| (at.dev(), at.ino(), at.size(), at.mtime(), at.mtime_nsec()));
        (file, print)
    };
    files.into_iter().map(print).collect()
}

/// What is known of them. Pure.
#[derive(Debug)]
struct Changes {
    /// As they were read.
    read: Prints,
    seen: Prints,
}

impl Changes {
    fn since(read: Prints) -> Self {
        Self { seen: read.clone(), read }
    }

    /// Whether they are others than were read, and have been left alone since the look before: what is just being written
    /// is no configuration yet.
    fn have_settled(&mut self, now: Prints) -> bool {
        let settled = self.read != now && self.seen == now;
        if settled {
            self.read = now.clone();
        }
        self.seen = now;
        settled
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_change_counts_once_it_is_left_alone() {
        let print = |size| Prints::from([(PathBuf::from("a.toml"), Some((1, 1, size, 0, 0)))]);
        let mut changes = Changes::since(print(1));
        let told: Vec<_> =
            [1, 1, 2, 3, 3, 3, 4, 3, 3].map(|size| changes.have_settled(print(size))).into_iter().collect();
        assert_eq!(
            told,
            [false, false, false, false, true, false, false, false, false],
            "back again is no change"
        );
        assert!(!changes.have_settled(Prints::new()) && changes.have_settled(Prints::new()), "it is gone");
    }

    /// What changed before the first look is a change too; a secret that comes late makes no other.
    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_taken_once_it_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        fs::write(&file, "").unwrap();
        let seen = Seen::now(vec![file.clone()]);
        fs::write(&file, "# changed").unwrap();
        let (good, asked) = (Cell::new(false), Cell::new(0));
        let is_taken = async || {
            asked.set(asked.get() + 1);
            good.get()
        };
        let told = async {
            sleep(AGAIN * 3).await;
            let while_bad = asked.get();
            good.set(true);
            sleep(AGAIN * 3).await;
            (while_bad, asked.get())
        };
        let told = tokio::select! {
            () = attend_to(seen, async || good.get(), is_taken) => unreachable!(),
            told = told => told,
        };
        assert_eq!(told, (1, 2));
    }

    #[test]
    fn a_link_that_points_elsewhere_and_a_new_list_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("c.toml"), "[[account_lists]]\npath = \"*.csv\"\n").unwrap();
        }
        std::os::unix::fs::symlink("1", path("now")).unwrap();
        let Seen { mut files, prints: first } = Seen::now(vec![path("now").join("c.toml")]);
        std::os::unix::fs::symlink("2", path("next")).unwrap();
        fs::rename(path("next"), path("now")).unwrap();
        let second = files.look();
        assert_ne!(first, second);
        fs::write(path("2").join("a.csv"), "id\n").unwrap();
        let third = files.look();
        assert!(third.len() == 2 && second.len() == 1, "{second:?} {third:?}");
        assert_eq!(files.look(), third);
    }
}
