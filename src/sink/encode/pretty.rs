//! One line for people on a terminal.

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;

use super::words;
use crate::event::{Event, EventBody};
use crate::text;

pub(super) fn line(event: &Event, color: bool, out: &mut Vec<u8>) {
    let paint = |style: Style, text: &str| {
        if color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    };
    let dim = Style::new().dimmed();
    let time = event.at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string();
    let style = match (words::level(event), &event.body) {
        ("error", _) => AnsiColor::Red.on_default().bold(),
        ("warn", _) => AnsiColor::Yellow.on_default(),
        (_, EventBody::MessageNew(_)) => Style::new().bold(),
        _ => dim,
    };
    let words = match (&event.body, &event.account) {
        (EventBody::MessageNew(new), Some(account)) => {
            let place = text::line(&format!("{}/{}", account.id, new.mailbox), 60);
            let from = new.summary.from.first();
            let from = from.map_or("(unknown sender)", |from| from.name.as_deref().unwrap_or(&from.address));
            let subject = new.summary.subject.as_deref().unwrap_or("(no subject)");
            format!(
                "{}  {}  {}",
                paint(AnsiColor::Cyan.on_default(), &format!("{place:<16}")),
                text::line(from, 60),
                paint(style, &text::line(subject, 200))
            )
        }
        _ => paint(style, &words::message(event)),
    };
    out.extend_from_slice(format!("{}  {words}", paint(dim, &time)).as_bytes());
}
