//! The load server, from the side of the driver.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;

use super::Result;
use super::child::Kept;

/// Addresses that the server listens on.
const HOSTS: u8 = 4;

/// How the server is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// How many mailboxes.
    pub users: u32,
    /// Milliseconds.
    pub round_trip: u32,
    /// Whether NOTIFY is offered.
    pub notify: bool,
    /// Messages in each mailbox at the start.
    pub fill: u32,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Kept,
    /// Its certificate authority.
    pub ca: PathBuf,
    /// The port without TLS.
    pub plain_port: u16,
    /// The port with it.
    pub tls_port: u16,
    control: u16,
    orders: Orders,
    _stdin: Option<ChildStdin>,
}

impl Server {
    /// Starts one, and waits until it listens.
    ///
    /// # Errors
    /// Where it does not.
    pub fn start(program: &Path, directory: &Path, load: &Load) -> Result<Self> {
        let ca = directory.join("ca.pem");
        let mut args = vec![format!("--ca={}", ca.display()), format!("--hosts={HOSTS}")];
        args.push(format!("--users={}", load.users));
        args.push(format!("--round-trip={}", load.round_trip));
        args.push(format!("--fill={}", load.fill));
        args.extend(load.notify.then(|| "--notify".to_owned()));
        let mut child = Kept::start(program, &args)?;
        let mut ready = String::new();
        BufReader::new(child.stdout().ok_or("no stdout")?).read_line(&mut ready)?;
        let ports: Vec<u16> = ready.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [plain_port, tls_port, control] = ports.as_slice() else {
            return Err("the server did not start".into());
        };
        let orders = Orders::to(*control)?;
        let stdin = child.stdin();
        let (plain_port, tls_port, control) = (*plain_port, *tls_port, *control);
        Ok(Self { child, ca, plain_port, tls_port, control, orders, _stdin: stdin })
    }

    /// Another way to give orders, for those that take long.
    ///
    /// # Errors
    /// Where the server takes no more.
    pub fn more_orders(&self) -> Result<Orders> {
        Orders::to(self.control)
    }

    /// Its addresses.
    pub fn hosts() -> Vec<String> {
        (0..HOSTS).map(|n| format!("127.0.0.{}", n + 2)).collect()
    }

    /// One command of the control protocol, and its answer.
    ///
    /// # Errors
    /// Where there is none.
    pub fn order(&mut self, command: &str) -> Result<String> {
        self.child.lives()?;
        self.orders.give(command)
    }

    /// A command that changes something; answers with the time at which it was taken.
    ///
    /// # Errors
    /// Where it was not.
    pub fn act(&mut self, command: &str) -> Result<u64> {
        let answer = self.order(command)?;
        Ok(answer.strip_prefix("ok ").ok_or("no time in the answer")?.parse()?)
    }

    /// The server's counters.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn stats(&mut self) -> Result<HashMap<String, u64>> {
        let line = self.order("stats")?;
        let pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
        Ok(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// One of the counters.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn stat(&mut self, name: &str) -> Result<u64> {
        Ok(self.stats()?.get(name).copied().unwrap_or_default())
    }

    /// Whether so many accounts logged in since the start, and so many rest.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn is_at_rest(&mut self, logins: u64, resting: u64) -> Result<bool> {
        Ok(self.stat("logins")? >= logins && self.stat("resting")? == resting)
    }

    /// The same of nearly all of them, which is what there is while mail comes.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn is_nearly_at_rest(&mut self, logins: u64, users: u32) -> Result<bool> {
        Ok(self.stat("logins")? >= logins && self.stat("resting")? * 100 >= u64::from(users) * 99)
    }

    /// When EXISTS of each `(user, uid)` was written, since this was asked last.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn told(&mut self) -> Result<HashMap<(u32, u32), u64>> {
        let line = self.order("told")?;
        Ok(line.split(',').filter_map(told).collect())
    }
}

/// One connection to the control port.
#[derive(Debug)]
pub struct Orders(BufReader<TcpStream>);

impl Orders {
    fn to(port: u16) -> Result<Self> {
        Ok(Self(BufReader::new(TcpStream::connect(("127.0.0.1", port))?)))
    }

    /// One command of the control protocol, and its answer.
    ///
    /// # Errors
    /// Where there is none, or the server does not understand.
    pub fn give(&mut self, command: &str) -> Result<String> {
        self.0.get_mut().write_all(format!("{command}\n").as_bytes())?;
        let mut answer = String::new();
        self.0.read_line(&mut answer)?;
        if answer.starts_with("error") || !answer.ends_with('\n') {
            return Err(format!("{command}: {answer}").into());
        }
        Ok(answer.trim_end().to_owned())
    }
}

fn told(entry: &str) -> Option<((u32, u32), u64)> {
    let mut words = entry.split(' ');
    let user = words.next()?.parse().ok()?;
    let uid = words.next()?.parse().ok()?;
    Some(((user, uid), words.next()?.parse().ok()?))
}
