//! Which credential a pool of the file has: exactly one.

use std::path::PathBuf;

use crate::config::Environment;
use crate::config::file::{Azure, ManagedIdentity, ServicePrincipal, WorkloadIdentity};
use crate::config::problem::Report;
use crate::pool::spec::{ApplicationSpec, CredentialSpec, ProofSpec, Secret};

use super::url::authority;
use super::{required, text};

const AUTHORITY_HOST: &str = "https://login.microsoftonline.com";
/// `LoadCredential=iapd:/etc/iapd/credentials/` in the packaged unit.
const CREDENTIAL_ID: &str = "iapd";
/// Where those credentials are when no unit loads them, beside the configuration.
const CREDENTIALS: &str = "credentials";

/// Returns the credential of `azure`, whose key is `key`.
pub(super) fn credential(
    azure: &mut Azure,
    key: &str,
    env: &Environment,
    report: &mut Report<'_>,
) -> CredentialSpec {
    let given = [
        ("pat", azure.pat.is_some()),
        ("patFile", azure.pat_file.is_some()),
        ("servicePrincipal", azure.service_principal.is_some()),
        ("managedIdentity", azure.managed_identity.is_some()),
        ("workloadIdentity", azure.workload_identity.is_some()),
    ];
    let mut names = given.iter().filter(|(_, given)| *given).map(|(n, _)| *n);
    let first = names.next();
    let mut alone = true;
    for name in names {
        alone = false;
        let other = first.unwrap_or_default();
        let message = format!("cannot be given together with `{other}`");
        report.error(&format!("{key}.{name}"), message);
    }
    let authority_key = format!("{key}.authorityHost");
    let is_application = azure.service_principal.is_some() || azure.workload_identity.is_some();
    if azure.authority_host.is_some() && !is_application {
        let message = "is of use with `servicePrincipal` and `workloadIdentity` only";
        report.warning(&authority_key, message);
    }
    let authority = authority(
        azure.authority_host.take(),
        &authority_key,
        AUTHORITY_HOST,
        report,
    );
    let mut resolver = Resolver {
        key,
        env,
        authority,
        report,
    };
    // All that is there is looked at, so that all that is wrong with it is said.
    let all = [
        azure.pat.take().map(|pat| resolver.pat(&pat)),
        azure
            .pat_file
            .take()
            .map(|file| CredentialSpec::PatFile(resolver.file("patFile", Some(file)))),
        azure
            .service_principal
            .take()
            .map(|principal| resolver.service_principal(principal)),
        azure
            .managed_identity
            .take()
            .map(|identity| resolver.managed_identity(identity)),
        azure
            .workload_identity
            .take()
            .map(|identity| resolver.workload_identity(identity)),
    ];
    let has_error = |(name, _): &(&str, bool)| report.has_error(&format!("{key}.{name}"));
    if first.is_none() && !given.iter().any(has_error) {
        report.error_in_key(
            key,
            "has no credential: give one of `patFile`, `pat`, `servicePrincipal`, \
             `managedIdentity` (`{}` is enough) and `workloadIdentity`",
        );
    }
    all.into_iter()
        .flatten()
        .next()
        .filter(|_| alone)
        .unwrap_or_else(no_credential)
}

/// Stands in when there is an error.
pub(super) fn no_credential() -> CredentialSpec {
    CredentialSpec::PatFile(PathBuf::new())
}

struct Resolver<'a, 'r> {
    key: &'a str,
    env: &'a Environment,
    authority: String,
    report: &'a mut Report<'r>,
}

impl Resolver<'_, '_> {
    fn pat(&mut self, pat: &str) -> CredentialSpec {
        if pat.trim().is_empty() {
            self.report
                .error(&format!("{}.pat", self.key), "must not be empty");
        }
        CredentialSpec::Pat(Secret::new(pat.trim()))
    }

