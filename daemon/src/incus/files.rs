//! Files in guests. What is in a guest is hostile: it is asked about before it is read, only what
//! has the looks of a regular file is read, and never more of it than wanted.

use std::fmt::{Display, Formatter};
use std::io;
use std::time::Duration;

use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, RANGE};
use hyper::{Method, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, Take};
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::IncusError;
use super::transport::{Ask, Body, Payload};
use super::{Project, found};

const UID: HeaderName = HeaderName::from_static("x-incus-uid");
const GID: HeaderName = HeaderName::from_static("x-incus-gid");
const MODE: HeaderName = HeaderName::from_static("x-incus-mode");
const TYPE: HeaderName = HeaderName::from_static("x-incus-type");
const WRITE: HeaderName = HeaderName::from_static("x-incus-write");

const CHUNK: usize = 256 * 1024;

/// Owner and mode of a file that is made in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMeta {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
}

/// What a path in a guest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A file. The server says so of FIFOs, sockets and device nodes too: those have no size.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; never followed.
    Symlink,
    /// Anything else.
    Other,
}

impl Display for FileKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File => "file without content",
            Self::Directory => "directory",
            Self::Symlink => "symbolic link",
            Self::Other => "special file",
        })
    }
}

/// What the server tells of a path in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// What it is.
    pub kind: FileKind,
    /// Its size, for files.
    pub size: Option<u64>,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
}

impl Project {
    /// Writes a file; its directory must exist. The owner and mode of a file that exists already
    /// stay as they are: remove it first where that matters.
    pub async fn push_file(
        &self,
        name: &str,
        path: &str,
        meta: &FileMeta,
        content: Bytes,
        deadline: Duration,
    ) -> Result<(), IncusError> {
        let ask = self
            .upload("file_push", "file", (name, path), meta)
            .header(WRITE, "overwrite")
            .header(CONTENT_TYPE, "application/octet-stream")
            .payload(Payload::Bytes(content))
            .repeatable();
        self.transport()
            .done(ask.within(deadline).answered_within(deadline))
            .await
    }

