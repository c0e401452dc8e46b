#![no_main]
#![doc = "Sequences of operations: see `bodies/session.rs`."]

#[path = "../bodies/session.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
