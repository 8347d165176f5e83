//! The page on the admin address, in a real browser: Debian's Chromium, without a window.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use support::{RedisServer, WeirProcess, wait_until};

/// The page as the browser has it after its scripts have run for a while.
fn rendered(weir: &WeirProcess) -> String {
    let run = chromium(&["--dump-dom"], weir);
    String::from_utf8(run).expect("a page is UTF-8")
}

fn chromium(arguments: &[&str], weir: &WeirProcess) -> Vec<u8> {
    browsed(arguments, &format!("http://{}/", weir.admin_address()))
}

fn browsed(arguments: &[&str], address: &str) -> Vec<u8> {
    let profile = tempfile::tempdir().expect("a folder");
    let run = Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--virtual-time-budget=4000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(address)
        .output()
        .expect("chromium runs; scripts/test installs it");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    run.stdout
}

/// The first sample is taken a second after the start.
fn wait_for_a_sample(weir: &WeirProcess, text: &str) {
    wait_until("the sample shows it", || {
        weir.get("/overview/minutes.json").1.contains(text)
    });
}

#[test]
fn a_browser_shows_that_all_is_well_and_what_is_connected() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let mut clients: Vec<_> = (0..3).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.expect_command(&["SET", "key", "value"], "+OK\r\n");
    }
    wait_for_a_sample(&weir, "\"clients\":3");
    let page = rendered(&weir);
    // Not in the script, which is part of the page.
    assert!(page.contains("<strong>All is well.<"), "{page}");
    assert!(page.contains("<h2>main</h2>"), "the route: {page}");
    assert!(page.contains("3 of 10000"), "the clients: {page}");
    assert!(page.contains("Weir started: "), "the events: {page}");
    assert!(page.contains("<path d=\"M"), "the curves: {page}");
}

/// Each key is told that is asked for.
fn weir_that_samples_all(redis: &RedisServer) -> WeirProcess {
    WeirProcess::with_config(
        redis,
        "[process]\nhot_keys_sample = 1\n[admin]\nlisten = \"{admin}\"\n[route.main]\n\
         listen = \"{listen}\"\nbackend = \"{backend}\"\n",
    )
}

#[test]
fn a_browser_shows_hot_keys_and_who_holds_the_most() {
    let redis = RedisServer::start();
    let weir = weir_that_samples_all(&redis);
    let mut client = weir.client();
    let value = "x".repeat(200_000);
    client.expect_command(&["SET", "cart:<7>", &value], "+OK\r\n");
    wait_until("it is told", || {
        client.command(&["GET", "cart:<7>"]);
        let told = weir.get("/overview/minutes.json").1;
        told.contains("\"identity\":\"127.0.0.1\"") && told.contains("\"bytes\":200")
    });
    let page = rendered(&weir);
    for text in [
        "Keys that most commands name",
        "cart:&lt;7&gt;",
        "Largest replies of the last hour",
        "200.0 kB",
        "Who holds the most connections",
        "127.0.0.1",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
}

#[test]
fn a_browser_shows_which_redis_is_gone() {
    let mut redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    weir.client()
        .expect_command(&["SET", "key", "value"], "+OK\r\n");
    redis.kill();
    weir.client().command(&["PING"]);
    wait_for_a_sample(&weir, "\"up\":false");
    let page = rendered(&weir);
    assert!(page.contains("cannot be used"), "{page}");
    assert!(page.contains("node went down"), "{page}");
    assert!(page.contains("class=\"bad\""), "{page}");
}

#[test]
fn a_browser_shows_what_the_doctor_finds_first() {
    let redis = RedisServer::start();
    let weir = WeirProcess::with_config(
        &redis,
        "[admin]\nlisten = \"{admin}\"\n[route.main]\nlisten = \"{listen}\"\n\
         [route.main.backend]\naddress = \"{backend}\"\nmax_blocking = 2\n",
    );
    // Moves between lists of their own cannot share a connection.
    let mut workers: Vec<_> = (0..2).map(|_| weir.client()).collect();
    for (number, worker) in workers.iter_mut().enumerate() {
        worker.send(format!("BLMOVE from{number} to{number} LEFT LEFT 0\r\n"));
    }
    wait_for_a_sample(&weir, "\"cause\":\"blocked_workers\"");
    wait_for_a_sample(&weir, "\"maxclients\":10000");
    let page = rendered(&weir);
    assert!(
        page.contains("<strong>One thing needs attention.<"),
        "{page}"
    );
    assert!(page.contains("main: workers that block hold"), "{page}");
    assert!(page.contains("clients of Redis 127.0.0.1"), "{page}");
}

#[test]
fn the_page_asks_nobody_else() {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page.html"))
            .expect("the page");
    for outside in ["https://", "src=", "@import", "<link rel=\"stylesheet\""] {
        assert!(!page.contains(outside), "{outside}");
    }
    // The one address is the name of SVG's vocabulary.
    let addresses: Vec<_> = page.match_indices("http://").collect();
    let named = page.matches("http://www.w3.org/2000/svg").count();
    assert_eq!(addresses.len(), named);
}

/// Before the admin address: a page of its own with the real one in a frame as wide as a
/// telephone, and all else passed on, so that one may look into the other.
fn framed(weir: &WeirProcess) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (address, admin) = (
        listener.local_addr().expect("it listens"),
        weir.admin_address(),
    );
    std::thread::spawn(move || {
        for mut browser in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&mut browser, admin));
        }
    });
    address
}

