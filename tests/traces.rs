//! Traces: what a collector gets, read with OpenTelemetry's own types, and what Weir does when
//! there is none.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use support::{DEADLINE, RedisServer, ReservedPort, WeirProcess, encode, wait_until};

/// What the receiver answers.
const TAKEN: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                     content-length: 21\r\n\r\n{\"partialSuccess\":{}}";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// A collector's OTLP/HTTP receiver. Its thread ends with the test's process.
struct Receiver {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Receiver {
    fn start() -> Receiver {
        Receiver::at("127.0.0.1:0".parse().expect("an address"), Some(TAKEN))
    }

    /// One that gives this answer, or none.
    fn at(address: SocketAddr, answer: Option<&'static str>) -> Receiver {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let kept = bodies.clone();
        std::thread::spawn(move || {
            let mut unanswered = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let body = body_of(&mut stream);
                match answer {
                    Some(answer) => {
                        kept.lock().expect("no panic").push(body);
                        stream.write_all(answer.as_bytes()).expect("it listens");
                    }
                    None => unanswered.push(stream),
                }
            }
        });
        Receiver { address, bodies }
    }

    fn endpoint(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    fn bytes(&self) -> Vec<u8> {
        self.bodies.lock().expect("no panic").concat()
    }

    /// Everything that came, as the official types read it.
    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let bodies = self.bodies.lock().expect("no panic");
        let read = |body: &Vec<u8>| serde_json::from_slice(body).expect("an OTLP request");
        bodies.iter().map(read).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.requests().into_iter();
        let scopes = requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// The spans of this name, when there are so many.
    fn wait_for(&self, name: &str, count: usize) -> Vec<Span> {
        let named = || -> Vec<Span> {
            let all = self.spans().into_iter();
            all.filter(|span| span.name == name).collect()
        };
        wait_until(&format!("{count} spans of {name}"), || {
            named().len() >= count
        });
        let spans = named();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

fn body_of(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(DEADLINE)).expect("an option");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a request");
    assert_eq!(line, "POST /v1/traces HTTP/1.1\r\n");
    let (mut length, mut is_json) = (0, false);
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a header");
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().expect("a length");
        }
        is_json |= header == "content-type: application/json";
    }
    assert!(is_json);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the whole body");
    body
}

fn weir(redis: &RedisServer, traces: &str, route: &str) -> WeirProcess {
    WeirProcess::with_config(redis, &config(traces, route))
}

fn config(traces: &str, route: &str) -> String {
    format!(
        "[process]\nworkers = 1\n[admin]\nlisten = \"{{admin}}\"\n[traces]\n{traces}\n\
         [route.main]\nlisten = \"{{listen}}\"\nbackend.address = \"{{backend}}\"\n{route}\n"
    )
}

fn every_command(receiver: &Receiver) -> String {
    format!("endpoint = \"{}\"\nsample = 1", receiver.endpoint())
}

fn value<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    found.value.as_ref()?.value.as_ref()
}

fn text<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    match value(&span.attributes, name)? {
        Value::StringValue(text) => Some(text),
        other => panic!("{name} is {other:?}"),
    }
}

fn number(span: &Span, name: &str) -> Option<i64> {
    match value(&span.attributes, name)? {
        Value::IntValue(number) => Some(*number),
        other => panic!("{name} is {other:?}"),
    }
}

fn failed_with(span: &Span) -> Option<&str> {
    let status = span.status.as_ref()?;
    (status.code() == StatusCode::Error).then_some(&*status.message)
}

