//! Job queues as applications have them, with libraries of their own: BullMQ, RQ, Celery, and a
//! consumer group with news over pub/sub. Each lives its normal life (jobs, delayed ones, some
//! that are tried again, results, events, a graceful stop) and checks that each job was done
//! once. Redis takes 32 connections, and there are far more workers.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

#[path = "../support/mod.rs"]
mod support;

use std::thread;

use support::{ConnectionWatch, RedisServer, WeirProcess, libraries};

/// One kind of user: what is run with the port of Weir as its first argument.
struct User {
    run: fn(&str, &[&str]) -> std::process::Output,
    script: &'static str,
    arguments: &'static [&'static str],
}

/// Workers, jobs.
const BULLMQ: User = User {
    run: libraries::node,
    script: "bullmq.js",
    arguments: &["200", "600"],
};

/// Processes that fork for each job, workers in threads, jobs.
const RQ: User = User {
    run: libraries::python,
    script: "rq_jobs.py",
    arguments: &["6", "40", "100"],
};

/// Processes, threads of each, jobs.
const CELERY: User = User {
    run: libraries::python,
    script: "celery_jobs.py",
    arguments: &["3", "10", "60"],
};

/// Consumers, jobs. There are ten subscribers and ten readers besides.
const GROUP: User = User {
    run: libraries::python,
    script: "stream_group.py",
    arguments: &["100", "500"],
};

/// Lets users live their lives side by side, and looks at what that came to.
fn live(users: &[User]) {
    let redis = RedisServer::with(&["--maxclients", "32"]);
    let weir = WeirProcess::with_backend(
        &redis,
        r#"
        max_connections = 24
        # 70 consumers of a group take turns on what blocked clients may hold of these.
        lease_wait = "15s"
        [route.main.overload]
        # A machine that is busy with other tests is no overload of Redis.
        target = "10s"
        "#,
    );
    let watch = ConnectionWatch::start(&redis);
    let port = weir.address().port().to_string();
    thread::scope(|scope| {
        for user in users {
            let mut arguments = vec![port.as_str()];
            arguments.extend(user.arguments);
            scope.spawn(move || (user.run)(user.script, &arguments));
        }
    });
    watch.assert_at_most(24);
    assert_eq!(redis.info("stats", "rejected_connections"), "0");
    for cause in [
        "backend_lost",
        "backend_stalled",
        "request_timeout",
        "queue_timeout",
    ]
    .into_iter()
    .chain(["busy", "lease_wait", "lease_queue", "internal"])
    {
        let label = format!("cause=\"{cause}\"");
        let errors = weir.metric("weir_errors_total", &[&label]);
        assert_eq!(errors, 0.0, "errors of {cause}");
    }
}

#[test]
fn bullmq_does_each_job_once() {
    live(&[BULLMQ]);
}

#[test]
fn rq_does_each_job_once() {
    live(&[RQ]);
}

#[test]
fn celery_does_each_job_once() {
    live(&[CELERY]);
}

#[test]
fn a_consumer_group_does_each_job_once() {
    live(&[GROUP]);
}

/// 200 workers in all: 80 of BullMQ, 30 of RQ, 20 of Celery, 70 of the group.
#[test]
fn all_of_them_share_one_redis() {
    live(&[
        User {
            arguments: &["80", "300"],
            ..BULLMQ
        },
        User {
            arguments: &["4", "26", "60"],
            ..RQ
        },
        User {
            arguments: &["2", "10", "30"],
            ..CELERY
        },
        User {
            arguments: &["70", "300"],
            ..GROUP
        },
    ]);
}
