"""A normal life of Celery: celery_jobs.py PORT WORKERS THREADS JOBS

Each worker is a process of its own with a pool of threads.
"""

import os
import subprocess
import sys
import threading

from checks import equal, wait_until

port, workers, threads, jobs = (int(argument) for argument in sys.argv[1:5])
os.environ["CELERY_REDIS"] = f"redis://127.0.0.1:{port}/0"

from celery import chain, chord, group  # noqa: E402
from celery_tasks import app, counts, record, total  # noqa: E402


def start(number):
    return subprocess.Popen(
        [sys.executable, "-m", "celery", "--app", "celery_tasks", "--quiet", "worker"]
        + ["--pool", "threads", "--concurrency", str(threads), "--events"]
        + ["--hostname", f"worker-{number}@test", "--loglevel", "WARNING"],
        cwd=os.path.dirname(os.path.abspath(__file__)),
        stdout=sys.stderr,
    )


def main():
    running = [start(number) for number in range(workers)]
    try:
        live(running)
    finally:
        for process in running:
            process.kill()


def live(running):
    wait_until("all answer", lambda: len(app.control.ping(timeout=1)) == workers)

    heard = {}
    stop = threading.Event()

    def listen():
        def succeeded(event):
            heard[event["uuid"]] = heard.get(event["uuid"], 0) + 1

        with app.connection() as connection:
            receiver = app.events.Receiver(connection, handlers={"task-succeeded": succeeded})
            for _ in receiver.itercapture(limit=None, timeout=None, wakeup=True):
                if stop.is_set():
                    return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()

    sent = []
    for number in range(jobs):
        match number % 3:
            case 0:
                sent.append(record.delay(number))
            case 1:
                sent.append(record.apply_async((number,), countdown=0.5))
            case _:
                sent.append(record.delay(number, True))
    equal([result.get(timeout=30) for result in sent], list(range(jobs)))

    grouped = group(record.s(number) for number in range(20)).apply_async()
    equal(grouped.get(timeout=30), list(range(20)))
    together = chord((record.s(number) for number in range(10)), total.s())()
    equal(together.get(timeout=30), 45)
    one_by_one = chain(record.s(20), record.si(21))()
    equal(one_by_one.get(timeout=30), 21)

    everything = jobs + 20 + 11 + 2
    done = {id.decode(): int(count) for id, count in counts.hgetall("celery:done").items()}
    equal(len(done), everything)
    equal({id: count for id, count in done.items() if count != 1}, {})
    wait_until("nothing is unacknowledged", lambda: not counts.hlen("unacked"))
    equal(counts.llen("celery"), 0)
    wait_until("events have come", lambda: len(heard) >= 33)
    equal({id: count for id, count in heard.items() if count != 1}, {})

    stop.set()
    app.control.shutdown()
    for process in running:
        equal(process.wait(30), 0)


main()
