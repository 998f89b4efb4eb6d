//! Reports for people: a table of accounts, equal failures together, the plan. Pure.

use std::fmt::Write;

use super::report::{AccountReport, MailboxesReport, TlsReport};
use super::summary::{ConnectionPlan, Group, Summary};
use crate::terminal::Paint;

/// Accounts that are shown one by one; of more, hosts are shown.
const MOST_ROWS: usize = 40;

/// Groups that are shown, of each kind.
const MOST_GROUPS: usize = 20;

/// Names of mailboxes that a row has room for.
const MOST_MAILBOXES: usize = 3;

/// All that was found, as text; in colour where that is wanted.
pub fn text(reports: &[AccountReport], summary: &Summary, color: bool) -> String {
    let paint = Paint::new(color);
    let mut text =
        if reports.len() <= MOST_ROWS { accounts(reports, paint) } else { hosts(reports, summary) };
    groups(&mut text, "failed", &summary.failures, paint);
    groups(&mut text, "warning", &summary.warnings, paint);
    plan(&mut text, &summary.plan);
    let state = if summary.failed == 0 { paint.good("ok") } else { paint.bad("failed") };
    let _ = match summary.failed {
        0 => writeln!(text, "{state}: {}", count(summary.accounts, "account")),
        failed => writeln!(text, "{state}: {failed} of {}", count(summary.accounts, "account")),
    };
    text
}

/// `3 accounts`, `1 account`, `12,345 accounts`.
fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let separated = digits.char_indices().flat_map(|(i, digit)| {
        let comma = (i > 0 && (digits.len() - i).is_multiple_of(3)).then_some(',');
        comma.into_iter().chain(std::iter::once(digit))
    });
    separated.collect()
}

fn accounts(reports: &[AccountReport], paint: Paint) -> String {
    let head = ["account", "server", "TLS", "watched", "mailboxes"].map(str::to_owned);
    let rows: Vec<[String; 5]> = reports.iter().map(row).collect();
    let widths: [usize; 5] = std::array::from_fn(|column| {
        let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    });
    let line = |mark: &str, row: &[String; 5]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{mark} {}", cells.join("  ")).trim_end().to_owned() + "\n"
    };
    let mut text = line(" ", &head);
    for (report, row) in reports.iter().zip(&rows) {
        let mark = match (report.ok, report.warnings.is_empty()) {
            (true, true) => paint.good("✓"),
            (true, false) => paint.warn("!"),
            (false, _) => paint.bad("✗"),
        };
        text.push_str(&line(&mark, row));
    }
    text
}

fn row(report: &AccountReport) -> [String; 5] {
    let watched = match report.watched_by {
        Some(by) => by.to_uppercase(),
        None if report.logged_in => "?".to_owned(),
        None => "-".to_owned(),
    };
    [
        report.account.clone(),
        format!("{}:{}", report.host, report.port),
        report.tls.as_ref().map_or_else(|| if report.logged_in { "none" } else { "-" }.to_owned(), tls),
        watched,
        report.mailboxes.as_ref().map_or_else(|| failure(report), mailboxes),
    ]
}

/// What stands where mailboxes would be.
fn failure(report: &AccountReport) -> String {
    let error = report.error.as_ref();
    error.map_or_else(String::new, |error| {
        let code = error.code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
        format!("{}{code}", error.error_type)
    })
}

fn tls(tls: &TlsReport) -> String {
    format!(
        "{} {} d",
        tls.version.unwrap_or("yes"),
        thousands(usize::try_from(tls.days_left).unwrap_or_default())
    )
}

fn mailboxes(mailboxes: &MailboxesReport) -> String {
    let opened = mailboxes
        .opened
        .iter()
        .map(|mailbox| format!("{} ({})", mailbox.name, thousands(mailbox.messages as usize)));
    let failed = mailboxes.failed.iter().map(|mailbox| format!("{} (missing)", mailbox.name));
    let shown: Vec<_> = opened.chain(failed).take(MOST_MAILBOXES).collect();
    let more = mailboxes.chosen.saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = if shown.is_empty() { String::new() } else { format!(": {}{more}", shown.join(", ")) };
    let good = mailboxes.chosen.saturating_sub(mailboxes.failed.len());
    format!("{} of {}{names}", thousands(good), thousands(mailboxes.available))
}

/// The servers, where there are too many accounts for one row each.
fn hosts(reports: &[AccountReport], summary: &Summary) -> String {
    let mut text = String::new();
    for host in summary.plan.hosts.iter().take(MOST_ROWS) {
        let of_host = || reports.iter().filter(|report| report.host.eq_ignore_ascii_case(&host.host));
        let ok = of_host().filter(|report| report.ok).count();
        let by = |by: &str| of_host().filter(|report| report.watched_by == Some(by)).count();
        let mut watched = vec![format!("{} ok", thousands(ok))];
        if host.accounts > ok {
            watched.push(format!("{} failed", thousands(host.accounts - ok)));
        }
        watched.extend((by("poll") > 0).then(|| format!("{} polled", thousands(by("poll")))));
        let _ = writeln!(
            text,
            "  {:<32}  {}: {}",
            host.host,
            count(host.accounts, "account"),
            watched.join(", ")
        );
    }
    let more = summary.plan.hosts.len().saturating_sub(MOST_ROWS);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more hosts");
    }
    text
}

