//! What the accounts will ask of the machine, said before any of them connects. Pure.

use std::collections::HashMap;

use crate::config::settings::{Account, Settings, TlsMode};

/// What the process itself takes, and an idle connection: measured, see docs/performance.md.
const BASE: u64 = 12 << 20;
const TLS_CONNECTION: u64 = 18 << 10;
const PLAIN_CONNECTION: u64 = 10 << 10;

/// Connections that there will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// All of them, and no more than the configuration allows.
    pub connections: u64,
    /// Whether there may be fewer: where mailboxes share a connection, the server decides how many there are.
    pub at_most: bool,
    /// Those without TLS.
    plain: u64,
    /// The host with the most of them.
    busiest: Option<(String, u64)>,
}

impl Demand {
    /// Of the accounts that are enabled.
    pub fn of(settings: &Settings) -> Self {
        let most = settings.connections.max_total.map_or(u64::MAX, u64::from);
        Self::of_accounts(settings.accounts.iter().map(AsRef::as_ref), most)
    }

    fn of_accounts<'a>(accounts: impl Iterator<Item = &'a Account>, most: u64) -> Self {
        let (mut all, mut plain, mut hosts) = (0, 0, HashMap::<&str, u64>::new());
        let mut at_most = false;
        for account in accounts.filter(|account| account.enabled) {
            let connections = account.connections() as u64;
            at_most |= account.shares_a_connection();
            all += connections;
            plain += if account.tls == TlsMode::None { connections } else { 0 };
            *hosts.entry(&account.identity.host).or_default() += connections;
        }
        let busiest = hosts.into_iter().max_by_key(|&(host, connections)| (connections, host));
        Self {
            connections: all.min(most),
            at_most,
            plain: plain.min(most),
            busiest: busiest.map(|(host, connections)| (host.to_owned(), connections.min(most))),
        }
    }

    /// About so many bytes, while nothing happens.
    pub fn memory(&self) -> u64 {
        let secured = self.connections.saturating_sub(self.plain);
        BASE + secured.saturating_mul(TLS_CONNECTION) + self.plain.saturating_mul(PLAIN_CONNECTION)
    }

    /// The host that is to have more connections than there are ports here towards one address.
    pub fn short_of_ports(&self, ports: u64) -> Option<(&str, u64)> {
        let (host, connections) = self.busiest.as_ref()?;
        (*connections > ports).then_some((host.as_str(), *connections))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn demand(accounts: usize, more: &str) -> Demand {
        let mut text = format!("[outputs.out]\ntype = \"stdout\"\n{more}\n");
        for n in 0..accounts {
            let (host, tls) =
                if n % 4 == 0 { ("127.0.0.1", "none") } else { ("imap.example.com", "implicit") };
            text += &format!(
                "[[accounts]]\nid = \"a{n}\"\nuser = \"u\"\nhost = \"{host}\"\ntls = \"{tls}\"\npassword = {{ inline = \"p\" }}\nmailboxes = [\"INBOX\", \"Sent\"]\n"
            );
        }
        Demand::of(&config::from_text("test", &text).unwrap().0)
    }

    #[test]
    fn connections_are_counted_by_mailbox_and_host() {
        let eight = demand(8, "");
        assert_eq!((eight.connections, eight.at_most, eight.plain), (16, false, 4));
        assert!(
            demand(1, "[defaults]\nmax_connections = 1").at_most,
            "one is shared, or NOTIFY needs no other"
        );
        assert_eq!(eight.busiest, Some(("imap.example.com".to_owned(), 12)));
        assert_eq!(eight.memory(), BASE + 12 * TLS_CONNECTION + 4 * PLAIN_CONNECTION);
        assert_eq!(eight.short_of_ports(12), None);
        assert_eq!(eight.short_of_ports(11), Some(("imap.example.com", 12)));
        assert_eq!(Demand::of_accounts(std::iter::empty(), u64::MAX).short_of_ports(0), None);
    }

    #[test]
    fn no_more_than_the_configuration_allows() {
        let few = demand(8, "[connections]\nmax_total = 5");
        assert_eq!((few.connections, few.short_of_ports(5)), (5, None));
    }
}
