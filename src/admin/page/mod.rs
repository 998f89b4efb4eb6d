//! The page for people. Pure: from what is known to HTML; maud escapes every text.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use crate::arrivals::{Arrival, MINUTES};
use crate::event::AccountState;
use crate::status::{
    AccountOrder, AccountPage, AccountReport, MailboxReport, MonitorStatus, Mood, OutputReport, TroubleGroup,
    ago,
};
use crate::text::line;

/// Its looks.
pub(super) const STYLE: &str = include_str!("style.css");

/// What keeps it fresh.
pub(super) const LIVE: &str = include_str!("live.js");

/// Bytes of an error that are shown.
const MOST_ERROR: usize = 300;

/// Messages that are shown.
const MOST_ARRIVALS: usize = 15;

/// Which accounts are shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) state: Option<AccountState>,
    pub(super) order: AccountOrder,
    pub(super) text: String,
}

impl Wanted {
    fn link(&self, after: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::for_suffix("?".to_owned(), 1);
        if let Some(state) = self.state {
            query.append_pair("state", state.as_str());
        }
        if !self.text.is_empty() {
            query.append_pair("q", &self.text);
        }
        if self.order != AccountOrder::default() {
            query.append_pair("sort", self.order.as_str());
        }
        if let Some(after) = after {
            query.append_pair("after", after);
        }
        query.finish() + "#accounts"
    }
}

/// All of it.
pub(super) fn page(
    status: &MonitorStatus,
    accounts: &AccountPage,
    wanted: &Wanted,
    now: Timestamp,
) -> Markup {
    let body = html! {
        div #overview { (overview(status, wanted, now)) }
        (account_table(accounts, wanted, now))
        script src="live.js" {}
    };
    document(&line(&status.instance, 128), "", &body)
}

fn document(title: &str, root: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · idlewatch" }
                link rel="stylesheet" href={ (root) "style.css" };
            }
            body { main { (body) } }
        }
    }
}

/// One account.
pub(super) fn account_page(account: &AccountReport, now: Timestamp) -> Markup {
    let identity = &account.identity;
    let next = account.next_try_at.map(|at| format!("in {}", ago(now, at)));
    let facts = [
        ("state", Some(format!("{} for {}", account.state, ago(account.since, now)))),
        ("error", account.error.as_ref().map(|error| line(&error.message, MOST_ERROR))),
        ("next try", next),
        ("last proven alive", account.last_proven_alive.map(|at| format!("{} ago", ago(at, now)))),
        ("user", Some(line(&identity.user, 256))),
        ("server", Some(format!("{}:{}", line(&identity.host, 256), identity.port))),
    ];
    let body = html! {
        p { a href="../" { "all accounts" } }
        h1 { (identity.id.as_str()) }
        table { tbody {
            @for (name, fact) in facts { @if let Some(fact) = fact { tr { th { (name) } td.words { (fact) } } } }
            // No button, as for outputs.
            @if Mood::of(account.state.as_str()) == Mood::Bad {
                tr { th { "try it now" } td.words { code { "idlewatch resume -a " (identity.id.as_str()) } } }
            }
            @for (name, value) in identity.labels.iter() { tr { th { "label " (line(name, 64)) } td.words { (line(value, 256)) } } }
        } }
        h2 { "Mailboxes" }
        div.wide { table.cards {
            thead { tr { th { "name" } th { "state" } th { "last alive" } th { "error" } } }
            tbody { @for mailbox in &account.mailboxes { (mailbox_row(mailbox, now)) } }
        } }
        h2 { "States" }
        ul { @for past in account.history.iter().rev() {
            li { (ago(past.at, now)) " ago: " span class=(mood(past.state.as_str())) { (past.state) } }
        } }
    };
    document(identity.id.as_str(), "../", &body)
}

fn mailbox_row(mailbox: &MailboxReport, now: Timestamp) -> Markup {
    html! {
        tr {
            td.words { (line(mailbox.name.as_str(), 256)) }
            td { (mailbox.state) }
            td data-name="last alive" { @if let Some(alive) = mailbox.last_proven_alive { (ago(alive, now)) } }
            td.words { @if let Some(error) = &mailbox.error { (line(&error.message, MOST_ERROR)) } }
        }
    }
}

/// What changes by itself.
pub(super) fn overview(status: &MonitorStatus, wanted: &Wanted, now: Timestamp) -> Markup {
    html! {
        header {
            h1 { "idlewatch · " (line(&status.instance, 128)) }
            @if status.ready { span.good { "ready" } } @else { strong.bad { "not ready" } }
            span.quiet { (status.version) " · up " (ago(status.started_at, now)) }
            @if !status.config.last_reload_successful {
                span.bad { "the last reload was refused; in force is what was read " (ago(status.config.loaded_at, now)) " ago" }
            }
        }
        @for why in &status.not_ready { p.bad { (line(why, MOST_ERROR)) } }
        (tiles(status, wanted))
        @if !status.troubles.is_empty() { (troubles(&status.troubles)) }
        h2 { "Messages a minute" }
        (plot(&status.messages_per_minute))
        (arrivals(&status.latest_messages, now))
        (outputs(&status.outputs, now))
    }
}

