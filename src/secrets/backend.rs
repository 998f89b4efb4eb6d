//! Many secrets by one process: `[secrets.x]`, in the protocol of Vector's `exec` backend.
//!
//! On its stdin the program is told `{"version":"1.0","secrets":["a","b"]}`; it answers on stdout
//! `{"a":{"value":"..."},"b":{"value":null,"error":"..."}}`.

use std::collections::HashMap;
use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::{SecretError, Shape, usable};
use crate::text;

/// Who asks at about the same time is answered by the same process.
const COLLECT: Duration = Duration::from_millis(100);

/// For one process.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer is not longer than this for each secret, and not longer than this in all.
const MOST_BYTES_EACH: u64 = 64 << 10;
const MOST_BYTES: u64 = 64 << 20;

/// Secrets in one question.
const MOST_AT_ONCE: usize = 20_000;

/// One program that knows secrets. Questions at the same time are put together.
#[derive(Debug)]
pub struct Backend {
    name: String,
    argv: Vec<String>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    asked: Vec<Question>,
    /// Somebody runs the program, or will.
    is_attended: bool,
}

#[derive(Debug)]
struct Question {
    name: String,
    answer: oneshot::Sender<Result<SecretString, String>>,
}

/// The same program, whoever waits for it.
impl PartialEq for Backend {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.argv) == (&other.name, &other.argv)
    }
}

/// What is told of one secret.
#[derive(Deserialize)]
struct Told {
    #[serde(default, deserialize_with = "secret")]
    value: Option<SecretString>,
    #[serde(default)]
    error: Option<String>,
}

fn secret<'de, D: Deserializer<'de>>(value: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(value)?.map(SecretString::from))
}

impl Told {
    fn answer(self) -> Result<SecretString, String> {
        match (self.value, self.error) {
            (Some(value), None) => Ok(value),
            (_, Some(error)) => Err(text::line(&error, 200)),
            (None, None) => Err("neither a value nor an error".to_owned()),
        }
    }
}

impl Backend {
    /// `[secrets.NAME] exec = [...]`
    pub fn new(name: &str, argv: Vec<String>) -> Self {
        Self { name: name.to_owned(), argv, waiting: Mutex::default() }
    }

    /// NAME
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program and its arguments.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// One secret.
    ///
    /// # Errors
    /// Where the program does not tell a usable one.
    pub(super) async fn get(self: &Arc<Self>, name: &str, shape: Shape) -> Result<SecretString, SecretError> {
        let failed = |reason: String| {
            let (backend, name) = (self.name.clone(), text::line(name, 128));
            SecretError::Backend { backend, name, reason }
        };
        let (answer, answered) = oneshot::channel();
        if self.ask(Question { name: name.to_owned(), answer }) {
            tokio::spawn(attend(self.clone()));
        }
        let told = answered.await.map_err(|_| failed("it was not asked".to_owned()))?.map_err(failed)?;
        usable(told.expose_secret().as_bytes(), &format!("secrets.{}", self.name), shape)
    }

    /// Whether nobody attends to the questions yet.
    fn ask(&self, question: Question) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.asked.push(question);
        !std::mem::replace(&mut waiting.is_attended, true)
    }

    fn next(&self) -> Vec<Question> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.asked.len().min(MOST_AT_ONCE);
        waiting.is_attended = count > 0;
        waiting.asked.drain(..count).collect()
    }

    /// Runs the program once.
    async fn tell(&self, names: &[&str]) -> Result<HashMap<String, Told>, String> {
        let question = json!({"version": "1.0", "secrets": names}).to_string();
        let most = MOST_BYTES.min(MOST_BYTES_EACH.saturating_mul(names.len() as u64));
        match timeout(PATIENCE, run(&self.argv, question.as_bytes(), most)).await {
            Ok(Ok(answer)) if answer.len() as u64 >= most => Err("its answer is too long".to_owned()),
            // serde_json's own words could show secrets.
            Ok(Ok(answer)) => serde_json::from_slice(&answer)
                .map_err(|_| "its answer is not {\"NAME\": {\"value\": ...}, ...}".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer in {PATIENCE:?}")),
        }
    }
}

