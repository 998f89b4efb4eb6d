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
use tokio::time::sleep;

use super::actor::Coordinator;
use crate::config::{self, load};
use crate::messages::Reload;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(5);

/// A file as it lies there, behind all links; `None` where there is none.
type Print = Option<(u64, u64, u64, i64, i64)>;

type Prints = BTreeMap<PathBuf, Print>;

/// Has the configuration read again whenever its files changed.
pub async fn attend(named: Vec<PathBuf>, coordinator: Addr<Coordinator>) {
    let mut files = Files { named, own: Prints::new(), lists: None };
    let mut changes = Changes::default();
    loop {
        let looked = spawn_blocking(move || {
            let prints = files.look();
            (files, prints)
        });
        let Ok((back, prints)) = looked.await else { return };
        files = back;
        if changes.have_settled(prints) {
            info!("the files of the configuration changed");
            coordinator.do_send(Reload);
        }
        sleep(PERIOD).await;
    }
}

/// The files of a configuration, and the lists that they name.
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
#[derive(Debug, Default)]
struct Changes {
    /// As they were read; `None` before the first look.
    read: Option<Prints>,
    seen: Prints,
}

impl Changes {
    /// Whether they are others than were read, and have been left alone since the look before: what is just being written
    /// is no configuration yet.
    fn have_settled(&mut self, now: Prints) -> bool {
        let read = self.read.get_or_insert_with(|| now.clone());
        let settled = *read != now && self.seen == now;
        if settled {
            *read = now.clone();
        }
        self.seen = now;
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_is_left_alone() {
        let print = |size| Prints::from([(PathBuf::from("a.toml"), Some((1, 1, size, 0, 0)))]);
        let mut changes = Changes::default();
        let told: Vec<_> =
            [1, 1, 2, 3, 3, 3, 4, 3, 3].map(|size| changes.have_settled(print(size))).into_iter().collect();
        assert_eq!(
            told,
            [false, false, false, false, true, false, false, false, false],
            "back again is no change"
        );
        assert!(!changes.have_settled(Prints::new()) && changes.have_settled(Prints::new()), "it is gone");
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
        let mut files = Files { named: vec![path("now").join("c.toml")], own: Prints::new(), lists: None };
        let first = files.look();
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
