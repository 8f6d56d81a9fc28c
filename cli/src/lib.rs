//! The operator's command line, to be.
