//! The targets of `fuzz/` on stable: each on its seeds and on a fixed set of mutations of them.
//!
//! With IDLEWATCH_FUZZ_SECONDS=N each goes on for N seconds with other mutations, leaves its seeds in `fuzz/corpus`
//! for cargo-fuzz, and takes what lies there as seeds too.

#![allow(clippy::print_stdout)]

mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use self::targets::{CANARY, CLOSE, HEAR, STOP, choice};
use crate::headers::SUBJECTS;
use crate::transcripts::{self, Line, Transcript};

type Target = fn(&[u8]);

#[test]
fn replies() {
    let said = transcripts::all().into_iter().map(|transcript| script(&transcript, false));
    fuzz("replies", targets::replies, said.collect(), 1500);
}

#[test]
fn conversation() {
    let played = transcripts::all().into_iter().map(|transcript| {
        let choices = choices(&transcript).to_le_bytes();
        [choices.as_slice(), &script(&transcript, true)].concat()
    });
    fuzz("conversation", targets::conversation, played.collect(), 1500);
}

#[test]
fn headers() {
    let mut seeds: Vec<_> = SUBJECTS.iter().map(|(header, ..)| header.to_vec()).collect();
    seeds.push(
        b"From: =?utf-8?q?=C3=84?= <a@x.example>\r\nSender: b@x.example\r\nReply-To: c@x.example\r\nTo: g: d@x.example, \"E\" <e@x.example>;\r\n\
          Cc: (f) f@x.example\r\nBcc: <>\r\nDate: Sun, 22 Nov 2026 21:24:58 +0000\r\nMessage-ID: <1@x.example>\r\nIn-Reply-To: <0@x.example>\r\n\
          References: <0@x.example>\r\nList-Id: L <l.x.example>\r\nX-Other: x\r\n\r\n"
            .to_vec(),
    );
    fuzz("headers", targets::headers, seeds, 2000);
}

#[test]
fn config() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let inline = format!(
        "[[accounts]]\nid = \"work\"\nhost = \"x.example\"\nuser = \"bob\"\npassword = {{ inline = \"{CANARY}\" }}\n"
    );
    let pasted = inline.replace("{ inline =", "").replace(" }", "");
    let mut seeds = vec![inline.into_bytes(), pasted.into_bytes()];
    seeds.extend(
        ["minimal.toml", "example.toml", "tenk.toml", "reference.toml"]
            .map(|name| fs::read(dir.join(name)).unwrap()),
    );
    fuzz("config", targets::config, seeds, 1500);
}

#[test]
fn lists() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seeds = vec![
        b"\xef\xbb\xbfid,port,mailboxes,labels.a,password.inline\r\na,1,A|B,\"x, y\",secret\r\n\r\nb@c,,,,\r\n".to_vec(),
        b"{\"id\":\"a\",\"labels\":{\"a\":\"b\"}}\n\n{\"id\":\"b\",\"labels.a\":\"..\",\"port\":1,\"host\":null}\n".to_vec(),
    ];
    seeds.extend(["accounts.csv", "accounts.d/lab.jsonl"].map(|name| fs::read(dir.join(name)).unwrap()));
    fuzz("lists", targets::lists, seeds, 1500);
}

#[test]
fn utf7() {
    let names: [&[u8]; 5] =
        [b"INBOX/Entw&APw-rfe", b"~peter/&U,BTFw-/&ZeVnLIqe-", b"R&-D", b"&2D3cyA-", b"Gr\xc3\xb6\xc3\x9fe"];
    fuzz("utf7", targets::utf7, names.map(<[u8]>::to_vec).to_vec(), 5000);
}

#[test]
fn journal() {
    fuzz("journal", targets::journal, vec![Vec::new(), b"\x01\x02\x03\x04".repeat(4)], 300);
}

/// What the server says; with `marks`, where it waits too.
fn script(transcript: &Transcript, marks: bool) -> Vec<u8> {
    let bytes = transcript.script.iter().flat_map(|line| match line {
        Line::Say(bytes) => bytes.clone(),
        Line::Hear(_) if marks => vec![HEAR],
        Line::Stop if marks => vec![STOP],
        Line::Close if marks => vec![CLOSE],
        _ => Vec::new(),
    });
    bytes.collect()
}

fn choices(transcript: &Transcript) -> u16 {
    let is = |key: &str, value: &str, choice: u16| match transcript.get(key) {
        Some(told) if told.starts_with(value) => choice,
        _ => 0,
    };
    is("security", "starttls", choice::STARTTLS)
        | is("security", "implicit", choice::IMPLICIT)
        | is("preauth", "yes", choice::PREAUTH)
        | is("initial", "all", choice::ALL)
        | is("initial", "since", choice::SINCE)
        | is("caution", "", choice::CAUTION)
        | is("password", "pä", choice::EIGHT_BIT)
        | is("token", "", choice::TOKEN)
        | is("changes", "", choice::CHANGES)
        | is("mailbox", "INBOX/Größe", choice::EIGHT_BIT)
        | if transcript.checkpoint.is_some() { choice::CHECKPOINT } else { 0 }
}

