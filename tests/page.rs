//! The page on the admin address, in a real browser: Debian's Chromium, without a window.

mod support;

use std::path::Path;
use std::process::Command;

use support::{RedisServer, WeirProcess, wait_until};

/// The page as the browser has it after its scripts have run for a while.
fn rendered(weir: &WeirProcess) -> String {
    let run = chromium(&["--dump-dom"], weir);
    String::from_utf8(run).expect("a page is UTF-8")
}

fn chromium(arguments: &[&str], weir: &WeirProcess) -> Vec<u8> {
    let profile = tempfile::tempdir().expect("a folder");
    let run = Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--virtual-time-budget=4000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(format!("http://{}/", weir.admin_address()))
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

#[test]
fn a_browser_shows_hot_keys_and_who_holds_the_most() {
    let redis = RedisServer::start();
    let weir = WeirProcess::with_config(
        &redis,
        "[process]\nhot_keys_sample = 1\n[admin]\nlisten = \"{admin}\"\n[route.main]\n\
         listen = \"{listen}\"\nbackend = \"{backend}\"\n",
    );
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
