#![no_main]
#![doc = "Sequences of operations: see `bodies/mailbox.rs`."]

#[path = "../bodies/mailbox.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
