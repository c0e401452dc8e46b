#![no_main]
#![doc = "Any bytes as a payload: see `bodies/json.rs`."]

#[path = "../bodies/json.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
