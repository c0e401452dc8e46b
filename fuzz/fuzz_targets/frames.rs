#![no_main]
#![doc = "Any bytes as the frames of a WebSocket: see `bodies/frames.rs`."]

#[path = "../bodies/frames.rs"]
mod body;
#[expect(dead_code, reason = "what only the server calls")]
#[path = "../../crates/server/src/websocket/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
