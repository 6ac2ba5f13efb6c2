//! Requests that are sent again, and those that must not be.

use super::*;

/// Answers the first request on each connection, and closes when the second has come.
async fn closes_on_second() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                if stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
                    counter.fetch_add(1, Ordering::SeqCst);
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        .await
                        .unwrap();
                    if stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    (address, requests)
}

#[tokio::test]
async fn what_a_used_connection_drops_is_sent_again_if_it_may_be() {
    for (method, body, expected, sent) in [("GET", "", 200, 3), ("PUT", "", 200, 3), ("POST", "", 502, 2)] {
        let (address, requests) = closes_on_second().await;
        let rig = Rig::serving(address);
        let mut client = Raw::connect(rig.address()).await;
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        client.send(&request).await;
        assert_eq!(client.answer().await.status, 200);
        client.send(&request).await;
        assert_eq!(client.answer().await.status, expected, "{method}");
        assert_eq!(requests.load(Ordering::SeqCst), sent, "{method}");
    }
}

/// What an endpoint of HTTP/2 does with a request.
#[derive(Clone, Copy)]
enum Does {
    Answer,
    Reset,
    /// Closes the connection.
    Close,
}

/// An endpoint of HTTP/2 that does this with one request after the other, and the number of those.
async fn over_http2(does: &'static [Does]) -> (Rig, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                // A probe says nothing.
                let Ok(mut connection) = h2::server::handshake(stream).await else {
                    return;
                };
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    match does[counter.fetch_add(1, Ordering::SeqCst).min(does.len() - 1)] {
                        Does::Answer => drop(respond.send_response(Response::new(()), true).unwrap()),
                        Does::Reset => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                        Does::Close => return,
                    }
                }
            });
        }
    });
    let rig = Rig::with(|config| config.threads = std::num::NonZeroUsize::MIN);
    rig.routes([settings("web")]);
    rig.endpoints_of("web", &[(address, "rs")], Protocol::H2c);
    (rig, requests)
}

#[tokio::test]
async fn over_http2_a_request_that_the_endpoint_gave_up_on_is_not_sent_again() {
    for does in [&[Does::Reset][..], &[Does::Answer, Does::Reset]] {
        let (rig, requests) = over_http2(does).await;
        for _ in 1..does.len() {
            assert_eq!(get(rig.address(), "/").await.status, 200);
        }
        assert_eq!(get(rig.address(), "/").await.status, 502);
        assert_eq!(requests.load(Ordering::SeqCst), does.len());
    }
}

#[tokio::test]
async fn over_http2_what_a_used_connection_drops_is_sent_again_once() {
    for (does, status) in [
        (&[Does::Answer, Does::Close, Does::Answer], 200),
        (&[Does::Answer, Does::Close, Does::Close], 502),
    ] {
        let (rig, requests) = over_http2(does).await;
        assert_eq!(get(rig.address(), "/").await.status, 200);
        assert_eq!(get(rig.address(), "/").await.status, status);
        assert_eq!(requests.load(Ordering::SeqCst), 3);
    }
}

#[tokio::test]
async fn what_must_not_be_sent_twice_goes_on_a_fresh_connection() {
    let (address, _) = closes_on_second().await;
    let rig = Rig::serving(address);
    let mut client = Raw::connect(rig.address()).await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    client.send(request).await;
    assert_eq!(client.answer().await.status, 200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.send(request).await;
    assert_eq!(
        client.answer().await.status,
        200,
        "the one that waited for a second is not used"
    );
}

#[tokio::test]
async fn an_answer_that_began_is_not_asked_for_again() {
    let half = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig::serving(half.local_addr().unwrap());
    let counted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&counted);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = half.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            stream.write_all(b"HTTP/1.1 200 O").await.ok();
        }
    });
    assert_eq!(get(rig.address(), "/").await.status, 502);
    assert_eq!(counted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_endpoint_that_accepts_and_closes_during_a_cold_start_is_tried_until_it_answers() {
    let address = app::free_address();
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.asleep("web");
    let mut client = Raw::connect(rig.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    rig.until_load("web", 1, 0).await;
    let closing = TcpListener::bind(address).await.unwrap();
    rig.ready("web", &[address]);
    for _ in 0..3 {
        drop(closing.accept().await.unwrap());
    }
    drop(closing);
    let app = app::serve_at(Some(address), |_| async { text("ok") }).await;
    assert_eq!(client.answer().await.status, 200);
    drop(app);
}
