//! The binary: everything is in the library.

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    // Not by returning: a thread that waits for a reader of our stdout must not keep the process.
    std::process::exit(idlewatch::cli::main());
}
