#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code, reason = "shared with the other targets")]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::mdns(bytes));
