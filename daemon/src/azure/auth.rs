//! What the client proves itself with.
//!
//! ```text
//!   Credential ─► TokenSource ─┬ Fixed   the token itself
//!                              ├ File    read again when it changes
//!                              └ Entra   fetched, held in a lease, renewed ahead of its end
//! ```

use std::fmt::{Debug, Formatter};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::error::AzureError;
use crate::calls::CallObserver;

mod certificate;
mod entra;
mod file;
mod lease;
mod token;

use self::entra::Entra;
pub(super) use self::entra::{Wires, read_grant};
use self::file::TokenFile;
pub(super) use self::token::Token;

/// What the daemon is given to prove itself with.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A personal access token.
    Pat(String),
    /// A file that holds one. It is read again when it changes and after a rejection.
    PatFile(PathBuf),
    /// An application in Entra ID.
    Application(Application),
    /// The identity that Azure gives to the machine.
    ManagedIdentity {
        /// Which one, if the machine has several.
        client_id: Option<String>,
        /// Where the machine's metadata service is: scheme, host and port.
        endpoint: String,
    },
}

impl Debug for Credential {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pat(_) => f.write_str("Pat(***)"),
            Self::PatFile(path) => f.debug_tuple("PatFile").field(path).finish(),
            Self::Application(application) => Debug::fmt(application, f),
            Self::ManagedIdentity { client_id, .. } => {
                f.debug_tuple("ManagedIdentity").field(client_id).finish()
            }
        }
    }
}

/// An application in Entra ID, with what it proves itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Where Entra ID is: scheme and host, and a path if there is one.
    pub authority: String,
    /// The directory.
    pub tenant_id: String,
    /// The application.
    pub client_id: String,
    /// Its proof.
    pub proof: Proof,
}

/// A file that proves that one is an application. It is read for each token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A client secret.
    Secret(PathBuf),
    /// A certificate and its private key, PEM.
    Certificate(PathBuf),
    /// A token of another identity provider, which the application trusts.
    FederatedToken(PathBuf),
}

/// What is known of how long a credential lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CredentialClock {
    /// When the credential itself ends; known of certificates only.
    pub expires_at: Option<Timestamp>,
    /// When the token in hand ends; it is renewed before.
    pub token_expires_at: Option<Timestamp>,
    /// When Azure or Entra ID rejected it last.
    pub rejected_at: Option<Timestamp>,
}

/// Where the next call's token comes from.
pub(super) enum TokenSource {
    Fixed(Arc<Token>),
    File(TokenFile),
    Entra(Box<Entra>),
}

impl TokenSource {
    pub(super) fn new(
        credential: Credential,
        wires: Wires,
        observer: CallObserver,
    ) -> Result<Self, AzureError> {
        Ok(match credential {
            Credential::Pat(pat) => Self::Fixed(Arc::new(
                Token::of_pat(&pat).map_err(|reason| AzureError::Token { reason })?,
            )),
            Credential::PatFile(path) => Self::File(TokenFile::new(path)),
            Credential::Application(application) => {
                Self::Entra(Box::new(Entra::application(application, wires, observer)?))
            }
            Credential::ManagedIdentity {
                client_id,
                endpoint,
            } => {
                let entra = Entra::managed_identity(client_id, &endpoint, wires, observer)?;
                Self::Entra(Box::new(entra))
            }
        })
    }

    /// Returns the token to use now.
    pub(super) async fn current(&self) -> Result<Arc<Token>, AzureError> {
        match self {
            Self::Fixed(token) => Ok(Arc::clone(token)),
            Self::File(file) => file.current().await,
            Self::Entra(entra) => entra.current().await,
        }
    }

    /// Returns whether the file that the credential is in is another one than was read last.
    pub(super) async fn has_changed(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::File(file) => file.has_changed().await,
            Self::Entra(entra) => entra.has_changed().await,
        }
    }

    /// Forgets the token, which Azure refused. The next one may be the same.
    pub(super) fn forget(&self) {
        match self {
            Self::Fixed(_) => {}
            Self::File(file) => file.forget(),
            Self::Entra(entra) => entra.forget(),
        }
    }

    /// Returns what is known of how long the credential lasts.
    pub(super) fn clock(&self) -> CredentialClock {
        match self {
            Self::Fixed(_) | Self::File(_) => CredentialClock::default(),
            Self::Entra(entra) => entra.clock(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAT: &str = "s3cretpatvalue0123456789";

    #[test]
    fn a_credential_does_not_print_its_token() {
        assert_eq!(format!("{:?}", Credential::Pat(PAT.into())), "Pat(***)");
        let file = Credential::PatFile("/etc/iapd/pat".into());
        assert_eq!(format!("{file:?}"), r#"PatFile("/etc/iapd/pat")"#);
    }

    #[test]
    fn unusable_tokens_are_refused_without_being_quoted() {
        for (pat, reason) in [
            ("", "empty"),
            (" \n", "empty"),
            ("two\nlines", "odd"),
            ("caf\u{e9}", "odd"),
        ] {
            let credential = Credential::Pat(pat.into());
            let error = TokenSource::new(credential, Wires::default(), Arc::new(|_| ()));
            let error = error.err().unwrap();
            assert!(error.to_string().contains(reason), "{error}");
            assert!(error.is_rejected() && !error.is_transient());
            if pat.len() > 3 {
                assert!(!format!("{error:?}{error}").contains(pat));
            }
        }
    }
}
