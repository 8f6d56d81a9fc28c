//! Who calls: the peer credentials of the socket's other end.

use tonic::Request;
use tonic::transport::server::UdsConnectInfo;

use crate::pool::command::Asker;

/// Returns who sent a request.
pub(super) fn asker<T>(request: &Request<T>) -> Asker {
    let credentials = request
        .extensions()
        .get::<UdsConnectInfo>()
        .and_then(|connection| connection.peer_cred.as_ref());
    Asker {
        uid: credentials.map(tokio::net::unix::UCred::uid),
    }
}