    fn service_principal(&mut self, principal: ServicePrincipal) -> CredentialSpec {
        let secret_key = "servicePrincipal.clientSecretFile";
        let certificate_key = "servicePrincipal.certificateFile";
        let (secret, certificate) = (principal.client_secret_file, principal.certificate_file);
        let proof = match (secret, certificate) {
            (Some(secret), None) => ProofSpec::ClientSecret(self.file(secret_key, Some(secret))),
            (None, Some(file)) => ProofSpec::Certificate(self.file(certificate_key, Some(file))),
            (Some(_), Some(_)) => {
                let message = "cannot be given together with `clientSecretFile`";
                self.report
                    .error(&format!("{}.{certificate_key}", self.key), message);
                ProofSpec::Certificate(PathBuf::new())
            }
            (None, None) => {
                let keys = [secret_key, certificate_key].map(|key| format!("{}.{key}", self.key));
                if !keys.iter().any(|key| self.report.has_error(key)) {
                    let message =
                        "is missing: either `clientSecretFile` or `certificateFile` must be given";
                    self.report.error_in_key(&keys[0], message);
                }
                ProofSpec::ClientSecret(PathBuf::new())
            }
        };
        let (tenant, client) = (principal.tenant_id, principal.client_id);
        self.application("servicePrincipal", tenant, client, proof)
    }

    fn workload_identity(&mut self, identity: WorkloadIdentity) -> CredentialSpec {
        let file = self.file("workloadIdentity.tokenFile", identity.token_file);
        let (tenant, client) = (identity.tenant_id, identity.client_id);
        self.application(
            "workloadIdentity",
            tenant,
            client,
            ProofSpec::FederatedToken(file),
        )
    }

    fn application(
        &mut self,
        name: &str,
        tenant: Option<String>,
        client: Option<String>,
        proof: ProofSpec,
    ) -> CredentialSpec {
        let tenant_key = format!("{}.{name}.tenantId", self.key);
        let client_key = format!("{}.{name}.clientId", self.key);
        let tenant_id = required(&tenant_key, tenant, self.report);
        let client_id = required(&client_key, client, self.report);
        self.check_id(&tenant_key, &tenant_id);
        self.check_id(&client_key, &client_id);
        CredentialSpec::Application(ApplicationSpec {
            authority_host: self.authority.clone(),
            tenant_id,
            client_id,
            proof,
        })
    }

    fn managed_identity(&mut self, identity: ManagedIdentity) -> CredentialSpec {
        let key = format!("{}.managedIdentity.clientId", self.key);
        let client_id = text(&key, identity.client_id, self.report);
        if let Some(id) = &client_id {
            self.check_id(&key, id);
        }
        CredentialSpec::ManagedIdentity {
            client_id,
            endpoint: self.env.identity_endpoint.clone(),
        }
    }

    /// The id becomes a part of a URL.
    fn check_id(&mut self, key: &str, id: &str) {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        if !id.chars().all(fits) {
            let message = "must be an id such as `12345678-90ab-cdef-1234-567890abcdef`";
            self.report.error(key, message);
        }
    }

    /// Returns the path of a file that holds a secret.
    fn file(&mut self, key: &str, path: Option<String>) -> PathBuf {
        let key = format!("{}.{key}", self.key);
        if path.as_deref().is_some_and(|path| path.trim().is_empty()) {
            self.report.error(&key, "must not be empty");
        }
        credential_file(&path.unwrap_or_default(), self.env)
    }
}

/// Returns where a file of credentials is.
pub(super) fn credential_file(name: &str, env: &Environment) -> PathBuf {
    let [first, second] = match &env.credentials_dir {
        // A directory that systemd loads gives its id to the names of its files.
        Some(dir) => [dir.join(name), dir.join(format!("{CREDENTIAL_ID}_{name}"))],
        None => [&env.config_dir, &env.config_dir.join(CREDENTIALS)].map(|dir| dir.join(name)),
    };
    if !first.exists() && second.exists() {
        second
    } else {
        first
    }
}