fn tiles(status: &MonitorStatus, wanted: &Wanted) -> Markup {
    let all: usize = status.accounts.values().sum();
    let of = |state| Wanted { state, order: wanted.order, text: String::new() };
    html! {
        ul.tiles {
            li { a href=(of(None).link(None)) aria-current=[wanted.state.is_none().then_some("true")] { b { (all) } "accounts" } }
            @for (name, count) in &status.accounts {
                @let state = AccountState::ALL.into_iter().find(|state| state.as_str() == name);
                li { a href=(of(state).link(None)) aria-current=[(state == wanted.state).then_some("true")] {
                    b class=(mood(name)) { (count) } (name)
                } }
            }
        }
    }
}

fn mood(state: &str) -> &'static str {
    match Mood::of(state) {
        Mood::Good => "good",
        Mood::Quiet => "quiet",
        Mood::Bad => "bad",
    }
}

fn troubles(groups: &[TroubleGroup]) -> Markup {
    html! {
        h2 { "In trouble" }
        div.wide { table.cards {
            thead { tr { th.number { "accounts" } th { "state" } th { "error" } th { "one of them" } } }
            tbody { @for TroubleGroup { accounts, example, mailbox, state, error } in groups {
                tr {
                    td.number data-name="accounts" { (accounts) }
                    @if mailbox.is_some() { td { "mailbox" } } @else { td.bad { (state) } }
                    td.words { (line(&error.message, MOST_ERROR)) }
                    td data-name="one of them" { a href={ "accounts/" (example.as_str()) } { (example.as_str()) } }
                }
            } }
        } }
    }
}

/// Bars, the newest minute at the right.
fn plot(counts: &[u32]) -> Markup {
    let most = counts.iter().copied().max().unwrap_or(0);
    let height = |count: u32| f64::from(count) / f64::from(most.max(1)) * 60.0;
    let all: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    html! {
        svg viewBox={ "0 0 " (MINUTES * 10) " 62" } preserveAspectRatio="none" role="img"
            aria-label={ (all) " messages in the last hour, " (most) " in the busiest minute" } {
            @for (index, count) in counts.iter().enumerate() {
                rect x=(index * 10 + 1) y=(format!("{:.1}", 62.0 - height(*count))) width="8" height=(format!("{:.1}", height(*count))) {
                    title { (count) }
                }
            }
        }
        p.quiet { (all) " in the last hour, " (most) " in the busiest minute" }
    }
}

fn arrivals(latest: &[Arrival], now: Timestamp) -> Markup {
    html! {
        @if !latest.is_empty() {
            h2 { "The last messages" }
            div.wide { table.cards {
                thead { tr { th { "ago" } th { "account" } th { "mailbox" } th.number { "UID" } th.number { "noticed after" } } }
                tbody { @for arrival in latest.iter().take(MOST_ARRIVALS) {
                    tr {
                        td data-name="ago" { (ago(arrival.at, now)) }
                        td { (arrival.account.as_str()) }
                        td.words { (line(arrival.mailbox.as_str(), 128)) }
                        td.number data-name="UID" { (arrival.uid) }
                        td.number data-name="noticed after" { @if let Some(seconds) = arrival.delay_seconds { (noticed_after(seconds)) } }
                    }
                } }
            } }
        }
    }
}

/// A server whose clock is wrong is no reason for a number that nobody can read.
fn noticed_after(seconds: f64) -> String {
    if seconds < 3600.0 { format!("{seconds:.1} s") } else { "> 1 h".to_owned() }
}

fn outputs(outputs: &[OutputReport], now: Timestamp) -> Markup {
    html! {
        h2 { "Outputs" }
        div.wide { table.cards {
            thead { tr { th { "name" } th { "type" } th { "state" } th.number { "delivered" } th.number { "waiting" } th.number { "lag" } th { "last error" } } }
            tbody { @for output in outputs {
                tr {
                    td { (line(&output.name, 64)) }
                    td { (output.kind) @if !output.required { span.quiet { " not required" } } }
                    td class=(if output.is_ok() { "good" } else { "bad" }) { (output.state) " " span.quiet {
                        (ago(output.since, now))
                        @if let Some(at) = output.next_try_at { ", next try in " (ago(now, at)) }
                    }
                        // No button: what a browser sends by itself is no proof that its reader wants a change (`access`).
                        @if output.next_try_at.is_some() { br; code { "idlewatch outputs retry " (line(&output.name, 64)) } }
                    }
                    td.number data-name="delivered" { (output.delivered) }
                    td.number data-name="waiting" { (output.waiting) }
                    td.number data-name="lag" { (format!("{:.1} s", output.lag_seconds)) }
                    td.words { @if let Some(error) = &output.last_error { (line(error, MOST_ERROR)) } }
                }
            } }
        } }
    }
}

