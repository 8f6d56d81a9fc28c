//! Hands an agent package to the daemon.

use std::path::Path;
use std::time::Duration;

use iap_common::v1::UploadAgentPackageRequest;
use iap_common::v1::provision_service_client::ProvisionServiceClient;
use jiff::Timestamp;
use serde::Serialize;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::commands::quiet_call;
use crate::error::CliError;
use crate::progress::{Line, Mode, Screen, bar, say, say_json};
use crate::rows::time::{Time, megabytes};

const CHUNK: usize = 256 * 1024;
/// 150 MB to a local disk take seconds; a busy disk takes longer.
const DEADLINE: Duration = Duration::from_secs(600);

/// Sends the file and returns the SHA-256 by which the daemon knows it.
pub(super) async fn upload(
    client: &mut ProvisionServiceClient<Channel>,
    path: &Path,
    mode: Mode,
) -> Result<String, CliError> {
    let cannot_read = |source| CliError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).await.map_err(cannot_read)?;
    let total = file.metadata().await.map_err(cannot_read)?.len();
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut progress = Progress::new(mode, name, total);
    let (sender, receiver) = mpsc::channel(4);
    let send = async move {
        let mut file = BufReader::with_capacity(CHUNK, file);
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            (&mut file)
                .take(CHUNK as u64)
                .read_to_end(&mut chunk)
                .await?;
            let size = chunk.len() as u64;
            // A receiver that is gone has an answer already: an error, most likely.
            if size == 0
                || sender
                    .send(UploadAgentPackageRequest { chunk })
                    .await
                    .is_err()
            {
                progress.end();
                return Ok(());
            }
            progress.add(size);
        }
    };
    let rpc = quiet_call(
        DEADLINE,
        client.upload_agent_package(ReceiverStream::new(receiver)),
    );
    let (sent, answer) = tokio::join!(send, rpc);
    sent.map_err(cannot_read)?;
    Ok(answer?.sha256)
}

/// How far an upload is.
struct Progress {
    mode: Mode,
    name: String,
    done: u64,
    total: u64,
    screen: Option<Screen>,
    /// Tenths that were told in plain lines.
    tenths: u64,
}

#[derive(Serialize)]
struct Event<'a> {
    op: &'a str,
    name: &'a str,
    bytes: u64,
    total_bytes: u64,
    ts: Time,
}

impl Progress {
    fn new(mode: Mode, name: String, total: u64) -> Self {
        let screen = (mode == Mode::Tty).then(Screen::stderr);
        Self {
            mode,
            name,
            done: 0,
            total,
            screen,
            tenths: 0,
        }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let text = format!(
            "upload {}  {}/{} MB",
            self.name,
            megabytes(self.done),
            megabytes(self.total)
        );
        if let Some(screen) = &mut self.screen {
            let line = format!("{text} {}", bar(self.done, self.total, 20));
            screen.draw(vec![Line::from(line)]);
        }
        let tenths = (self.done * 10).checked_div(self.total).unwrap_or(10);
        if tenths <= self.tenths {
            return;
        }
        self.tenths = tenths;
        match self.mode {
            Mode::Plain => say(&text),
            Mode::Json => say_json(&Event {
                op: "upload",
                name: &self.name,
                bytes: self.done,
                total_bytes: self.total,
                ts: Time(Timestamp::now()),
            }),
            Mode::Tty | Mode::Silent => {}
        }
    }

    fn end(self) {
        if let Some(screen) = self.screen {
            screen.clear();
        }
    }
}
