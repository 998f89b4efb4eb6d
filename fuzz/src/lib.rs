//! The targets of the test suite, for cargo-fuzz: see `tests/it/fuzz`.

#[path = "../../tests/it/fuzz/targets.rs"]
pub mod targets;

/// libfuzzer aborts at every panic; those that the guard catches are its business. One that gets out still aborts.
pub fn init() {
    std::panic::set_hook(Box::new(|_| {}));
}
