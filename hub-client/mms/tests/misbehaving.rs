//! This test runs the clients against servers that misbehave as no hub can be made to.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use armor_mms::MmsError;
use armor_mms::css::{CssClient, CssConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_secs(30);

/// A `Then` says what a misbehaving server does after its first bytes.
#[derive(Clone, Copy)]
enum Then {
    Silence,
    Close,
    Endless,
}

/// Starts a server that answers every request this way, and returns its URL; it ends with the test's runtime.
async fn misbehaving(answer: &'static str, then: Then) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(misbehave(stream, answer, then));
        }
    });
    url
}

async fn misbehave(mut stream: TcpStream, answer: &'static str, then: Then) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await?;
    stream.write_all(answer.as_bytes()).await?;
    match then {
        Then::Close => stream.shutdown().await,
        Then::Silence => std::future::pending().await,
        Then::Endless => loop {
            stream.write_all(&[b'['; 4096]).await?;
        },
    }
}

#[tokio::test]
async fn answers_that_are_slow_endless_or_garbage_are_errors_in_time() {
    let ask = async |answer: &'static str, then: Then| {
        let url = misbehaving(answer, then).await;
        let client = CssClient::new(&CssConfig {
            url,
            org: "myorg".to_owned(),
            user: "u:p".to_owned(),
            ca_file: None,
            timeout: Duration::from_millis(300),
        });
        let client = client.unwrap();
        let started = Instant::now();
        let data = client.data("t", "x", 1 << 20).await;
        let list = client.list("t").await;
        assert!(started.elapsed() < DEADLINE, "{answer:?}");
        (data, list)
    };
    for (answer, then) in [
        ("", Then::Silence),
        ("HTTP/1.1 200 OK\r\n", Then::Silence),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n[", Then::Silence),
    ] {
        let (data, list) = ask(answer, then).await;
        assert!(matches!(data, Err(MmsError::Timeout { .. })), "{answer:?}: {data:?}");
        assert!(matches!(list, Err(MmsError::Timeout { .. })), "{answer:?}: {list:?}");
    }
    let (data, _) = ask("HTTP/1.1 200 OK\r\n\r\n", Then::Endless).await;
    assert!(matches!(data, Err(MmsError::TooLarge { .. })), "{data:?}");
    let (data, list) = ask("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", Then::Silence).await;
    assert!(matches!(data, Err(MmsError::TooLarge { .. })), "{data:?}");
    assert!(matches!(list, Err(MmsError::TooLarge { .. })), "{list:?}");
    let (data, list) = ask("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[", Then::Close).await;
    assert!(matches!(data, Err(MmsError::Unreachable { .. })), "{data:?}");
    assert!(matches!(list, Err(MmsError::Unreachable { .. })), "{list:?}");
    let (data, _) = ask("SSH-2.0-x\r\n", Then::Close).await;
    assert!(matches!(data, Err(MmsError::Unreachable { .. })), "{data:?}");
    let (_, list) = ask("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", Then::Close).await;
    assert!(matches!(list, Err(MmsError::NoSyncService { .. })), "{list:?}");
    let (data, _) = ask("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n", Then::Close).await;
    assert!(matches!(&data, Err(e @ MmsError::Rejected { status: 503, .. }) if e.is_transient()), "{data:?}");
    // Credentials are not sent to the target of a redirect.
    let redirect = "HTTP/1.1 302 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let (data, _) = ask(redirect, Then::Close).await;
    assert!(matches!(data, Err(MmsError::Rejected { status: 302, .. })), "{data:?}");
}
