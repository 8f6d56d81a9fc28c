//! What could give a secret away: variables that look like one, and files that others can read.
//! And whether the files that a configuration names are there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::pool::spec::{CredentialSpec, DaemonSpec, IncusSpec, ProofSpec};

use super::problem::Report;

/// Returns whether a variable's name says that its value is a secret.
pub(super) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["TOKEN", "PASSWORD", "PASSWD", "SECRET", "CREDENTIAL"]
        .iter()
        .any(|part| name.contains(part))
        || name.ends_with("KEY")
        || name.split('_').any(|word| word == "KEY" || word == "PAT")
}

/// Looks at the files that hold secrets: the configuration itself, and those it names. That one
/// cannot be looked at is no error: it may come later, or be there for the daemon's user only.
pub(super) fn check_files(path: &Path, spec: &DaemonSpec, report: &mut Report<'_>) {
    if let IncusSpec::Remote(remote) = &spec.incus {
        check_file(&remote.client_key, "incus.remote.clientKey", report);
        for (file, name) in [
            (&remote.client_cert, "clientCert"),
            (&remote.server_cert, "serverCert"),
        ] {
            warn_if_absent(file, &format!("incus.remote.{name}"), report);
        }
    }
    for (number, pool) in spec.pools.iter().enumerate() {
        let key = format!("pools[{number}].azure");
        match &pool.azure.credential {
            CredentialSpec::Pat(_) => {
                warn_if_open(path, &format!("{key}.pat"), report);
            }
            CredentialSpec::PatFile(file) => check_file(file, &format!("{key}.patFile"), report),
            CredentialSpec::Application(application) => {
                let name = match application.proof {
                    ProofSpec::ClientSecret(_) => "servicePrincipal.clientSecretFile",
                    ProofSpec::Certificate(_) => "servicePrincipal.certificateFile",
                    ProofSpec::FederatedToken(_) => "workloadIdentity.tokenFile",
                };
                check_file(application.proof.file(), &format!("{key}.{name}"), report);
            }
            CredentialSpec::ManagedIdentity { .. } => {}
        }
        if let Some(file) = &pool.azure.ca_file {
            check_certificates(file, &format!("{key}.caFile"), report);
        }
    }
}

/// Without them the pool could not even be begun, and these are no secret that only the daemon's
/// user may see.
fn check_certificates(file: &Path, key: &str, report: &mut Report<'_>) {
    let path = file.display();
    match fs::read_to_string(file) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => {}
        Ok(_) => report.error(key, format!("{path} holds no certificate (PEM)")),
        Err(error) => report.error(key, format!("cannot read {path}: {error}")),
    }
}

fn check_file(file: &Path, key: &str, report: &mut Report<'_>) {
    warn_if_absent(file, key, report);
    warn_if_open(file, key, report);
}

fn warn_if_absent(file: &Path, key: &str, report: &mut Report<'_>) {
    let Err(error) = fs::metadata(file) else {
        return;
    };
    let todo = if file.starts_with("/run/credentials") {
        ": put it into /etc/iapd/credentials and restart iapd, which costs no job"
    } else {
        ""
    };
    report.warning(
        key,
        format!("cannot look at {}: {error}{todo}", file.display()),
    );
}

fn warn_if_open(file: &Path, key: &str, report: &mut Report<'_>) {
    let mode = fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode() & 0o7777);
    if mode & 0o004 != 0 {
        let file = file.display();
        report.warning(
            key,
            format!("every user can read {file} (mode {mode:04o}): `chmod o= {file}`"),
        );
    }
}
