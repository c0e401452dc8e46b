#![no_main]
#![doc = "Any bytes to a decoder: see `bodies/decode.rs`."]

#[path = "../bodies/decode.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
