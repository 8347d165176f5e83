"""A normal life of RQ: rq_jobs.py PORT PROCESSES THREADS JOBS

Some workers are processes of their own that fork for each job, as RQ is mostly run; the
others are threads, so that there can be many.
"""

import logging
import multiprocessing
import sys
import threading
from datetime import timedelta

import redis
import rq
from checks import equal, wait_until
from rq.command import send_shutdown_command
from rq.exceptions import StopRequested
from rq.timeouts import TimerDeathPenalty

port, processes, threads, jobs = (int(argument) for argument in sys.argv[1:5])
QUEUES = ["high", "low"]


def connect():
    return redis.Redis(port=port)


class ThreadWorker(rq.SimpleWorker):
    """A worker that lives in a thread, where there are no signals."""

    death_penalty_class = TimerDeathPenalty

    stopping = False

    def _install_signal_handlers(self):
        pass

    def heartbeat(self, *arguments, **named):
        if self.stopping:
            raise StopRequested()
        super().heartbeat(*arguments, **named)


def in_a_process(number):
    logging.disable(logging.ERROR)
    worker = rq.Worker(QUEUES, name=f"process-{number}", connection=connect())
    # One of them is enough to put delayed jobs into their queue.
    worker.work(with_scheduler=number == 0, logging_level="ERROR")


def in_a_thread(worker, failures):
    try:
        worker.work(logging_level="ERROR")
    except BaseException as error:
        failures.append(error)
        raise


def main():
    logging.disable(logging.ERROR)
    own = [multiprocessing.Process(target=in_a_process, args=(n,)) for n in range(processes)]
    try:
        live(own)
    finally:
        for process in own:
            process.kill()


def live(own):
    for process in own:
        process.start()
    failures = []
    # They look every two seconds whether they should stop.
    workers = [
        ThreadWorker(QUEUES, name=f"thread-{n}", connection=connect(), worker_ttl=17)
        for n in range(threads)
    ]
    running = [
        threading.Thread(target=in_a_thread, args=(w, failures), daemon=True) for w in workers
    ]
    for thread in running:
        thread.start()
    wait_until("all are there", lambda: rq.Worker.count(connection=connect()) == processes + threads)

    connection = connect()
    high, low = (rq.Queue(name, connection=connection) for name in QUEUES)
    sent = {}
    for number in range(jobs):
        named = {"job_id": f"job-{number}", "result_ttl": 600}
        match number % 4:
            case 0:
                job = high.enqueue("queue_tasks.record", number, **named)
            case 1:
                job = low.enqueue_in(timedelta(seconds=1), "queue_tasks.record", number, **named)
            case 2:
                retry = rq.Retry(max=2, interval=0)
                job = low.enqueue("queue_tasks.record", number, True, retry=retry, **named)
            case _:
                after = sent[number - 1]
                job = low.enqueue("queue_tasks.record", number, depends_on=after, **named)
        sent[number] = job

    wait_until(
        "all is done",
        lambda: failures or all(job.get_status() == "finished" for job in sent.values()),
    )
    equal(failures, [])
    done = {id.decode(): int(count) for id, count in connection.hgetall("rq:done").items()}
    equal(done, {job.id: 1 for job in sent.values()})
    for number, job in sent.items():
        equal(job.return_value(), number)
    equal((len(high), len(low), len(low.failed_job_registry)), (0, 0, 0))

    # A worker that meets an error of Redis says so in its log and ends.
    equal([worker.name for worker, thread in zip(workers, running) if not thread.is_alive()], [])
    equal([process.exitcode for process in own], [None] * processes)
    # Those in processes hear over pub/sub that they should stop, the others see it.
    for number in range(processes):
        send_shutdown_command(connection, f"process-{number}")
    for worker in workers:
        worker.stopping = True
    for process in own:
        process.join(30)
        equal(process.exitcode, 0)
    for thread in running:
        thread.join(30)
        equal(thread.is_alive(), False)
    equal(failures, [])
    equal(rq.Worker.count(connection=connection), 0)


if __name__ == "__main__":
    main()
