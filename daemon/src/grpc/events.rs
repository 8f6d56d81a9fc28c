//! Streams events: what is kept first, then what happens. A reader that falls behind misses
//! nothing, it reads from the database again.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;

use futures_util::stream;
use jiff::Timestamp;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_stream::Stream;
use tonic::Status;

use iap_common::v1;

use crate::pool::events::EventKind;
use crate::store::Event;

use super::convert::timestamp;
use super::{Services, status};

pub(super) type EventStream =
    Pin<Box<dyn Stream<Item = Result<v1::StreamEventsResponse, Status>> + Send>>;

const DEFAULT_LIMIT: u32 = 1000;
const LARGEST_LIMIT: u32 = 10_000;

struct Reader {
    services: Services,
    pool: String,
    kinds: BTreeSet<String>,
    follow: bool,
    last_id: i64,
    kept: VecDeque<Event>,
    live: broadcast::Receiver<Event>,
    ended: bool,
}

impl Services {
    pub(super) async fn events(
        &self,
        request: v1::StreamEventsRequest,
        since: Option<Timestamp>,
    ) -> Result<EventStream, Status> {
        let known = || EventKind::ALL.map(EventKind::as_str);
        if let Some(wrong) = request
            .types
            .iter()
            .find(|t| !known().contains(&t.as_str()))
        {
            return Err(status::bad_request(format!(
                "no event type {wrong}: there are {}",
                known().join(", ")
            )));
        }
        // Before the look at what is kept, so that nothing falls in between.
        let live = self.store.watch_events();
        let limit = match request.limit {
            0 => DEFAULT_LIMIT,
            limit => limit.min(LARGEST_LIMIT),
        };
        let kept = self
            .store
            .events_after(request.after_id, since, limit)
            .await;
        let kept = kept.map_err(|error| status::store(&error))?;
        let reader = Reader {
            services: self.clone(),
            pool: request.pool,
            kinds: request.types.into_iter().collect(),
            follow: request.follow,
            last_id: request.after_id,
            kept: kept.into(),
            live,
            ended: false,
        };
        Ok(Box::pin(stream::unfold(reader, |mut reader| async move {
            let next = reader.next().await?;
            Some((next, reader))
        })))
    }
}

impl Reader {
    async fn next(&mut self) -> Option<Result<v1::StreamEventsResponse, Status>> {
        while !self.ended {
            if let Some(event) = self.kept.pop_front() {
                self.last_id = event.id;
                if self.wants(&event) {
                    return Some(Ok(message(event)));
                }
                continue;
            }
            if !self.follow {
                return None;
            }
            let received = tokio::select! {
                () = self.services.stop.cancelled() => {
                    self.ended = true;
                    return Some(Err(status::stopping()));
                }
                received = self.live.recv() => received,
            };
            match received {
                Ok(event) if event.id > self.last_id => self.kept.push_back(event),
                Ok(_) => {}
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(_)) => {
                    let store = &self.services.store;
                    match store.events_after(self.last_id, None, LARGEST_LIMIT).await {
                        Ok(events) => self.kept.extend(events),
                        Err(error) => {
                            self.ended = true;
                            return Some(Err(status::store(&error)));
                        }
                    }
                }
            }
        }
        None
    }

    fn wants(&self, event: &Event) -> bool {
        (self.pool.is_empty() || self.pool == event.pool)
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
    }
}

fn message(event: Event) -> v1::StreamEventsResponse {
    v1::StreamEventsResponse {
        event: Some(v1::Event {
            id: event.id,
            at: Some(timestamp(event.at)),
            r#type: event.kind,
            pool: event.pool,
            agent: event.agent,
            message: event.message,
        }),
    }
}
