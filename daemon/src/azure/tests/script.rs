//! A server that knows nothing: it answers one connection after the other as it is told, and
//! remembers what it was sent. For what happens on the wire; the service's rules are simulated
//! elsewhere.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What becomes of one request.
#[derive(Clone)]
pub(in crate::azure) enum Reply {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// These bytes, then nothing more, for ever.
    Stall(Vec<u8>),
    /// A reset.
    Reset,
}

impl Reply {
    pub(in crate::azure) fn json(status: u16, body: &str) -> Self {
        Self::with(
            status,
            &["Content-Type: application/json; charset=utf-8"],
            body,
        )
    }

    pub(in crate::azure) fn with(status: u16, headers: &[&str], body: &str) -> Self {
        let headers: String = headers
            .iter()
            .map(|header| format!("{header}\r\n"))
            .collect();
        let length = body.len();
        Self::Bytes(
            format!(
                "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\
                 {headers}\r\n{body}"
            )
            .into_bytes(),
        )
    }
}

pub(in crate::azure) struct Script {
    pub(in crate::azure) url: String,
    requests: Arc<Mutex<Vec<String>>>,
    _server: JoinSet<()>,
}

impl Script {
    pub(in crate::azure) async fn of(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, replies, Arc::clone(&requests)));
        Self {
            url,
            requests,
            _server: server,
        }
    }

    /// Returns the requests so far: head and body, as they came.
    pub(in crate::azure) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, replies: Vec<Reply>, requests: Arc<Mutex<Vec<String>>>) {
    let mut stalled = Vec::new();
    for reply in replies {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read(&mut stream).await;
        requests.lock().unwrap().push(request);
        match reply {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await.unwrap(),
            Reply::Stall(bytes) => {
                stream.write_all(&bytes).await.unwrap();
                stalled.push(stream);
            }
            Reply::Reset => stream.set_zero_linger().unwrap(),
        }
    }
    std::future::pending::<()>().await;
}

async fn read(stream: &mut TcpStream) -> String {
    let mut request = String::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        request.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        if let Some((head, body)) = request.split_once("\r\n\r\n")
            && body.len() >= content_length(head)
        {
            return request;
        }
        assert!(count > 0, "the request ended early: {request}");
    }
}

fn content_length(head: &str) -> usize {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().unwrap())
}
