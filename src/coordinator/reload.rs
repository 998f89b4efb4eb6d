//! Reading the configuration again: what takes effect at once, and what has to wait for the next start.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::config::settings::{Account, Settings};
use crate::config::{Issue, Loaded};
use crate::messages::ReloadError;

/// A pipe that nobody writes to, or a file system that hangs, may keep a reader for ever.
pub(super) const READING: Duration = Duration::from_secs(60);

/// Each such reader is a thread: there are not more of them.
const MOST_HANGING: usize = 4;

/// Reads the configuration as the start did: the same files, environment and flags.
#[derive(Clone)]
pub struct Loader {
    load: Arc<Load>,
    narrow: Arc<Narrow>,
    files: Vec<PathBuf>,
    readers: Arc<Semaphore>,
}

type Load = dyn Fn() -> Result<Loaded, Vec<Issue>> + Send + Sync;

/// Accounts as the flags have them.
type Narrow = dyn Fn(Vec<Arc<Account>>) -> Vec<Arc<Account>> + Send + Sync;

impl Loader {
    /// By this, from these files and from what they lead to.
    pub fn new(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<Loaded, Vec<Issue>> + Send + Sync + 'static,
    ) -> Self {
        let (load, narrow) = (Arc::new(load), Arc::new(|accounts| accounts));
        Self { load, narrow, files, readers: Arc::new(Semaphore::new(MOST_HANGING)) }
    }

    /// Accounts that come later are narrowed like this.
    #[must_use]
    pub fn narrowing(
        self,
        narrow: impl Fn(Vec<Arc<Account>>) -> Vec<Arc<Account>> + Send + Sync + 'static,
    ) -> Self {
        Self { narrow: Arc::new(narrow), ..self }
    }

    /// Of accounts that come later, those that are meant.
    pub(super) fn narrow(&self, accounts: Vec<Arc<Account>>) -> Vec<Arc<Account>> {
        (self.narrow)(accounts)
    }

    /// The files that are named; those at the usual places where none is.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Reads the files on a thread of their own; one that hangs is left behind.
    ///
    /// # Errors
    /// Every problem at once; that it takes longer than `limit`.
    pub(super) async fn load_within(&self, limit: Duration) -> Result<Loaded, ReloadError> {
        let Ok(reader) = self.readers.clone().try_acquire_owned() else {
            return Err(ReloadError::problem(format!(
                "{MOST_HANGING} earlier readings of the configuration still hang: {HANGS}"
            )));
        };
        let load = self.load.clone();
        let reading = spawn_blocking(move || {
            let loaded = load();
            drop(reader);
            loaded
        });
        match timeout(limit, reading).await {
            Ok(Ok(loaded)) => loaded.map_err(|issues| ReloadError::invalid(&issues)),
            Ok(Err(panic)) => Err(ReloadError::problem(panic.to_string())),
            Err(_) => Err(ReloadError::problem(format!(
                "the configuration could not be read within {} seconds: {HANGS}",
                limit.as_secs()
            ))),
        }
    }
}

/// What to look for.
const HANGS: &str = "one of its files does not answer; is it a pipe, or on a file system that hangs?";

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loader")
    }
}

/// The sections that differ and are read at a start only. Pure.
pub fn waits_for_start(running: &Settings, desired: &Settings) -> Vec<&'static str> {
    // Accounts make no events of actions that no output took at the start.
    let mut told = running.events.told_by(&desired.outputs);
    let outputs = told.any(|action| running.events.told_by(&running.outputs).all(|known| known != action));
    // Routes name outputs, and conditions may be about headers that are not fetched.
    let filters = outputs || !is_part(&desired.filters.headers(), &running.filters.headers());
    [
        ("monitor", running.monitor != desired.monitor),
        ("connections", running.connections != desired.connections),
        ("journal", running.journal != desired.journal),
        ("events", running.events != desired.events),
        ("outputs", outputs),
        ("filters", filters && running.filters != desired.filters),
        ("http", running.http != desired.http),
        ("log", running.log != desired.log),
    ]
    .into_iter()
    .filter_map(|(section, differs)| differs.then_some(section))
    .collect()
}

fn is_part(few: &[String], many: &[String]) -> bool {
    few.iter().all(|name| many.contains(name))
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;
    use crate::config;

    /// Readers that hang are told of, are not more and more, and are in nobody's way once they end.
    #[tokio::test]
    async fn files_that_do_not_answer_are_given_up() {
        const LONG: Duration = Duration::from_secs(60);
        const SHORT: Duration = Duration::from_millis(1);
        let (answer, answers) = mpsc::channel::<()>();
        let answers = Mutex::new(answers);
        let loader = Loader::new(Vec::new(), move || {
            let _ = answers.lock().map(|answers| answers.recv());
            Err(Vec::new())
        });
        for _ in 0..MOST_HANGING {
            let refused = timeout(LONG, loader.load_within(SHORT)).await.unwrap().unwrap_err();
            assert!(format!("{refused:?}").contains("could not be read within 0 seconds"), "{refused:?}");
        }
        let refused = loader.load_within(LONG).await.unwrap_err();
        assert!(format!("{refused:?}").contains("still hang"), "{refused:?}");
        drop(answer);
        let all = u32::try_from(MOST_HANGING).unwrap();
        drop(timeout(LONG, loader.readers.acquire_many(all)).await.unwrap());
        assert_eq!(loader.load_within(LONG).await.unwrap_err(), ReloadError::invalid(&[]));
    }

    fn settings(text: &str) -> Settings {
        config::from_text("t.toml", text).unwrap_or_else(|issues| panic!("{issues:?}")).0
    }

    #[test]
    fn accounts_filters_and_outputs_take_effect_at_once() {
        let text =
            "[[accounts]]\nid = \"a\"\nhost = \"h.example\"\nuser = \"u\"\npassword = { file = \"pw\" }\n";
        let running = settings(text);
        let waits = |more: &str| waits_for_start(&running, &settings(&format!("{more}\n{text}")));
        assert_eq!(waits(""), [""; 0]);
        let drop = |when: &str| format!("[filters.x]\naction = \"drop\"\nany = [{{ {when} }}]");
        assert_eq!(waits(&drop("from = \"*@news.example\"")), [""; 0]);
        assert_eq!(waits(&drop("header_exists = \"X-Spam\"")), ["filters"], "it is not fetched");
        let route = "[outputs.a]\ntype = \"stdout\"\n[filters.x]\naction = \"route\"\noutputs = [\"a\"]\nany = [{ from = \"x\" }]";
        assert_eq!(waits(route), [""; 0]);
        let few = settings(&format!("[outputs.a]\ntype = \"stdout\"\ninclude = [\"message.new\"]\n{text}"));
        let more = settings(&format!("{route}\n{text}"));
        assert_eq!(waits_for_start(&few, &more), ["outputs", "filters"], "accounts make no other events");
        assert_eq!(waits_for_start(&more, &few), [""; 0]);
        assert_eq!(waits("[events]\nattachments = false"), ["events"]);
        assert_eq!(waits("[log]\nlevel = \"debug\"\n[journal]\nmax_bytes = \"2MiB\""), ["journal", "log"]);
        assert_eq!(
            waits("[connections]\nmax_total = 5\n[monitor]\ninstance = \"x\""),
            ["monitor", "connections"]
        );
    }
}
