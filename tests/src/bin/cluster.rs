//! What iapd does with a real cluster of three servers. Run by `tests/run cluster`, which brings it up;
//! `CLUSTER_ONLY=room` runs one part alone.

use iap_tests::cluster;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    cluster::run().await
}
