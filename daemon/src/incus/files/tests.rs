use super::*;
use crate::incus::scripted::{Scripted, answer, refusal};

const TEN: &str = "0123456789";
const LIMIT: Duration = Duration::from_secs(10);

/// A server with one file, of a type.
fn with(kind: &'static str, get: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Scripted {
    Scripted::new(move |head| {
        if head.starts_with("HEAD") {
            format!(
                "HTTP/1.1 200 OK\r\nX-Incus-type: {kind}\r\nX-Incus-uid: 5\r\nX-Incus-gid: 6\r\n\
                 X-Incus-mode: 0640\r\nContent-Length: 10\r\n\r\n"
            )
            .into_bytes()
        } else {
            get()
        }
    })
}

async fn read(
    server: &Scripted,
    range: Option<(u64, u64)>,
    cap: usize,
) -> Result<Vec<u8>, IncusError> {
    server
        .incus
        .project("p")
        .read_file("a", "/f", range, cap, LIMIT)
        .await
}

#[tokio::test]
async fn range_is_cut_out_when_the_server_sends_everything() {
    let server = with("file", || answer(200, "", TEN));
    assert_eq!(read(&server, Some((3, 4)), 100).await.unwrap(), b"3456");
    assert_eq!(read(&server, Some((8, 50)), 100).await.unwrap(), b"89");
    assert_eq!(read(&server, None, 100).await.unwrap(), TEN.as_bytes());
}

#[tokio::test]
async fn part_is_taken_as_it_comes() {
    let server = with("file", || answer(206, "", "3456"));
    assert_eq!(read(&server, Some((3, 4)), 100).await.unwrap(), b"3456");
}

#[tokio::test]
async fn file_that_grows_while_it_is_read_is_cut() {
    let server = with("file", || answer(200, "", "0123456789 and more"));
    assert_eq!(read(&server, None, 100).await.unwrap(), TEN.as_bytes());
    assert_eq!(read(&server, Some((0, 5)), 3).await.unwrap(), b"012");
}

#[tokio::test]
async fn file_that_shrinks_before_it_is_read_has_nothing_there() {
    let server = with("file", || refusal(416, 416, "invalid range"));
    assert_eq!(read(&server, Some((3, 4)), 100).await.unwrap(), b"");
}

#[tokio::test]
async fn what_the_server_calls_by_another_name_is_not_opened() {
    for kind in ["symlink", "directory", "fifo", ""] {
        let server = with(kind, Vec::new);
        let error = read(&server, None, 100).await.unwrap_err();
        assert!(
            matches!(error, IncusError::NotRegular { .. }),
            "{kind}: {error}"
        );
        assert_eq!(
            server.requests(),
            ["HEAD /1.0/instances/a/files?project=p&path=%2Ff"]
        );
    }
}

#[tokio::test]
async fn head_tells_owner_mode_and_size() {
    let server = with("file", Vec::new);
    let info = server
        .incus
        .project("p")
        .head_file("a", "/f", LIMIT)
        .await
        .unwrap();
    let kind = FileKind::File;
    assert_eq!(
        info,
        Some(FileInfo {
            kind,
            size: Some(10),
            uid: 5,
            gid: 6,
            mode: 0o640
        })
    );
}
