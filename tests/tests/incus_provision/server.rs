//! A server on loopback that is Azure, as far as agent packages go, and an image server.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::bed::{Bed, image_id};

type Answers = Mutex<HashMap<String, (&'static str, Vec<u8>)>>;

pub(crate) struct Server {
    url: String,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    answers: Answers,
    downloads: AtomicUsize,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            url,
            shared,
            _task: task,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// How often a package was downloaded.
    pub(crate) fn downloads(&self) -> usize {
        self.shared.downloads.load(Ordering::SeqCst)
    }

    /// Offers an agent package, with a checksum that may be a lie.
    pub(crate) fn serve_package(&self, version: &str, content: &[u8], sha256: Option<&str>) {
        let parts: Vec<u32> = version
            .split('.')
            .map(|part| part.parse().unwrap())
            .collect();
        let package = json!({
            "type": "agent",
            "platform": "linux-x64",
            "version": {"major": parts[0], "minor": parts[1], "patch": parts[2]},
            "downloadUrl": format!("{}/download/agent.tar.gz", self.url),
            "hashValue": sha256.map_or_else(|| sha256_of(content), str::to_owned),
            "filename": format!("vsts-agent-linux-x64-{version}.tar.gz"),
        });
        let path = "/_apis/distributedtask/packages/agent/linux-x64";
        self.json(path, json!({"count": 1, "value": [package]}));
        self.json(&format!("{path}/{version}"), package);
        self.put(
            "/download/agent.tar.gz",
            "application/octet-stream",
            content.to_vec(),
        );
    }

    /// Offers the test bed's base as an image, by the name of a real one. Returns its fingerprint,
    /// which is not the base's: else Incus would find that it has the image already.
    pub(crate) async fn serve_image(&self, alias: &str, bed: &Bed) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let base = image_id(bed, "debian-min").await;
        run(
            path,
            &[
                "incus",
                "image",
                "export",
                &base,
                "image",
                "--project",
                bed.project.name(),
            ],
        );
        run(path, &["tar", "-xf", "image", "metadata.yaml"]);
        let metadata = std::fs::read_to_string(path.join("metadata.yaml")).unwrap();
        // No templates, so that nothing but the generalising gives instances a host name.
        let (metadata, _) = metadata.split_once("templates:").unwrap();
        let metadata = format!("# {}\n{metadata}", self.url);
        std::fs::write(path.join("metadata.yaml"), metadata).unwrap();
        run(path, &["tar", "-cJf", "meta.tar.xz", "metadata.yaml"]);
        let meta = std::fs::read(path.join("meta.tar.xz")).unwrap();
        let root = std::fs::read(path.join("image.root")).unwrap();
        let fingerprint = sha256_of(&[meta.as_slice(), root.as_slice()].concat());

        let product = "debian:bookworm:amd64:default";
        let items = json!({
            "incus.tar.xz": {
                "ftype": "incus.tar.xz", "path": "files/incus.tar.xz", "size": meta.len(),
                "sha256": sha256_of(&meta), "combined_squashfs_sha256": fingerprint,
            },
            "root.squashfs": {
                "ftype": "squashfs", "path": "files/root.squashfs", "size": root.len(),
                "sha256": sha256_of(&root),
            },
        });
        let products = json!({
            "content_id": "images", "datatype": "image-downloads", "format": "products:1.0",
            "products": {product: {
                "aliases": alias, "arch": "amd64", "os": "Debian", "release": "bookworm",
                "release_title": "12", "variant": "default",
                "versions": {"20260101_05:24": {"items": items}},
            }},
        });
        let index = json!({
            "format": "index:1.0",
            "index": {"images": {
                "datatype": "image-downloads", "path": "streams/v1/images.json",
                "format": "products:1.0", "products": [product],
            }},
        });
        self.json("/streams/v1/index.json", index);
        self.json("/streams/v1/images.json", products);
        self.put("/files/incus.tar.xz", "application/octet-stream", meta);
        self.put("/files/root.squashfs", "application/octet-stream", root);
        fingerprint
    }

    fn json(&self, path: &str, value: Value) {
        self.put(path, "application/json", value.to_string().into_bytes());
    }

    fn put(&self, path: &str, kind: &'static str, content: Vec<u8>) {
        self.shared
            .answers
            .lock()
            .unwrap()
            .insert(path.to_owned(), (kind, content));
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    if uri.path().starts_with("/download/") {
        shared.downloads.fetch_add(1, Ordering::SeqCst);
    }
    let found = shared.answers.lock().unwrap().get(uri.path()).cloned();
    match found {
        Some((kind, content)) => ([(header::CONTENT_TYPE, kind)], content).into_response(),
        None => {
            let error =
                json!({"typeKey": "PackageNotFoundException", "message": "no such package"});
            (StatusCode::NOT_FOUND, axum::Json(error)).into_response()
        }
    }
}

/// Makes a package that has what provisioning looks at, as small as it can be.
pub(crate) fn agent_package(version: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = &folder.path().join("package");
    std::fs::create_dir_all(path.join("bin")).unwrap();
    let listener = format!(
        "#!/bin/sh\n[ \"$(id -u)\" != 0 ] || exit 1\n[ \"$1\" = --version ] && echo {version}\n"
    );
    let dependencies = "#!/bin/sh\necho installed by $(whoami) >dependencies\n";
    std::fs::write(path.join("run.sh"), "#!/bin/bash\n").unwrap();
    std::fs::write(path.join("bin/Agent.Listener"), listener).unwrap();
    std::fs::write(path.join("bin/installdependencies.sh"), dependencies).unwrap();
    run(path, &["chmod", "-R", "755", "."]);
    run(
        path,
        &[
            "tar",
            "-czf",
            "../package.tar.gz",
            "--mtime=@0",
            "--sort=name",
            ".",
        ],
    );
    std::fs::read(folder.path().join("package.tar.gz")).unwrap()
}

fn run(folder: &Path, command: &[&str]) {
    let status = Command::new("timeout")
        .arg("120")
        .args(command)
        .current_dir(folder)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{command:?}");
}

fn sha256_of(content: &[u8]) -> String {
    let digest = digest(&SHA256, content);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
