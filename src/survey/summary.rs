//! What is told of all accounts: how many are ok, equal failures together, what `run` will need. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::report::{AccountReport, ErrorReport};
use crate::config::settings::ConnectionSettings;
use crate::exit::Exit;
use crate::once::outcome::{Failure, verdict};

/// Accounts that a group names.
const MOST_NAMED: usize = 5;

/// All accounts together.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// How many were looked at.
    pub accounts: usize,
    /// How many are as they should be.
    pub ok: usize,
    /// How many are not.
    pub failed: usize,
    /// How many have warnings.
    pub warned: usize,
    /// Equal failures, the most frequent first.
    pub failures: Vec<Group>,
    /// Equal warnings, the most frequent first.
    pub warnings: Vec<Group>,
    /// What `run` will need.
    pub plan: ConnectionPlan,
}

/// Accounts in the same trouble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// How many.
    pub accounts: usize,
    /// Some of them.
    pub examples: Vec<String>,
    /// `host:port`, where the trouble is the server's.
    pub server: String,
    /// `error.type`, or `warning`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `error.code`
    pub code: Option<String>,
    /// What.
    pub message: String,
    /// What helps.
    pub hint: Option<String>,
}

/// What `run` will need with these accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionPlan {
    /// Connections that the accounts ask for.
    pub connections: usize,
    /// `connections.max_total`
    pub max_total: Option<u32>,
    /// Hosts, and what they get; the slowest to set up first.
    pub hosts: Vec<HostPlan>,
    /// The least seconds until all are set up.
    pub cold_start_seconds: u64,
}

/// What one host gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostPlan {
    /// The host.
    pub host: String,
    /// Accounts there.
    pub accounts: usize,
    /// Connections to it.
    pub connections: usize,
    /// The least seconds until all of them are set up.
    pub seconds: u64,
}

impl Summary {
    /// Of all reports.
    pub fn new(reports: &[AccountReport], settings: &ConnectionSettings) -> Self {
        let ok = reports.iter().filter(|report| report.ok).count();
        Self {
            accounts: reports.len(),
            ok,
            failed: reports.len() - ok,
            warned: reports.iter().filter(|report| !report.warnings.is_empty()).count(),
            failures: failures(reports),
            warnings: warnings(reports),
            plan: ConnectionPlan::new(reports, settings),
        }
    }

    /// Whether there is anything that somebody should look at.
    pub fn has_warnings(&self) -> bool {
        self.warned > 0 || self.plan.lacking() > 0
    }
}

/// How a command ends that looked at these.
pub fn exit(reports: &[AccountReport]) -> Exit {
    let failures: Vec<Failure> = reports.iter().filter_map(|report| report.failure).collect();
    verdict(reports.len(), &failures)
}

/// What accounts in one trouble have in common: server, type, code, message, hint.
type Trouble = (String, &'static str, Option<String>, String, Option<String>);

fn failures(reports: &[AccountReport]) -> Vec<Group> {
    grouped(reports.iter().flat_map(|report| {
        let server = format!("{}:{}", report.host, report.port);
        let own = report.error.clone().map(|ErrorReport { error_type, code, message }| {
            (report, (server.clone(), error_type, code, message, report.hint.clone()))
        });
        let failed = report.mailboxes.iter().flat_map(|mailboxes| &mailboxes.failed).map(move |failed| {
            let message = format!("{}: {}", failed.name, failed.message);
            (report, (server.clone(), "mailbox", failed.code.clone(), message, Some(failed.hint.to_owned())))
        });
        own.into_iter().chain(failed)
    }))
}

fn warnings(reports: &[AccountReport]) -> Vec<Group> {
    grouped(reports.iter().flat_map(|report| {
        let server = format!("{}:{}", report.host, report.port);
        report
            .warnings
            .iter()
            .map(move |warning| (report, (server.clone(), "warning", None, warning.clone(), None)))
    }))
}

fn grouped<'a>(troubles: impl Iterator<Item = (&'a AccountReport, Trouble)>) -> Vec<Group> {
    let mut groups: BTreeMap<Trouble, (usize, Vec<String>)> = BTreeMap::new();
    for (report, trouble) in troubles {
        let (count, examples) = groups.entry(trouble).or_default();
        *count += 1;
        if examples.len() < MOST_NAMED {
            examples.push(report.account.clone());
        }
    }
    let mut groups: Vec<_> = groups
        .into_iter()
        .map(|((server, kind, code, message, hint), (accounts, examples))| Group {
            accounts,
            examples,
            server,
            kind,
            code,
            message,
            hint,
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.accounts));
    groups
}

