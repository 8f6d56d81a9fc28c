//! The agent package: its listing, and the file from a URL that needs no credential.

use std::{fs::File, io::Read, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use aws_lc_rs::digest;
use axum::{
    body::Body,
    extract::{Path, State as Shared},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;

use super::{
    call::{Answer, Call, list, ok},
    errors::ApiError,
    state::{Hub, State},
};

/// The service's name of what this machine is, and with it its guests.
const PLATFORM: &str = if cfg!(target_arch = "aarch64") {
    "linux-arm64"
} else {
    "linux-x64"
};

/// The one agent package on offer.
#[derive(Debug, Clone)]
pub struct AgentPackage {
    /// Its version.
    pub version: String,
    /// The archive.
    pub file: PathBuf,
    /// The lower-case hexadecimal SHA-256 the listing claims.
    pub hash_value: String,
}

impl AgentPackage {
    /// Describes an archive truthfully.
    pub fn new(version: impl Into<String>, file: impl Into<PathBuf>) -> Result<Self> {
        let file = file.into();
        let hash_value = sha256(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(Self {
            version: version.into(),
            file,
            hash_value,
        })
    }

    fn filename(&self) -> String {
        format!("vsts-agent-{PLATFORM}-{}.tar.gz", self.version)
    }
}

fn sha256(file: &PathBuf) -> std::io::Result<String> {
    let mut file = File::open(file)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut chunk = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        context.update(&chunk[..read]);
    }
    Ok(context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Writes a version the way the service does.
pub(super) fn version_json(version: &str) -> Value {
    let numbers = super::demands::version(version);
    let number = |place: usize| numbers.get(place).copied().unwrap_or_default();
    json!({"major": number(0), "minor": number(1), "patch": number(2)})
}

impl State {
    fn package_json(&self, package: &AgentPackage) -> Value {
        let path = format!("_download/agent/{}/{}", package.version, package.filename());
        json!({
            "type": "agent",
            "platform": PLATFORM,
            "createdOn": "2026-08-21T08:00:00Z",
            "version": version_json(&package.version),
            "downloadUrl": format!("{}/{path}", self.public_url),
            "infoUrl": format!("{}/_download/agent/{}", self.public_url, package.version),
            "hashValue": package.hash_value,
            "filename": package.filename(),
        })
    }
}

/// Answers `GET .../packages/agent/{platform}`.
pub(super) fn get_all(hub: &Hub, call: &Call) -> Answer {
    let fits = call.text("platform") == PLATFORM && call.query_id("$top")? != Some(0);
    let package = hub.with(|state, _| {
        state
            .package
            .as_ref()
            .filter(|_| fits)
            .map(|package| state.package_json(package))
    });
    Ok(list(package.into_iter().collect()))
}

/// Answers `GET .../packages/agent/{platform}/{version}`.
pub(super) fn get(hub: &Hub, call: &Call) -> Answer {
    let (platform, version) = (call.text("platform"), call.text("version"));
    let package = hub.with(|state, _| {
        let package = state
            .package
            .as_ref()
            .filter(|package| package.version == version)?;
        (platform == PLATFORM).then(|| state.package_json(package))
    });
    package.map(ok).ok_or_else(|| {
        let message = format!("There is no package of type agent, {platform}, {version}.");
        ApiError::new(StatusCode::NOT_FOUND, "PackageNotFoundException", message)
    })
}

/// Answers `GET /_download/agent/{version}/{file}`.
pub(super) async fn download(
    Shared(hub): Shared<Arc<Hub>>,
    Path((version, filename)): Path<(String, String)>,
) -> Response {
    let package = hub.with(|state, _| state.package.clone());
    let fits =
        |package: &AgentPackage| package.version == version && package.filename() == filename;
    let Some(package) = package.filter(fits) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(file) = tokio::fs::File::open(&package.file).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let Ok(metadata) = file.metadata().await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, "application/gzip".to_owned()),
        (header::CONTENT_LENGTH, metadata.len().to_string()),
    ];
    (headers, Body::from_stream(ReaderStream::new(file))).into_response()
}
