//! The operator's command line for `iapd`.
