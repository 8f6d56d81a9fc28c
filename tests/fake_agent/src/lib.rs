//! The stand-in agent, to be.
