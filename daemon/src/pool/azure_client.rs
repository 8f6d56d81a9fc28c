//! Makes the Azure client that a pool's specification asks for.

use crate::azure::{Application, Azure, AzureError, Credential, Proof};
use crate::calls::CallObserver;

use super::spec::{AzureSpec, CredentialSpec, ProofSpec};

/// Makes a client. Does not connect.
pub fn new(spec: &AzureSpec, observer: CallObserver) -> Result<Azure, AzureError> {
    Azure::new(
        &spec.url,
        credential(&spec.credential),
        spec.ca_file.as_deref(),
        observer,
    )
}

fn credential(spec: &CredentialSpec) -> Credential {
    match spec {
        CredentialSpec::Pat(pat) => Credential::Pat(pat.expose().to_owned()),
        CredentialSpec::PatFile(path) => Credential::PatFile(path.clone()),
        CredentialSpec::Application(spec) => Credential::Application(Application {
            authority: spec.authority_host.clone(),
            tenant_id: spec.tenant_id.clone(),
            client_id: spec.client_id.clone(),
            proof: match &spec.proof {
                ProofSpec::ClientSecret(file) => Proof::Secret(file.clone()),
                ProofSpec::Certificate(file) => Proof::Certificate(file.clone()),
                ProofSpec::FederatedToken(file) => Proof::FederatedToken(file.clone()),
            },
        }),
        CredentialSpec::ManagedIdentity {
            client_id,
            endpoint,
        } => Credential::ManagedIdentity {
            client_id: client_id.clone(),
            endpoint: endpoint.clone(),
        },
    }
}
