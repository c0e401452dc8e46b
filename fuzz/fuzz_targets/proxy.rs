#![no_main]
#![doc = "Any bytes where a proxy is expected: see `bodies/proxy.rs`."]

#[path = "../bodies/proxy.rs"]
mod body;
#[path = "../../crates/server/src/proxy_protocol/header.rs"]
mod header;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
