//! When a file ends, what it is called then, and what becomes of it later. Pure.
//!
//! A file that ended has the time of its end behind its name, so that nothing has to be renamed again, and what a crash
//! left half done is seen by the names alone.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::settings::RotationSettings;

/// Compressed.
pub(super) const GZ: &str = ".gz";

/// Not compressed to the end.
pub(super) const PART: &str = ".gz.part";

/// Whether a file of this length and age ends here.
pub(super) fn is_due(settings: &RotationSettings, bytes: u64, age: Option<Duration>) -> bool {
    let is_long = settings.max_bytes.is_some_and(|most| bytes >= most);
    let is_old = settings.max_age.zip(age).is_some_and(|(most, age)| age >= most);
    bytes > 0 && (is_long || is_old)
}

/// What `file` is called once it ended, beside `names`: always the newest of them, whatever the clock says, and no name
/// that is taken in any form.
pub(super) fn ended_name(file: &str, at: Timestamp, names: &[String]) -> String {
    let stamp = at.strftime("%Y%m%dT%H%M%S.%3fZ").to_string();
    match names.iter().filter_map(|name| ended(file, name)).max() {
        Some(newest) if newest.stamp >= stamp.as_str() => {
            format!("{file}.{}-{}", newest.stamp, newest.nth.saturating_add(1))
        }
        _ => format!("{file}.{stamp}"),
    }
}

/// When a file ended, in the order of time; `nth` tells those of one stamp apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ended<'n> {
    stamp: &'n str,
    nth: u32,
    /// Its name, without what compression adds.
    plain: &'n str,
}

/// What `name` says, if it is one of [`ended_name`].
fn ended<'n>(file: &str, name: &'n str) -> Option<Ended<'n>> {
    let plain = name.strip_suffix(PART).or_else(|| name.strip_suffix(GZ)).unwrap_or(name);
    let stamp = plain.strip_prefix(file)?.strip_prefix('.')?;
    let (stamp, nth) = stamp.split_once('-').unwrap_or((stamp, "0"));
    let fits = |(byte, form): (u8, u8)| if form == b'0' { byte.is_ascii_digit() } else { byte == form };
    let form = b"00000000T000000.000Z";
    let is_stamp = stamp.len() == form.len() && stamp.bytes().zip(*form).all(fits);
    Some(Ended { stamp, nth: nth.parse().ok()?, plain }).filter(|_| is_stamp)
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This file is not wanted any longer.
    Remove(String),
    /// This one is to be compressed; it is removed only then.
    Compress(String),
}

/// The forms in which a file that ended is there.
#[derive(Clone, Copy, Debug, Default)]
struct Forms {
    plain: bool,
    gz: bool,
    part: bool,
}

/// What is to be done with the files of a directory that were `file` once, oldest last. The newest of them stays as it is
/// in any case: whoever reads it may be behind.
pub(super) fn plan(settings: &RotationSettings, file: &str, names: &[String]) -> Vec<Step> {
    let mut all: BTreeMap<Ended<'_>, Forms> = BTreeMap::new();
    for name in names {
        if let Some(ended) = ended(file, name) {
            let forms = all.entry(ended).or_default();
            forms.part |= name.ends_with(PART);
            forms.gz |= name.ends_with(GZ);
            forms.plain |= name == ended.plain;
        }
    }
    let newest_first = all.into_iter().rev().enumerate();
    newest_first.flat_map(|(age, (ended, forms))| steps(settings, age, ended.plain, forms)).collect()
}

