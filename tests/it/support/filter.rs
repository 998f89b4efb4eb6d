//! Packet filter rules for one port of the loopback.

use std::process::Command;

/// A packet filter rule; gone with the value.
pub struct Rule {
    table: String,
}

impl Rule {
    /// `rule` for what goes to and comes from `port`.
    pub fn new(port: u16, rule: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let table = format!("idlewatch_{}_{count}", std::process::id());
        let text = format!(
            "table inet {table} {{\nchain in {{\ntype filter hook input priority 0\ntcp sport {port} {rule}\ntcp dport {port} {rule}\n}}\n}}\n"
        );
        let status = Command::new("nft").arg(&text).status().expect("nft of the package nftables");
        assert!(status.success(), "{text}");
        Self { table }
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        let _ = Command::new("nft").args(["delete", "table", "inet", &self.table]).status();
    }
}
