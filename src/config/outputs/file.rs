//! `type = "file"`

use std::time::Duration;

use bytesize::ByteSize;

use super::super::keys;
use super::super::section::{Issues, Section};
use super::super::settings::{OutputKind, RotationSettings};
use super::super::surroundings::Thing;
use super::super::validate::{DAY, SECOND};
use super::required;

/// A year.
const OLDEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Less is a file for each few events.
const SMALLEST: u64 = 4096;

pub(super) fn file(section: &Section<'_>, issues: &mut Issues) -> Option<OutputKind> {
    let rotation = section.has("rotate").then(|| rotation(section, issues)).flatten();
    required(section, "path", issues)?;
    let path = section.path("path", issues)?;
    section.names("path", Thing::Output(path.clone()), issues);
    Some(OutputKind::File { path, rotation })
}

fn rotation(section: &Section<'_>, issues: &mut Issues) -> Option<RotationSettings> {
    let rotate = section.inner("rotate", issues);
    rotate.known(keys::ROTATE, issues);
    let max_bytes = rotate.has("max_bytes").then(|| size(&rotate, "max_bytes", issues)).flatten();
    let max_age = rotate.has("max_age").then(|| rotate.duration("max_age", DAY, SECOND..=OLDEST, issues));
    if !rotate.has("max_bytes") && !rotate.has("max_age") {
        section.error("rotate", "set `max_bytes`, `max_age` or both: nothing ends a file otherwise", issues);
        return None;
    }
    let keep = usize::try_from(rotate.number("keep", 10, 1..=100_000, issues)).unwrap_or(10);
    let gzip = rotate.choice("compress", false, &[("none", false), ("gzip", true)], issues);
    Some(RotationSettings { max_bytes, max_age, keep, gzip })
}

fn size(section: &Section<'_>, key: &str, issues: &mut Issues) -> Option<u64> {
    let text = section.text(key, issues)?;
    let size = text.parse::<ByteSize>().ok().filter(|size| size.0 >= SMALLEST);
    if size.is_none() {
        let text = crate::text::shortened(text, 60);
        section.error(key, format!("expected a size of at least \"4KiB\", found \"{text}\""), issues);
    }
    size.map(|size| size.0)
}
