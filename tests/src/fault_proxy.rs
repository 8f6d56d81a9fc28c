//! A proxy in front of a unix socket that speaks HTTP/1.1, for what a healthy server will not do on
//! demand: leave connections unanswered, break them off, answer late, by half, or not at all.
//!
//! It also answers in the server's place, and alters what is asked of it. Otherwise it forwards bytes
//! and understands just enough of the requests to tell them apart. Requests with
//! a chunked body end that: what follows on their connection is forwarded unseen.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Bodies up to this size are read whole: those of all requests but files.
const SMALL: usize = 64 * 1024;

/// A running proxy; ends when it is dropped.
pub struct FaultProxy {
    shared: Arc<Shared>,
    listen: PathBuf,
    _task: JoinSet<()>,
}

/// A reply that is held back.
pub struct Held {
    reached: watch::Receiver<bool>,
    release: watch::Sender<bool>,
}

struct Shared {
    upstream: PathBuf,
    state: Mutex<State>,
}

struct State {
    stall: u32,
    refuse: bool,
    silent: bool,
    delay: Duration,
    cut: CancellationToken,
    rules: Vec<Rule>,
    requests: Vec<String>,
    /// Small bodies, with their requests, as they came.
    bodies: Vec<(String, String)>,
    rewrites: Vec<(String, String)>,
    connections: usize,
}

/// Tells requests by method and path.
type Matcher = Box<dyn Fn(&str, &str) -> bool + Send>;

/// Strikes once.
struct Rule {
    matches: Matcher,
    skip: u32,
    fault: Fault,
}

enum Fault {
    CutRequest,
    CutReply(usize),
    Hold(watch::Sender<bool>, watch::Receiver<bool>),
    Answer(String),
}

/// One proxied connection, as both directions see it.
struct Flow {
    /// What happens to the next reply.
    fault: Mutex<Option<Fault>>,
    /// It has become a websocket.
    upgraded: AtomicBool,
    /// Replies that are not the server's.
    answers: mpsc::Sender<String>,
}

