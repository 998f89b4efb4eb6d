//! Does one of them so many times, and nothing else: for `scripts/instructions`, which counts. Without arguments: the names.

#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod hot_path;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let count: u32 = args.get(1).and_then(|count| count.parse().ok()).unwrap_or_default();
    for (name, mut path) in hot_path::paths() {
        match args.first() {
            None => println!("{name}"),
            Some(wanted) if wanted == name => (0..count).for_each(|_| path()),
            Some(_) => {}
        }
    }
}
