//! Sends traced commands to the collector, in batches: workers only put them in line.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::otlp::{self, Ids};
use crate::config::{self, HttpUrl};
use crate::metrics::{Event, EventKind, TRACES_BATCH_MAX, TracedSpan};
use crate::session::Proxy;

/// What waits is sent at least so often.
const EVERY: Duration = Duration::from_secs(1);

/// Traces are said to get through again when none was dropped for so long.
const WELL_AFTER: Duration = Duration::from_secs(5);

/// A process that ends takes so long for what still waits, at most.
const LAST_MAX: Duration = Duration::from_secs(1);

/// Of the collector's answer so much is read, in bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// Sends until the process ends, and then what still waits.
pub async fn export_traces(proxy: Arc<Proxy>, mut stopped: watch::Receiver<bool>) {
    let mut exporter = Exporter {
        proxy: proxy.clone(),
        ids: Ids::new(),
        trouble: None,
        dropped_before: 0,
    };
    loop {
        let turn = async {
            tokio::select! {
                () = sleep(EVERY) => {}
                () = proxy.traces.many() => {}
            }
            exporter.send_all().await;
        };
        tokio::select! {
            () = turn => {}
            // A collector that hangs does not keep the process.
            _ = stopped.changed() => break,
        }
    }
    let _ = timeout(LAST_MAX, exporter.send_all()).await;
}

struct Exporter {
    proxy: Arc<Proxy>,
    ids: Ids,
    /// Since when spans are dropped, or the last time that one was.
    trouble: Option<Instant>,
    /// As of the last look.
    dropped_before: u64,
}

impl Exporter {
    /// Sends what is there now.
    async fn send_all(&mut self) {
        loop {
            let settings = self.proxy.settings();
            let spans = self.proxy.traces.take();
            let Some(endpoint) = settings.traces.endpoint.as_ref() else {
                // Switched off: what was on its way is of no use to anybody.
                self.proxy.traces.count_lost(spans.len());
                self.trouble = None;
                return;
            };
            let is_last = spans.len() < TRACES_BATCH_MAX;
            if !spans.is_empty() {
                self.send(&spans, endpoint, &settings.traces).await;
            }
            self.look();
            if is_last {
                return;
            }
        }
    }

    /// Tells if some were dropped for want of room, and when none is any more.
    fn look(&mut self) {
        let dropped = self.proxy.traces.dropped_full();
        if std::mem::replace(&mut self.dropped_before, dropped) < dropped {
            self.dropped("traces.queue", "more are waiting than may (traces.queue)");
        } else if self.trouble.is_some_and(|at| at.elapsed() >= WELL_AFTER) {
            self.trouble = None;
            tracing::info!("traces get through again");
            let event = Event::new(EventKind::TracesSent, "traces");
            self.proxy.journal.note(event);
        }
    }

    async fn send(&mut self, spans: &[TracedSpan], endpoint: &HttpUrl, settings: &config::Traces) {
        let service = settings.service.as_deref().unwrap_or_default();
        let body = otlp::request(spans, service, &mut self.ids);
        let sent = timeout(settings.timeout, post(endpoint, body)).await;
        let sent = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let traces = &self.proxy.traces;
        match sent {
            Ok(answer) => {
                let rejected = otlp::rejected(&answer).min(spans.len());
                traces.count_exported(spans.len() - rejected);
                traces.count_lost(rejected);
                if rejected > 0 {
                    self.dropped("traces.endpoint", "the collector rejects some");
                }
            }
            Err(error) => {
                traces.count_lost(spans.len());
                self.dropped("traces.endpoint", &error.to_string());
            }
        }
    }

    /// Some were dropped; the first of many is told.
    fn dropped(&mut self, setting: &'static str, why: &str) {
        if self.trouble.replace(Instant::now()).is_some() {
            return;
        }
        tracing::warn!(setting, why, "traces are dropped");
        let event = Event::new(EventKind::TracesDropped, setting);
        self.proxy.journal.note(event.with("why", why));
    }
}

/// Sends a request of its own connection. The answer's body.
async fn post(endpoint: &HttpUrl, body: Vec<u8>) -> io::Result<Bytes> {
    let socket = TcpStream::connect(&endpoint.host_port).await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(&endpoint.path)
        .header(HOST, &endpoint.host_port)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket))
        .await
        .map_err(io::Error::other)?;
    let exchange = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX);
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        match status.is_success() {
            true => Ok(body),
            false => Err(io::Error::other(format!("the collector says {status}"))),
        }
    };
    // The connection has to be driven while the answer is waited for, and ends with it.
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}
