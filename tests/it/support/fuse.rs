//! A file system that hangs when it is told to: a directory of files in memory, served by FUSE. Needs root and `/dev/fuse`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

/// Longer than any request: what is written at once, and its header.
const MOST_REQUEST: usize = 1 << 20;
const MOST_WRITE: u32 = 128 << 10;

const ROOT: u64 = 1;
const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_644;
const SIZE_IS_SET: u64 = 1 << 3;

const NO_SUCH_FILE: i32 = -2;
const NO_SUCH_REQUEST: i32 = -38;

#[derive(Default)]
struct State {
    hangs: bool,
    /// By their names; the second is node 3.
    files: Vec<(String, Vec<u8>)>,
}

#[derive(Clone, Default)]
struct Shared(Arc<(Mutex<State>, Condvar)>);

impl Shared {
    fn state<T>(&self, of: impl FnOnce(&mut State) -> T) -> T {
        of(&mut self.0.0.lock().unwrap())
    }

    /// While it hangs.
    fn wait(&self) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |state| state.hangs).unwrap());
    }
}

pub struct Fuse {
    at: PathBuf,
    shared: Shared,
}

impl Fuse {
    /// Nothing where this machine has no FUSE.
    pub fn mount(at: &Path) -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        fs::create_dir(at).unwrap();
        let options = "fd=0,rootmode=40000,user_id=0,group_id=0";
        let mut mount = Command::new("mount");
        mount.args(["-i", "-t", "fuse", "-o", options, "test"]).arg(at);
        let mounted = mount.stdin(Stdio::from(device.try_clone().unwrap())).output().unwrap();
        assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
        let shared = Shared::default();
        let server = shared.clone();
        std::thread::spawn(move || serve(device, &server));
        Some(Self { at: at.to_owned(), shared })
    }

    /// From now on nothing is answered.
    pub fn hang(&self) {
        self.shared.state(|state| state.hangs = true);
    }

    /// Everything is answered, and what waits for it.
    pub fn go_on(&self) {
        self.shared.state(|state| state.hangs = false);
        self.shared.0.1.notify_all();
    }

    /// A copy of what is in a file: no request, so that it waits for nothing.
    pub fn copy(&self, name: &str, to: &Path) {
        let found = |state: &mut State| state.files.iter().find(|file| file.0 == name).cloned();
        fs::write(to, self.shared.state(found).unwrap_or_default().1).unwrap();
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.go_on();
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn serve(mut device: File, shared: &Shared) {
    let mut request = vec![0; MOST_REQUEST];
    while let Ok(length) = device.read(&mut request) {
        shared.wait();
        let answer = shared.state(|state| answer(state, &request[..length]));
        let Some(answer) = answer else { continue };
        let (error, body) = answer.map_or_else(|error| (error, Vec::new()), |body| (0, body));
        let length = u32::try_from(16 + body.len()).unwrap();
        let head = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &request[8..16]].concat();
        // Whoever asked may be gone.
        let _ = device.write(&[head, body].concat());
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// What a request gets (linux/fuse.h, 7.31); nothing where none is expected.
fn answer(state: &mut State, request: &[u8]) -> Option<Result<Vec<u8>, i32>> {
    let (operation, node, body) = (half(request, 4), word(request, 16), &request[40..]);
    let name = |from: usize| {
        let text = body[from..].split(|byte| *byte == 0).next().unwrap();
        String::from_utf8(text.to_vec()).unwrap()
    };
    let opened = || words(&[0, 0]);
    Some(match operation {
        // FORGET, INTERRUPT, BATCH_FORGET
        2 | 36 | 42 => return None,
        // INIT
        26 => Ok(halves(&[7, 31, 1 << 16, 0, 0, MOST_WRITE, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        // LOOKUP
        1 => match state.files.iter().position(|(known, _)| *known == name(0)) {
            Some(at) => Ok(entry(state, at as u64 + 2)),
            None => Err(NO_SUCH_FILE),
        },
        // GETATTR
        3 => Ok([words(&[0, 0]), attributes(state, node)].concat()),
        // SETATTR
        4 => {
            if u64::from(half(body, 0)) & SIZE_IS_SET != 0 {
                state.files[node as usize - 2].1.resize(word(body, 16) as usize, 0);
            }
            Ok([words(&[0, 0]), attributes(state, node)].concat())
        }
        // OPEN, OPENDIR
        14 | 27 => Ok(opened()),
        // READ
        15 => {
            let (data, from) = (&state.files[node as usize - 2].1, word(body, 8) as usize);
            let to = data.len().min(from + half(body, 16) as usize);
            Ok(data.get(from..to).unwrap_or_default().to_vec())
        }
        // WRITE
        16 => {
            let (from, length) = (word(body, 8) as usize, half(body, 16));
            let data = &mut state.files[node as usize - 2].1;
            data.resize(data.len().max(from + length as usize), 0);
            data[from..from + length as usize].copy_from_slice(&body[40..40 + length as usize]);
            Ok(halves(&[length, 0]))
        }
        // CREATE
        35 => {
            state.files.push((name(16), Vec::new()));
            Ok([entry(state, state.files.len() as u64 + 1), opened()].concat())
        }
        // RELEASE, FSYNC, FLUSH, READDIR, RELEASEDIR, FSYNCDIR
        18 | 20 | 25 | 28..=30 => Ok(Vec::new()),
        _ => Err(NO_SUCH_REQUEST),
    })
}

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn halves(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// Never to be remembered: everybody asks each time.
fn entry(state: &State, node: u64) -> Vec<u8> {
    [words(&[node, 0, 0, 0, 0]), attributes(state, node)].concat()
}

fn attributes(state: &State, node: u64) -> Vec<u8> {
    let (mode, size) = match node {
        ROOT => (DIRECTORY, 0),
        node => (REGULAR, state.files[node as usize - 2].1.len() as u64),
    };
    [words(&[node, size, size.div_ceil(512), 0, 0, 0]), halves(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])]
        .concat()
}