/// Answers questions until there are none.
async fn attend(backend: Arc<Backend>) {
    loop {
        sleep(COLLECT).await;
        let questions = backend.next();
        if questions.is_empty() {
            return;
        }
        let mut names: Vec<&str> = questions.iter().map(|question| question.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let told = backend.tell(&names).await;
        let mut answers: HashMap<String, Result<SecretString, String>> = match told {
            Ok(told) => told.into_iter().map(|(name, told)| (name, told.answer())).collect(),
            Err(reason) => names.iter().map(|name| ((*name).to_owned(), Err(reason.clone()))).collect(),
        };
        for Question { name, answer } in questions {
            let unsaid = || Err("it is not in the answer".to_owned());
            let told = answers.get_mut(&name).map_or_else(unsaid, |told| told.clone());
            let _ = answer.send(told);
        }
    }
}

/// The program's stdout; its question is written beside, since it may answer before it has read all.
async fn run(argv: &[String], question: &[u8], most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let program = argv.first().map(String::as_str).unwrap_or_default();
    let mut child = Command::new(program)
        .args(argv.get(1..).unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let ask = async {
        if let Some(mut stdin) = stdin {
            // A program that does not want to hear it all may answer all the same.
            let _ = stdin.write_all(question).await;
        }
    };
    let hear = async {
        let mut answer = Zeroizing::new(Vec::with_capacity(4096));
        if let Some(stdout) = stdout {
            stdout.take(most).read_to_end(&mut answer).await?;
        }
        Ok::<_, io::Error>(answer)
    };
    let ((), answer) = tokio::join!(ask, hear);
    let answer = answer?;
    if (answer.len() as u64) < most {
        let status = child.wait().await?;
        if !status.success() {
            return Err(io::Error::other(status.to_string()));
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    /// A program that answers with `script` in sh; `$1` is a file that it may write to.
    fn backend(script: &str, dir: &std::path::Path) -> Arc<Backend> {
        let argv = ["sh", "-c", script, "sh", &dir.join("runs").display().to_string()];
        Arc::new(Backend::new("x", argv.map(str::to_owned).to_vec()))
    }

    async fn told(backend: &Arc<Backend>, name: &str) -> Result<String, String> {
        let told = backend.get(name, Shape::Line).await;
        told.map(|secret| secret.expose_secret().to_owned()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn ten_thousand_secrets_are_one_process() {
        let dir = tempfile::tempdir().unwrap();
        // Every name is its own secret.
        let script = r#"echo run >> "$1"; cat | sed -e 's/.*"secrets":\[//' -e 's/\].*//' -e 's/"\([^"]*\)"/"\1":{"value":"pw-\1"}/g' -e 's/^/{/' -e 's/$/}/'"#;
        let backend = backend(script, dir.path());
        let names: Vec<String> = (0..10_000).map(|n| format!("user{n}")).collect();
        let all = join_all(names.iter().map(|name| told(&backend, name))).await;
        assert!(names.iter().zip(&all).all(|(name, told)| *told == Ok(format!("pw-{name}"))), "{:?}", all[0]);
        assert_eq!(std::fs::read_to_string(dir.path().join("runs")).unwrap(), "run\n");
        assert_eq!(told(&backend, "later").await, Ok("pw-later".to_owned()), "it is asked again");
    }

    #[tokio::test]
    async fn what_is_wrong_with_one_secret_is_no_trouble_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let script =
            r#"cat >/dev/null; echo '{"a":{"value":"canary"},"b":{"value":null,"error":"sealed"},"c":{}}'"#;
        let backend = backend(script, dir.path());
        let (a, b, c, d) =
            tokio::join!(told(&backend, "a"), told(&backend, "b"), told(&backend, "c"), told(&backend, "d"));
        assert_eq!(a, Ok("canary".to_owned()));
        assert_eq!(b.unwrap_err(), "secrets.x does not tell \"b\": sealed");
        assert!(c.unwrap_err().contains("neither a value") && d.unwrap_err().contains("not in the answer"));
    }

    #[tokio::test]
    async fn a_program_that_fails_or_babbles_is_told_and_its_words_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for (script, why) in [
            ("cat >/dev/null; echo canary; exit 3", "exit status: 3"),
            ("cat >/dev/null; echo canary", "its answer is not"),
            ("yes canary", "its answer is too long"),
        ] {
            let error = told(&backend(script, dir.path()), "a").await.unwrap_err();
            assert!(error.contains(why) && !error.contains("canary"), "{error}");
        }
        let missing = Arc::new(Backend::new("x", vec!["/no/such/program".to_owned()]));
        assert!(told(&missing, "a").await.unwrap_err().contains("No such file"));
    }
}
