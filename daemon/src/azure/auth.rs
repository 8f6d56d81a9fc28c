//! What the client proves itself with.

use std::fmt::{Debug, Formatter};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::HeaderValue;

use super::error::AzureError;

/// Tokens are 52 to 84 characters; this only keeps a wrong path from being read whole.
const MAX_FILE: u64 = 16 * 1024;

/// What the daemon is given to prove itself with.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A personal access token.
    Pat(String),
    /// A file that holds one. It is read again when it changes and after a rejection.
    PatFile(PathBuf),
}

impl Debug for Credential {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pat(_) => f.write_str("Pat(***)"),
            Self::PatFile(path) => f.debug_tuple("PatFile").field(path).finish(),
        }
    }
}

/// Where the next call's token comes from. Entra ID's short-lived tokens become a variant here.
pub(super) enum TokenSource {
    Fixed(Arc<Token>),
    File {
        path: PathBuf,
        read: Mutex<Option<ReadFile>>,
        /// As it was when it was read last, also after a rejection.
        seen: Mutex<Option<Stamp>>,
    },
}

/// A token file as it was when it was read.
pub(super) struct ReadFile {
    stamp: Stamp,
    token: Arc<Token>,
}

/// Tells one state of a file from the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
}

impl TokenSource {
    pub(super) fn new(credential: Credential) -> Result<Self, AzureError> {
        Ok(match credential {
            Credential::Pat(pat) => Self::Fixed(Arc::new(
                Token::of_pat(&pat).map_err(|reason| AzureError::Token { reason })?,
            )),
            Credential::PatFile(path) => Self::File {
                path,
                read: Mutex::new(None),
                seen: Mutex::new(None),
            },
        })
    }

    /// Returns the token to use now.
    pub(super) async fn current(&self) -> Result<Arc<Token>, AzureError> {
        let (path, read, seen) = match self {
            Self::Fixed(token) => return Ok(Arc::clone(token)),
            Self::File { path, read, seen } => (path, read, seen),
        };
        let stamp = stamp_of(path).await?;
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(stamp);
        if let Some(known) = &*read.lock().unwrap_or_else(PoisonError::into_inner)
            && known.stamp == stamp
        {
            return Ok(Arc::clone(&known.token));
        }
        let token = Arc::new(read_token(path).await?);
        *read.lock().unwrap_or_else(PoisonError::into_inner) = Some(ReadFile {
            stamp,
            token: Arc::clone(&token),
        });
        Ok(token)
    }

    /// Returns whether the file is another one than was read last.
    pub(super) async fn has_changed(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::File { path, seen, .. } => {
                let before = *seen.lock().unwrap_or_else(PoisonError::into_inner);
                matches!(stamp_of(path).await, Ok(stamp) if Some(stamp) != before)
            }
        }
    }

    /// Forgets what was read, so that a token replaced within a tick of the file's clock is seen.
    pub(super) fn forget(&self) {
        if let Self::File { read, .. } = self {
            *read.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

async fn stamp_of(path: &Path) -> Result<Stamp, AzureError> {
    let metadata = tokio::fs::metadata(path)
        .await
        .map_err(|source| AzureError::ReadToken {
            path: path.to_owned(),
            source,
        })?;
    let unfit = |reason| AzureError::TokenFile {
        path: path.to_owned(),
        reason,
    };
    if !metadata.is_file() {
        return Err(unfit("not a regular file"));
    }
    if metadata.len() > MAX_FILE {
        return Err(unfit("too large for a token"));
    }
    Ok(Stamp {
        modified: metadata.modified().ok(),
        len: metadata.len(),
    })
}

async fn read_token(path: &Path) -> Result<Token, AzureError> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|source| AzureError::ReadToken {
            path: path.to_owned(),
            source,
        })?;
    Token::of_pat(&text).map_err(|reason| AzureError::TokenFile {
        path: path.to_owned(),
        reason,
    })
}

/// A token, ready for the wire.
pub(super) struct Token {
    header: HeaderValue,
    /// Every spelling under which the token could come back to us.
    spellings: [String; 2],
}

impl Token {
    fn of_pat(pat: &str) -> Result<Self, &'static str> {
        let pat = pat.trim();
        if pat.is_empty() {
            return Err("the token is empty");
        }
        if !pat.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the token has white space or other odd characters in it");
        }
        // Azure ignores the user name. The header is sent unasked: the answer to a first request
        // without it may be a sign-in page instead of a challenge.
        let encoded = BASE64_STANDARD.encode(format!(":{pat}"));
        let mut header = HeaderValue::try_from(format!("Basic {encoded}"))
            .map_err(|_| "the token does not fit into a header")?;
        header.set_sensitive(true);
        Ok(Self {
            header,
            spellings: [pat.to_owned(), encoded],
        })
    }

    /// Returns the value of the `Authorization` header.
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Returns `text` without the token, should a server or proxy have quoted it.
    pub(super) fn mask(&self, text: &str) -> String {
        self.spellings
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

impl Debug for Token {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAT: &str = "s3cretpatvalue0123456789";

    fn source(path: &Path) -> TokenSource {
        TokenSource::new(Credential::PatFile(path.to_owned())).unwrap()
    }

    #[test]
    fn header_is_basic_with_an_empty_user_and_never_printed() {
        let token = Token::of_pat(" \tabc\n").unwrap();
        assert_eq!(token.header().to_str().unwrap(), "Basic OmFiYw==");
        assert_eq!(format!("{:?}", token.header()), "Sensitive");
        assert_eq!(format!("{token:?}"), "***");
    }

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
            let error = TokenSource::new(Credential::Pat(pat.into())).err().unwrap();
            assert!(error.to_string().contains(reason), "{error}");
            assert!(error.is_rejected() && !error.is_transient());
            if pat.len() > 3 {
                assert!(!format!("{error:?}{error}").contains(pat));
            }
        }
    }

    #[test]
    fn a_token_quoted_by_the_server_is_masked() {
        let token = Token::of_pat(PAT).unwrap();
        let quoted = format!("bad {PAT} in {}", token.header().to_str().unwrap());
        assert_eq!(token.mask(&quoted), "bad *** in Basic ***");
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "first\n").unwrap();
        let source = source(file.path());
        assert_eq!(source.current().await.unwrap().spellings[0], "first");
        std::fs::write(file.path(), "second\n").unwrap();
        assert_eq!(source.current().await.unwrap().spellings[0], "second");
    }

    #[tokio::test]
    async fn after_a_rejection_the_file_is_read_even_if_it_looks_the_same() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "older").unwrap();
        let modified = file.as_file().metadata().unwrap().modified().unwrap();
        let source = source(file.path());
        source.current().await.unwrap();
        std::fs::write(file.path(), "newer").unwrap();
        file.as_file().set_modified(modified).unwrap();
        assert_eq!(source.current().await.unwrap().spellings[0], "older");
        source.forget();
        assert!(!source.has_changed().await);
        assert_eq!(source.current().await.unwrap().spellings[0], "newer");
        std::fs::write(file.path(), "longer than before").unwrap();
        assert!(source.has_changed().await);
    }

    #[tokio::test]
    async fn a_missing_file_and_a_directory_say_so() {
        let directory = tempfile::tempdir().unwrap();
        let error = source(&directory.path().join("pat"))
            .current()
            .await
            .unwrap_err();
        assert!(matches!(error, AzureError::ReadToken { .. }));
        let error = source(directory.path()).current().await.unwrap_err();
        assert!(error.to_string().contains("not a regular file"));
    }
}
