//! The client of the configured Incus; and the key of one that is on another host, made and made
//! known by `iapd --make-client-key`.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow};

use crate::calls::CallObserver;
use crate::incus::{self, ClientKey, Incus, Remote, Token};
use crate::pool::spec::{IncusSpec, RemoteSpec};

/// The files of a client key.
const CERTIFICATE: &str = "incus-client.crt";
const KEY: &str = "incus-client.key";
const SERVER: &str = "incus-server.crt";

/// Returns the client of an Incus, and the fingerprint of our certificate if that is what it
/// trusts us by.
pub(super) fn connect(
    spec: &IncusSpec,
    observer: CallObserver,
) -> anyhow::Result<(Incus, Option<String>)> {
    let spec = match spec {
        IncusSpec::Socket(socket) => return Ok((Incus::new(socket.clone(), observer), None)),
        IncusSpec::Remote(spec) => spec,
    };
    let RemoteSpec {
        urls,
        client_cert,
        client_key,
        server_cert,
    } = spec;
    let certificate = read(client_cert)?;
    let remote = Remote::new(urls, &certificate, &read(client_key)?, &read(server_cert)?)
        .context("cannot use the files of incus.remote")?;
    let fingerprint = incus::fingerprint(&String::from_utf8_lossy(&certificate));
    Ok((Incus::remote(remote, observer), fingerprint))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| {
        let path = path.display();
        format!("cannot read {path} of incus.remote (`iapd --make-client-key` makes it)")
    })
}

/// Makes a client key in a directory unless it is there, and makes a server trust it.
pub(super) fn make_key(dir: &Path, token: Option<&str>) -> ExitCode {
    match make(dir, token) {
        Ok(text) => super::print(&text),
        Err(error) => super::fail(&error, 1),
    }
}

fn make(dir: &Path, token: Option<&str>) -> anyhow::Result<String> {
    let token = token.map(Token::parse).transpose()?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let client = key_in(dir)?;
    let fingerprint = incus::fingerprint(&client.certificate)
        .ok_or_else(|| anyhow!("{} holds no certificate", dir.join(CERTIFICATE).display()))?;
    let path = |name| dir.join(name).display().to_string();
    let (certificate, server) = (path(CERTIFICATE), path(SERVER));
    let (trust, url) = match token {
        None => (
            format!(
                "To make Incus trust it, on the server, with a copy of that file:\n\n  \
                 incus config trust add-certificate {CERTIFICATE} --name iapd\n\n\
                 Then copy the server's own certificate to {server}: /var/lib/incus/cluster.crt of \
                 a cluster, else\n/var/lib/incus/server.crt. Or do both by a token of \
                 `incus config trust add iapd`, given as --trust-token."
            ),
            "https://incus.example.com:8443".to_owned(),
        ),
        Some(token) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (url, pem) = runtime.block_on(token.redeem(&client))?;
            std::fs::write(&server, pem).with_context(|| format!("cannot write {server}"))?;
            let trust = format!("{url} trusts it now. The server's certificate is in {server}.");
            (trust, url)
        }
    };
    let key = path(KEY);
    Ok(format!(
        "The client's certificate is {certificate}\n(SHA-256 {fingerprint}), its key {key}.\n\n\
         {trust}\n\nFor iapd's configuration:\n\n\
         incus:\n  remote:\n    url: {url}\n    clientCert: {certificate}\n    \
         clientKey: {key}\n    serverCert: {server}\n"
    ))
}

/// Returns the key that is there, or makes one.
fn key_in(dir: &Path) -> anyhow::Result<ClientKey> {
    let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
    let read = |path: &Path| match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    match (read(&certificate)?, read(&key)?) {
        (Some(certificate), Some(key)) => return Ok(ClientKey { certificate, key }),
        (None, None) => {}
        _ => {
            return Err(anyhow!(
                "only one of {} and {} is there: remove it, or bring the other",
                certificate.display(),
                key.display()
            ));
        }
    }
    let made = ClientKey::generate(&crate::reload::host_name())?;
    // The key first and never readable by others.
    let mut private = OpenOptions::new();
    write(private.mode(0o600), &key, &made.key)?;
    write(&mut OpenOptions::new(), &certificate, &made.certificate)?;
    Ok(made)
}

fn write(options: &mut OpenOptions, path: &Path, text: &str) -> anyhow::Result<()> {
    let file = options.write(true).create_new(true).open(path);
    file.and_then(|mut file: File| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
