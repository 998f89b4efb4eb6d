//! Whether the table of accounts changed. It is looked at every five seconds, by a thread and over a connection of its own:
//! a database that does not answer delays nobody.

use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use actix::{Addr, WeakAddr};
use futures::executor::block_on;
use log::{error, info};

use super::actor::Coordinator;
use crate::accounts_table::{AccountsTable, Mark};
use crate::config::settings::DatabaseSettings;
use crate::messages::{Reload, ReloadError};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(5);

/// Until what was refused is tried again, though the table is the same: the configuration may have been mended.
const AGAIN: Duration = Duration::from_secs(60);

/// Has the configuration read again whenever the table is another than it was `read`. Ends with the coordinator.
pub fn attend(database: DatabaseSettings, read: Option<Mark>, coordinator: &Addr<Coordinator>) {
    let coordinator = coordinator.downgrade();
    let look = move || attend_to(&database, Looks { read, refused: None }, &coordinator);
    if let Err(error) = thread::Builder::new().name("accounts".to_owned()).spawn(look) {
        error!("changes of the table of accounts are not looked for: {error}");
    }
}

fn attend_to(database: &DatabaseSettings, mut looks: Looks, coordinator: &WeakAddr<Coordinator>) {
    let mut table = match AccountsTable::new(database) {
        Ok(table) => table,
        Err(error) => return error!("changes of the table of accounts are not looked for: {error}"),
    };
    loop {
        sleep(PERIOD);
        let Some(coordinator) = coordinator.upgrade() else { return };
        // While the database is away nothing changes; the connection tells.
        let Ok(mark) = table.mark() else { continue };
        if looks.is_due(&mark, Instant::now()) {
            info!("the table of accounts changed");
            match block_on(coordinator.send(Reload)) {
                // Another reading is under way, and may be over already with what we saw.
                Ok(Err(ReloadError::Busy)) => {}
                answer => looks.note(mark, matches!(answer, Ok(Ok(_))), Instant::now()),
            }
        }
    }
}

/// What is known of the table. Pure.
#[derive(Debug)]
struct Looks {
    /// As it was read.
    read: Option<Mark>,
    /// As it was when it could not be taken, and when that was.
    refused: Option<(Mark, Instant)>,
}

impl Looks {
    /// Whether it is another than was read, and worth a try.
    fn is_due(&self, mark: &Mark, now: Instant) -> bool {
        let is_in_vain = |(refused, at): &(Mark, Instant)| refused == mark && now.duration_since(*at) < AGAIN;
        self.read.as_ref() != Some(mark) && !self.refused.as_ref().is_some_and(is_in_vain)
    }

    /// It was read after this look, or nothing of it was taken.
    fn note(&mut self, mark: Mark, taken: bool, now: Instant) {
        if taken {
            (self.read, self.refused) = (Some(mark), None);
        } else {
            self.refused = Some((mark, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_taken_once_and_tried_again_after_a_while() {
        let mark = |text: &str| Mark(text.to_owned());
        let begun = Instant::now();
        let mut looks = Looks { read: Some(mark("a")), refused: None };
        let told: Vec<_> = [
            (0, "a", true),
            (5, "b", false),
            (10, "b", true),
            (15, "c", false),
            (20, "a", true),
            (80, "c", true),
            (85, "c", true),
        ]
        .into_iter()
        .map(|(at, text, taken)| {
            let now = begun + Duration::from_secs(at);
            let due = looks.is_due(&mark(text), now);
            if due {
                looks.note(mark(text), taken, now);
            }
            due
        })
        .collect();
        assert_eq!(told, [false, true, false, true, false, true, false]);
        let unread = Looks { read: None, refused: None };
        assert!(unread.is_due(&Mark::default(), begun), "it was away when it should have been read");
    }
}
