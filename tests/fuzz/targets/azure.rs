//! Answers of Azure.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| iapd::fuzz::azure(bytes));
