//! What a guest wrote.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| iapd::fuzz::guest(bytes));
