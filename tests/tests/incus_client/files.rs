//! Files in guests.

use std::io::Write;

use hyper::body::Bytes;
use iapd::incus::{Exec, FileKind, FileMeta, IncusError};
use tokio::time::Instant;

use crate::bed::{LONG, SHORT, with_instance};

const META: FileMeta = FileMeta {
    uid: 1100,
    gid: 1101,
    mode: 0o640,
};

#[tokio::test]
async fn file_is_written_asked_about_and_read() {
    with_instance("files", |project, name| async move {
        let dir = "/root/a b&c";
        let meta = FileMeta {
            uid: 7,
            gid: 8,
            mode: 0o750,
        };
        project
            .make_directory(&name, dir, &meta, SHORT)
            .await
            .unwrap();
        project
            .make_directory(&name, dir, &meta, SHORT)
            .await
            .unwrap();
        let info = project.head_file(&name, dir, SHORT).await.unwrap().unwrap();
        assert_eq!((info.kind, info.uid, info.gid), (FileKind::Directory, 7, 8));
        assert_eq!((info.mode, info.size), (0o750, None));

        let path = format!("{dir}/ü%20+?.txt");
        let push = async |text: &'static str| {
            project
                .push_file(&name, &path, &META, Bytes::from(text), SHORT)
                .await
                .unwrap();
        };
        push("longer than what follows").await;
        push("0123456789").await;
        let info = project
            .head_file(&name, &path, SHORT)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (info.kind, info.uid, info.gid),
            (FileKind::File, 1100, 1101)
        );
        assert_eq!((info.mode, info.size), (0o640, Some(10)));

        let read = async |range, cap| project.read_file(&name, &path, range, cap, SHORT).await;
        assert_eq!(read(None, 10).await.unwrap(), b"0123456789");
        assert!(matches!(
            read(None, 9).await,
            Err(IncusError::TooLarge { .. })
        ));
        assert_eq!(read(Some((2, 3)), 100).await.unwrap(), b"234");
        assert_eq!(read(Some((8, 100)), 100).await.unwrap(), b"89");
        assert_eq!(read(Some((0, 100)), 4).await.unwrap(), b"0123");
        assert_eq!(read(Some((10, 5)), 100).await.unwrap(), b"");
        assert_eq!(read(Some((2, 0)), 100).await.unwrap(), b"");

        project.remove_file(&name, &path, SHORT).await.unwrap();
        project.remove_file(&name, &path, SHORT).await.unwrap();
        assert!(
            project
                .head_file(&name, &path, SHORT)
                .await
                .unwrap()
                .is_none()
        );
        assert!(read(None, 10).await.unwrap_err().is_not_found());
        let nowhere = "/root/no/such/directory";
        let error = project
            .push_file(&name, nowhere, &META, Bytes::new(), SHORT)
            .await;
        assert!(error.is_err());
    })
    .await;
}

#[tokio::test]
async fn what_is_not_a_regular_file_is_not_read() {
    with_instance("fifo", |project, name| async move {
        let script = "cd /root && mkfifo fifo && ln -s /etc/passwd link && mkdir dir && \
            mknod null c 1 3; : > empty";
        let made = project
            .exec(&name, &Exec::root(["sh", "-c", script]), LONG)
            .await;
        assert_eq!(made.unwrap(), 0);
        let begun = Instant::now();
        let read = async |path| project.read_file(&name, path, None, 1000, LONG).await;
        for path in ["/root/link", "/root/dir"] {
            let error = read(path).await.unwrap_err();
            assert!(matches!(error, IncusError::NotRegular { .. }), "{error}");
        }
        for path in ["/root/fifo", "/root/empty"] {
            assert_eq!(read(path).await.unwrap(), b"", "{path}");
        }
        assert_eq!(
            project
                .read_file(&name, "/root/fifo", Some((0, 10)), 10, LONG)
                .await
                .unwrap(),
            b""
        );
        assert!(begun.elapsed() < SHORT, "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test]
async fn large_file_is_streamed_with_its_progress() {
    with_instance("stream", |project, name| async move {
        const LEN: u64 = 20 * 1024 * 1024;
        let mut local = tempfile::NamedTempFile::new().unwrap();
        let block: Vec<u8> = (0..=255).cycle().take(1024 * 1024).collect();
        for _ in 0..20 {
            local.write_all(&block).unwrap();
        }
        let file = tokio::fs::File::open(local.path()).await.unwrap();
        let mut told = Vec::new();
        let progress = |sent| told.push(sent);
        project
            .push_file_stream(&name, "/root/large", &META, file, LEN, progress, LONG)
            .await
            .unwrap();
        assert!(told.is_sorted() && told.len() > 1, "{told:?}");
        assert!(told.iter().all(|sent| *sent <= LEN));
        let info = project
            .head_file(&name, "/root/large", SHORT)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(info.size, Some(LEN));
        let tail = Some((LEN - 3, 100));
        let tail = project
            .read_file(&name, "/root/large", tail, 100, SHORT)
            .await
            .unwrap();
        assert_eq!(tail, [253, 254, 255]);

        let short = tokio::fs::File::open(local.path()).await.unwrap();
        let error = project
            .push_file_stream(&name, "/root/short", &META, short, LEN + 1, |_| (), LONG)
            .await;
        assert!(error.is_err());
    })
    .await;
}
