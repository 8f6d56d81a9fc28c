//! The stream of lifecycle events. Its events are hints to look again; nothing is resent after a
//! loss, so every connection begins with [`StreamEvent::Connected`]: list everything then.

use std::time::Duration;

use futures_util::StreamExt;
use hyper::Method;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Incus;
use super::error::{CallSite, IncusError};
use super::transport::{Stream, path};
use super::types::instance_of;

/// What the stream has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// The stream is up: list what there is, earlier events are lost.
    Connected,
    /// The stream is down, or did not come up, and why. It is tried again.
    Lost(String),
    /// Something happened.
    Lifecycle(Lifecycle),
}

/// A change of something on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifecycle {
    /// What happened, such as `instance-ready`.
    pub action: String,
    /// The instance it happened to.
    pub instance: Option<String>,
    /// Its project.
    pub project: String,
    /// The cluster member it happened on; `none` without a cluster.
    pub location: String,
}

/// The frame of an event.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    project: String,
    #[serde(default)]
    location: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    action: String,
    #[serde(default)]
    source: String,
}

impl Incus {
    /// Follows the lifecycle events of a project until `stop` says so, over losses of the stream.
    /// Waits between attempts to connect, at first `retry.0`, doubling up to `retry.1`.
    pub async fn watch_lifecycle(
        &self,
        project: &str,
        retry: (Duration, Duration),
        stop: CancellationToken,
        mut on: impl FnMut(StreamEvent) + Send,
    ) {
        let watch = self.watch_on(project, retry, &mut on);
        stop.run_until_cancelled(watch).await;
    }

    async fn watch_on(
        &self,
        project: &str,
        (first, longest): (Duration, Duration),
        on: &mut (impl FnMut(StreamEvent) + Send),
    ) {
        let mut delay = first;
        loop {
            let lost = match self.event_stream(project).await {
                Ok(stream) => {
                    let begun = Instant::now();
                    on(StreamEvent::Connected);
                    let lost = self.listen(stream, on).await;
                    // A stream that never lasts is treated like one that does not come up.
                    if begun.elapsed() >= longest {
                        delay = first;
                    }
                    lost
                }
                Err(error) => iap_common::error::chain(&error).to_string(),
            };
            on(StreamEvent::Lost(lost));
            // Half of it by chance, so that daemons do not come back all at once.
            sleep(delay.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            delay = (delay * 2).min(longest);
        }
    }

    async fn event_stream(&self, project: &str) -> Result<WebSocketStream<Stream>, IncusError> {
        let path = path(&["events"], &[("project", project), ("type", "lifecycle")]);
        let call = CallSite {
            kind: "events",
            instance: None,
            method: Method::GET,
            path: path.clone(),
        };
        let stream = self.transport.stream(&call).await?;
        self.transport.websocket(&call, stream, &path).await
    }

    /// Hands over events until the stream is lost, and returns why it is.
    async fn listen(
        &self,
        mut stream: WebSocketStream<Stream>,
        on: &mut (impl FnMut(StreamEvent) + Send),
    ) -> String {
        let silence = self.transport.limits().silence;
        loop {
            let text = match timeout(silence, stream.next()).await {
                Err(_) => return format!("nothing came for {silence:?}"),
                Ok(None | Some(Ok(Message::Close(_)))) => return "closed by the server".to_owned(),
                Ok(Some(Err(error))) => return iap_common::error::chain(&error).to_string(),
                Ok(Some(Ok(Message::Text(text)))) => text,
                Ok(Some(Ok(_))) => continue,
            };
            match lifecycle(&text) {
                Ok(Some(event)) => on(StreamEvent::Lifecycle(event)),
                Ok(None) => {}
                Err(error) => debug!(%error, "an event was not understood"),
            }
        }
    }
}

pub(super) fn lifecycle(text: &str) -> Result<Option<Lifecycle>, serde_json::Error> {
    let event: Event = serde_json::from_str(text)?;
    Ok((event.kind == "lifecycle").then(|| Lifecycle {
        instance: instance_of(&event.metadata.source).map(str::to_owned),
        action: event.metadata.action,
        project: event.project,
        location: event.location,
    }))
}

#[cfg(test)]
mod tests;
