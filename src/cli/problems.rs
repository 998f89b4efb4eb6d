//! What is wrong with the configuration or with a flag, on stderr: as text, or as JSON lines like the rest of the diagnostics.

use super::{Exit, Globals, tell};
use crate::config::settings::LogFormat;
use crate::config::{self, Issue, Severity, shown, shown_as};
use crate::diagnostics;
use crate::text::counted;

impl Globals {
    /// All problems, which keep the command from what it was to do.
    pub(super) fn tell_issues(&self, issues: &[Issue]) {
        if self.tells_json() {
            return tell_json(issues);
        }
        shown(issues).iter().for_each(|line| tell(line));
        let errors = issues.iter().filter(|issue| issue.severity == Severity::Error).count();
        tell(&format!("error: {} in the configuration", counted(errors, "problem")));
    }

    /// What is worth a look, and keeps nobody from anything.
    pub(super) fn tell_warnings(&self, warnings: &[Issue]) {
        if self.tells_json() {
            return tell_json(warnings);
        }
        shown(warnings).iter().for_each(|line| tell(line));
    }

    /// A flag that does not go with the configuration.
    pub(super) fn refuse(&self, problem: &Issue) -> Exit {
        if self.tells_json() {
            tell_json(std::slice::from_ref(problem));
        } else {
            tell(&format!("error: {problem}"));
        }
        Exit::Config
    }

    fn tells_json(&self) -> bool {
        let format = self.asked_format().unwrap_or_else(|| config::log_format(&self.files));
        format == LogFormat::Json
    }
}

fn tell_json(issues: &[Issue]) {
    let lines = shown_as(issues, diagnostics::issue_line, |more| diagnostics::note_line(&more));
    lines.iter().for_each(|line| tell(line));
}
