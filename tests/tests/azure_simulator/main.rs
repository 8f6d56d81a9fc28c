//! The Azure DevOps simulator seen from outside: an agent's whole life over the wire, what it refuses, what goes wrong on
//! request, and Microsoft's own Python client.

mod admin;
mod faults;
mod protocol;
mod python_client;
mod raw_agent;
mod rules;
