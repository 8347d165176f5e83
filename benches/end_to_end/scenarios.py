"""What is measured. Each scenario measures one product (or, where `product` is None,
Redis directly) once and returns figures by name; `run.py` repeats and compares."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time

from failover import failover
from products import TARGET, redis
from sick import arrivals, full, leak, sigstop, slowreaders

LOADGEN = str(TARGET / "release/loadgen")
ALL_CORES = os.sched_getaffinity(0)
# One core for the proxy alone; Redis and the load share another. On a machine with one
# core the figures mean nothing, but the scenarios still run.
PROXY_CORE = {min(ALL_CORES)}
LOAD_CORE = {max(ALL_CORES)}
# What a proxy cost in system calls is counted by these names and in all.
SYSTEM_CALLS = ["read", "readv", "recvfrom", "recvmsg", "write", "writev", "sendto", "sendmsg",
                "epoll_wait", "epoll_pwait", "epoll_ctl", "futex"]


class Bench:
    """One measurement's surroundings: how long, and where faults are noted."""

    def __init__(self, product, seconds, faults):
        self.product = product
        self.seconds = seconds
        self.faults = faults

    @contextlib.contextmanager
    def setup(self, pinned, *redis_arguments, weir_too=""):
        """Yields `(target port, redis port, --cpu-of arguments, proxy pid or None)`."""
        proxy_cores, load_cores = (PROXY_CORE, LOAD_CORE) if pinned else (ALL_CORES, ALL_CORES)
        threads = 1 if pinned else len(ALL_CORES)
        with redis(load_cores, *redis_arguments) as (redis_port, redis_pid):
            cpu_of = ["--cpu-of", f"redis={redis_pid}"]
            if self.product is None:
                yield redis_port, redis_port, cpu_of, None
            else:
                with self.product.running(redis_port, threads, proxy_cores, weir_too) as (port, pid):
                    yield port, redis_port, [*cpu_of, "--cpu-of", f"proxy={pid}"], pid

    def load(self, mode, port, *arguments, cores=ALL_CORES):
        command = [LOADGEN, mode, "--target", f"127.0.0.1:{port}", *map(str, arguments)]
        output = subprocess.run(command, capture_output=True, text=True,
                                preexec_fn=lambda: os.sched_setaffinity(0, cores))
        if output.returncode:
            raise RuntimeError(f"{' '.join(command)}: {output.stderr.strip()}")
        result = json.loads(output.stdout)
        faults = result.get("faults", {"count": 0})
        if faults["count"]:
            self.faults.append(f"{mode} {' '.join(map(str, arguments))}: {faults['count']} faults, "
                               f"such as {faults['examples'][0]}")
        return result

    def closed(self, port, redis_port, request, clients, pipeline, cores, cpu_of=(), warmup=1):
        shape = ["--request", request, "--clients", clients, "--pipeline", pipeline]
        if not request.startswith("set"):
            self.load("populate", redis_port, *shape)
        return self.load("closed", port, *shape, "--seconds", self.seconds, "--warmup", warmup, *cpu_of,
                         cores=cores)


def cpu(bench):
    """Processor time per command, one core for the proxy, 1,000 clients."""
    figures = {}
    for pipeline in (1, 16):
        with bench.setup(pinned=True) as (port, redis_port, cpu_of, _):
            result = bench.closed(port, redis_port, "get:16", 1000, pipeline, LOAD_CORE, cpu_of)
            for process, seconds in result["cpu_seconds"].items():
                figures[f"{process}_p{pipeline}"] = seconds / result["commands"] * 1e6
            figures[f"rate_p{pipeline}"] = result["commands_per_second"]
    return figures


def many(bench):
    """9,000 busy clients on all cores, and how many connections Redis has meanwhile."""
    with bench.setup(pinned=False) as (port, redis_port, _, _):
        with connections_at(redis_port) as seen:
            result = bench.closed(port, redis_port, "get:16", 9000, 1, ALL_CORES)
        return {"rate": result["commands_per_second"], "connections": seen["max"],
                "p50_ms": result["batch_latency"]["p50_us"] / 1000,
                "p99_ms": result["batch_latency"]["p99_us"] / 1000}