#[test]
fn a_span_says_whose_a_command_was_how_long_it_took_and_no_key() {
    let redis = RedisServer::start();
    let receiver = Receiver::start();
    let weir = weir(&redis, &every_command(&receiver), "");
    let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
    let mut client = weir.client();
    client.expect_command(&["CLIENT", "SETNAME", "shop"], "+OK\r\n");
    client.expect_command(&["SELECT", "3"], "+OK\r\n");
    client.expect_command(&["SET", "geheim-key", "geheim-value"], "+OK\r\n");
    client.expect_command(&["GET", "geheim-key"], "$12\r\ngeheim-value\r\n");
    assert_eq!(client.command(&["LPUSH", "geheim-key", "geheim"])[0], b'-');
    let script = "local from = redis.call('TIME') repeat local t = redis.call('TIME') \
                  until (t[1] - from[1]) * 1000000 + t[2] - from[2] >= 20000 \
                  return redis.error_reply('GEHEIM geheim')";
    client.expect_command(&["EVAL", script, "1", "geheim-key"], "-GEHEIM geheim\r\n");
    client.expect_command(&["BLPOP", "geheim-queue", "0.01"], "*-1\r\n");
    assert_eq!(client.command(&["GEHEIM-COMMAND", "geheim"])[0], b'-');
    assert!(
        client
            .command(&["CONFIG", "GET", "maxmemory"])
            .starts_with(b"*2")
    );

    let get = receiver.wait_for("get", 1).remove(0);
    let address = redis.address();
    assert_eq!(get.kind(), SpanKind::Client);
    assert_eq!((get.trace_id.len(), get.span_id.len()), (16, 8));
    assert!(get.parent_span_id.is_empty());
    for (name, expected) in [
        ("db.system.name", "redis"),
        ("db.operation.name", "get"),
        ("db.namespace", "3"),
        ("server.address", "127.0.0.1"),
        ("client.address", "127.0.0.1"),
        ("weir.route", "main"),
        ("weir.user", "default"),
        ("weir.client.name", "shop"),
        ("weir.outcome", "ok"),
    ] {
        assert_eq!(text(&get, name), Some(expected), "{name} of {get:#?}");
    }
    let port = i64::from(address.port());
    assert_eq!(number(&get, "server.port"), Some(port));
    assert!(number(&get, "client.port").is_some_and(|port| port > 0));
    assert_eq!(number(&get, "weir.request.bytes"), Some(30));
    assert_eq!(number(&get, "weir.reply.bytes"), Some(19));
    assert_eq!(failed_with(&get), None);
    assert_eq!(text(&get, "error.type"), None);
    let after = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
    // Times are told in microseconds.
    assert!(u128::from(get.start_time_unix_nano) + 1_000 >= before.as_nanos());
    assert!(get.start_time_unix_nano <= get.end_time_unix_nano);
    assert!(u128::from(get.end_time_unix_nano) <= after.as_nanos());

    // A script's own error may be anything.
    let eval = receiver.wait_for("eval", 1).remove(0);
    let nanos = eval.end_time_unix_nano - eval.start_time_unix_nano;
    let (waited, at_node) = (
        number(&eval, "weir.wait_us").expect("it was written"),
        number(&eval, "weir.backend_us").expect("it was answered"),
    );
    assert!(at_node >= 19_000, "{eval:#?}");
    assert!(nanos >= 19_000_000);
    let apart = (nanos / 1_000) as i64 - (waited + at_node);
    assert!(apart.abs() <= 2, "{apart} in {eval:#?}");
    assert_eq!(text(&eval, "error.type"), Some("_OTHER"));

    let lpush = receiver.wait_for("lpush", 1).remove(0);
    assert_eq!(text(&lpush, "weir.outcome"), Some("error"));
    assert_eq!(text(&lpush, "db.response.status_code"), Some("WRONGTYPE"));
    assert_eq!(failed_with(&lpush), Some("WRONGTYPE"));

    assert_eq!(receiver.wait_for("set", 1).len(), 1);
    assert_eq!(receiver.wait_for("blpop", 1).len(), 1);
    assert_eq!(receiver.wait_for("config|get", 1).len(), 1);
    let bytes = String::from_utf8(receiver.bytes()).expect("JSON");
    let found = bytes.to_ascii_lowercase().find("geheim");
    assert_eq!(found.map(|at| &bytes[at.saturating_sub(200)..at + 6]), None);

    let request = receiver.requests().remove(0);
    let resource = request.resource_spans[0].resource.as_ref().expect("one");
    let service = value(&resource.attributes, "service.name");
    assert_eq!(service, Some(&Value::StringValue("weir".into())));
    assert!(value(&resource.attributes, "service.instance.id").is_some());
    let mut ids: Vec<Vec<u8>> = receiver.spans().into_iter().map(|it| it.trace_id).collect();
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "each has an id of its own");
    wait_until("all are counted", || {
        weir.metric("weir_trace_spans_exported_total", &[]) >= count as f64
    });
    assert_eq!(weir.metric("weir_trace_spans_dropped_total", &[]), 0.0);
}

