//! Stands between a client and a server, and cuts the connection in the middle of an answer.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A relay to a port on loopback.
pub struct Relay {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    armed: Mutex<Option<Cut>>,
    cuts: AtomicUsize,
    /// What was let through of the answer that was cut last.
    torn: Mutex<Vec<u8>>,
}

/// What is listened for in what the client says, and how many bytes of the answer are let through.
#[derive(Clone)]
struct Cut {
    command: String,
    bytes: usize,
}

/// What both directions of one connection share.
#[derive(Default)]
struct Connection {
    /// The answer is on its way.
    cut: Mutex<Option<Cut>>,
    over: AtomicBool,
}

impl Relay {
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is gone: so is the client's connection.
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                serve(&client, &server, &shared);
            }
        });
        Self { port, state }
    }

    /// The next answer of more than so many bytes to a command that holds `command` is cut there, and the connection with it.
    pub fn cut_after(&self, command: &str, bytes: usize) {
        *self.state.armed.lock().unwrap() = Some(Cut { command: command.to_owned(), bytes });
    }

    /// Waits until that has happened so often; what was let through of the answer that was cut last.
    pub fn wait_cut(&self, times: usize) -> String {
        let end = Instant::now() + Duration::from_secs(60);
        while self.state.cuts.load(Ordering::SeqCst) < times {
            assert!(Instant::now() < end, "nothing was cut");
            std::thread::sleep(Duration::from_millis(5));
        }
        String::from_utf8_lossy(&self.state.torn.lock().unwrap()).into_owned()
    }
}

fn serve(client: &TcpStream, server: &TcpStream, state: &Arc<State>) {
    let connection = Arc::new(Connection::default());
    let both = || (client.try_clone().unwrap(), server.try_clone().unwrap());
    let ((from, to), shared, own) = (both(), state.clone(), connection.clone());
    std::thread::spawn(move || asked(from, to, &shared, &own));
    let ((to, from), shared) = (both(), state.clone());
    std::thread::spawn(move || answered(from, to, &shared, &connection));
}

/// What the client says.
fn asked(mut from: TcpStream, mut to: TcpStream, state: &State, connection: &Connection) {
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        said.extend_from_slice(&chunk[..length]);
        let mut armed = state.armed.lock().unwrap();
        let is_meant = |cut: &mut Cut| String::from_utf8_lossy(&said).contains(&cut.command);
        if let Some(cut) = armed.take_if(is_meant) {
            *connection.cut.lock().unwrap() = Some(cut);
        }
        drop(armed);
        // Commands are lines; what was said before is of no interest.
        said.drain(..said.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1));
        if to.write_all(&chunk[..length]).is_err() {
            break;
        }
    }
    close(&from, &to, connection);
}

/// What the server says.
fn answered(mut from: TcpStream, mut to: TcpStream, state: &State, connection: &Connection) {
    let mut torn = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        let cut = connection.cut.lock().unwrap().clone();
        let through = cut.as_ref().map_or(length, |cut| length.min(cut.bytes - torn.len()));
        if to.write_all(&chunk[..through]).is_err() {
            break;
        }
        let Some(cut) = cut else { continue };
        torn.extend_from_slice(&chunk[..through]);
        if torn.windows(4).any(|words| words == b" OK ") {
            // It was a short one, and is over.
            torn.clear();
            *connection.cut.lock().unwrap() = None;
            *state.armed.lock().unwrap() = Some(cut);
        } else if torn.len() == cut.bytes {
            close(&from, &to, connection);
            *state.torn.lock().unwrap() = torn;
            state.cuts.fetch_add(1, Ordering::SeqCst);
            return;
        }
    }
    close(&from, &to, connection);
}

fn close(one: &TcpStream, other: &TcpStream, connection: &Connection) {
    if !connection.over.swap(true, Ordering::SeqCst) {
        let _ = one.shutdown(Shutdown::Both);
        let _ = other.shutdown(Shutdown::Both);
    }
}