def values(bench):
    """Large requests and replies, one core for the proxy."""
    figures = {}
    shapes = {"mget": ("mget:100:16", 50), "get_16k": ("get:16384", 50), "set_16k": ("set:16384", 50),
              "get_1m": ("get:1048576", 8), "set_1m": ("set:1048576", 8)}
    for name, (request, clients) in shapes.items():
        with bench.setup(pinned=True) as (port, redis_port, _, _):
            result = bench.closed(port, redis_port, request, clients, 1, LOAD_CORE)
            figures[name] = result["commands_per_second"]
    return figures


def idle(bench):
    """Memory of the proxy for each of 15,000 clients that have asked once and stay, or of as
    many as the limit on descriptors allows it."""
    if bench.product is None:
        return {}
    clients = min(15_000, bench.product.most_clients())
    with bench.setup(pinned=False) as (port, _, _, pid):
        before = resident_bytes(pid)
        command = [LOADGEN, "idle", "--target", f"127.0.0.1:{port}", "--clients", str(clients)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
            if "idle" not in load.stdout.readline():
                raise RuntimeError(f"{clients} idle clients were too many for {bench.product.name}")
            after = resident_bytes(pid)
            load.stdin.close()
            load.stdout.read()
        return {"clients": clients, "bytes": (after - before) / clients}


def latency(bench):
    """20,000 commands a second, offered at fixed times by 100 clients, all cores."""
    with bench.setup(pinned=False) as (port, redis_port, _, _):
        shape = ["--request", "get:16", "--clients", 100]
        bench.load("populate", redis_port, *shape)
        result = bench.load("open", port, *shape, "--rate", 20_000, "--seconds", bench.seconds)
        return {"p50_us": result["latency"]["p50_us"], "p99_us": result["latency"]["p99_us"]}


def storm(bench):
    """Clients that connect, ask once and leave, 200 at a time, all cores."""
    with bench.setup(pinned=False) as (port, redis_port, _, _):
        shape = ["--request", "get:16", "--clients", 200]
        bench.load("populate", redis_port, *shape)
        result = bench.load("storm", port, *shape, "--seconds", bench.seconds)
        return {"rate": result["visits_per_second"], "faults": result["faults"]["count"]}


# Every command of the overload takes Redis so long, and does nothing else.
OVERLOAD_MICROS = 2_000
OVERLOAD_CLIENTS = 1_500
OVERLOAD_BEFORE, OVERLOAD_SECONDS, OVERLOAD_AFTER = 3, 30, 5


def overload(bench):
    """Every command an EVAL of 2 ms; for 30 s three times as many as Redis can do, on 1,500
    connections in an open loop; what is served and refused, and when it is over."""
    with bench.setup(pinned=False) as (port, redis_port, _, _):
        shape = ["--micros", OVERLOAD_MICROS]
        # What Redis can do here and now: twice that, for a while, and how long all of it takes. Redis
        # runs all that a client has sent before it answers, so a part of the time says nothing.
        alone = bench.load("overload", redis_port, *shape, "--clients", 20, "--phase", "1.5:1000")
        capacity = alone["served"] / (len(alone["buckets"]) * alone["bucket_seconds"])
        phases = [(OVERLOAD_BEFORE, capacity / 2), (OVERLOAD_SECONDS, 3 * capacity), (OVERLOAD_AFTER, capacity / 2)]
        phases = [part for seconds, rate in phases for part in ("--phase", f"{seconds}:{rate:.0f}")]
        result = bench.load("overload", port, *shape, "--clients", OVERLOAD_CLIENTS, *phases)
    return overload_figures(result, capacity)


def overload_figures(result, capacity):
    width = result["bucket_seconds"]
    buckets = result["buckets"]
    first, last = round(OVERLOAD_BEFORE / width), round((OVERLOAD_BEFORE + OVERLOAD_SECONDS) / width)
    during = buckets[first:last]
    second = round(1 / width)
    by_second = [sum(bucket["served"]["count"] for bucket in during[start:start + second])
                 for start in range(0, len(during) - second + 1, second)]
    return {
        "capacity": capacity,
        "goodput_percent": 100 * sum(by_second) / max(1, len(by_second)) / capacity,
        "goodput_worst_percent": 100 * min(by_second, default=0) / capacity,
        "served_p99_ms": (result["phases"][1]["served"]["p99_us"] or 0) / 1000,
        "refused_p99_ms": (result["phases"][1]["refused"]["p99_us"] or 0) / 1000,
        "recovery_s": recovery(buckets, last, width),
        "lost": result["lost"]["count"],
        "timeline": [{"at": index * width, "served": bucket["served"]["count"] / width / capacity,
                      "refused": bucket["refused"]["count"] / width / capacity,
                      "p99_ms": (bucket["served"]["p99_us"] or 0) / 1000} for index, bucket in enumerate(buckets)],
    }


def recovery(buckets, end, width):
    """Seconds from the end of the overload until all is served, and quickly, for good."""
    slow = [index for index, bucket in enumerate(buckets) if index >= end
            and (bucket["refused"]["count"] or bucket["failed"] or (bucket["served"]["p99_us"] or 0) > 100_000)]
    return (slow[-1] + 1 - end) * width if slow else 0


def pubsub(bench):
    """10,000 subscribers on 100 channels and one publisher, all cores: messages handed out a second,
    connections at Redis, memory of the proxy for each subscriber."""
    if bench.product and bench.product.name != "Weir":
        # twemproxy and Envoy do not have it; HAProxy opens a connection for each.
        return {}
    subscribers = 10_000
    with bench.setup(pinned=False) as (port, redis_port, cpu_of, pid):
        before = resident_bytes(pid) if pid else 0
        command = [LOADGEN, "fan", "--target", f"127.0.0.1:{port}", "--subscribers", subscribers,
                   "--channels", 100, "--seconds", bench.seconds, *cpu_of]
        with connections_at(redis_port) as seen, subprocess.Popen(
                list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
            if "subscribed" not in load.stdout.readline():
                raise RuntimeError(f"{subscribers} subscribers were too many")
            figures = {"bytes": (resident_bytes(pid) - before) / subscribers} if pid else {}
            result = json.loads(load.communicate("go\n")[0] or "{}")
        if "messages" not in result:
            raise RuntimeError("the load ended early")
        figures |= {f"{process}_cpu": seconds / result["messages"] * 1e6
                    for process, seconds in result["cpu_seconds"].items()}
        return figures | {"rate": result["messages_per_second"], "connections": seen["max"]}


BLOCKED_WORKERS, BLOCKED_QUEUES = 10_000, 1_000
# Few enough that Weir has a connection to Redis for each (its max_blocking is 32 by default).
BLOCKED_FEW = 8


def blocked(bench):
    """10,000 workers in BLPOP on 1,000 queues, all cores: connections at Redis, memory for each
    worker, time from push to pop; and that time for 8 workers with a connection each."""
    if bench.product and bench.product.name != "Weir":
        # twemproxy and Envoy do not have it; HAProxy opens a connection for each.
        return {}
    few = blocked_workers(bench, BLOCKED_FEW, BLOCKED_FEW)
    crowd = blocked_workers(bench, BLOCKED_WORKERS, BLOCKED_QUEUES)
    figures = {"few_p50_us": few["latency"]["p50_us"], "few_p99_us": few["latency"]["p99_us"],
               "p50_us": crowd["latency"]["p50_us"], "p99_us": crowd["latency"]["p99_us"],
               "rate": crowd["elements_per_second"], "connections": crowd["connections"]}
    figures |= {f"{process}_bytes": grown / BLOCKED_WORKERS for process, grown in crowd["grown"].items()}
    return figures | {f"{process}_cpu": seconds / crowd["elements"] * 1e6
                      for process, seconds in crowd["cpu_seconds"].items()}


def blocked_workers(bench, workers, queues):
    """What `loadgen blocked` says, and: `connections`, the most at Redis; `grown`, by how many bytes
    the memory of each process grew until all workers waited."""
    with bench.setup(pinned=False) as (port, redis_port, cpu_of, _):
        pids = {name: int(pid) for name, _, pid in (text.partition("=") for text in cpu_of[1::2])}
        before = {name: resident_bytes(pid) for name, pid in pids.items()}
        command = [LOADGEN, "blocked", "--target", f"127.0.0.1:{port}", "--workers", workers,
                   "--queues", queues, "--seconds", bench.seconds, *cpu_of]
        with connections_at(redis_port) as seen, subprocess.Popen(
                list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True) as load:
            if "blocked" not in load.stdout.readline():
                raise RuntimeError(f"{workers} workers: {load.communicate()[1].strip()}")
            grown = {name: resident_bytes(pid) - before[name] for name, pid in pids.items()}
            output, error = load.communicate("go\n")
        if load.returncode:
            raise RuntimeError(f"{workers} workers: {error.strip()}")
        # Who waits at Redis directly is a connection; who pushes is one too.
        return json.loads(output) | {"connections": seen["max"], "grown": grown}


def syscalls(bench):
    """System calls of the proxy per command, one core for the proxy, 1,000 clients."""
    if bench.product is None:
        return {}
    figures = {}
    for pipeline in (1, 16):
        with bench.setup(pinned=True) as (port, redis_port, _, pid):
            with counted_calls(pid) as calls:
                # Without a warm-up every command is counted. Accepting the clients is counted
                # too, a few calls for each of them; more seconds make that less.
                result = bench.closed(port, redis_port, "get:16", 1000, pipeline, LOAD_CORE, warmup=0)
        for name, count in calls.items():
            figures[f"{name}_p{pipeline}"] = count / result["commands"]
    return figures


@contextlib.contextmanager
def counted_calls(pid):
    """`{name: count}`, filled when the block ends, with "all" for every call there is. Counted by
    perf where the kernel lets it, else by strace, which slows the proxy down a great deal."""
    calls = {}
    events = ["raw_syscalls:sys_enter"] + [f"syscalls:sys_enter_{name}" for name in SYSTEM_CALLS]
    perf = ["perf", "stat", "-x", ",", "-e", ",".join(events)]
    allowed = subprocess.run([*perf, "true"], capture_output=True).returncode == 0
    command = [*perf, "-p", str(pid)] if allowed else ["strace", "-c", "-f", "-p", str(pid)]
    counter = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    yield calls
    counter.send_signal(signal.SIGINT)
    for line in counter.communicate()[1].splitlines():
        if allowed and line.count(",") > 2:
            count, _, event = line.split(",")[:3]
            name = event.rpartition("sys_enter")[2].strip("_") or "all"
        else:
            # % time, seconds, usecs/call, calls, errors (may be empty), name
            words = line.split()
            count, name = (words[3], words[-1]) if len(words) > 4 else ("", "")
            name = "all" if name == "total" else name
        if count.isdigit():
            calls[name] = int(count)


SCENARIOS = {scenario.__name__: scenario for scenario in [cpu, many, values, idle, latency, storm, overload, arrivals, leak,
                                                          sigstop, full, failover, slowreaders, pubsub, blocked, syscalls]}


@contextlib.contextmanager
def connections_at(redis_port):
    """Asks Redis 50 times a second; `seen["max"]` is the most connections besides this one."""
    seen = {"max": 0}
    done = threading.Event()

    def watch():
        with socket.create_connection(("127.0.0.1", redis_port)) as connection:
            replies = connection.makefile("rb")
            while not done.wait(0.02):
                connection.sendall(b"INFO clients\r\n")
                text = replies.read(int(replies.readline()[1:]) + 2)
                count = int(text.partition(b"connected_clients:")[2].split()[0])
                seen["max"] = max(seen["max"], count - 1)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def resident_bytes(pid):
    with open(f"/proc/{pid}/status") as status:
        kib = next(line for line in status if line.startswith("VmRSS:")).split()[1]
    return int(kib) * 1024
