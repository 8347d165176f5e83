//! The admin server: a few pages over HTTP/1.1.
//!
//! Bounded like everything that listens: so many connections at once, a time
//! for the head of a request, an age for a connection; a request's body is not
//! read. A new page is a row in [`PAGES`].

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::doctor::{self, Finding};
use super::dump;
use super::overview::Span;
use crate::metrics::{CONTENT_TYPE as EXPOSITION_TYPE, Exposition, Journal, SlowLog};
use crate::net::{ADMIN_CONNECTIONS, accept_fault, listen_tcp};

/// Connections served at once: a few scrapers, probes and people. More are
/// told 503 and closed.
pub const CONNECTIONS_MAX: usize = ADMIN_CONNECTIONS as usize;

/// For the head of a request to arrive; a connection kept open without one is
/// closed then too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// After this a connection is closed once its answer is out, so that clients
/// which keep theirs busy do not hold all of [`CONNECTIONS_MAX`] for ever.
const AGE_MAX: Duration = Duration::from_secs(60);

/// For an answer to be taken when its connection is to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The head of a request, at most: what hyper buffers of one.
const HEAD_BYTES_MAX: usize = 16 << 10;

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const MARKDOWN: &str = "text/markdown; charset=utf-8";

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\n\
    content-length: 21\r\nconnection: close\r\n\r\ntoo many connections\n";

/// Writes some families to each answer of `/metrics`.
pub type Source = Box<dyn Fn(&mut Exposition) + Send + Sync>;

/// Says whether every route has a backend that it can use; if not, why.
pub type Ready = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Tells the settings in force.
pub type Settings = Box<dyn Fn() -> Vec<crate::config::Item> + Send + Sync>;

/// Tells what is wrong.
pub type Doctor = Box<dyn Fn() -> Vec<Finding> + Send + Sync>;

/// Tells something as JSON.
pub type Json = Box<dyn Fn() -> String + Send + Sync>;

/// Tells what the page shows.
pub type Overview = Box<dyn Fn(Span) -> String + Send + Sync>;

/// What the pages tell, asked anew for each request, on the main thread: they
/// read counters and snapshots and do not wait for anything.
pub struct Handlers {
    /// For `/metrics`, in this order; no two write the same family.
    pub sources: Vec<Source>,
    /// For `/config.json`.
    pub settings: Settings,
    /// For `/readyz`.
    pub ready: Ready,
    /// For the diagnosis, as text and as JSON.
    pub doctor: Doctor,
    /// For the page.
    pub overview: Overview,
    /// For `/hotkeys.json`.
    pub hot_keys: Json,
    /// For `/top.json`.
    pub top: Json,
    /// For the record and the events.
    pub journal: Arc<Journal>,
    /// For the slow log.
    pub slow_log: Arc<SlowLog>,
}

/// An admin server that has its address and waits to be run.
pub struct AdminServer {
    listener: TcpListener,
    handlers: Arc<Handlers>,
}

impl AdminServer {
    /// Takes the address, without a runtime, so that a mistake is known before
    /// anything is started.
    ///
    /// # Errors
    /// What the kernel says; `AddrInUse` when somebody listens there.
    pub fn bind(addr: SocketAddr, handlers: Handlers) -> io::Result<Self> {
        Ok(Self::over(listen_tcp(addr)?, handlers))
    }

    /// Over a listener that does not block.
    pub fn over(listener: TcpListener, handlers: Handlers) -> Self {
        Self {
            listener,
            handlers: Arc::new(handlers),
        }
    }

    /// The address that was taken; tells the port where 0 was asked for.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` is true or its sender is gone, then takes no
    /// more connections, finishes the answers under way and returns, within
    /// two seconds. Dropping the future closes everything at once.
    ///
    /// # Errors
    /// When the runtime cannot take the listener; nothing was served then.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) if connections.len() >= CONNECTIONS_MAX => refuse(stream),
                    Ok((stream, _)) => {
                        let handlers = Arc::clone(&self.handlers);
                        connections.spawn(serve(stream, handlers, shutdown.clone()));
                    }
                    Err(error) => pause_after(&error).await,
                },
                Some(_) = connections.join_next() => {}
                () = stopped(&mut shutdown) => break,
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that whoever would say so is gone, which says the same.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn pause_after(error: &io::Error) {
    if let Some(pause) = accept_fault(error).pause() {
        tracing::warn!(%error, "the admin server cannot accept");
        sleep(pause).await;
    }
}

