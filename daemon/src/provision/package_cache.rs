//! Agent packages on the host, `<state directory>/packages/<sha256>.tar.gz`: what was uploaded, and
//! what was downloaded and checked. A file in there under a name is what the name says: it is on the
//! disk before it gets the name, and checked again before it is used.

use std::collections::HashSet;
use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::{Stream, StreamExt};
use hyper::body::Bytes;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::azure::Azure;

use super::error::{ProvisionError, StepError};

/// No agent package comes near; a client that does not stop must not fill the disk.
const MAX_PACKAGE_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// An upload that sends nothing for this long has lost its client.
const UPLOAD_IDLE: Duration = Duration::from_secs(60);
/// Packages kept; one is about 150 MB.
const KEPT_PACKAGES: usize = 5;
/// What the packages kept may take, whatever their number.
const KEPT_BYTES: u64 = 2 * MAX_PACKAGE_BYTES;
/// What all packages may take, those that jobs wait for and those on their way included.
const MAX_BYTES: u64 = 2 * KEPT_BYTES;
/// How much of an upload is taken before the folder is measured again: others may be on their way.
const MEASURE_EVERY: u64 = 32 * 1024 * 1024;
const READ_CHUNK: usize = 256 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const UNFINISHED: &str = "unfinished";

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct PackageCache {
    folder: PathBuf,
    kept_bytes: u64,
    max_bytes: u64,
}

impl PackageCache {
    /// Returns the cache, without what earlier downloads have left unfinished.
    pub(super) fn new(state_dir: &Path) -> Self {
        let cache = Self {
            folder: state_dir.join("packages"),
            kept_bytes: KEPT_BYTES,
            max_bytes: MAX_BYTES,
        };
        for path in cache.files(UNFINISHED) {
            remove(&path);
        }
        cache
    }

    /// Whether there is such a package.
    pub(super) fn contains(&self, sha256: &str) -> bool {
        self.path(sha256).is_file()
    }

    /// Opens a package and returns its size. `None` when there is none, or none that is whole: what
    /// has rotted is removed.
    pub(super) async fn open(&self, sha256: &str) -> Result<Option<(File, u64)>, StepError> {
        let path = self.path(sha256);
        let failed = |source| StepError::Disk {
            what: "read the agent package",
            path: path.clone(),
            source,
        };
        let mut file = match File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let size = file.metadata().await.map_err(failed)?.len();
        if digest_of(&mut file).await.map_err(failed)? != sha256 {
            warn!(path = %path.display(), "agent package is not what its name says: removed");
            remove(&path);
            return Ok(None);
        }
        let file = file.into_std().await;
        // Times are what pruning goes by; a file of somebody else's cannot be touched, which is fine.
        let touched = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        drop(touched);
        Ok(Some((File::from_std(file), size)))
    }

