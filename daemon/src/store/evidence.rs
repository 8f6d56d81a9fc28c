//! Files that ended agents left: `<state directory>/evidence/<agent>/<file>`. Written while the
//! machine waits for its end, bounded in number, size and time, so that neither a slow nor a full
//! disk keeps a successor waiting.

use std::fs;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;
use tokio::sync::Semaphore;

/// Writers at a time. More wait their turn, within their own bounds; a disk that hangs holds so
/// many threads and no more.
const WRITERS: usize = 4;
/// Evidence is given up rather than the host's last space.
const LEAST_FREE: u64 = 256 * 1024 * 1024;
/// Reading from our own disk.
const READ: Duration = Duration::from_secs(10);

/// Handle of the folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Evidence {
    folder: Arc<PathBuf>,
    writers: Arc<Semaphore>,
}

impl Evidence {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            folder: Arc::new(state_dir.join("evidence")),
            writers: Arc::new(Semaphore::new(WRITERS)),
        }
    }

    /// Keeps a file of an agent; an earlier one of that name is replaced.
    pub async fn save(&self, agent: &str, file: &str, content: Vec<u8>) -> io::Result<()> {
        let folder = self.folder_of(agent)?;
        let path = folder.join(checked(file)?);
        let permit = Arc::clone(&self.writers).acquire_owned().await;
        let permit = permit.map_err(io::Error::other)?;
        let write = move || {
            // Held by the thread: a caller that gives up does not free it.
            let _permit = permit;
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)?;
            let disk = statvfs(&folder)?;
            if disk.blocks_available() as u64 * disk.fragment_size() as u64 <= LEAST_FREE {
                return Err(io::Error::new(
                    ErrorKind::StorageFull,
                    "the disk is nearly full",
                ));
            }
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            io::Write::write_all(&mut options.open(&path)?, &content)
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(io::Error::other)?
    }

    /// Returns a part of a file, `None` when there is no such file. At its end the part is empty.
    pub async fn read(
        &self,
        agent: &str,
        file: &str,
        from: u64,
        most: u64,
    ) -> io::Result<Option<Vec<u8>>> {
        let path = self.folder_of(agent)?.join(checked(file)?);
        let read = tokio::task::spawn_blocking(move || {
            let mut file = match fs::File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            file.seek(SeekFrom::Start(from))?;
            let mut part = Vec::new();
            file.take(most).read_to_end(&mut part)?;
            Ok(Some(part))
        });
        match tokio::time::timeout(READ, read).await {
            Ok(result) => result.map_err(io::Error::other)?,
            Err(_) => Err(ErrorKind::TimedOut.into()),
        }
    }

    /// Returns the names and sizes of what an agent left, by name.
    pub async fn list(&self, agent: &str) -> io::Result<Vec<(String, u64)>> {
        let folder = self.folder_of(agent)?;
        let list = tokio::task::spawn_blocking(move || {
            let mut files = Vec::new();
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(files),
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                files.push((name, entry.metadata()?.len()));
            }
            files.sort();
            Ok(files)
        });
        match tokio::time::timeout(READ, list).await {
            Ok(result) => result.map_err(io::Error::other)?,
            Err(_) => Err(ErrorKind::TimedOut.into()),
        }
    }

    /// Removes what is older, and then the oldest until the rest fits into `bytes`. Blocks.
    pub(super) fn prune(&self, oldest: Timestamp, bytes: u64) -> io::Result<()> {
        let entries = match fs::read_dir(&*self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut folders: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in entries {
            let entry = entry?;
            let size = fs::read_dir(entry.path())?
                .flatten()
                .filter_map(|file| file.metadata().ok())
                .map(|file| file.len())
                .sum();
            folders.push((entry.metadata()?.modified()?, size, entry.path()));
        }
        folders.sort();
        let mut total: u64 = folders.iter().map(|folder| folder.1).sum();
        let age = Duration::try_from(Timestamp::now() - oldest).unwrap_or_default();
        let oldest = SystemTime::now().checked_sub(age);
        for (modified, size, path) in folders {
            if oldest.is_none_or(|oldest| modified >= oldest) && total <= bytes {
                break;
            }
            fs::remove_dir_all(path)?;
            total -= size;
        }
        Ok(())
    }

    fn folder_of(&self, agent: &str) -> io::Result<PathBuf> {
        Ok(self.folder.join(checked(agent)?))
    }
}

/// Names come from guests and from clients: none may lead out of its folder.
fn checked(name: &str) -> io::Result<&str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 128 || name.starts_with('.') || !name.chars().all(fits) {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!("no name for a file: {name:?}"),
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_saved_is_listed_and_read_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let evidence = Evidence::new(dir.path());
        evidence
            .save("a-1", "agent.log", b"hello world".to_vec())
            .await
            .unwrap();
        evidence
            .save("a-1", "agent.log", b"hello".to_vec())
            .await
            .unwrap();
        assert_eq!(
            evidence.list("a-1").await.unwrap(),
            [("agent.log".to_owned(), 5)]
        );
        let read = |from, most| evidence.read("a-1", "agent.log", from, most);
        assert_eq!(read(1, 3).await.unwrap().unwrap(), b"ell");
        assert_eq!(read(5, 3).await.unwrap().unwrap(), b"");
        assert_eq!(evidence.read("a-1", "other", 0, 9).await.unwrap(), None);
        assert!(evidence.list("a-2").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn no_name_leads_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let evidence = Evidence::new(dir.path());
        for name in ["", "..", "../x", "a/b", ".hidden", "a\0b", "n\u{e9}e"] {
            assert!(
                evidence.save("a", name, Vec::new()).await.is_err(),
                "{name}"
            );
            assert!(
                evidence.save(name, "a", Vec::new()).await.is_err(),
                "{name}"
            );
            assert!(evidence.read(name, "a", 0, 1).await.is_err(), "{name}");
        }
        assert!(
            evidence
                .save(&"x".repeat(200), "a", Vec::new())
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn the_oldest_go_first_and_only_until_the_rest_fits() {
        let dir = tempfile::tempdir().unwrap();
        let evidence = Evidence::new(dir.path());
        for (name, age) in [("old", 300), ("middle", 200), ("new", 100)] {
            evidence.save(name, "f", vec![b'x'; 10]).await.unwrap();
            let folder = fs::File::open(dir.path().join("evidence").join(name)).unwrap();
            let at = SystemTime::now() - Duration::from_secs(age);
            folder.set_modified(at).unwrap();
        }
        let left = || {
            let entries = fs::read_dir(dir.path().join("evidence")).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        evidence.prune(Timestamp::UNIX_EPOCH, 20).unwrap();
        assert_eq!(left(), ["middle", "new"]);
        let oldest = Timestamp::now() - Duration::from_secs(150);
        evidence.prune(oldest, 1000).unwrap();
        assert_eq!(left(), ["new"]);
    }
}
