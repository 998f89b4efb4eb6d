//! A network of its own for a monitor, with one link to its database and another one to its mail, both of them here.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A network namespace; gone with the value, and its links.
pub struct Namespace {
    name: String,
    /// Ours of its link `mail`: a server that listens there is reached by it.
    pub mail: Ipv4Addr,
    /// Ours of its link `database`.
    pub database: Ipv4Addr,
    links: [String; 2],
}

/// What goes over the link to the database vanishes, and nobody is told; until the value is gone.
pub struct Cut<'a>(&'a Namespace);

impl Namespace {
    /// Needs root, and iproute2.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Four addresses of a network that nobody has (RFC 2544), others for each process and each of its tests.
        let first = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (pid % 4096 * 8 + count % 8) * 4;
        let namespace = Self {
            name: format!("idlewatch_{pid}_{count}"),
            mail: first.into(),
            database: (first + 2).into(),
            links: ["m", "d"].map(|link| format!("iw{pid}{link}{count}")),
        };
        namespace.make();
        namespace
    }

    fn make(&self) {
        let Self { name, mail, database, links } = self;
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        for (ours, link, theirs) in [(mail, &links[0], "mail"), (database, &links[1], "database")] {
            let there = Ipv4Addr::from(u32::from(*ours) + 1);
            ip(&format!("link add {link} type veth peer name {theirs} netns {name}"));
            ip(&format!("addr add {ours}/31 dev {link}"));
            ip(&format!("link set {link} up"));
            ip(&format!("-n {name} addr add {there}/31 dev {theirs}"));
            ip(&format!("-n {name} link set {theirs} up"));
        }
    }

    /// The same, in this network.
    pub fn within(&self, command: &Command) -> Command {
        let mut within = Command::new("ip");
        within.args(["netns", "exec", &self.name]).arg(command.get_program()).args(command.get_args());
        within
    }

    /// Cuts the link to the database. It is no link that is down: of that the kernel would tell whoever sends.
    pub fn cut(&self) -> Cut<'_> {
        let table = "table inet cut {
            chain in { type filter hook input priority 0; iifname database drop; }
            chain out { type filter hook postrouting priority 0; oifname database drop; }
        }";
        assert!(self.nft(table), "nft of the package nftables");
        Cut(self)
    }

    fn nft(&self, command: &str) -> bool {
        let mut nft = Command::new("nft");
        self.within(nft.arg(command)).status().unwrap().success()
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        self.0.nft("delete table inet cut");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The namespace itself lives on while a process is in it.
        for link in &self.links {
            let _ = Command::new("ip").args(["link", "delete", link]).status();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip of the package iproute2");
    assert!(status.success(), "ip {arguments}");
}