#[test]
fn a_refused_command_is_told_with_the_limit_that_refused_it() {
    let redis = RedisServer::start();
    let receiver = Receiver::start();
    let rules = "[route.main.limits.few]\nper = \"rule\"\nnetworks = \"127.0.0.0/8\"\n\
                 commands_rate = 1\ncommands_burst = 3\n\
                 [route.main.access.all]\nrefuse = [\"flushall\"]";
    let weir = weir(&redis, &every_command(&receiver), rules);
    let mut client = weir.client();
    let denied = client.command(&["FLUSHALL"]);
    assert!(denied.starts_with(b"-NOPERM"));
    let mut refused = 0;
    wait_until("the rate is used up", || {
        let reply = client.command(&["INCR", "geheim"]);
        refused += usize::from(reply.starts_with(b"-BUSY"));
        refused == 5
    });
    // Those that are sent together are refused in their turn.
    client.send(encode(&["INCR", "geheim"]).repeat(4));
    for _ in 0..4 {
        refused += usize::from(client.read_reply().starts_with(b"-BUSY"));
    }
    assert!(refused > 5);
    let flushall = receiver.wait_for("flushall", 1).remove(0);
    assert_eq!(text(&flushall, "weir.outcome"), Some("failed"));
    assert_eq!(text(&flushall, "error.type"), Some("no_permission"));
    assert_eq!(text(&flushall, "server.address"), None);
    let shed = || {
        let all = receiver
            .spans()
            .into_iter()
            .filter(|span| span.name == "incr");
        let shed = all.filter(|span| text(span, "weir.outcome") == Some("shed"));
        shed.collect::<Vec<_>>()
    };
    wait_until("all refusals are told", || shed().len() >= refused);
    let shed = shed();
    assert_eq!(shed.len(), refused);
    for span in shed {
        let limit = Some("limit_commands_rate");
        assert_eq!(text(&span, "weir.shed.limit"), limit, "{span:#?}");
        assert_eq!(failed_with(&span), limit);
    }
}

/// With one connection for two workers, one of them uses the other's.
#[test]
fn what_goes_over_another_workers_connection_is_one_span() {
    let redis = RedisServer::start();
    let receiver = Receiver::start();
    let config = config(
        &every_command(&receiver),
        "[route.main.backend]\nmax_connections = 1",
    )
    .replace("workers = 1", "workers = 2")
    .replace("backend.address = \"{backend}\"\n", "")
    .replace(
        "max_connections = 1",
        "address = \"{backend}\"\nmax_connections = 1",
    );
    let weir = WeirProcess::with_config(&redis, &config);
    let mut clients = [weir.client(), weir.client()];
    for round in 0..10 {
        for client in &mut clients {
            let key = format!("geheim-{round}");
            client.expect_command(&["APPEND", &key, ""], ":0\r\n");
        }
    }
    wait_until("there is one connection for both", || {
        weir.metric("weir_commands_handed_over_total", &[]) > 0.0
    });
    let spans = receiver.wait_for("append", 20);
    let ports = spans.iter().map(|span| number(span, "client.port"));
    let of_one = ports.filter(|port| *port == number(&spans[0], "client.port"));
    assert_eq!(of_one.count(), 10);
    for span in &spans {
        assert_eq!(
            number(span, "server.port"),
            Some(redis.address().port().into())
        );
        assert_eq!(text(span, "weir.outcome"), Some("ok"), "{span:#?}");
        assert_eq!(number(span, "weir.reply.bytes"), Some(4));
    }
}

