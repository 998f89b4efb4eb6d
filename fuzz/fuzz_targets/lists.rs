#![no_main]

libfuzzer_sys::fuzz_target!(init: idlewatch_fuzz::init(), |data: &[u8]| idlewatch_fuzz::targets::lists(data));