fn account_table(page: &AccountPage, wanted: &Wanted, now: Timestamp) -> Markup {
    html! {
        h2 #accounts { "Accounts" }
        form method="get" action="#accounts" role="search" {
            @if let Some(state) = wanted.state { input type="hidden" name="state" value=(state); }
            @if wanted.order != AccountOrder::default() { input type="hidden" name="sort" value=(wanted.order.as_str()); }
            label { "id has " input type="search" name="q" value=(line(&wanted.text, 128)); }
            button { "Search" }
            @if wanted.state.is_some() || !wanted.text.is_empty() { a href="?#accounts" { "all" } }
        }
        div.wide { table.cards {
            thead { tr { (sorted(wanted, AccountOrder::Id)) th { "state" } (sorted(wanted, AccountOrder::Since)) th { "last alive" } th.number { "mailboxes" } th { "error" } } }
            tbody { @for account in &page.accounts { (account_row(account, now)) } }
        } }
        @if page.accounts.is_empty() { p.quiet { "none" } }
        @if let Some(next) = &page.next { p { a href=(wanted.link(Some(next.as_str()))) { "more" } } }
    }
}

/// The head of a column by which accounts may be sorted.
fn sorted(wanted: &Wanted, order: AccountOrder) -> Markup {
    let link = Wanted { order, ..wanted.clone() }.link(None);
    let direction = match order {
        AccountOrder::Id => "ascending",
        AccountOrder::Since => "descending",
    };
    html! { th aria-sort=[(order == wanted.order).then_some(direction)] { a href=(link) { (order.as_str()) } } }
}

fn account_row(account: &AccountReport, now: Timestamp) -> Markup {
    let id = account.identity.id.as_str();
    let watching = account.mailboxes.iter().filter(|mailbox| mailbox.state == "watching").count();
    html! {
        tr {
            td { a href={ "accounts/" (id) } { (id) } }
            td class=(mood(account.state.as_str())) { (account.state) }
            td data-name="since" { (ago(account.since, now)) }
            td data-name="last alive" { @if let Some(alive) = account.last_proven_alive { (ago(alive, now)) } }
            td.number data-name="mailboxes" { (watching) "/" (account.mailboxes.len()) }
            td.words { @if let Some(error) = &account.error { (line(&error.message, MOST_ERROR)) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::event::ErrorType;
    use crate::status::{ConfigStatus, ErrorReport};

    /// The page has no button for it: it says what to type.
    #[test]
    fn an_output_that_waits_for_its_next_try_has_the_command_for_one_now() {
        let now = Timestamp::now();
        let report = |next_try_at| OutputReport {
            name: "<b>search".to_owned(),
            kind: "webhook".to_owned(),
            required: true,
            capacity: None,
            state: "retrying".to_owned(),
            since: now,
            last_error: None,
            next_try_at,
            waiting: 1,
            lag_seconds: 0.0,
            delivered: 0,
            retries: 1,
            dead_letters: 0,
            dropped: 0,
        };
        let html = outputs(&[report(Some(now))], now).into_string();
        assert!(html.contains("<code>idlewatch outputs retry &lt;b&gt;search</code>"), "{html}");
        assert!(!outputs(&[report(None)], now).into_string().contains("outputs retry"));
    }

    /// Whatever a server says is text, and no more.
    #[test]
    fn nothing_that_a_server_says_is_html() {
        let now = Timestamp::now();
        let evil = "<script>alert(1)</script>\"'&\u{202e}\u{1b}[2J";
        let error = ErrorReport { error_type: ErrorType::Protocol, code: None, message: evil.to_owned() };
        let arrival =
            Arrival { at: now, account: "a".into(), mailbox: evil.into(), uid: 1, delay_seconds: None };
        let status = MonitorStatus {
            instance: evil.to_owned(),
            version: "0".to_owned(),
            started_at: now,
            ready: false,
            not_ready: vec![evil.to_owned()],
            accounts: BTreeMap::from([("online".to_owned(), 1)]),
            troubles: vec![TroubleGroup {
                accounts: 1,
                example: "a".into(),
                mailbox: None,
                state: AccountState::Backoff,
                error,
            }],
            messages_per_minute: vec![0; MINUTES],
            latest_messages: vec![arrival],
            outputs: Vec::new(),
            config: ConfigStatus { loaded_at: now, last_reload_successful: true },
        };
        let accounts = AccountPage { accounts: Vec::new(), next: Some("a+b".into()) };
        let wanted =
            Wanted { state: Some(AccountState::Backoff), order: AccountOrder::Since, text: evil.to_owned() };
        let html = page(&status, &accounts, &wanted, now).into_string();
        assert!(
            !html.contains("<script>") && !html.contains('\u{1b}') && !html.contains('\u{202e}'),
            "{html}"
        );
        assert!(html.contains("sort=since&amp;after=a%2Bb") && !html.contains("\"'&"), "{html}");
    }
}