    /// Writes a file of a known length from one of ours and tells how many bytes are on their way.
    #[expect(
        clippy::too_many_arguments,
        reason = "one more than push_file, and the progress"
    )]
    pub async fn push_file_stream(
        &self,
        name: &str,
        path: &str,
        meta: &FileMeta,
        file: File,
        len: u64,
        mut progress: impl FnMut(u64) + Send,
        deadline: Duration,
    ) -> Result<(), IncusError> {
        let (sent, mut seen) = watch::channel(0);
        let ask = self
            .upload("file_push", "file", (name, path), meta)
            .header(WRITE, "overwrite")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, len)
            .payload(Payload::Stream(chunks(file.take(len), sent)));
        let ask = ask.within(deadline).answered_within(deadline);
        let mut call = std::pin::pin!(self.transport().done(ask));
        loop {
            tokio::select! {
                result = &mut call => return result,
                Ok(()) = seen.changed() => {}
            }
            progress(*seen.borrow_and_update());
        }
    }

    /// Makes a directory; its parent must exist. One that exists already is left as it is.
    pub async fn make_directory(
        &self,
        name: &str,
        path: &str,
        meta: &FileMeta,
        deadline: Duration,
    ) -> Result<(), IncusError> {
        let ask = self
            .upload("directory_make", "directory", (name, path), meta)
            .repeatable();
        self.transport()
            .done(ask.within(deadline).answered_within(deadline))
            .await
    }

    /// Removes a file or an empty directory. One that is gone already is fine.
    pub async fn remove_file(
        &self,
        name: &str,
        path: &str,
        deadline: Duration,
    ) -> Result<(), IncusError> {
        let ask = self.file_ask("file_remove", Method::DELETE, name, path);
        found(self.transport().done(ask.within(deadline)).await).map(drop)
    }

    /// Asks what a path names. `None` when there is nothing, or no such instance.
    pub async fn head_file(
        &self,
        name: &str,
        path: &str,
        deadline: Duration,
    ) -> Result<Option<FileInfo>, IncusError> {
        let ask = self
            .file_ask("file_head", Method::HEAD, name, path)
            .within(deadline);
        let answer = found(self.transport().call(ask).await)?;
        Ok(answer.map(|answer| info(&answer.headers)))
    }

    /// Reads a file, or a range (first byte, length) of it. A whole file that is larger than `cap`
    /// is an error; a range ends there.
    ///
    /// Reading a FIFO would never end. The server takes one for a file of no size, so those are
    /// taken for empty without being opened.
    pub async fn read_file(
        &self,
        name: &str,
        path: &str,
        range: Option<(u64, u64)>,
        cap: usize,
        deadline: Duration,
    ) -> Result<Vec<u8>, IncusError> {
        let end = Instant::now() + deadline;
        let head = self
            .file_ask("file_head", Method::HEAD, name, path)
            .within(deadline);
        let info = info(&self.transport().call(head).await?.headers);
        let ask = self.file_ask("file_read", Method::GET, name, path);
        if info.kind != FileKind::File {
            return Err(IncusError::NotRegular {
                call: ask.site(),
                kind: info.kind,
            });
        }
        let size = info.size.unwrap_or_default();
        let (from, len) = range.unwrap_or((0, size));
        if from >= size || len == 0 {
            return Ok(Vec::new());
        }
        let room = u64::try_from(cap).unwrap_or(u64::MAX);
        if range.is_none() && size > room {
            return Err(IncusError::TooLarge {
                call: ask.site(),
                cap,
            });
        }
        let len = len.min(room).min(size - from);
        let ask = ask
            .header(RANGE, format!("bytes={from}-{}", from + len - 1))
            .part(from, usize::try_from(len).unwrap_or(cap))
            .within(end.saturating_duration_since(Instant::now()));
        match self.transport().call(ask).await {
            // It has become shorter meanwhile.
            Err(IncusError::Refused { status, .. })
                if status == StatusCode::RANGE_NOT_SATISFIABLE.as_u16() =>
            {
                Ok(Vec::new())
            }
            result => result.map(|answer| answer.body),
        }
    }

    /// Lists the names in a directory. More than `cap` bytes of them are an error.
    pub async fn list_directory(
        &self,
        name: &str,
        path: &str,
        cap: usize,
        deadline: Duration,
    ) -> Result<Vec<String>, IncusError> {
        let end = Instant::now() + deadline;
        let head = self
            .file_ask("file_head", Method::HEAD, name, path)
            .within(deadline);
        let info = info(&self.transport().call(head).await?.headers);
        let ask = self.file_ask("directory_list", Method::GET, name, path);
        if info.kind != FileKind::Directory {
            return Err(IncusError::NotRegular {
                call: ask.site(),
                kind: info.kind,
            });
        }
        let left = end.saturating_duration_since(Instant::now());
        self.transport().sync(ask.part(0, cap).within(left)).await
    }

    fn file_ask(&self, kind: &'static str, method: Method, name: &str, path: &str) -> Ask {
        let path = self.instance_path(name, &["files"], &[("path", path)]);
        Ask::new(kind, method, path).instance(name).private()
    }

    fn upload(
        &self,
        kind: &'static str,
        r#type: &str,
        (name, path): (&str, &str),
        meta: &FileMeta,
    ) -> Ask {
        self.file_ask(kind, Method::POST, name, path)
            .header(UID, meta.uid)
            .header(GID, meta.gid)
            // The server reads the mode as Go does a literal: octal begins with a zero.
            .header(MODE, format!("{:04o}", meta.mode & 0o777))
            .header(TYPE, r#type)
    }
}

fn info(headers: &HeaderMap) -> FileInfo {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let number = |name: &HeaderName| text(name).and_then(|text| text.parse().ok());
    let kind = match text(&TYPE) {
        Some("file") => FileKind::File,
        Some("directory") => FileKind::Directory,
        Some("symlink") => FileKind::Symlink,
        _ => FileKind::Other,
    };
    FileInfo {
        kind,
        size: text(&CONTENT_LENGTH)
            .filter(|_| kind == FileKind::File)
            .and_then(|text| text.parse().ok()),
        uid: number(&UID).unwrap_or_default(),
        gid: number(&GID).unwrap_or_default(),
        mode: text(&MODE)
            .and_then(|text| u32::from_str_radix(text, 8).ok())
            .unwrap_or_default(),
    }
}

/// Returns a file as the body of a request.
fn chunks(file: Take<File>, sent: watch::Sender<u64>) -> Body {
    let chunks = stream::try_unfold((file, sent), |(mut file, sent)| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = (&mut file)
            .take(CHUNK as u64)
            .read_to_end(&mut chunk)
            .await?;
        if read == 0 {
            return Ok::<_, io::Error>(None);
        }
        sent.send_modify(|sent| *sent += read as u64);
        Ok(Some((Frame::data(Bytes::from(chunk)), (file, sent))))
    });
    StreamBody::new(chunks).boxed()
}

#[cfg(test)]
mod tests;
