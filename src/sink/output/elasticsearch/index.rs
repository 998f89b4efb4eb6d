//! The index or data stream of an event, made of a template. Pure.

use crate::event::Event;

/// A name with placeholders. What can stand for them is bounded: no sender and no server makes an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexTemplate(String);

const DATASET: &str = "{dataset}";
const DATE: &str = "{date}";

impl IndexTemplate {
    /// `logs-{dataset}-default` and the like.
    ///
    /// # Errors
    /// Where it cannot name an index.
    pub fn parse(text: &str) -> Result<Self, String> {
        let sample = text.replace(DATASET, "idlewatch.message").replace(DATE, "2026.01.01");
        if sample.contains(['{', '}']) {
            return Err(format!("unknown placeholder (known: {DATASET}, {DATE})"));
        }
        let is_sound = |c: char| {
            !c.is_control() && !c.is_whitespace() && !c.is_uppercase() && !"\\/*?\"<>|,#:".contains(c)
        };
        if sample.is_empty() || sample.len() > 255 || !sample.chars().all(is_sound) {
            return Err("expected lower case without spaces and \\ / * ? \" < > | , # :".to_owned());
        }
        if sample.starts_with(['-', '_', '+', '.']) {
            return Err("no index begins with - _ + or .".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// The name for an event: the same whenever it is asked.
    pub fn fill(&self, event: &Event) -> String {
        let action = event.body.action().as_str();
        let dataset = format!("idlewatch.{}", action.split('.').next().unwrap_or(action));
        self.0.replace(DATASET, &dataset).replace(DATE, &event.at.strftime("%Y.%m.%d").to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::super::batch::tests::journalled;
    use super::*;

    #[test]
    fn a_template_is_filled_with_what_is_bounded() {
        for (text, name) in [
            ("logs-{dataset}-default", "logs-idlewatch.monitor-default"),
            ("mail-{date}", "mail-1970.01.01"),
            ("mail", "mail"),
        ] {
            assert_eq!(IndexTemplate::parse(text).unwrap().fill(&journalled(1).event), name);
        }
    }

    #[test]
    fn what_names_no_index_is_refused() {
        for text in [
            "",
            "Mail",
            "a b",
            "a/b",
            "a*",
            "{account}",
            "{dataset",
            "-a",
            "_a",
            ".a",
            "a,b",
            &"x".repeat(256),
        ] {
            assert!(IndexTemplate::parse(text).is_err(), "{text}");
        }
    }
}
