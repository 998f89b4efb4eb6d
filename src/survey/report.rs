//! What is told of one account; its fields are those of `check --json`. Everything in it is harmless to show. Pure.

use jiff::Timestamp;
use serde::Serialize;

use super::Finding;
use super::hints;
use crate::account::lifecycle::{SessionEnd, trouble};
use crate::config::settings::{Account, TlsMode};
use crate::event::Trouble;
use crate::imap::budget;
use crate::imap::capability::Capabilities;
use crate::imap::changes::WantedChanges;
use crate::imap::ending::Ending;
use crate::imap::survey::{Surveyed, SurveyedMailbox};
use crate::once::outcome::Failure;
use crate::refusals::{NextLogin, Refusals};
use crate::text::line;
use crate::wire::peer::TlsPeer;

/// A certificate that ends within so many days is worth a warning.
const SOON: i64 = 14;

/// One account.
#[derive(Clone, Debug, Serialize)]
pub struct AccountReport {
    /// Its id.
    pub account: String,
    /// As configured.
    pub host: String,
    /// As configured.
    pub port: u16,
    /// As configured.
    pub user: String,
    /// Everything is as it should be; there may be warnings.
    pub ok: bool,
    /// Where it was reached.
    pub address: Option<String>,
    /// How the connection was secured; `null` where it was not, or did not get so far.
    pub tls: Option<TlsReport>,
    /// The login was accepted.
    pub logged_in: bool,
    /// What the server can do, of what makes a difference.
    pub capabilities: Vec<&'static str>,
    /// The mailboxes; `null` where it did not get so far.
    pub mailboxes: Option<MailboxesReport>,
    /// How it is watched: `notify`, `idle`, `idle+rounds` or `poll`.
    pub watched_by: Option<&'static str>,
    /// How many connections `run` keeps for it.
    pub connections: usize,
    /// Why it is not ok.
    pub error: Option<ErrorReport>,
    /// What helps.
    pub hint: Option<String>,
    /// What else somebody should look at.
    pub warnings: Vec<String>,
    /// The kind of failure, for the exit code.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// The certificate and the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsReport {
    /// `1.2` or `1.3`; `null` where the library does not tell (`native`).
    pub version: Option<&'static str>,
    /// How many certificates the server sent.
    pub chain: usize,
    /// Whose certificate it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// When it ends.
    pub not_after: Timestamp,
    /// Until then.
    pub days_left: i64,
}

/// The mailboxes of an account.
#[derive(Clone, Debug, Serialize)]
pub struct MailboxesReport {
    /// How many there are.
    pub available: usize,
    /// How many of them are to be watched.
    pub chosen: usize,
    /// Those that were opened, in their order.
    pub opened: Vec<MailboxReport>,
    /// Those that could not be opened.
    pub failed: Vec<MailboxFailure>,
}

/// A mailbox that was opened.
#[derive(Clone, Debug, Serialize)]
pub struct MailboxReport {
    /// Its name.
    pub name: String,
    /// How many messages it holds.
    pub messages: u32,
}

/// A mailbox that could not be opened.
#[derive(Clone, Debug, Serialize)]
pub struct MailboxFailure {
    /// Its name.
    pub name: String,
    /// The server's code.
    pub code: Option<String>,
    /// The server's words.
    pub message: String,
    /// What helps.
    pub hint: &'static str,
}

/// As `error.*` of events.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ErrorReport {
    /// `error.type`
    #[serde(rename = "type")]
    pub error_type: &'static str,
    /// `error.code`
    pub code: Option<String>,
    /// `error.message`
    pub message: String,
}

