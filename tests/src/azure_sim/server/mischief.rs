//! Carries out faults on a request and its answer.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::azure_sim::{auth::sign_in_page, errors::ApiError, faults::FaultAction};

/// How long a truncated answer stays open, so that its first half arrives.
const FLUSH: Duration = Duration::from_millis(20);

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("hung up on purpose")]
pub(super) struct HungUp;

/// Does the part of a fault that comes before the request is processed.
pub(super) async fn before(fault: Option<&FaultAction>) -> Result<Option<Response>, HungUp> {
    match fault {
        Some(FaultAction::CloseBefore) => Err(HungUp),
        Some(FaultAction::SignInPage) => Ok(Some(sign_in_page())),
        Some(FaultAction::Hang) => std::future::pending().await,
        Some(FaultAction::Delay { ms }) => {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            Ok(None)
        }
        Some(FaultAction::Reply {
            status,
            headers,
            type_key,
            body,
        }) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY);
            let mut response = match (type_key, body) {
                (Some(type_key), _) => {
                    ApiError::new(status, type_key, "This fault was ordered.").into_response()
                }
                (None, Some(Value::String(text))) => (status, text.clone()).into_response(),
                (None, Some(value)) => (status, Json(value)).into_response(),
                (None, None) => status.into_response(),
            };
            add_headers(&mut response, headers);
            Ok(Some(response))
        }
        _ => Ok(None),
    }
}

/// Does the part of a fault that comes after the request is processed.
pub(super) async fn after(
    fault: Option<FaultAction>,
    mut response: Response,
) -> Result<Response, HungUp> {
    match fault {
        Some(FaultAction::CloseAfter) => return Err(HungUp),
        Some(FaultAction::WrongContentType) => {
            let plain = HeaderValue::from_static("text/plain");
            response.headers_mut().insert(header::CONTENT_TYPE, plain);
        }
        Some(FaultAction::AddHeaders { headers }) => add_headers(&mut response, &headers),
        Some(FaultAction::InvalidJson) => {
            let half = first_half(&mut response).await?.0;
            *response.body_mut() = Body::from(half);
        }
        Some(FaultAction::Truncate) => {
            let (half, whole) = first_half(&mut response).await?;
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, HeaderValue::from(whole));
            let end = stream::once(async {
                // What is written goes out only once the body has nothing ready.
                tokio::time::sleep(FLUSH).await;
                Err(HungUp)
            });
            *response.body_mut() = Body::from_stream(stream::iter([Ok(half)]).chain(end));
        }
        _ => {}
    }
    Ok(response)
}

/// Takes the body out of a response; returns its first half and its whole length.
async fn first_half(response: &mut Response) -> Result<(Bytes, usize), HungUp> {
    let body = std::mem::take(response.body_mut())
        .collect()
        .await
        .map_err(|_| HungUp)?
        .to_bytes();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    Ok((body.slice(..body.len() / 2), body.len()))
}

fn add_headers(response: &mut Response, headers: &BTreeMap<String, String>) {
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
}