/// Tells the client why, as far as the empty send buffer of a new socket takes
/// it without waiting.
fn refuse(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(TOO_MANY);
    }
}

async fn serve(stream: TcpStream, handlers: Arc<Handlers>, mut shutdown: watch::Receiver<bool>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&handlers, request.method(), request.uri().path());
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        // A client that has sent its request may close its sending side.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        () = stopped(&mut shutdown) => {}
        () = sleep(AGE_MAX) => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = timeout(CLOSE_TIMEOUT, connection).await {
        log_end(ended);
    }
}

/// How a connection ends is the client's affair: it went away, was slow, or
/// spoke something else.
fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended");
    }
}

type Answer = Response<Full<Bytes>>;

/// One page: a row of the table.
struct Page {
    path: &'static str,
    method: Method,
    about: &'static str,
    answer: fn(&Handlers) -> Answer,
}

const PAGES: &[Page] = &[
    Page {
        path: "/",
        method: Method::GET,
        about: "how it is and how it was, for a browser",
        answer: page,
    },
    Page {
        path: "/pages",
        method: Method::GET,
        about: "this list",
        answer: index,
    },
    Page {
        path: "/overview/minutes.json",
        method: Method::GET,
        about: "what the page shows, the last ten minutes of it",
        answer: |handlers| overview(handlers, Span::Minutes),
    },
    Page {
        path: "/overview/hours.json",
        method: Method::GET,
        about: "the same with the last six hours",
        answer: |handlers| overview(handlers, Span::Hours),
    },
    Page {
        path: "/overview/day.json",
        method: Method::GET,
        about: "the same with the last day",
        answer: |handlers| overview(handlers, Span::Day),
    },
    Page {
        path: "/metrics",
        method: Method::GET,
        about: "what is counted, in the text format of Prometheus",
        answer: metrics,
    },
    Page {
        path: "/healthz",
        method: Method::GET,
        about: "200 while the process serves",
        answer: healthz,
    },
    Page {
        path: "/readyz",
        method: Method::GET,
        about: "200 while every route has a usable backend, else 503 and why",
        answer: readyz,
    },
    Page {
        path: "/doctor",
        method: Method::GET,
        about: "what is wrong, what shows it, and what to do",
        answer: doctor_text,
    },
    Page {
        path: "/doctor.json",
        method: Method::GET,
        about: "the same as JSON",
        answer: doctor_json,
    },
    Page {
        path: "/events.json",
        method: Method::GET,
        about: "what happened last, as JSON",
        answer: events,
    },
    Page {
        path: "/slowlog.json",
        method: Method::GET,
        about: "the commands that took long, newest first, as JSON",
        answer: slow_log,
    },
    Page {
        path: "/hotkeys.json",
        method: Method::GET,
        about: "the keys that are asked for most and the largest replies, as JSON",
        answer: hot_keys,
    },
    Page {
        path: "/top.json",
        method: Method::GET,
        about: "what weir top shows: who holds the most connections, how the nodes are, as JSON",
        answer: |handlers| typed(StatusCode::OK, JSON, (handlers.top)()),
    },
    Page {
        path: "/config.json",
        method: Method::GET,
        about: "the settings in force by their full names, passwords hidden, as JSON",
        answer: settings,
    },
    Page {
        path: "/record.json",
        method: Method::GET,
        about: "all events and numbers that are kept, as JSON",
        answer: record_json,
    },
    Page {
        path: "/record.md",
        method: Method::GET,
        about: "the same for people, in Markdown",
        answer: record_markdown,
    },
];