impl AccountReport {
    /// What a finding means, where these changes of messages are to be told.
    pub fn new(finding: &Finding, changes: WantedChanges, now: Timestamp) -> Self {
        let account = &finding.account;
        let trouble = trouble_of(&finding.end);
        let mailboxes = finding.surveyed.as_ref().map(MailboxesReport::new);
        let tls =
            finding.peer.as_ref().and_then(|peer| peer.tls.as_ref()).and_then(|tls| TlsReport::new(tls, now));
        let failed = mailboxes.as_ref().is_some_and(|mailboxes| !mailboxes.failed.is_empty());
        let failure = match &trouble {
            Some(_) => Some(Failure::of(&finding.end)),
            None => failed.then_some(Failure::Denied),
        };
        let capabilities = finding.surveyed.as_ref().map(|surveyed| surveyed.capabilities);
        let watching = finding.surveyed.as_ref().map(|surveyed| {
            let chosen = surveyed.mailboxes.len() + surveyed.unopened;
            Watching::new(account, chosen, surveyed.capabilities, changes)
        });
        Self {
            account: account.id().to_string(),
            host: line(&account.identity.host, 255),
            port: account.identity.port,
            user: line(&account.identity.user, 255),
            ok: failure.is_none(),
            address: finding.peer.as_ref().and_then(|peer| peer.address).map(|address| address.to_string()),
            logged_in: finding.logged_in,
            capabilities: capabilities.into_iter().flat_map(Capabilities::names).collect(),
            watched_by: watching.map(|watching| watching.by),
            connections: watching.map_or(account.connections(), |watching| watching.connections),
            hint: trouble.as_ref().and_then(|_| hints::hint(account, &finding.end, now)),
            warnings: warnings(finding, changes, tls.as_ref(), now),
            error: trouble.map(ErrorReport::new),
            mailboxes,
            tls,
            failure,
        }
    }
}

/// Anything but the LOGOUT after everything was answered.
fn trouble_of(end: &SessionEnd) -> Option<Trouble> {
    match end {
        SessionEnd::Conversation(Ending::LoggedOut) => None,
        end => trouble(end),
    }
}

/// What `run` will do there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watching {
    by: &'static str,
    connections: usize,
}

impl Watching {
    /// Of so many mailboxes. Where they share a connection, one that hears of all (RFC 5465) is enough; else those
    /// beyond the budget are asked in rounds.
    fn new(account: &Account, mailboxes: usize, capabilities: Capabilities, changes: WantedChanges) -> Self {
        // NOTIFY would leave changes of flags out.
        let notify = capabilities.has("NOTIFY") && !changes.any();
        let idle = capabilities.has("IDLE");
        let connections = match account.shares_a_connection() {
            true => budget::connections(mailboxes, notify, account.connections()),
            false => account.connections(),
        };
        let by = match (notify, idle) {
            (true, true) => "notify",
            (false, true) if mailboxes > connections => "idle+rounds",
            (false, true) => "idle",
            (_, false) => "poll",
        };
        Self { by, connections }
    }
}

/// Patterns may be meant for mailboxes that are still to come.
const NONE_FITS: &str = "there is no mailbox that `mailboxes` names, so nothing is watched until one appears; `idlewatch mailboxes` lists those that there are";

fn warnings(
    finding: &Finding,
    changes: WantedChanges,
    tls: Option<&TlsReport>,
    now: Timestamp,
) -> Vec<String> {
    let surveyed = finding.surveyed.as_ref();
    let polled = surveyed
        .filter(|surveyed| !surveyed.capabilities.has("IDLE"))
        .map(|_| format!("the server has no IDLE: it is asked every {:?}", finding.account.poll_interval));
    let unlisted = surveyed.filter(|surveyed| surveyed.listing.truncated);
    let unfitting = surveyed.filter(|surveyed| surveyed.mailboxes.is_empty() && surveyed.unopened == 0);
    let warnings = [
        tls.filter(|tls| tls.days_left < SOON)
            .map(|tls| format!("the certificate expires in {} days", tls.days_left)),
        clear_text(&finding.account),
        polled,
        unlisted.map(|_| "there are more mailboxes than are looked at".to_owned()),
        unfitting.map(|_| NONE_FITS.to_owned()),
        finding
            .refusals
            .as_ref()
            .filter(|refusals| !refusals.is_empty())
            .map(|refusals| refused(refusals, finding.logged_in, now)),
    ];
    let untold = surveyed.into_iter().flat_map(|surveyed| {
        changes.untold(surveyed.capabilities.has("CONDSTORE"), surveyed.capabilities.has("QRESYNC"))
    });
    warnings.into_iter().flatten().chain(untold.map(str::to_owned)).collect()
}

