//! Answers and events of Incus.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| iapd::fuzz::incus(bytes));