fn fuzz(name: &str, target: Target, mut seeds: Vec<Vec<u8>>, count: usize) {
    let seconds = std::env::var("IDLEWATCH_FUZZ_SECONDS").ok().map(|seconds| seconds.parse().unwrap());
    if seconds.is_some() {
        exchange(name, &mut seeds);
    }
    seeds.iter().for_each(|seed| run(name, target, seed));
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..count {
        run(name, target, &mutated(&seeds, &mut random));
    }
    let Some(seconds) = seconds else { return };
    let (number, start, mut inputs) = (rand::random(), Instant::now(), 0_u64);
    println!("{name}: seed {number}");
    let mut random = StdRng::seed_from_u64(number);
    while start.elapsed() < Duration::from_secs(seconds) {
        run(name, target, &mutated(&seeds, &mut random));
        inputs += 1;
    }
    println!("{name}: {inputs} inputs in {seconds} s");
}

/// Leaves the seeds for cargo-fuzz, and takes what it has found.
fn exchange(name: &str, seeds: &mut Vec<Vec<u8>>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    fs::create_dir_all(&dir).unwrap();
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(dir.join(format!("seed-{number:03}")), seed).unwrap();
    }
    *seeds = fs::read_dir(&dir).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
}

/// What fails is kept where cargo-fuzz keeps it.
fn run(name: &str, target: Target, input: &[u8]) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) else { return };
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/artifacts").join(name);
    let file = dir.join(format!("{:08x}", crc32fast::hash(input)));
    fs::create_dir_all(&dir).and_then(|()| fs::write(&file, input)).unwrap();
    println!("{name} fails on {}: {}", file.display(), input.escape_ascii());
    resume_unwind(panic);
}

/// What parsers stumble over.
const TOKENS: &[&[u8]] = &[
    b"{4294967295}\r\n",
    b"{18446744073709551615}\r\n",
    b"{3}\r\n",
    b"{0}\r\n",
    b"* 1 FETCH (",
    b"* 4294967295 EXISTS\r\n",
    b"* 1 EXPUNGE\r\n",
    b"* VANISHED 1:4294967295\r\n",
    b"* BYE\r\n",
    b"* LIST () \"/\" INBOX\r\n",
    b"* CAPABILITY IMAP4rev1 IDLE CONDSTORE LITERAL+\r\n",
    b"* OK [UIDVALIDITY 8]\r\n",
    b"* OK [UIDNEXT 4294967295]\r\n",
    b"* OK [HIGHESTMODSEQ 18446744073709551615]\r\n",
    b"+ \r\n",
    b"t3 OK\r\n",
    b"t4 OK\r\n",
    b"t4 NO [UNAVAILABLE]\r\n",
    b"t5 BAD\r\n",
    b" BODYSTRUCTURE (",
    b" UID 4294967295",
    b" MODSEQ (18446744073709551615)",
    b" NIL ",
    b"[ALERT]\xc3\xa9",
    b"=?utf-8?q?=00=e2=80=ae?=",
    b"=?utf-16?b?2D3cyA==?=",
    b"\r\nSubject: ",
    b"\r\nTo: <",
    b"\xe2\x80\xae",
    b"\xff\xfe",
    b"\0",
    b"\x16",
    b"\\\"",
    b"&-",
    b"&2D0-",
    b"\n[[accounts]]\n",
    b" = { ",
    b"'''",
    b"99999999999999999999",
    b"-1",
];

/// One of `seeds`, changed in a few places.
fn mutated(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut input = seeds.choose(random).cloned().unwrap_or_default();
    for _ in 0..random.random_range(1..=4) {
        let start = random.random_range(0..=input.len());
        let end = random.random_range(start..=input.len().min(start + 64));
        match random.random_range(0..7) {
            0 => {
                input[start..end].iter_mut().take(1).for_each(|byte| *byte ^= 1 << random.random_range(0..8))
            }
            1 => drop(input.drain(start..end)),
            2 => input.truncate(start),
            3 => drop(input.splice(start..start, input[start..end].repeat(random.random_range(1..=3)))),
            4 => drop(input.splice(start..end, (0..4).map(|_| random.random::<u8>()).collect::<Vec<_>>())),
            5 => {
                let other = seeds.choose(random).cloned().unwrap_or_default();
                drop(input.splice(start.., other[random.random_range(0..=other.len())..].iter().copied()));
            }
            _ => {
                let token = TOKENS.choose(random).copied().unwrap_or_default();
                let many = if random.random_ratio(1, 16) { 200 } else { 1 };
                drop(input.splice(start..start, token.repeat(many)));
            }
        }
    }
    input
}
