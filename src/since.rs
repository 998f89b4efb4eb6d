//! From where messages are told: `24h`, a day, a moment (RFC 3339), a UID.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::config;
use crate::imap::conversation::ToldFrom;

/// From where messages are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Since(pub(crate) ToldFrom);

impl Since {
    /// The moment, unless it is a UID.
    pub(crate) fn time(self) -> Option<Timestamp> {
        match self.0 {
            ToldFrom::Time(at) => Some(at),
            ToldFrom::Uid(_) => None,
        }
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(uid) = text.parse::<u32>()
            && uid > 0
        {
            return Ok(Self(ToldFrom::Uid(uid)));
        }
        let moment = text.parse().ok().or_else(|| day(text)).or_else(|| ago(text));
        let moment =
            moment.ok_or("expected a time like 24h or 7d, a moment like 2026-11-24T08:00:00Z, or a UID");
        Ok(Self(ToldFrom::Time(moment?)))
    }
}

/// Midnight of this machine.
fn day(text: &str) -> Option<Timestamp> {
    let day: Date = text.parse().ok().filter(|_| text.len() == "2026-11-24".len())?;
    Some(day.to_zoned(TimeZone::system()).ok()?.timestamp())
}

fn ago(text: &str) -> Option<Timestamp> {
    let age = config::parse_duration(text)?;
    Some(Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_moments_days_and_uids_are_understood() {
        let since = |text: &str| text.parse::<Since>();
        assert_eq!(since("4711"), Ok(Since(ToldFrom::Uid(4711))));
        assert_eq!(
            since("2026-11-24T08:00:00+01:00").unwrap().time(),
            "2026-11-24T07:00:00Z".parse::<Timestamp>().ok()
        );
        assert!(since("2026-11-24").unwrap().time().is_some());
        let age = |text: &str| {
            let from = since(text).unwrap().time().unwrap();
            Timestamp::now().duration_since(from).as_hours()
        };
        assert_eq!((age("24h"), age("2d"), age("90 min")), (24, 48, 1));
        for bad in ["", "0", "-1d", "yesterday", "99999999999"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
