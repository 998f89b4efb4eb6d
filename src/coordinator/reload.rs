//! Reading the configuration again: what takes effect at once, and what has to wait for the next start.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::settings::Settings;
use crate::config::{Issue, Loaded};

/// Reads the configuration as the start did: the same files, environment and flags.
#[derive(Clone)]
pub struct Loader {
    load: Arc<Load>,
    files: Vec<PathBuf>,
}

type Load = dyn Fn() -> Result<Loaded, Vec<Issue>> + Send + Sync;

impl Loader {
    /// By this, from these files and from what they lead to.
    pub fn new(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<Loaded, Vec<Issue>> + Send + Sync + 'static,
    ) -> Self {
        Self { load: Arc::new(load), files }
    }

    /// The files that are named; those at the usual places where none is.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Reads files: it blocks.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn load(&self) -> Result<Loaded, Vec<Issue>> {
        (self.load)()
    }
}

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
    use super::*;
    use crate::config;

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
