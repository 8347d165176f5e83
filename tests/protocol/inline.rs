//! Requests as typed into telnet.

use super::compare::Pair;

#[test]
fn lines_are_split_as_redis_splits_them() {
    let pair = Pair::start();
    for line in [
        &b"PING\r\n"[..],
        b"PING\n",
        b"  PING  \r\n",
        b"\tping\t\n",
        b"PING hello\r\n",
        b"ECHO \"hello world\"\r\n",
        b"ECHO 'hello world'\r\n",
        b"ECHO \"a\\x41\\x00\\xff\\n\\r\\t\\b\\a\\\\\\\"\\q\"\r\n",
        b"ECHO 'it\\'s \\n'\r\n",
        b"ECHO \"\"\r\n",
        b"ECHO ''\r\n",
        b"ECHO \r\n",
        b"ECHO a b\r\n",
        b"EC\"HO\" x\r\n",
        b"ECHO x\"y z\"\r\n",
        b"ECHO x'y'\r\n",
        b"ECHO \\x41\r\n",
        b"ECHO \"\\xzz\"\r\n",
        b"ECHO a\rb\r\n",
        b"ECHO \xfe\xfd\r\n",
        b"ECHO \"a\" \"b\"\r\n",
        b"SET k \"\"\nGET k\nDEL k\n",
        b"SET key \"a value\"\r\nGET key\r\n*2\r\n$3\r\nGET\r\n$3\r\nkey\r\nGET key\n",
        b"PING\nPING\nPING\n\n\nPING\r\n",
        b"PING\r\r\n",
        b"SELECT 3\r\nSET k v\r\nSELECT 0\r\nGET k\r\n",
        b"nosuch 'a b' \"c\\r\\nd\"\r\n",
        b"quit\r\nPING\r\n",
        b"QUIT now please\r\n",
    ] {
        pair.same(line);
    }
}

#[test]
fn a_line_may_be_as_long_as_it_may() {
    let pair = Pair::start();
    for words in [100, 1000, 10_000] {
        let mut line = b"DEL".to_vec();
        (0..words).for_each(|word| line.extend(format!(" k{word}").bytes()));
        line.extend(b"\n");
        pair.same(&line);
    }
}

#[test]
fn printf_piped_into_nc_gets_its_replies() {
    let pair = Pair::start();
    for input in [
        &b"PING\r\n"[..],
        b"SET a 1\r\nINCR a\r\nGET a\r\n",
        b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n",
        b"SELECT 2\r\nSET b 2\r\nGET b\r\n",
        b"MULTI\r\nSET c 3\r\nINCR c\r\nEXEC\r\n",
        b"WATCH c\r\nMULTI\r\nINCR c\r\nEXEC\r\nGET c\r\n",
        b"PING\r\n*x\r\n",
        b"PING\r\n*1\r\n$4\r\nPI",
        b"PING\r\nPI",
        b"GET a\r\nQUIT\r\nGET a\r\n",
        b"RESET\r\nPING\r\n",
        b"nosuch\r\n",
        b"MULTI\r\nSET c 3\r\n",
        b"SUBSCRIBE x\r\n",
        b"PSUBSCRIBE x y z\r\nPING\r\n",
        b"BLPOP nothing 0\r\n",
        b"RPUSH list a b\r\nBLPOP list 0\r\nPING\r\nBLPOP list 0\r\nPING\r\n",
        b"WAIT 0 0\r\nPING\r\n",
        b"MONITOR\r\n",
        b"",
    ] {
        pair.same_half_closed(input);
    }
}

#[test]
fn a_half_closed_pipeline_is_answered_to_its_end() {
    let pair = Pair::start();
    let mut input = Vec::new();
    for number in 0..20_000 {
        input.extend(format!("INCR n{}\r\n", number % 7).bytes());
    }
    pair.same_half_closed(&input);
}

#[test]
fn who_waits_in_a_blocking_command_and_half_closes_is_forgotten() {
    let pair = Pair::start();
    pair.same_half_closed(b"BLPOP queue 0\r\n");
    let mut pusher = pair.weir.client();
    super::support::wait_until("the waiter's connection is gone", || {
        pair.behind.info("clients", "blocked_clients") == "0"
    });
    pusher.expect_command(&["RPUSH", "queue", "x"], ":1\r\n");
    pusher.expect_command(&["LLEN", "queue"], ":1\r\n");
}
