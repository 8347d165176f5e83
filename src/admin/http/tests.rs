//! The admin server over real sockets, spoken to byte by byte.

use super::*;
use crate::metrics::{Journal, Metrics};
use std::net::Ipv4Addr;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

/// A server of its own for one test.
struct Fixture {
    addr: SocketAddr,
    shutdown: watch::Sender<bool>,
    /// Why the routes are not ready, if they are not.
    trouble: Arc<Mutex<Option<String>>>,
    metrics: Arc<Metrics>,
    running: JoinHandle<io::Result<()>>,
}

impl Fixture {
    fn start() -> Self {
        let metrics = Arc::new(Metrics::new(["cache"], 1));
        let trouble = Arc::new(Mutex::new(None));
        let (counted, asked) = (Arc::clone(&metrics), Arc::clone(&trouble));
        let handlers = Handlers {
            sources: vec![
                Box::new(move |out| counted.expose(out)),
                Box::new(crate::admin::expose_process),
            ],
            settings: Box::new(Vec::new),
            ready: Box::new(move || asked.lock().unwrap().clone().map_or(Ok(()), Err)),
            doctor: Box::new(Vec::new),
            overview: Box::new(|span| format!("{{\"span\":{}}}", span as usize)),
            hot_keys: Box::new(|| "{}".to_owned()),
            top: Box::new(|| "{}".to_owned()),
            journal: Arc::new(Journal::new()),
            slow_log: Arc::default(),
        };
        let server = AdminServer::bind((Ipv4Addr::LOCALHOST, 0).into(), handlers).unwrap();
        let addr = server.local_addr().unwrap();
        let (shutdown, watched) = watch::channel(false);
        let running = tokio::spawn(server.run(watched));
        Self {
            addr,
            shutdown,
            trouble,
            metrics,
            running,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// The whole answer to one request on a connection of its own.
    async fn ask(&self, method: &str, path: &str) -> String {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n");
        self.send(request.as_bytes()).await
    }

    async fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        rest(&mut stream).await
    }
}

/// What arrives until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// One answer with a body of `content-length`, the connection left open.
async fn one_answer(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    loop {
        if let Some((head, body)) = answer.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.unwrap().parse().unwrap() {
                return answer;
            }
        }
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        answer.push(byte[0].into());
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[tokio::test]
async fn the_index_lists_every_page_and_every_page_answers() {
    let admin = Fixture::start();
    let index = admin.ask("GET", "/pages").await;
    assert_eq!(status(&index), "200");
    for page in PAGES {
        assert!(body(&index).contains(page.path), "{index}");
        assert_eq!(
            status(&admin.ask(page.method.as_str(), page.path).await),
            "200"
        );
    }
}

#[tokio::test]
async fn prometheus_reads_what_was_counted() {
    let admin = Fixture::start();
    admin.metrics.worker(0, 0).commands.add(5);
    let answer = admin.ask("GET", "/metrics?name[]=x").await;
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(
        body(&answer).contains("\nweir_commands_total{route=\"cache\"} 5\n"),
        "{answer}"
    );
    assert!(body(&answer).contains("\nprocess_open_fds "), "{answer}");
}

#[tokio::test]
async fn ready_is_said_with_the_reason_why_not() {
    let admin = Fixture::start();
    let answer = admin.ask("GET", "/readyz").await;
    assert_eq!((status(&answer), body(&answer)), ("200", "ready\n"));
    *admin.trouble.lock().unwrap() = Some("route cache: connection refused".into());
    let answer = admin.ask("GET", "/readyz").await;
    assert_eq!(status(&answer), "503");
    assert_eq!(
        body(&answer),
        "not ready: route cache: connection refused\n"
    );
    let alive = admin.ask("GET", "/healthz").await;
    assert_eq!((status(&alive), body(&alive)), ("200", "ok\n"));
}

#[tokio::test]
async fn unknown_pages_and_methods_are_refused_by_name() {
    let admin = Fixture::start();
    assert_eq!(status(&admin.ask("GET", "/nothing").await), "404");
    assert_eq!(status(&admin.ask("GET", "/metrics/").await), "404");
    assert_eq!(status(&admin.ask("POST", "/nothing").await), "404");
    let answer = admin.ask("DELETE", "/metrics").await;
    assert_eq!(status(&answer), "405");
    assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let admin = Fixture::start();
    let answer = admin.ask("HEAD", "/healthz").await;
    assert_eq!((status(&answer), body(&answer)), ("200", ""));
    assert!(answer.contains("content-length: 3\r\n"), "{answer}");
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let admin = Fixture::start();
    let mut stream = admin.connect().await;
    for _ in 0..3 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: weir\r\n\r\n")
            .await
            .unwrap();
        let answer = one_answer(&mut stream).await;
        assert_eq!((status(&answer), body(&answer)), ("200", "ok\n"));
    }
}

#[tokio::test]
async fn a_client_that_has_shut_its_sending_side_gets_its_answer() {
    let admin = Fixture::start();
    let mut stream = admin.connect().await;
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: weir\r\n\r\n")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(body(&rest(&mut stream).await), "ok\n");
}

#[tokio::test]
async fn what_is_not_http_or_too_long_is_refused_and_closed() {
    let admin = Fixture::start();
    assert_eq!(status(&admin.send(b"*1\r\n$4\r\nPING\r\n").await), "400");
    // Exactly what the server buffers, so that it leaves nothing unread behind,
    // which would turn its answer into a reset.
    let mut long = b"GET / HTTP/1.1\r\nx: ".to_vec();
    long.resize(HEAD_BYTES_MAX, b'x');
    assert_eq!(status(&admin.send(&long).await), "431");
    assert_eq!(status(&admin.ask("GET", "/healthz").await), "200");
}

/// The body of a request is never waited for.
#[tokio::test]
async fn a_request_with_a_body_is_answered_without_it() {
    let admin = Fixture::start();
    let request = b"GET /healthz HTTP/1.1\r\nhost: weir\r\ncontent-length: 1000000000\r\n\r\n";
    let mut stream = admin.connect().await;
    stream.write_all(request).await.unwrap();
    assert_eq!(body(&one_answer(&mut stream).await), "ok\n");
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let admin = Fixture::start();
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = admin.connect().await;
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: weir\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(status(&one_answer(&mut stream).await), "200");
        open.push(stream);
    }
    let refused = rest(&mut admin.connect().await).await;
    assert_eq!(
        (status(&refused), body(&refused)),
        ("503", "too many connections\n")
    );
    assert_eq!(body(&refused).len(), 21);

