//! What was shown to an authorization server, and is in none of its words that are told: they go into logs and events.

use secrecy::{ExposeSecret, SecretString};

use crate::imap::sasl::SHORTEST_SECRET;
use crate::text;

/// The secrets of one request.
#[derive(Debug, Default)]
pub(super) struct Shown(Vec<SecretString>);

impl Shown {
    /// These, where there are any.
    pub(super) fn of<'a>(secrets: impl IntoIterator<Item = Option<&'a SecretString>>) -> Self {
        let long = |secret: &&SecretString| secret.expose_secret().len() >= SHORTEST_SECRET;
        Self(secrets.into_iter().flatten().filter(long).cloned().collect())
    }

    /// A line of what the server says. Secrets go before it is cut, which could leave half of one.
    pub(super) fn line(&self, words: &str, most: usize) -> String {
        let secrets = self.0.iter().map(ExposeSecret::expose_secret);
        let words = secrets.fold(words.to_owned(), |words, secret| words.replace(secret, "[secret]"));
        text::line(&words, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_half_of_a_secret_is_left_where_words_are_cut() {
        let shown = Shown::of([Some(&"r-canary-1".into()), None, Some(&"abc".into())]);
        let words = format!("{}r-canary-1 is revoked, abc", "x".repeat(10));
        assert_eq!(shown.line(&words, 300), "xxxxxxxxxx[secret] is revoked, abc");
        assert!(!shown.line(&words, 15).contains("r-c"));
    }
}
