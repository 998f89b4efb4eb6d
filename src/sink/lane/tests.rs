use std::sync::{Arc, Mutex};

use futures::executor::block_on;
use tokio::task::{LocalSet, spawn_local};

use super::super::batch::tests::{encoder, journalled};
use super::super::lane_spec;
use super::super::output::Pause;
use super::super::output::scripted::ScriptedOutput;
use super::*;
use crate::cluster::shard::Shard;
use crate::config::stdout_output;
use crate::journal::Entry;
use crate::journal::sqlite::SqliteJournal;
use crate::messages;
use crate::privacy::{Privacy, Rules};

/// A lane with `count` events before it, and what its output was offered in the end.
struct Run {
    offered: Arc<Mutex<Vec<Vec<u64>>>>,
    health: watch::Receiver<LaneHealth>,
    holding: watch::Sender<Holding>,
    _alive: (watch::Sender<bool>, watch::Sender<u64>, mpsc::UnboundedSender<Refit>, tempfile::TempDir),
}

impl Run {
    /// The output takes what `answer` does not object to.
    async fn new(count: u64, mut answer: impl FnMut(&Batch) -> Option<Outcome> + Send + 'static) -> Self {
        Self::held_by(watch::channel(Holding::ALONE).0, count, move |_, batch| answer(batch)).await
    }

    async fn held_by(
        holding: watch::Sender<Holding>,
        count: u64,
        mut answer: impl FnMut(&JournalHandle, &Batch) -> Option<Outcome> + Send + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let specs = vec![lane_spec(&stdout_output())];
        let journal = Box::new(SqliteJournal::in_memory().unwrap());
        let (journal, _) = JournalHandle::start(journal, specs, 1 << 20, |_| {}).unwrap();
        for n in 1..=count {
            commit(&journal, n).await;
        }
        let offered = Arc::new(Mutex::new(Vec::new()));
        let (seen, known) = (offered.clone(), journal.clone());
        let output = ScriptedOutput::new(move |batch: &Batch| {
            seen.lock().unwrap().push(batch.items().iter().map(|item| item.sequence).collect());
            answer(&known, batch).unwrap_or(Outcome::Taken)
        });
        let (health, watched) = watch::channel(LaneHealth::new(0));
        let (failed, _) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let (reopen, reopened) = watch::channel(0);
        let (refits, refitted) = mpsc::unbounded_channel();
        let lane = Lane {
            index: 0,
            name: "x".to_owned(),
            terms: Terms {
                include: Action::ALL.to_vec(),
                target: Some("host.example:443".to_owned()),
                batch_max_events: 100,
                batch_max_delay: Duration::ZERO,
                privacy: Privacy::new(Rules::default(), b""),
                encoder: encoder(),
            },
            output: Output::Scripted(output),
            position: LanePosition::default(),
            saving: None,
            sent: 0,
            held: Held::new(Duration::ZERO, 100, 0),
            journal,
            holding: holding.subscribe(),
            taken_of: ShardSet::default(),
            attempts: Attempts::default(),
            rests_until: None,
            dead_letters: DeadLetters::in_dir(dir.path()),
            health,
            metrics: Metrics::new(),
            failed,
            stopped,
            reopened,
            urged: Arc::default(),
            refits: refitted,
        };
        spawn_local(lane.run());
        Self { offered, health: watched, holding, _alive: (stop, reopen, refits, dir) }
    }

    async fn all_taken(&mut self, count: u64) -> Vec<Vec<u64>> {
        self.health.wait_for(|health| health.sequence == count).await.unwrap();
        self.offered.lock().unwrap().clone()
    }
}

async fn commit(journal: &JournalHandle, n: u64) {
    let event = Arc::unwrap_or_clone(journalled(n).event);
    journal.commit(Entry::new(messages::Batch::from(event))).await.unwrap();
}

fn hold(shards: usize) -> Holding {
    Holding { held: Shard::all().take(shards).collect(), ..Holding::default() }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_much_for_its_output_is_taken_in_parts_and_in_order() {
    let test = async {
        let strained = |batch: &Batch| {
            let reason = "the answer is 500".to_owned();
            (batch.len() > 3).then_some(Outcome::Strained { pause: Pause::Backoff, reason })
        };
        let mut run = Run::new(8, strained).await;
        let offered = run.all_taken(8).await;
        let sizes: Vec<_> = offered.iter().map(Vec::len).collect();
        assert_eq!(sizes[..5], [8, 8, 8, 8, 4], "{offered:?}");
        let taken: Vec<_> = offered.iter().filter(|batch| batch.len() <= 3).flatten().copied().collect();
        assert_eq!(taken, (1..=8).collect::<Vec<_>>());
        let health = run.health.borrow().clone();
        assert_eq!(health.last_error.as_deref(), Some("host.example:443: the answer is 500"));
        assert_eq!((health.state, health.dead_letters), (LaneState::Ok, 0));
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_output_is_a_failure_of_it_and_what_was_offered_comes_again() {
    let test = async {
        let mut panics = 3;
        let panicking = move |_: &Batch| {
            panics -= 1;
            assert!(panics < 0, "a canary in the mine");
            None
        };
        let mut run = Run::new(2, panicking).await;
        let waiting = run.health.wait_for(|health| health.next_try.is_some()).await.unwrap().clone();
        assert_eq!(waiting.state, LaneState::Retrying);
        assert!(waiting.last_error.unwrap().contains("a defect of ours: a canary in the mine"));
        assert_eq!(run.all_taken(2).await, vec![vec![1, 2]; 4]);
        let health = run.health.borrow().clone();
        assert_eq!((health.state, health.next_try, health.retries), (LaneState::Ok, None, 3));
    };
    LocalSet::new().run_until(test).await;
}

/// Others tell what moved to them. What stays is offered when the output wanted it, and not earlier.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_try_is_taken_anew_where_some_of_it_may_have_gone_to_others() {
    for (held_then, offered) in
        [(9, vec![vec![1, 2], vec![1, 2, 3]]), (11, vec![vec![1, 2], vec![1, 2], vec![3]])]
    {
        let test = async {
            let hour = Duration::from_secs(3600);
            let mut refused = false;
            let answer = move |journal: &JournalHandle, _: &Batch| {
                let first = !std::mem::replace(&mut refused, true);
                if first {
                    block_on(commit(journal, 3));
                }
                let (pause, reason) = (Pause::For(hour), "not now".to_owned());
                first.then_some(Outcome::TryAgain { taken: 0, pause, reason })
            };
            let began = Instant::now();
            let mut run = Run::held_by(watch::channel(hold(10)).0, 2, answer).await;
            run.health.wait_for(|health| health.next_try.is_some()).await.unwrap();
            run.holding.send_replace(hold(held_then));
            assert_eq!(run.all_taken(3).await, offered);
            assert!(began.elapsed() >= hour);
            assert_eq!(run.health.borrow().retries, 1);
        };
        LocalSet::new().run_until(test).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_part_of_a_batch_is_offered_once_some_of_it_may_have_gone_to_others() {
    let test = async {
        let holding = watch::channel(hold(10)).0;
        let (mut refused, taken_over) = (false, holding.clone());
        let answer = move |_: &JournalHandle, _: &Batch| {
            let first = !std::mem::replace(&mut refused, true);
            taken_over.send_replace(hold(9));
            first.then(|| Outcome::Rejected { reason: "too much".to_owned() })
        };
        let mut run = Run::held_by(holding, 2, answer).await;
        assert_eq!(run.all_taken(2).await, [[1, 2], [1, 2]], "and not its halves");
    };
    LocalSet::new().run_until(test).await;
}