fn groups(text: &mut String, word: &str, groups: &[Group], paint: Paint) {
    let painted = if word == "failed" { paint.bad(word) } else { paint.warn(word) };
    for group in groups.iter().take(MOST_GROUPS) {
        let code = group.code.as_ref().map(|code| format!(" [{code}]")).unwrap_or_default();
        let kind = if group.kind == "warning" { String::new() } else { format!("{}{code}: ", group.kind) };
        let _ = writeln!(text, "\n{painted}: {} at {}: {kind}{}", names(group), group.server, group.message);
        if let Some(hint) = &group.hint {
            let _ = writeln!(text, "  hint: {hint}");
        }
    }
    match groups.len().saturating_sub(MOST_GROUPS) {
        0 => {}
        more => {
            let _ = writeln!(text, "\nand {more} kinds more; --json has all");
        }
    }
}

fn names(group: &Group) -> String {
    match group.accounts.saturating_sub(group.examples.len()) {
        0 => group.examples.join(", "),
        _ => {
            let some: Vec<_> = group.examples.iter().take(3).map(String::as_str).collect();
            format!("{} ({}, …)", count(group.accounts, "account"), some.join(", "))
        }
    }
}

fn plan(text: &mut String, plan: &ConnectionPlan) {
    let _ = write!(
        text,
        "\nplan: {} to {}",
        count(plan.connections, "connection"),
        count(plan.hosts.len(), "host")
    );
    let _ = match plan.cold_start_seconds {
        0..=1 => writeln!(text, ", set up within a second or two"),
        seconds => {
            let slowest = plan.hosts.first().map(|host| format!(" ({} takes longest)", host.host));
            writeln!(text, ", set up in {} at the soonest{}", duration(seconds), slowest.unwrap_or_default())
        }
    };
    if let (lacking @ 1.., Some(most)) = (plan.lacking(), plan.max_total) {
        let _ = writeln!(
            text,
            "warning: connections.max_total = {most} leaves {} waiting",
            count(lacking, "connection")
        );
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{ErrorReport, MailboxReport, TlsReport};
    use super::super::summary::tests::{report, settings};
    use super::*;

    fn shown(reports: &[AccountReport]) -> String {
        text(reports, &Summary::new(reports, &settings("")), false)
    }

    #[test]
    fn thousands_of_accounts_are_shown_by_host_and_by_trouble() {
        let mut reports: Vec<_> =
            (0..9_990).map(|n| report(&format!("a{n}"), "imap.example.com", None)).collect();
        reports
            .extend((0..10).map(|n| report(&format!("z{n}"), "imap.gmail.com", Some("Invalid credentials"))));
        assert_eq!(
            shown(&reports),
            "  imap.example.com                  9,990 accounts: 9,990 ok\n  \
             imap.gmail.com                    10 accounts: 0 ok, 10 failed\n\n\
             failed: 10 accounts (z0, z1, z2, …) at imap.gmail.com:993: auth: Invalid credentials\n  \
             hint: do something\n\n\
             plan: 20,000 connections to 2 hosts, set up in 34 min at the soonest (imap.example.com takes longest)\n\
             failed: 10 of 10,000 accounts\n"
        );
    }

    fn tls(days_left: i64) -> TlsReport {
        let name = String::new();
        let not_after = jiff::Timestamp::UNIX_EPOCH;
        TlsReport {
            version: Some("1.3"),
            chain: 2,
            subject: name.clone(),
            issuer: name,
            not_after,
            days_left,
        }
    }

    fn chosen(available: usize, names: &[(&str, u32)]) -> MailboxesReport {
        let opened = names.iter().map(|&(name, messages)| MailboxReport { name: name.to_owned(), messages });
        MailboxesReport { available, chosen: names.len(), opened: opened.collect(), failed: Vec::new() }
    }

    #[test]
    fn the_screen_in_the_documents_is_what_is_shown() {
        let document = include_str!("../../docs/check.md");
        let screen = document.split("```\n").nth(1).unwrap();
        let hint = screen.lines().find_map(|line| line.strip_prefix("  hint: ")).unwrap();
        assert!(include_str!("hints.rs").contains(hint), "{hint}");
        let refused = ErrorReport {
            error_type: "auth",
            code: Some("AUTHENTICATIONFAILED".to_owned()),
            message: "Invalid credentials (Failure)".to_owned(),
        };
        let reports = [
            AccountReport {
                tls: Some(tls(62)),
                mailboxes: Some(chosen(14, &[("INBOX", 3_120), ("Projects", 17)])),
                ..report("alice", "imap.example.com", None)
            },
            AccountReport {
                port: 143,
                mailboxes: Some(chosen(1, &[("INBOX", 0)])),
                watched_by: Some("poll"),
                connections: 1,
                warnings: vec!["the server has no IDLE: it is asked every 60s".to_owned()],
                ..report("lab", "127.0.0.1", None)
            },
            AccountReport {
                tls: Some(tls(58)),
                watched_by: None,
                connections: 1,
                error: Some(refused),
                hint: Some(hint.to_owned()),
                ..report("carol", "imap.gmail.com", Some(""))
            },
        ];
        assert_eq!(shown(&reports), screen);
    }

    #[test]
    fn nothing_chosen_is_told_as_that() {
        assert_eq!(mailboxes(&chosen(5, &[])), "0 of 5");
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            ["0", "999", "1,000", "12,345,678"],
            [0, 999, 1_000, 12_345_678].map(thousands).each_ref().map(String::as_str)
        );
        assert_eq!((count(1, "host"), count(2, "host")), ("1 host".to_owned(), "2 hosts".to_owned()));
    }
}