fn clear_text(account: &Account) -> Option<String> {
    let away = !crate::config::settings::is_loopback(&account.identity.host);
    (account.tls == TlsMode::None && away).then(|| "the password is sent in clear: tls = \"none\"".to_owned())
}

/// What the monitor's journal has of refused logins. A check does not count there, but the server counts it.
fn refused(refusals: &Refusals, logged_in: bool, now: Timestamp) -> String {
    let known = format!("the monitor had {} logins refused in a row", refusals.count());
    if logged_in {
        return format!("{known}; this one was accepted: `idlewatch resume` makes it try at once");
    }
    let next = match refusals.next(now) {
        NextLogin::Never => "it waits for `idlewatch resume`".to_owned(),
        NextLogin::After(wait) => format!("it tries again in {} min", wait.as_secs().div_ceil(60)),
    };
    format!("{known}, and {next}; servers lock accounts after too many, and each check is one more")
}

impl TlsReport {
    fn new(peer: &TlsPeer, now: Timestamp) -> Option<Self> {
        let certificate = peer.certificate()?;
        Some(Self {
            version: peer.version,
            chain: peer.chain.len(),
            days_left: certificate.days_left(now),
            not_after: certificate.not_after,
            subject: certificate.subject,
            issuer: certificate.issuer,
        })
    }
}

impl MailboxesReport {
    fn new(surveyed: &Surveyed) -> Self {
        let mut report = Self {
            available: surveyed.listing.mailboxes.len(),
            chosen: surveyed.mailboxes.len() + surveyed.unopened,
            opened: Vec::new(),
            failed: Vec::new(),
        };
        for SurveyedMailbox { mailbox, opened } in &surveyed.mailboxes {
            let name = line(mailbox.as_str(), 255);
            match opened {
                Ok(messages) => report.opened.push(MailboxReport { name, messages: *messages }),
                Err(refusal) => report.failed.push(MailboxFailure {
                    name,
                    code: refusal.code.as_deref().map(|code| line(code, 64)),
                    message: line(&refusal.text, 255),
                    hint: hints::mailbox_hint(refusal),
                }),
            }
        }
        report
    }
}

impl ErrorReport {
    fn new(trouble: Trouble) -> Self {
        Self { error_type: trouble.error_type.as_str(), code: trouble.code, message: trouble.message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn how_mailboxes_are_watched_depends_on_the_server_and_on_the_budget() {
        for (mailboxes, chosen, capabilities, by, connections) in [
            ("[\"INBOX\"]", 1, "IDLE", "idle", 1),
            ("[\"INBOX\"]", 1, "", "poll", 1),
            ("[\"INBOX\", \"a\", \"b\"]", 3, "IDLE", "idle", 3),
            ("[\"INBOX\", \"a\", \"b\"]", 3, "IDLE NOTIFY", "notify", 3),
            ("[\"**\"]", 40, "IDLE", "idle+rounds", 3),
            ("[\"**\"]", 2, "IDLE", "idle", 2),
            ("[\"**\"]", 40, "IDLE NOTIFY", "notify", 1),
            ("[\"**\"]", 0, "IDLE", "idle", 1),
            ("[\"**\"]", 40, "IDLE NOTIFY CONDSTORE", "idle+rounds", 3),
        ] {
            let flags = capabilities.contains("CONDSTORE");
            let changes = WantedChanges { flags, expunges: false };
            let text = format!(
                "[[accounts]]\nid = \"a\"\nhost = \"h\"\nuser = \"u\"\npassword = {{ env = \"PW\" }}\nmax_connections = 3\nmailboxes = {mailboxes}\n"
            );
            let account = config::from_text("t", &text).unwrap().0.accounts[0].clone();
            let watching =
                Watching::new(&account, chosen, Capabilities::new(capabilities.split_whitespace()), changes);
            assert_eq!(watching, Watching { by, connections }, "{mailboxes} {chosen} {capabilities}");
        }
    }
}