impl ConnectionPlan {
    fn new(reports: &[AccountReport], settings: &ConnectionSettings) -> Self {
        let mut of_hosts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for report in reports {
            let (accounts, connections) = of_hosts.entry(report.host.to_lowercase()).or_default();
            *accounts += 1;
            *connections += report.connections;
        }
        let mut hosts: Vec<_> = of_hosts
            .into_iter()
            .map(|(host, (accounts, connections))| {
                let seconds = seconds(connections, settings.per_host_period);
                HostPlan { host, accounts, connections, seconds }
            })
            .collect();
        hosts.sort_by_key(|host| std::cmp::Reverse(host.seconds));
        let connections = hosts.iter().map(|host| host.connections).sum();
        let slowest = hosts.first().map_or(0, |host| host.seconds);
        Self {
            connections,
            max_total: settings.max_total,
            cold_start_seconds: slowest.max(seconds(connections, settings.period)),
            hosts,
        }
    }

    /// Connections that `connections.max_total` does not leave room for.
    pub fn lacking(&self) -> usize {
        let most = self.max_total.and_then(|most| usize::try_from(most).ok());
        most.map_or(0, |most| self.connections.saturating_sub(most))
    }
}

/// For so many connections, one after the other with this pause.
fn seconds(connections: usize, period: Duration) -> u64 {
    let pauses = u32::try_from(connections.saturating_sub(1)).unwrap_or(u32::MAX);
    period.saturating_mul(pauses).as_secs_f64().ceil() as u64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config;

    pub(crate) fn report(account: &str, host: &str, error: Option<&'static str>) -> AccountReport {
        AccountReport {
            account: account.to_owned(),
            host: host.to_owned(),
            port: 993,
            user: account.to_owned(),
            ok: error.is_none(),
            address: None,
            tls: None,
            logged_in: error.is_none(),
            capabilities: Vec::new(),
            mailboxes: None,
            watched_by: Some("idle"),
            connections: 2,
            error: error.map(|message| ErrorReport {
                error_type: "auth",
                code: None,
                message: message.to_owned(),
            }),
            hint: error.map(|_| "do something".to_owned()),
            warnings: Vec::new(),
            failure: error.map(|_| Failure::Refused),
        }
    }

    pub(crate) fn settings(connections: &str) -> ConnectionSettings {
        let text = format!(
            "[connections]\n{connections}\n[[accounts]]\nid = \"a\"\nhost = \"h\"\nuser = \"u\"\npassword = {{ env = \"PW\" }}\n"
        );
        config::from_text("t", &text).unwrap().0.connections
    }

    #[test]
    fn equal_failures_of_one_server_are_one_group() {
        let mut reports: Vec<_> = (0..7).map(|n| report(&format!("a{n}"), "one", Some("no"))).collect();
        reports.extend([
            report("b", "two", Some("no")),
            report("c", "one", Some("other")),
            report("d", "one", None),
        ]);
        let summary = Summary::new(&reports, &settings(""));
        let groups: Vec<_> =
            summary.failures.iter().map(|group| (group.accounts, group.server.as_str())).collect();
        assert_eq!(groups, [(7, "one:993"), (1, "one:993"), (1, "two:993")]);
        assert_eq!(summary.failures[0].examples, ["a0", "a1", "a2", "a3", "a4"]);
        assert_eq!((summary.ok, summary.failed), (1, 9));
        assert_eq!(exit(&reports), Exit::SomeFailed);
    }

    #[test]
    fn the_slowest_host_or_all_together_decide_how_long_a_cold_start_takes() {
        let mut reports: Vec<_> = (0..100).map(|n| report(&format!("a{n}"), "one", None)).collect();
        reports.extend((0..10).map(|n| report(&format!("b{n}"), "TWO", None)));
        let plan = |text: &str| Summary::new(&reports, &settings(text)).plan;
        let slow_host = plan("[connections.per_host]\nrate = \"10/s\"");
        assert_eq!((slow_host.connections, slow_host.cold_start_seconds, slow_host.lacking()), (220, 20, 0));
        assert_eq!((slow_host.hosts[0].host.as_str(), slow_host.hosts[1].host.as_str()), ("one", "two"));
        let slow_all = plan("rate = \"2/s\"\nmax_total = 200\n[connections.per_host]\nrate = \"10/s\"");
        assert_eq!((slow_all.cold_start_seconds, slow_all.lacking()), (110, 20));
    }
}
