//! The agent package: where it is, and the file itself.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Response, StatusCode};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::error::{AzureError, Operation};
use super::transport::{Request, unreachable};
use super::types::Package;
use super::{Azure, answer, wire};

/// Ten times the largest agent package so far.
const MAX_DOWNLOAD: u64 = 3 * 1024 * 1024 * 1024;

/// How many hosts may pass us on to the next.
const MAX_HOPS: usize = 5;

/// Of a page that explains why there is no download.
const MAX_EXPLANATION: usize = 64 * 1024;

const DOWNLOAD: Operation = Operation::DownloadPackage;

impl Azure {
    /// Returns the agent package for a platform such as `linux-x64`: the given version, or the
    /// newest. `None` when Azure has none.
    pub async fn agent_package(
        &self,
        platform: &str,
        version: Option<&str>,
    ) -> Result<Option<Package>, AzureError> {
        // The resource's second revision is the one with checksums.
        let get = |path| Request::get(Operation::FindPackage, path).version("6.0-preview.2");
        let path = format!("distributedtask/packages/agent/{platform}");
        let Some(version) = version else {
            // The newest comes first.
            let request = get(path).query("$top", "1");
            let packages: Vec<wire::PackageMetadata> = self.transport().list(request).await?;
            return Ok(packages.into_iter().next().map(Package::from));
        };
        let request = get(format!("{path}/{version}"));
        match self
            .transport()
            .json::<wire::PackageMetadata>(request)
            .await
        {
            Ok(package) => Ok(Some(package.into())),
            Err(AzureError::Status {
                status: StatusCode::NOT_FOUND,
                type_key,
                ..
            }) if !type_key.is_empty() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Downloads `url` into `to` and returns the SHA-256 of what was written, in lower-case hex.
    ///
    /// `progress` is told the bytes so far and, once known, of how many. It takes as long as it
    /// takes, unless no byte arrives for [`super::Deadlines::silence`]. The token is shown to
    /// nobody but Azure's own host.
    pub async fn download(
        &self,
        url: &str,
        to: File,
        progress: impl FnMut(u64, Option<u64>) + Send,
        stop: CancellationToken,
    ) -> Result<String, AzureError> {
        let started = Instant::now();
        let work = async {
            let response = self.follow(url).await?;
            self.save(response, to, progress).await
        };
        let result = stop
            .run_until_cancelled(work)
            .await
            .unwrap_or(Err(AzureError::Cancelled {
                operation: DOWNLOAD,
            }));
        self.transport().ended(DOWNLOAD, started, &result);
        result
    }

    /// Opens `url`, or where it leads.
    async fn follow(&self, url: &str) -> Result<Response, AzureError> {
        let mut url = Url::parse(url).map_err(|_| unusable("is not at a URL"))?;
        for _ in 0..=MAX_HOPS {
            if !matches!(url.scheme(), "https" | "http") {
                return Err(unusable("is neither at https nor at http"));
            }
            let opening = self.transport().open(DOWNLOAD, url.clone());
            let (response, token) = self.within_silence(opening).await??;
            let status = response.status();
            let html = header(&response, CONTENT_TYPE.as_str()).contains("html");
            if status.is_redirection() {
                let next = url
                    .join(header(&response, LOCATION.as_str()))
                    .map_err(|_| unusable("is redirected to nowhere"))?;
                if url.scheme() == "https" && next.scheme() != "https" {
                    return Err(unusable("is redirected away from https"));
                }
                url = next;
                continue;
            }
            if status == StatusCode::OK && !html {
                return Ok(response);
            }
            let reading = self.transport().read(DOWNLOAD, response, MAX_EXPLANATION);
            let page = self.within_silence(reading).await??;
            return Err(match token {
                Some(token) => answer::refusal(DOWNLOAD, url.path().to_owned(), &page, &token),
                None if status == StatusCode::OK => unusable("is a page, not a package"),
                None => AzureError::Status {
                    operation: DOWNLOAD,
                    status,
                    type_key: String::new(),
                    message: String::new(),
                    path: format!("{}{}", url.host_str().unwrap_or_default(), url.path()),
                    retry_after: None,
                },
            });
        }
        Err(unusable("is redirected in circles"))
    }

    async fn save(
        &self,
        mut response: Response,
        mut to: File,
        mut progress: impl FnMut(u64, Option<u64>) + Send,
    ) -> Result<String, AzureError> {
        let total = response.content_length();
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut written = 0;
        progress(written, total);
        while let Some(chunk) = self
            .within_silence(response.chunk())
            .await?
            .map_err(unreachable(DOWNLOAD))?
        {
            written += chunk.len() as u64;
            if written > MAX_DOWNLOAD {
                return Err(unusable("is too large to be a package"));
            }
            hash.update(&chunk);
            to.write_all(&chunk).await.map_err(write)?;
            progress(written, total);
        }
        to.sync_all().await.map_err(write)?;
        Ok(hex(hash.finish().as_ref()))
    }

    async fn within_silence<T>(&self, work: impl Future<Output = T>) -> Result<T, AzureError> {
        let after = self.transport().deadlines.silence;
        timeout(after, work)
            .await
            .map_err(|_| AzureError::TimedOut {
                operation: DOWNLOAD,
                after,
            })
    }
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn unusable(reason: &str) -> AzureError {
    AzureError::Unusable {
        operation: DOWNLOAD,
        reason: reason.to_owned(),
    }
}

fn write(source: std::io::Error) -> AzureError {
    AzureError::Write { source }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