    /// Stores an uploaded package and returns its SHA-256 and size.
    pub(super) async fn store<E>(
        &self,
        chunks: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(String, u64), ProvisionError>
    where
        E: Error + Send + Sync + 'static,
    {
        let (unfinished, mut file) =
            self.create()
                .await
                .map_err(|(path, source)| ProvisionError::Disk {
                    what: "write",
                    path,
                    source,
                })?;
        let failed = |source| ProvisionError::Disk {
            what: "write",
            path: unfinished.0.clone(),
            source,
        };
        let mut digest = Context::new(&SHA256);
        let mut size = 0;
        let mut measured_at = 0;
        let mut start = Vec::new();
        let mut chunks = std::pin::pin!(chunks);
        loop {
            let next = tokio::time::timeout(UPLOAD_IDLE, chunks.next())
                .await
                .map_err(|_| ProvisionError::UploadStalled(UPLOAD_IDLE))?;
            let Some(chunk) = next else { break };
            let chunk = chunk.map_err(|error| ProvisionError::Upload(Box::new(error)))?;
            size += chunk.len() as u64;
            if size > MAX_PACKAGE_BYTES {
                return Err(ProvisionError::NotAPackage(format!(
                    "larger than {MAX_PACKAGE_BYTES} bytes"
                )));
            }
            if size >= measured_at {
                self.check_room(chunk.len() as u64)?;
                measured_at = size + MEASURE_EVERY;
            }
            if start.len() < GZIP_MAGIC.len() {
                start.extend(chunk.iter().take(GZIP_MAGIC.len() - start.len()));
                if !GZIP_MAGIC.starts_with(&start) {
                    return Err(ProvisionError::NotAPackage(
                        "not compressed by gzip".to_owned(),
                    ));
                }
            }
            digest.update(&chunk);
            file.write_all(&chunk).await.map_err(failed)?;
        }
        if start.len() < GZIP_MAGIC.len() {
            return Err(ProvisionError::NotAPackage("empty".to_owned()));
        }
        file.flush().await.map_err(failed)?;
        let sha256 = hex(digest.finish().as_ref());
        self.finish(&unfinished, &sha256).await.map_err(failed)?;
        info!(sha256, size, "agent package uploaded");
        Ok((sha256, size))
    }

    /// Downloads a package, checks it and keeps it. One with another checksum is not kept.
    pub(super) async fn download(
        &self,
        azure: &Azure,
        url: &str,
        expected: &str,
        progress: impl FnMut(u64, Option<u64>) + Send,
        stop: CancellationToken,
    ) -> Result<(), StepError> {
        let what = "write the agent package";
        let (unfinished, file) = self
            .create()
            .await
            .map_err(|(path, source)| StepError::Disk { what, path, source })?;
        let cancelled = stop.clone();
        let found = azure
            .download(url, file, progress, stop)
            .await
            .map_err(|source| {
                if cancelled.is_cancelled() {
                    return StepError::Cancelled;
                }
                StepError::Azure {
                    what: "download the agent package",
                    source,
                }
            })?;
        if found != expected {
            return Err(StepError::Checksum {
                expected: expected.to_owned(),
                found,
            });
        }
        let path = self.path(expected);
        self.finish(&unfinished, expected)
            .await
            .map_err(|source| StepError::Disk { what, path, source })
    }

    /// Removes all but the packages used last and those that jobs need.
    pub(super) fn prune(&self, wanted: &HashSet<String>) {
        let mut bytes = 0;
        let used = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
        let mut packages = self.files("gz");
        packages.sort_by_key(|path| std::cmp::Reverse(used(path)));
        for (n, path) in packages.iter().enumerate() {
            bytes += size_of(path);
            if n < KEPT_PACKAGES && bytes <= self.kept_bytes {
                continue;
            }
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if !wanted.contains(name.trim_end_matches(".tar.gz")) {
                remove(path);
            }
        }
    }

    /// Fails when the folder has no room for so many bytes more.
    fn check_room(&self, bytes: u64) -> Result<(), ProvisionError> {
        let files = self.files("gz").into_iter().chain(self.files(UNFINISHED));
        let taken: u64 = files.map(|path| size_of(&path)).sum();
        if taken + bytes > self.max_bytes {
            return Err(ProvisionError::CacheFull(self.max_bytes));
        }
        Ok(())
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.folder.join(format!("{sha256}.tar.gz"))
    }

    async fn create(&self) -> Result<(Unfinished, File), (PathBuf, std::io::Error)> {
        let path = self
            .folder
            .join(format!("{:016x}.{UNFINISHED}", fastrand::u64(..)));
        let opened = async {
            tokio::fs::create_dir_all(&self.folder).await?;
            File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .await
        };
        match opened.await {
            Ok(file) => Ok((Unfinished(path), file)),
            Err(error) => Err((path, error)),
        }
    }

    async fn finish(&self, unfinished: &Unfinished, sha256: &str) -> Result<(), std::io::Error> {
        // Else a host that loses power may have the name without the bytes.
        File::open(&unfinished.0).await?.sync_all().await?;
        tokio::fs::rename(&unfinished.0, self.path(sha256)).await
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == extension))
            .collect()
    }
}

/// A file that is removed unless it was renamed, however its writing ends.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.0.exists() {
            remove(&self.0);
        }
    }
}

/// Returns the size of a file, 0 when it is gone.
fn size_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        warn!(path = %path.display(), %error, "agent package not removed");
    }
}

/// Returns the SHA-256 of a file, and leaves it at its beginning.
async fn digest_of(file: &mut File) -> Result<String, std::io::Error> {
    let mut digest = Context::new(&SHA256);
    let mut chunk = vec![0; READ_CHUNK];
    loop {
        let read = file.read(&mut chunk).await?;
        if read == 0 {
            break;
        }
        digest.update(chunk.get(..read).unwrap_or_default());
    }
    file.rewind().await?;
    Ok(hex(digest.finish().as_ref()))
}

/// Returns bytes in lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string works");
        text
    })
}

#[cfg(test)]
mod tests;