fn answer(browser: &mut TcpStream, admin: SocketAddr) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        browser.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or("/");
    if path == "/frame" {
        let start = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/html\r\n";
        let length = FRAME.len();
        return write!(browser, "{start}content-length: {length}\r\n\r\n{FRAME}");
    }
    let mut weir = TcpStream::connect(admin)?;
    write!(
        weir,
        "GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n"
    )?;
    let mut reply = String::new();
    weir.read_to_string(&mut reply)?;
    // Nobody else may have it in a frame.
    assert!(
        reply.contains("frame-ancestors 'none'") || path != "/",
        "{reply}"
    );
    let reply = reply.replacen("frame-ancestors 'none'", "frame-ancestors 'self'", 1);
    browser.write_all(reply.as_bytes())
}

/// Tells of the page in its frame.
const FRAME: &str = "<!doctype html><title></title>\
    <iframe src=\"/\" style=\"width:390px;height:844px;border:0\"></iframe><pre></pre><script>\
    setInterval(() => { const page = document.querySelector('iframe').contentWindow;\
    const root = page.document.documentElement, text = page.document.body.innerText;\
    document.querySelector('pre').textContent = [\
    text.includes('All is well.') && text.includes('longlong') ? 'shown' : 'empty',\
    root.scrollWidth <= root.clientWidth ? 'fits' : 'too wide', page.innerWidth,\
    page.getComputedStyle(page.document.body).backgroundColor].join('; '); }, 100)</script>";

#[test]
fn a_telephone_shows_the_page_without_scrolling_sideways_light_or_dark() {
    let redis = RedisServer::start();
    let weir = weir_that_samples_all(&redis);
    let mut client = weir.client();
    let key = "long".repeat(50);
    client.expect_command(&["SET", &key, "v"], "+OK\r\n");
    wait_until("the key is told", || {
        client.command(&["GET", &key]);
        weir.get("/overview/minutes.json").1.contains(&key[..40])
    });
    let address = framed(&weir);
    let seen = |scheme: &str| {
        let page = browsed(&["--dump-dom", scheme], &format!("http://{address}/frame"));
        let page = String::from_utf8(page).expect("a page is UTF-8");
        let told = page
            .split("<pre>")
            .nth(1)
            .and_then(|rest| rest.split("</pre>").next());
        told.unwrap_or_else(|| panic!("{page}")).to_owned()
    };
    let light = seen("--blink-settings=preferredColorScheme=1");
    let dark = seen("--blink-settings=preferredColorScheme=0");
    assert_eq!(light, "shown; fits; 390; rgb(246, 247, 249)");
    assert_eq!(dark, "shown; fits; 390; rgb(20, 24, 29)");
}