#[test]
fn without_a_collector_weir_serves_and_says_so_once_until_there_is_one() {
    let redis = RedisServer::start();
    let place = ReservedPort::new();
    let traces = format!(
        "endpoint = \"http://{}/v1/traces\"\nsample = 1\nqueue = 10",
        place.address()
    );
    let mut weir = weir(&redis, &traces, "");
    let mut client = weir.client();
    let dropped = |weir: &WeirProcess, reason: &str| {
        let reason = format!("reason=\"{reason}\"");
        weir.metric("weir_trace_spans_dropped_total", &[&reason])
    };
    wait_until("spans are dropped", || {
        client.expect_command(&["SET", "key", "value"], "+OK\r\n");
        dropped(&weir, "export") >= 20.0
    });
    wait_until("more wait than may", || {
        for _ in 0..50 {
            client.expect_command(&["SET", "key", "value"], "+OK\r\n");
        }
        dropped(&weir, "queue") >= 20.0
    });
    assert_eq!(weir.metric("weir_trace_queue_max", &[]), 10.0);
    assert!(weir.metric("weir_trace_spans_queued", &[]) <= 10.0);
    assert_eq!(weir.metric("weir_trace_spans_exported_total", &[]), 0.0);
    let receiver = Receiver::at(place.address(), Some(TAKEN));
    wait_until("spans arrive", || {
        client.expect_command(&["GET", "key"], "$5\r\nvalue\r\n");
        receiver.spans().iter().any(|span| span.name == "get")
    });
    weir.wait_for_log("traces get through again");
    assert_eq!(weir.log().matches("traces are dropped").count(), 1);
    for kind in ["traces_dropped", "traces_sent"] {
        wait_until(kind, || weir.get("/events.json").1.contains(kind));
    }
}

#[test]
fn a_collector_that_refuses_or_hangs_holds_nobody_up() {
    for answer in [Some(BUSY), None] {
        let redis = RedisServer::start();
        let any = "127.0.0.1:0".parse().expect("an address");
        let receiver = Receiver::at(any, answer);
        let traces = every_command(&receiver) + "\ntimeout = \"200ms\"";
        let mut weir = weir(&redis, &traces, "");
        let mut client = weir.client();
        wait_until("spans are dropped", || {
            client.expect_command(&["SET", "key", "value"], "+OK\r\n");
            weir.metric("weir_trace_spans_dropped_total", &["reason=\"export\""]) >= 2.0
        });
        assert_eq!(weir.metric("weir_trace_spans_exported_total", &[]), 0.0);
        drop(client);
        assert!(weir.terminate().success());
    }
}

#[test]
fn tracing_is_switched_on_while_weir_runs_and_the_last_spans_are_sent() {
    let redis = RedisServer::start();
    let receiver = Receiver::start();
    let mut weir = weir(&redis, "", "");
    let mut client = weir.client();
    for _ in 0..100 {
        client.expect_command(&["SET", "key", "value"], "+OK\r\n");
    }
    let reload = |weir: &mut WeirProcess, traces: &str| {
        let before = weir.log().matches("settings were read again").count();
        let text = weir.filled(&config(traces, ""));
        std::fs::write(weir.config_path(), text).expect("the file");
        weir.signal(libc::SIGHUP);
        wait_until("the settings are read again", || {
            weir.log().matches("settings were read again").count() > before
        });
    };
    let on = every_command(&receiver) + "\nservice = \"cache-tier\"";
    reload(&mut weir, &on);
    wait_until("spans arrive", || {
        client.expect_command(&["GET", "key"], "$5\r\nvalue\r\n");
        !receiver.spans().is_empty()
    });
    assert!(receiver.spans().iter().all(|span| span.name == "get"));
    let request = receiver.requests().remove(0);
    let resource = request.resource_spans[0].resource.as_ref().expect("one");
    let service = value(&resource.attributes, "service.name");
    assert_eq!(service, Some(&Value::StringValue("cache-tier".into())));
    client.expect_command(&["INCR", "last"], ":1\r\n");
    drop(client);
    assert!(weir.terminate().success());
    assert!(receiver.spans().iter().any(|span| span.name == "incr"));
    assert!(!weir.log().contains("traces are dropped"), "{}", weir.log());
}

#[test]
fn a_mistake_is_told_with_its_line() {
    let text = "[traces]\nendpoint = \"https://collector:4318/v1/traces\"\nsample = 0\n\
                [route.main]\nbackend = \"127.0.0.1:6379\"\n";
    let mistakes = weir::config::Config::parse("weir.toml", text).expect_err("two mistakes");
    assert_eq!(
        mistakes.to_string().trim(),
        "weir.toml:2: traces.endpoint: expected an address such as \
         \"http://127.0.0.1:4318/v1/traces\" (plain HTTP), or \"off\", \
         found \"https://collector:4318/v1/traces\"\n\
         weir.toml:3: traces.sample: expected a whole number from 1 to 1000000, found 0"
    );
}
