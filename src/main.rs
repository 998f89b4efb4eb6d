//! The binary: everything is in the library.

fn main() {
    // Not by returning: a thread that waits for a reader of our stdout must not keep the process.
    std::process::exit(idlewatch::cli::main());
}