impl FaultProxy {
    /// Listens at a path and forwards to another.
    pub fn start(upstream: impl Into<PathBuf>, listen: impl Into<PathBuf>) -> io::Result<Self> {
        let listen = listen.into();
        let listener = UnixListener::bind(&listen)?;
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            state: Mutex::new(State {
                stall: 0,
                refuse: false,
                silent: false,
                delay: Duration::ZERO,
                cut: CancellationToken::new(),
                rules: Vec::new(),
                requests: Vec::new(),
                bodies: Vec::new(),
                rewrites: Vec::new(),
                connections: 0,
            }),
        });
        let mut task = JoinSet::new();
        task.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            shared,
            listen,
            _task: task,
        })
    }

    /// Returns where it listens.
    pub fn path(&self) -> &Path {
        &self.listen
    }

    /// Accepts the next so many connections and never answers on them.
    pub fn stall_next(&self, connections: u32) {
        self.shared.state().stall = connections;
    }

    /// Does the same with all connections to come, or stops it.
    pub fn stall_new(&self, stall: bool) {
        self.stall_next(if stall { u32::MAX } else { 0 });
    }

    /// Closes new connections at once, or stops that.
    pub fn refuse_new(&self, refuse: bool) {
        self.shared.state().refuse = refuse;
    }

    /// Breaks off all connections there are.
    pub fn cut_all(&self) {
        let cut = std::mem::take(&mut self.shared.state().cut);
        cut.cancel();
    }

    /// Delays everything that comes from the server.
    pub fn delay(&self, delay: Duration) {
        self.shared.state().delay = delay;
    }

    /// Keeps what the server says on websockets to itself, without breaking them off. One that has
    /// been silenced stays so.
    pub fn silence_websockets(&self, silent: bool) {
        self.shared.state().silent = silent;
    }

    /// Breaks off the connection of the request after `skip` that match (method, path with query),
    /// before the server sees it.
    pub fn cut_request(&self, skip: u32, matches: impl Fn(&str, &str) -> bool + Send + 'static) {
        self.rule(skip, matches, Fault::CutRequest);
    }

    /// Lets the server carry out such a request, and breaks off the connection after so many bytes
    /// of the reply.
    pub fn cut_reply(
        &self,
        skip: u32,
        bytes: usize,
        matches: impl Fn(&str, &str) -> bool + Send + 'static,
    ) {
        self.rule(skip, matches, Fault::CutReply(bytes));
    }

    /// Lets the server carry out such a request, and holds the reply back until it is released.
    pub fn hold(&self, skip: u32, matches: impl Fn(&str, &str) -> bool + Send + 'static) -> Held {
        let (reached_sender, reached) = watch::channel(false);
        let (release, released) = watch::channel(false);
        self.rule(skip, matches, Fault::Hold(reached_sender, released));
        Held { reached, release }
    }

    /// Answers such a request in the server's place, which never sees it.
    pub fn answer(
        &self,
        skip: u32,
        status: u16,
        json: &serde_json::Value,
        matches: impl Fn(&str, &str) -> bool + Send + 'static,
    ) {
        let body = json.to_string();
        let length = body.len();
        let reply = format!(
            "HTTP/1.1 {status} By proxy\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.rule(skip, matches, Fault::Answer(reply));
    }

    /// Replaces a text in all small bodies to come by another, which may be shorter and is filled up
    /// with spaces: no length changes.
    pub fn rewrite(&self, from: &str, to: &str) {
        assert!(to.len() <= from.len(), "{to:?} is longer than {from:?}");
        let to = format!("{to:<0$}", from.len());
        self.shared.state().rewrites.push((from.to_owned(), to));
    }

    /// Returns the small bodies of the requests to a path (without its query), as they came.
    pub fn bodies(&self, method: &str, path: &str) -> Vec<String> {
        let wanted = format!("{method} {path}");
        let bodies = self.shared.state().bodies.clone();
        let own = |request: &str| request.split('?').next() == Some(&wanted);
        let found = bodies.into_iter().filter(|(request, _)| own(request));
        found.map(|(_, body)| body).collect()
    }

    /// Returns the requests seen so far, as `GET /path?query`.
    pub fn requests(&self) -> Vec<String> {
        self.shared.state().requests.clone()
    }

    /// Returns how many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    fn rule(&self, skip: u32, matches: impl Fn(&str, &str) -> bool + Send + 'static, fault: Fault) {
        self.shared.state().rules.push(Rule {
            matches: Box::new(matches),
            skip,
            fault,
        });
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // Nobody can be told, and the next listener says so if it is in its way.
        let _ = std::fs::remove_file(&self.listen);
    }
}

impl Held {
    /// Waits until there is a reply to hold back: the server has carried out the request.
    pub async fn reached(&mut self) {
        // The sender goes away only after it has said so, or with the proxy.
        let _ = self.reached.wait_for(|reached| *reached).await;
    }

    /// Lets the reply go.
    pub fn release(self) {
        self.release.send_replace(true);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }

    /// Notes a request and returns what shall happen to it.
    fn strike(&self, method: &str, path: &str) -> Option<Fault> {
        let mut state = self.state();
        state.requests.push(format!("{method} {path}"));
        let hit = state.rules.iter_mut().position(|rule| {
            let matches = (rule.matches)(method, path);
            let now = matches && rule.skip == 0;
            if matches && !now {
                rule.skip -= 1;
            }
            now
        })?;
        Some(state.rules.remove(hit).fault)
    }

    /// Notes a body and returns what the server gets of it.
    fn see_body(&self, request: &str, body: &[u8]) -> Vec<u8> {
        let Ok(text) = str::from_utf8(body) else {
            return body.to_vec();
        };
        let mut state = self.state();
        state.bodies.push((request.to_owned(), text.to_owned()));
        let rewrites = state.rewrites.iter();
        rewrites
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
            .into_bytes()
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (stall, cut) = {
            let mut state = shared.state();
            state.connections += 1;
            if state.refuse {
                continue;
            }
            let stall = state.stall > 0;
            if stall && state.stall < u32::MAX {
                state.stall -= 1;
            }
            (stall, state.cut.clone())
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            cut.run_until_cancelled(async {
                // An error here is a connection that ended, which its client sees for itself.
                let _ = if stall {
                    swallow(client).await
                } else {
                    relay(client, &shared).await
                };
            })
            .await;
        });
    }
}

