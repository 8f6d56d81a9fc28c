//! Who calls: the peer credentials of the socket's other end.

use nix::unistd::{Uid, User};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Extensions, Request};

use crate::intents::Who;
use crate::pool::command::Asker;

/// Returns who sent a request.
pub(super) fn asker<T>(request: &Request<T>) -> Asker {
    peer(request.extensions())
}

/// The same for a request that no service has seen yet.
pub(super) fn peer(extensions: &Extensions) -> Asker {
    let credentials = extensions
        .get::<UdsConnectInfo>()
        .and_then(|connection| connection.peer_cred.as_ref());
    Asker {
        uid: credentials.map(tokio::net::unix::UCred::uid),
    }
}

/// Looks the asker's name up, which may take a while.
pub(super) fn who(asker: &Asker) -> Who {
    let user = asker
        .uid
        .and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    Who {
        uid: asker.uid,
        user: user.map(|user| user.name).unwrap_or_default(),
    }
}
