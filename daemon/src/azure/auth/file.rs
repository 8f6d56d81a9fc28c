//! Files that hold a credential: read again when they change, and never read when they are no
//! credential.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::token::Token;
use crate::azure::error::AzureError;

/// A key with a chain of certificates has some kilobytes; this only keeps a wrong path from being
/// read whole.
const MAX_FILE: u64 = 64 * 1024;

/// A file that holds a personal access token.
pub(in crate::azure) struct TokenFile {
    file: WatchedFile,
    read: Mutex<Option<(Stamp, Arc<Token>)>>,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            file: WatchedFile::new(path),
            read: Mutex::new(None),
        }
    }

    pub(super) async fn current(&self) -> Result<Arc<Token>, AzureError> {
        let stamp = self.file.look().await?;
        if let Some((known, token)) = &*self.read.lock().unwrap_or_else(PoisonError::into_inner)
            && *known == stamp
        {
            return Ok(Arc::clone(token));
        }
        let text = self.file.text().await?;
        let token = Token::of_pat(&text).map_err(|reason| self.file.unfit(reason))?;
        let token = Arc::new(token);
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((stamp, Arc::clone(&token)));
        Ok(token)
    }

    pub(super) async fn has_changed(&self) -> bool {
        self.file.has_changed().await
    }

    /// Forgets what was read, so that a token replaced within a tick of the file's clock is seen.
    pub(super) fn forget(&self) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Tells one state of a file from the next.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
}

/// A small file of which it is known whether it changed.
pub(super) struct WatchedFile {
    path: PathBuf,
    /// As it was when it was looked at last.
    seen: Mutex<Option<Stamp>>,
}

impl WatchedFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            seen: Mutex::new(None),
        }
    }

    /// Looks at the file and reads it.
    pub(super) async fn read(&self) -> Result<String, AzureError> {
        self.look().await?;
        self.text().await
    }

    /// Returns whether the file is another one than was looked at last.
    pub(super) async fn has_changed(&self) -> bool {
        let before = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(stamp_of(&self.path).await, Ok(stamp) if Some(stamp) != before)
    }

    pub(super) fn unfit(&self, reason: &'static str) -> AzureError {
        AzureError::TokenFile {
            path: self.path.clone(),
            reason,
        }
    }

    async fn look(&self) -> Result<Stamp, AzureError> {
        let stamp = stamp_of(&self.path).await?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(stamp);
        Ok(stamp)
    }

    async fn text(&self) -> Result<String, AzureError> {
        tokio::fs::read_to_string(&self.path)
            .await
            .map_err(|source| AzureError::ReadToken {
                path: self.path.clone(),
                source,
            })
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
        return Err(unfit("too large for a credential"));
    }
    Ok(Stamp {
        modified: metadata.modified().ok(),
        len: metadata.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(file: &TokenFile) -> String {
        let token = file.current().await.unwrap();
        token.mask("first second older newer")
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "first\n").unwrap();
        let source = TokenFile::new(file.path().to_owned());
        assert_eq!(sent(&source).await, "*** second older newer");
        std::fs::write(file.path(), "second\n").unwrap();
        assert_eq!(sent(&source).await, "first *** older newer");
    }

    #[tokio::test]
    async fn after_a_rejection_the_file_is_read_even_if_it_looks_the_same() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "older").unwrap();
        let modified = file.as_file().metadata().unwrap().modified().unwrap();
        let source = TokenFile::new(file.path().to_owned());
        source.current().await.unwrap();
        std::fs::write(file.path(), "newer").unwrap();
        file.as_file().set_modified(modified).unwrap();
        assert_eq!(sent(&source).await, "first second *** newer");
        source.forget();
        assert!(!source.has_changed().await);
        assert_eq!(sent(&source).await, "first second older ***");
        std::fs::write(file.path(), "longer than before").unwrap();
        assert!(source.has_changed().await);
    }

    #[tokio::test]
    async fn a_missing_file_and_a_directory_say_so() {
        let directory = tempfile::tempdir().unwrap();
        let missing = TokenFile::new(directory.path().join("pat"));
        let error = missing.current().await.unwrap_err();
        assert!(matches!(error, AzureError::ReadToken { .. }));
        let error = TokenFile::new(directory.path().to_owned())
            .current()
            .await
            .unwrap_err();
        assert!(error.to_string().contains("not a regular file"));
    }
}
