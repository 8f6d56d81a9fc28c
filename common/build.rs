//! Generates the gRPC code of `iap.v1` from `proto/`, without protoc.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../proto");
    let files = ["pool", "agent", "provision", "image", "daemon", "history"]
        .map(|name| root.join(format!("iap/v1/{name}.proto")));
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("iap_descriptor.bin"), descriptors.encode_to_vec())?;
    // No transport feature: the client connects through `client::connect` only.
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
