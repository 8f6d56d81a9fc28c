//! Where Incus is: at a socket of this host, or at addresses that are reached over TLS.

use crate::config::Environment;
use crate::config::file::{Incus, Remote, Texts};
use crate::config::problem::Report;
use crate::pool::spec::{IncusSpec, RemoteSpec};

use super::credential::credential_file;
use super::{required, socket_path, url};

pub(super) fn resolve(file: Incus, env: &Environment, report: &mut Report<'_>) -> IncusSpec {
    let is_socket_given = file.socket.is_some();
    let socket = socket_path("incus.socket", file.socket, &env.incus_socket, report);
    let Some(file) = file.remote else {
        return IncusSpec::Socket(socket);
    };
    if is_socket_given {
        let message = "cannot be given together with `socket`: there is one Incus";
        report.error_in_key("incus.remote", message);
    }
    IncusSpec::Remote(remote(file, env, report))
}

fn remote(file: Remote, env: &Environment, report: &mut Report<'_>) -> RemoteSpec {
    let key = "incus.remote.url";
    let urls = file.url.map_or_else(Vec::new, |Texts(urls)| urls);
    if urls.is_empty() && !report.has_error(key) {
        report.error(key, "must not be empty");
    }
    let several = urls.len() > 1;
    let mut taken = Vec::new();
    for (number, url) in urls.iter().enumerate() {
        let key = if several {
            format!("{key}[{number}]")
        } else {
            key.to_owned()
        };
        let url = url::server(url, &key, report);
        if taken.contains(&url) {
            report.error(&key, "is listed twice");
        }
        taken.push(url);
    }
    let mut path = |name: &str, path: Option<String>| {
        let key = format!("incus.remote.{name}");
        credential_file(&required(&key, path, report), env)
    };
    RemoteSpec {
        urls: taken,
        client_cert: path("clientCert", file.client_cert),
        client_key: path("clientKey", file.client_key),
        server_cert: path("serverCert", file.server_cert),
    }
}
