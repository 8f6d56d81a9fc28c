//! A server for tests that says what it is told to, for answers a real one does not give on demand.

use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::{Incus, Limits};

/// Returns the whole answer to the head of a request; empty closes the connection.
type Answers = dyn Fn(&str) -> Vec<u8> + Send + Sync;

/// A running server.
pub(crate) struct Scripted {
    pub(crate) incus: Incus,
    requests: Arc<Mutex<Vec<String>>>,
    _dir: TempDir,
    _task: JoinSet<()>,
}

impl Scripted {
    pub(crate) fn new(answers: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&requests);
        let answers: Arc<Answers> = Arc::new(answers);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&answers), Arc::clone(&seen)));
            }
        });
        let incus = Incus::with_limits(socket, Arc::new(|_| {}), Limits::default());
        Self {
            incus,
            requests,
            _dir: dir,
            _task: task,
        }
    }

    /// Returns the first lines of the requests, without the greetings.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: UnixStream, answers: Arc<Answers>, seen: Arc<Mutex<Vec<String>>>) {
    let mut pending = Vec::new();
    loop {
        let Some(end) = pending.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            match stream.read_buf(&mut pending).await {
                Ok(read) if read > 0 => continue,
                _ => return,
            }
        };
        // The tests send no bodies.
        let head = String::from_utf8(pending.drain(..end + 4).collect()).unwrap();
        let answer = if head.starts_with("GET / ") {
            json(200, "[]")
        } else {
            let line = head.lines().next().unwrap_or_default();
            seen.lock()
                .unwrap()
                .push(line.trim_end_matches(" HTTP/1.1").to_owned());
            answers(&head)
        };
        if answer.is_empty() || stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// Returns an answer with some headers.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

/// Returns a framed result.
pub(crate) fn json(status: u16, metadata: &str) -> Vec<u8> {
    let frame = format!(r#"{{"type":"sync","error":"","error_code":0,"metadata":{metadata}}}"#);
    answer(status, "Content-Type: application/json\r\n", &frame)
}

/// Returns a framed refusal; waits are refused with HTTP status 200.
pub(crate) fn refusal(status: u16, code: u16, message: &str) -> Vec<u8> {
    let frame =
        format!(r#"{{"type":"error","error":"{message}","error_code":{code},"metadata":null}}"#);
    answer(status, "Content-Type: application/json\r\n", &frame)
}
