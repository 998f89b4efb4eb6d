//! The query of a request: what is asked for, or in words what is wrong with it.

use actix_web::HttpRequest;
use form_urlencoded::parse;

use crate::text::line;

/// Names and values, decoded.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Of a request.
    pub(super) fn of(request: &HttpRequest) -> Self {
        Self::parse(request.query_string())
    }

    fn parse(text: &str) -> Self {
        Self(parse(text.as_bytes()).into_owned().collect())
    }

    /// A value as it is; an empty one is none.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    /// A value as something else.
    ///
    /// # Errors
    /// Where it is none: what was expected.
    pub(super) fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || format!("{name}: expected {expected}, found \"{}\"", line(text, 60));
        read(text).map(Some).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_by_its_name() {
        let query = Query::parse("limit=-1&q=a%20b&state=&x=%1b[2J");
        assert_eq!((query.text("q"), query.text("state"), query.text("after")), (Some("a b"), None, None));
        let number = |name: &str| query.read(name, "a number", |text| text.parse::<usize>().ok());
        assert_eq!(number("limit"), Err("limit: expected a number, found \"-1\"".to_owned()));
        assert_eq!((number("state"), number("after")), (Ok(None), Ok(None)));
        assert!(!number("x").unwrap_err().contains('\u{1b}'));
    }
}