/// Reads until the client gives up.
async fn swallow(mut client: UnixStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    while client.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn relay(client: UnixStream, shared: &Shared) -> io::Result<()> {
    let server = UnixStream::connect(&shared.upstream).await?;
    let (client_reader, client_writer) = client.into_split();
    let (server_reader, server_writer) = server.into_split();
    let (answers, answered) = mpsc::channel(1);
    let flow = Flow {
        fault: Mutex::default(),
        upgraded: AtomicBool::new(false),
        answers,
    };
    tokio::select! {
        ended = requests(client_reader, server_writer, &flow, shared) => ended,
        ended = replies(server_reader, client_writer, answered, &flow, shared) => ended,
    }
}

/// Forwards what the client says, request by request as long as they can be told apart.
async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    flow: &Flow,
    shared: &Shared,
) -> io::Result<()> {
    let mut pending = Vec::new();
    loop {
        let Some(end) = head_end(&pending) else {
            if from.read_buf(&mut pending).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head = String::from_utf8_lossy(&pending[..end]).into_owned();
        let mut words = head.split_ascii_whitespace();
        let (method, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let fault = shared.strike(method, path);
        if matches!(fault, Some(Fault::CutRequest)) {
            return Ok(());
        }
        let upgrade = header(&head, "upgrade").is_some();
        flow.upgraded.store(upgrade, Ordering::Relaxed);
        let body: usize = header(&head, "content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        let whole = end + body;
        while body <= SMALL && pending.len() < whole {
            if from.read_buf(&mut pending).await? == 0 {
                return Ok(());
            }
        }
        let rest = pending.split_off(whole.min(pending.len()));
        if body <= SMALL && body > 0 {
            let seen = shared.see_body(&format!("{method} {path}"), &pending[end..]);
            pending.truncate(end);
            pending.extend(seen);
        }
        if let Some(Fault::Answer(reply)) = fault {
            if flow.answers.send(reply).await.is_err() {
                return Ok(());
            }
            pending = rest;
            continue;
        }
        *flow.fault.lock().expect("nothing panics while it is held") = fault;
        to.write_all(&pending).await?;
        let missing = (whole - pending.len()) as u64;
        tokio::io::copy(&mut (&mut from).take(missing), &mut to).await?;
        pending = rest;
        if upgrade || header(&head, "transfer-encoding").is_some() {
            to.write_all(&pending).await?;
            tokio::io::copy(&mut from, &mut to).await?;
            return Ok(());
        }
    }
}

/// Forwards what the server says, unless something shall happen to it.
async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut answered: mpsc::Receiver<String>,
    flow: &Flow,
    shared: &Shared,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut left = None;
    let mut silenced = false;
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read?,
            Some(reply) = answered.recv() => {
                to.write_all(reply.as_bytes()).await?;
                continue;
            }
        };
        if read == 0 {
            return Ok(());
        }
        let delay = shared.state().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let fault = flow
            .fault
            .lock()
            .expect("nothing panics while it is held")
            .take();
        match fault {
            Some(Fault::Hold(reached, mut released)) => {
                reached.send_replace(true);
                // A lost `Held` releases as well.
                let _ = released.wait_for(|released| *released).await;
            }
            Some(Fault::CutReply(bytes)) => left = Some(bytes),
            Some(Fault::CutRequest | Fault::Answer(_)) | None => {}
        }
        silenced |= flow.upgraded.load(Ordering::Relaxed) && shared.state().silent;
        if silenced {
            continue;
        }
        let Some(bytes) = left.as_mut() else {
            to.write_all(&buffer[..read]).await?;
            continue;
        };
        let some = read.min(*bytes);
        to.write_all(&buffer[..some]).await?;
        *bytes -= some;
        if *bytes == 0 {
            return Ok(());
        }
    }
}

/// Returns where the head of a request ends, with the empty line.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|start| start + 4)
}

/// Returns the value of a header.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