fn answer(handlers: &Handlers, method: &Method, path: &str) -> Answer {
    // hyper leaves out the body of an answer to HEAD by itself.
    let wanted = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let mut at_path = PAGES.iter().filter(|page| page.path == path).peekable();
    if at_path.peek().is_none() {
        return text(
            StatusCode::NOT_FOUND,
            "not found; /pages lists what there is\n".into(),
        );
    }
    let allowed: Vec<_> = at_path.clone().map(|page| page.method.as_str()).collect();
    match at_path.find(|page| page.method == *wanted) {
        Some(page) => (page.answer)(handlers),
        None => not_allowed(&allowed),
    }
}

fn not_allowed(allowed: &[&str]) -> Answer {
    let mut allow = allowed.join(", ");
    if allowed.contains(&"GET") {
        allow.push_str(", HEAD");
    }
    let body = format!("method not allowed; allowed: {allow}\n");
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, body);
    let allow = HeaderValue::try_from(allow).expect("the methods of the table are visible ASCII");
    answer.headers_mut().insert(ALLOW, allow);
    answer
}

fn index(_: &Handlers) -> Answer {
    let mut list = format!("Weir {}\n\n", env!("CARGO_PKG_VERSION"));
    for page in PAGES {
        writeln!(list, "{:<5} {:<22} {}", page.method, page.path, page.about)
            .expect("writing to a String cannot fail");
    }
    text(StatusCode::OK, list)
}

/// The page is one file and asks nobody but this server.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; \
    style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

fn page(_: &Handlers) -> Answer {
    let mut answer = typed(StatusCode::OK, HTML, include_str!("page.html").into());
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(PAGE_POLICY),
    );
    answer
}

fn overview(handlers: &Handlers, span: Span) -> Answer {
    typed(StatusCode::OK, JSON, (handlers.overview)(span))
}

fn doctor_text(handlers: &Handlers) -> Answer {
    text(StatusCode::OK, doctor::text(&(handlers.doctor)()))
}

fn doctor_json(handlers: &Handlers) -> Answer {
    let findings = doctor::json(&(handlers.doctor)());
    typed(StatusCode::OK, JSON, findings.to_string())
}

fn metrics(handlers: &Handlers) -> Answer {
    let mut exposition = Exposition::new();
    handlers
        .sources
        .iter()
        .for_each(|source| source(&mut exposition));
    typed(StatusCode::OK, EXPOSITION_TYPE, exposition.finish())
}

fn healthz(_: &Handlers) -> Answer {
    text(StatusCode::OK, "ok\n".into())
}

fn readyz(handlers: &Handlers) -> Answer {
    match (handlers.ready)() {
        Ok(()) => text(StatusCode::OK, "ready\n".into()),
        Err(why) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {why}\n"),
        ),
    }
}

/// Events of one answer of `/events.json`.
const EVENTS_SHOWN: usize = 500;

fn events(handlers: &Handlers) -> Answer {
    let events = dump::events_json(&handlers.journal, EVENTS_SHOWN);
    typed(StatusCode::OK, JSON, events)
}

fn slow_log(handlers: &Handlers) -> Answer {
    let entries = dump::slow_log_json(&handlers.slow_log);
    typed(StatusCode::OK, JSON, entries)
}

fn hot_keys(handlers: &Handlers) -> Answer {
    typed(StatusCode::OK, JSON, (handlers.hot_keys)())
}

fn settings(handlers: &Handlers) -> Answer {
    let items = (handlers.settings)();
    let listing = items.into_iter().map(|item| (item.key, item.value.into()));
    let listing: serde_json::Map<String, serde_json::Value> = listing.collect();
    let listing = serde_json::Value::Object(listing);
    typed(StatusCode::OK, JSON, format!("{listing:#}\n"))
}

fn record_json(handlers: &Handlers) -> Answer {
    typed(StatusCode::OK, JSON, dump::record_json(&handlers.journal))
}

fn record_markdown(handlers: &Handlers) -> Answer {
    let page = dump::record_markdown(&handlers.journal);
    typed(StatusCode::OK, MARKDOWN, page)
}

fn text(status: StatusCode, body: String) -> Answer {
    typed(status, TEXT, body)
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests;
