//! What the system tests are made of.

