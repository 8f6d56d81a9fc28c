//! Everything that Incus's answers and events, and guests' output, go through. For [`crate::fuzz`].

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::error::CallSite;
use super::exec::{OutputStream, Splitter};
use super::storage::StorageSpace;
use super::transport::Answer;
use super::{
    Image, Instance, InstanceState, Operation, Profile, Restrictions, Server, StoragePool, events,
};
use crate::agent::InstanceFacts;

/// Reads an answer as everything that it could be.
pub(crate) fn read(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = events::lifecycle(text);
    }
    for instance in answer::<Vec<Instance>>(bytes).unwrap_or_default() {
        InstanceFacts::of(&instance);
    }
    if let Some(server) = answer::<Server>(bytes) {
        server.is_trusted();
    }
    answer::<Instance>(bytes);
    answer::<InstanceState>(bytes);
    answer::<Profile>(bytes);
    answer::<Image>(bytes);
    answer::<Operation>(bytes);
    answer::<BTreeMap<String, Vec<Operation>>>(bytes);
    answer::<Restrictions>(bytes);
    answer::<StoragePool>(bytes);
    answer::<StorageSpace>(bytes);
}

fn answer<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let call = CallSite {
        kind: "fuzz",
        instance: None,
        method: Method::GET,
        path: "/1.0".to_owned(),
    };
    let answer = Answer {
        status: StatusCode::OK,
        headers: hyper::HeaderMap::new(),
        body: bytes.to_vec(),
        cut: false,
    };
    match answer.result(Box::new(call)) {
        Ok(result) => Some(result),
        Err(error) => {
            iap_common::error::chain(&error).to_string();
            None
        }
    }
}

/// Cuts output into lines, in pieces as they come.
pub(crate) fn split(bytes: &[u8]) {
    let mut splitter = Splitter::new(OutputStream::Stdout);
    let mut length = 0;
    let mut on_line = |line: super::StreamLine| length += line.text.len();
    for piece in bytes.chunks(7) {
        splitter.feed(piece, &mut on_line);
    }
    splitter.finish(&mut on_line);
    // A byte that is not UTF-8 becomes three.
    assert!(length <= 3 * bytes.len(), "{length} of {}", bytes.len());
}
