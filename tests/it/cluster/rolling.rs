//! A rolling restart: each monitor is drained, ends, and comes back, under a steady stream of mail.

use std::collections::BTreeMap;

use idlewatch::demo::visits::Visit;

use super::*;

/// From the end of an account's connection to its next one, in seconds.
struct Gap {
    /// Until it was logged in again.
    login: f64,
    /// Until it was told of news again.
    whole: f64,
}

/// Each time that an account changed hands; whoever never came to watch counts as not there.
fn gaps(visits: &[Visit]) -> Vec<Gap> {
    let mut last: BTreeMap<&str, &Visit> = BTreeMap::new();
    let mut gaps = Vec::new();
    for visit in visits {
        let Some(watching) = visit.watching else { continue };
        if let Some(left) = last.insert(&visit.user, visit).and_then(|before| before.left) {
            let since = |end: Instant| end.saturating_duration_since(left).as_secs_f64();
            gaps.push(Gap { login: since(visit.logged_in), whole: since(watching) });
        }
    }
    gaps
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values[((values.len() - 1) as f64 * part) as usize];
    format!("median {:.2}, 99% {:.2}, most {:.2}", at(0.5), at(0.99), at(1.0))
}

impl Cluster {
    /// How many of the connections of each account are open, and watch.
    fn watchers(&self) -> BTreeMap<String, usize> {
        let mut watchers: BTreeMap<String, usize> = BTreeMap::new();
        for visit in self.server.visits() {
            *watchers.entry(visit.user).or_default() +=
                usize::from(visit.watching.is_some() && visit.left.is_none());
        }
        watchers
    }

    /// How many connections to mailboxes have ended so far.
    pub(super) fn ended(&self) -> usize {
        self.server.visits().iter().filter(|visit| visit.left.is_some()).count()
    }

    pub(super) fn wait_watched_once(&self) {
        self.wait("every account watched by one", || {
            let watchers = self.watchers();
            watchers.len() == self.accounts && watchers.values().all(|n| *n == 1)
        });
    }

    /// What has changed hands since so many visits had begun.
    fn show_gaps(&self, what: &str, since: Instant) {
        let visits = self.server.visits();
        let last = |visit: &&Visit| visit.left.is_none_or(|left| left >= since);
        let gaps = gaps(&visits.iter().filter(last).cloned().collect::<Vec<_>>());
        let part = |which: fn(&Gap) -> f64| spread(gaps.iter().map(which).collect());
        println!(
            "{what}: {} accounts moved; unwatched for {} s; of it until the login {} s",
            gaps.len(),
            part(|gap| gap.whole),
            part(|gap| gap.login)
        );
    }

    /// As docs/cluster.md has it: what is drained has nothing any more, and ends without a connection of its own.
    fn restart_in_order(&mut self, name: &'static str, names: &[&str]) {
        let since = Instant::now();
        let drained = self.node(name).command().args(["cluster", "drain"]).output().unwrap();
        assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
        println!("{name} drained in {:.1} s", since.elapsed().as_secs_f64());
        assert!(!self.shards().contains_key(name), "{}", self.how_it_is());
        self.wait_watched_once();
        let before = self.ended();
        self.show_gaps(&format!("{name} drained"), since);
        assert_eq!(self.node(name).stop().code(), Some(0));
        assert_eq!(self.ended(), before, "it had nothing any more");
        let since = Instant::now();
        self.begin_again(name);
        self.wait_shared(names);
        self.wait_watched_once();
        println!("{name} has its part again after {:.1} s", since.elapsed().as_secs_f64());
        self.show_gaps(&format!("{name} back"), since);
    }
}

/// `scripts/prove` has more accounts, and shows for how long each was watched by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_moves_every_account_and_loses_nothing() {
    let names = ["a", "b", "c"];
    let mut cluster = Cluster::of(size("IDLEWATCH_ROLLING_ACCOUNTS", 60)).await;
    let rate = size("IDLEWATCH_ROLLING_RATE", 20);
    // The server slows nobody down.
    cluster.pace = size("IDLEWATCH_ROLLING_LOGINS", 10_000);
    cluster.ttl = "2s";
    cluster.begin("a");
    cluster.ask(AUDIT);
    cluster.join("b");
    cluster.join("c");
    cluster.wait_shared(&names);
    let traffic = Traffic::start(&cluster, rate);
    for name in names {
        cluster.restart_in_order(name, &names);
    }
    let sent = traffic.stop();
    cluster.wait_sent(sent);
    cluster.wait_watched_once();
    // Whoever lets more go waits for that.
    let served = "SELECT count(*) FROM idlewatch.nodes
        WHERE (info ->> 'served')::int = (SELECT count(*) FROM idlewatch.shards WHERE owner = name)";
    cluster.wait("each says that all have had their turn", || cluster.ask(served) == "3");
}