    // When one has gone, another is served.
    let mut gone = open.pop().unwrap();
    gone.shutdown().await.unwrap();
    assert_eq!(rest(&mut gone).await, "");
    loop {
        let mut stream = admin.connect().await;
        // The refusal may come before the request is written.
        let _ = stream
            .write_all(b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n")
            .await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        if answer.starts_with(b"HTTP/1.1 200") {
            break;
        }
    }
}

/// The clock is stopped: it jumps to the next deadline when nobody has work.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_finish_its_request_is_closed() {
    let admin = Fixture::start();
    let mut silent = admin.connect().await;
    let mut half = admin.connect().await;
    half.write_all(b"GET / HTTP/1.1\r\nhost: w").await.unwrap();
    let answer = rest(&mut half).await;
    assert!(answer.is_empty() || status(&answer) == "408", "{answer}");
    let answer = rest(&mut silent).await;
    assert!(answer.is_empty() || status(&answer) == "408", "{answer}");
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_then_the_server() {
    let admin = Fixture::start();
    let mut idle = admin.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: weir\r\n\r\n")
        .await
        .unwrap();
    one_answer(&mut idle).await;
    admin.shutdown.send(true).unwrap();
    assert_eq!(rest(&mut idle).await, "");
    admin.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lost_owner_stops_the_server() {
    let Fixture {
        shutdown, running, ..
    } = Fixture::start();
    drop(shutdown);
    running.await.unwrap().unwrap();
}

#[test]
fn an_address_that_is_taken_is_known_before_anything_runs() {
    let handlers = || Handlers {
        sources: Vec::new(),
        settings: Box::new(Vec::new),
        ready: Box::new(|| Ok(())),
        doctor: Box::new(Vec::new),
        overview: Box::new(|_| String::new()),
        hot_keys: Box::new(String::new),
        top: Box::new(String::new),
        journal: Arc::new(Journal::new()),
        slow_log: Arc::default(),
    };
    let first = AdminServer::bind((Ipv4Addr::LOCALHOST, 0).into(), handlers()).unwrap();
    let second = AdminServer::bind(first.local_addr().unwrap(), handlers());
    assert_eq!(
        second.err().map(|error| error.kind()),
        Some(io::ErrorKind::AddrInUse)
    );
}
