//! An output that says to a batch what a test wants it to.

use std::fmt;

use super::Outcome;
use crate::sink::batch::Batch;

/// Its answers.
pub struct ScriptedOutput(Box<dyn FnMut(&Batch) -> Outcome + Send>);

impl ScriptedOutput {
    /// Asked for each batch.
    pub fn new(answer: impl FnMut(&Batch) -> Outcome + Send + 'static) -> Self {
        Self(Box::new(answer))
    }

    pub(super) fn deliver(&mut self, batch: &Batch) -> Outcome {
        (self.0)(batch)
    }
}

impl fmt::Debug for ScriptedOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScriptedOutput")
    }
}
