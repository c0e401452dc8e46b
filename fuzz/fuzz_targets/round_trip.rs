#![no_main]
#![doc = "What decodes comes back: see `bodies/round_trip.rs`."]

#[path = "../bodies/round_trip.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