fn steps(settings: &RotationSettings, age: usize, plain: &str, forms: Forms) -> Vec<Step> {
    let is_old = age >= settings.keep;
    let mut steps = Vec::new();
    if forms.part {
        steps.push(Step::Remove(format!("{plain}{PART}")));
    }
    if forms.gz && is_old {
        steps.push(Step::Remove(format!("{plain}{GZ}")));
    }
    // What is compressed is so to the end.
    if forms.plain && (is_old || forms.gz) {
        steps.push(Step::Remove(plain.to_owned()));
    } else if forms.plain && settings.gzip && age > 0 {
        steps.push(Step::Compress(plain.to_owned()));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(keep: usize, gzip: bool) -> RotationSettings {
        RotationSettings { max_bytes: Some(1000), max_age: Some(Duration::from_secs(60)), keep, gzip }
    }

    #[test]
    fn a_file_ends_when_it_is_long_or_old_and_not_empty() {
        let seconds = |n| Some(Duration::from_secs(n));
        for (bytes, age, due) in [
            (999, seconds(59), false),
            (1000, seconds(0), true),
            (1, seconds(60), true),
            (0, seconds(99), false),
            (999, None, false),
        ] {
            assert_eq!(is_due(&settings(1, false), bytes, age), due, "{bytes} {age:?}");
        }
    }

    #[test]
    fn names_tell_when_and_are_known_again() {
        let at: Timestamp = "2026-11-25T16:18:30.123Z".parse().unwrap();
        let name = ended_name("events.jsonl", at, &[]);
        assert_eq!(name, "events.jsonl.20261125T161830.123Z");
        let plain = |name: &str| ended("events.jsonl", name).map(|ended| ended.plain.to_owned());
        for sound in [name.clone(), format!("{name}.gz"), format!("{name}.gz.part"), format!("{name}-12")] {
            let bare = sound.trim_end_matches(".part").trim_end_matches(".gz").to_owned();
            assert_eq!(plain(&sound), Some(bare));
        }
        for foreign in [
            "events.jsonl",
            "events.jsonl.1",
            "events.jsonl.orphan-1764087510123",
            "events.jsonl.20261125T161830.123Z.zst",
            "events.jsonl.20261125T161830.123Z-x",
            "events.jsonl.2026-1125T161830.123",
            "other.jsonl.20261125T161830.123Z",
            "xevents.jsonl.20261125T161830.123Z",
        ] {
            assert_eq!(ended("events.jsonl", foreign), None, "{foreign}");
        }
    }

    /// A clock that was ahead must not make what ends now the oldest, which goes first.
    #[test]
    fn what_ends_now_is_the_newest_whatever_the_clock_says() {
        let at: Timestamp = "2026-11-25T16:18:30.123Z".parse().unwrap();
        let mut names = vec!["e.20270101T000000.000Z.gz".to_owned(), "e.20260101T000000.000Z".to_owned()];
        for nth in 1..=12 {
            let name = ended_name("e", at, &names);
            assert_eq!(name, format!("e.20270101T000000.000Z-{nth}"));
            names.push(name.clone());
            let removed = plan(&settings(2, false), "e", &names);
            assert!(!removed.contains(&Step::Remove(name)), "{removed:?}");
        }
        let only_old = ["e.20260101T000000.000Z".to_owned()];
        assert_eq!(ended_name("e", at, &only_old), "e.20261125T161830.123Z");
    }

    #[test]
    fn old_ones_go_others_are_compressed_and_the_newest_stays() {
        let name = |n: u32, end: &str| format!("e.20261125T16183{n}.000Z{end}");
        let names: Vec<_> =
            [name(1, ".gz"), name(2, ""), name(3, ""), name(4, ""), "e".into(), "e.1".into()].into();
        let (remove, compress) = (Step::Remove, Step::Compress);
        assert_eq!(
            plan(&settings(2, true), "e", &names),
            [compress(name(3, "")), remove(name(2, "")), remove(name(1, ".gz"))]
        );
        assert_eq!(plan(&settings(9, true), "e", &names), [compress(name(3, "")), compress(name(2, ""))]);
        assert_eq!(plan(&settings(9, false), "e", &names), []);
    }

    #[test]
    fn what_a_crash_left_half_done_is_done_again() {
        let name = |n: u32, end: &str| format!("e.20261125T16183{n}.000Z{end}");
        let names: Vec<_> =
            [name(1, ""), name(1, ".gz"), name(2, ""), name(2, ".gz.part"), name(3, "")].into();
        assert_eq!(
            plan(&settings(9, true), "e", &names),
            [Step::Remove(name(2, ".gz.part")), Step::Compress(name(2, "")), Step::Remove(name(1, "")),]
        );
    }
}
