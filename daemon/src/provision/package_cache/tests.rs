use std::convert::Infallible;
use std::io;

use futures_util::stream;

use super::*;

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder.join("packages"))
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

async fn store(cache: &PackageCache, chunks: &[&[u8]]) -> Result<(String, u64), ProvisionError> {
    let chunks: Vec<_> = chunks
        .iter()
        .map(|chunk| Ok::<_, Infallible>(Bytes::copy_from_slice(chunk)))
        .collect();
    cache.store(stream::iter(chunks)).await
}

#[tokio::test]
async fn an_upload_is_kept_under_its_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PackageCache::new(folder.path());
    let (sha256, size) = store(&cache, &[&[0x1f], &[], &[0x8b, b'a'], b"bc"])
        .await
        .unwrap();
    assert_eq!(size, 5);
    assert_eq!(
        sha256,
        "49d07e32b9cecb2ae7f8c77f8d75b400d00a9d671f74e13455c0a8cbb9d627a6"
    );
    assert_eq!(names(folder.path()), [format!("{sha256}.tar.gz")]);
    let (_, size) = cache.open(&sha256).await.unwrap().unwrap();
    assert_eq!(size, 5);
    assert!(cache.open(&"ab".repeat(32)).await.unwrap().is_none());
}

#[tokio::test]
async fn what_has_rotted_is_not_used_but_removed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PackageCache::new(folder.path());
    let (sha256, _) = store(&cache, &[&GZIP_MAGIC, b"abc"]).await.unwrap();
    let (mut file, _) = cache.open(&sha256).await.unwrap().unwrap();
    let mut content = Vec::new();
    file.read_to_end(&mut content).await.unwrap();
    assert_eq!(content, b"\x1f\x8babc", "checking it does not use it up");

    fs::write(cache.path(&sha256), b"\x1f\x8babd").unwrap();
    assert!(cache.contains(&sha256));
    assert!(cache.open(&sha256).await.unwrap().is_none());
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_no_package_or_breaks_off_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PackageCache::new(folder.path());
    for chunks in [
        &[&b"PK\x03\x04"[..]][..],
        &[&[0x1f]],
        &[&[0x1f], &[0x1f]],
        &[],
    ] {
        let refused = store(&cache, chunks).await;
        assert!(
            matches!(refused, Err(ProvisionError::NotAPackage(_))),
            "{refused:?}"
        );
    }
    let broken = stream::iter([
        Ok(Bytes::from_static(&[0x1f, 0x8b])),
        Err(io::Error::other("client gone")),
    ]);
    let refused = cache.store(broken).await;
    assert!(
        matches!(refused, Err(ProvisionError::Upload(_))),
        "{refused:?}"
    );
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_goes_quiet_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PackageCache::new(folder.path());
    let quiet = stream::pending::<Result<Bytes, Infallible>>();
    let refused = cache.store(quiet).await;
    assert!(
        matches!(refused, Err(ProvisionError::UploadStalled(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn old_packages_go_unless_a_job_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PackageCache::new(folder.path());
    let mut stored = Vec::new();
    for n in 0..KEPT_PACKAGES + 3 {
        let (sha256, _) = store(&cache, &[&GZIP_MAGIC, n.to_string().as_bytes()])
            .await
            .unwrap();
        let file = fs::File::options()
            .write(true)
            .open(cache.path(&sha256))
            .unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(n as u64);
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
        stored.push(sha256);
    }
    // The oldest was used just now, and the next is waited for.
    cache.open(&stored[0]).await.unwrap();
    cache.prune(&HashSet::from([stored[1].clone()]));
    let kept: Vec<_> = (0..stored.len())
        .filter(|n| cache.contains(&stored[*n]))
        .collect();
    assert_eq!(kept, [0, 1, 4, 5, 6, 7]);
}

#[tokio::test]
async fn packages_take_no_more_room_than_they_may() {
    let folder = tempfile::tempdir().unwrap();
    let mut cache = PackageCache::new(folder.path());
    (cache.kept_bytes, cache.max_bytes) = (5, 10);
    let (first, _) = store(&cache, &[&GZIP_MAGIC, b"a"]).await.unwrap();
    let (second, _) = store(&cache, &[&GZIP_MAGIC, b"b"]).await.unwrap();
    // Another upload is on its way.
    fs::write(folder.path().join("packages/1.unfinished"), "xyz").unwrap();
    let refused = store(&cache, &[&GZIP_MAGIC]).await;
    assert!(
        matches!(refused, Err(ProvisionError::CacheFull(10))),
        "{refused:?}"
    );
    assert_eq!(names(folder.path()).len(), 3, "nothing of it is left");

    cache.prune(&HashSet::from([first.clone(), second.clone()]));
    assert!(cache.contains(&first) && cache.contains(&second));
    cache.prune(&HashSet::new());
    assert_eq!(names(folder.path()).len(), 2);
    store(&cache, &[&GZIP_MAGIC]).await.unwrap();
}

#[test]
fn what_an_earlier_download_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("packages")).unwrap();
    fs::write(folder.path().join("packages/0123.unfinished"), "half").unwrap();
    PackageCache::new(folder.path());
    assert_eq!(names(folder.path()), Vec::<String>::new());
}
