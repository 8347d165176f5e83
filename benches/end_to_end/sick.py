"""A Redis that is sick or near its own limits, behind each product."""

import contextlib
import os
import selectors
import signal
import socket
import statistics
import threading
import time


def arrivals(bench):
    """2,000 clients arrive at a Redis that takes 64 and ask 10,000 times a second in all."""
    from scenarios import connections_at
    with bench.setup(False, "--maxclients", "64") as (port, redis_port, _, _):
        shape = ["--request", "get:16", "--clients", 2000]
        bench.load("populate", redis_port, "--request", "get:16", "--clients", 2000)
        with connections_at(redis_port) as seen:
            result = bench.load("open", port, *shape, "--rate", 10_000, "--seconds", bench.seconds)
        return {"p99_ms": result["latency"]["p99_us"] / 1000, "connections": seen["max"],
                "failed": result["faults"]["count"],
                "rejected": info(redis_port, "stats", "rejected_connections")}


STOPPED_SECONDS = 12
LEAKED_A_SECOND, LEAK_SECONDS, LEAK_CEILING = 50, 60, 100


def leak(bench):
    """One address leaks 50 connections a second for a minute; Redis takes 1,000; others come and go."""
    ceiling = f"[route.main.limits.each]\nmax_clients = {LEAK_CEILING}\n"
    with bench.setup(False, "--maxclients", "1000", weir_too=ceiling) as (port, redis_port, _, _):
        leaked, held, took, failed = [], 0, [], 0
        began = time.monotonic()
        while (now := time.monotonic() - began) < LEAK_SECONDS:
            while len(leaked) < now * LEAKED_A_SECOND:
                client, good = visit(port, "127.0.0.2")
                held += good
                leaked.append(client)
            before = time.monotonic()
            client, good = visit(port, "127.0.0.1")
            failed += not good
            if good:
                took.append(time.monotonic() - before)
            if client:
                client.close()
            time.sleep(0.005)
        for client in filter(None, leaked):
            client.close()
        return {"held": held, "failed_percent": 100 * failed / (failed + len(took)), "failed": failed,
                "max_ms": max(took) * 1000, "rejected": info(redis_port, "stats", "rejected_connections")}


def visit(port, source):
    """Connects and asks once: the connection, if there is one, and whether it was answered."""
    client = None
    try:
        client = socket.create_connection(("127.0.0.1", port), timeout=2, source_address=(source, 0))
        client.sendall(request("PING"))
        return client, client.recv(256).startswith(b"+PONG")
    except OSError:
        return client, False


def sigstop(bench):
    """Redis is stopped for longer than a deadline (`timeouts.request`, 10 s): how long errors take, how soon work flows again."""
    with bench.setup(False) as (port, redis_port, cpu_of, _):
        redis_pid = int(cpu_of[1].partition("=")[2])
        with Visitors(port, redis_port) as visitors:
            time.sleep(1)
            os.kill(redis_pid, signal.SIGSTOP)
            stopped = time.monotonic()
            time.sleep(STOPPED_SECONDS)
            os.kill(redis_pid, signal.SIGCONT)
            continued = time.monotonic()
            time.sleep(1.5)
        answers = visitors.answers
        errors = [took for at, took, good in answers if not good]
        flows = [at for at, _, good in answers if good and at >= continued]
        figures = {"cut": visitors.cut, "mixed_up": visitors.mixed_up,
                   "longest_s": max(took for _, took, _ in answers),
                   "errors": sum(1 for at, _, good in answers if not good and stopped < at < continued)}
        if errors:
            figures["error_ms"] = statistics.median(errors) * 1000
        if flows:
            figures["flows_ms"] = (min(flows) - continued) * 1000
        return figures


FULL_CLIENTS, FULL_KEYS = 50, 50


def full(bench):
    """Redis's memory is used up: what 50 clients hear that read and write."""
    with bench.setup(False, "--maxmemory", "16mb", "--maxmemory-policy", "noeviction") as (port, redis_port, _, _):
        fill(redis_port)
        counts = dict.fromkeys(["reads", "reads_refused", "reads_cut", "oom", "writes_taken", "writes_other"], 0)
        clients, end = {}, time.monotonic() + bench.seconds
        while time.monotonic() < end:
            for number in range(FULL_CLIENTS):
                key = f"key:{number % FULL_KEYS}"
                try:
                    if number not in clients:
                        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
                        clients[number] = connection, connection.makefile("rb")
                    connection, replies = clients[number]
                    connection.sendall(request("GET", key) + request("SET", f"more:{number}", b"x" * 1000))
                    read, write = reply(replies), reply(replies)
                except OSError:
                    counts["reads_cut"] += 1
                    clients.pop(number, None)
                    continue
                counts["reads" if read == key.encode() else "reads_refused"] += 1
                counts["oom" if write.startswith(b"-OOM") else
                       "writes_taken" if write == b"+OK" else "writes_other"] += 1
        for connection, _ in clients.values():
            connection.close()
        asked = counts["reads"] + counts["reads_refused"] + counts["reads_cut"]
        return {**counts, "reads_percent": 100 * counts["reads"] / asked}


def fill(redis_port):
    """Keys with their names as values, and then as much as Redis takes, and a little more than it
    may have: what its clients' buffers take comes and goes."""
    with socket.create_connection(("127.0.0.1", redis_port)) as direct:
        replies = direct.makefile("rb")
        for number in range(FULL_KEYS):
            direct.sendall(request("SET", f"key:{number}", f"key:{number}"))
            reply(replies)
        answer, number = b"+OK", 0
        while answer == b"+OK":
            direct.sendall(request("SET", f"fill:{number}", b"x" * 100_000))
            answer, number = reply(replies), number + 1
        direct.sendall(request("CONFIG", "SET", "maxmemory", "15mb"))
        reply(replies)


def reply(replies):
    """The next reply: a string's text, or the line that it is."""
    line = replies.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("cut")
    line = line[:-2]
    if not line.startswith(b"$") or line == b"$-1":
        return line
    text = replies.read(int(line[1:]) + 2)
    if not text.endswith(b"\r\n"):
        raise ConnectionError("cut")
    return text[:-2]


def slowreaders(bench):
    """100 clients ask for up to 200 MB each and read nothing; what that costs, and others. Once when
    nobody has asked for it yet, and once when somebody has."""
    return slow_readers(bench, False) | {f"known_{name}": value
                                         for name, value in slow_readers(bench, True).items()}


def slow_readers(bench, known):
    with open("/proc/meminfo") as meminfo:
        available = next(int(line.split()[1]) for line in meminfo if line.startswith("MemAvailable"))
    # Redis has each reply in memory once, so all of them together have to fit.
    megabytes = max(1, min(200, available // 1024 // 5 // 100))
    with bench.setup(False) as (port, redis_port, cpu_of, pid):
        pids = [int(cpu_of[1].partition("=")[2])] + ([pid] if pid else [])
        with socket.create_connection(("127.0.0.1", redis_port)) as direct:
            direct.sendall(request("SET", "large", b"x" * (megabytes << 20)) + request("SET", "k", b"v"))
            read_exactly(direct, len(b"+OK\r\n") * 2)
        if known:
            with socket.create_connection(("127.0.0.1", port)) as reader:
                reader.sendall(request("GET", "large"))
                read_exactly(reader, (megabytes << 20) + len(f"${megabytes << 20}\r\n\r\n"))
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        with grown(pids) as most, socket.create_connection(("127.0.0.1", port), timeout=60) as other:
            for client in slow:
                client.sendall(request("GET", "large"))
            took, failed, end = [], 0, time.monotonic() + max(bench.seconds, 5)
            while time.monotonic() < end:
                began = time.monotonic()
                other.sendall(request("GET", "k"))
                failed += not other.recv(256).startswith(b"$1\r\nv")
                took.append(time.monotonic() - began)
                time.sleep(0.005)
        for client in slow:
            client.close()
        figures = {"proxy_grown_mib": most[pid] / 2**20} if pid else {}
        return {**figures, "megabytes": megabytes, "grown_mib": most["all"] / 2**20,
                "others_max_ms": max(took) * 1000, "others_p50_ms": statistics.median(took) * 1000,
                "others_failed": failed}


@contextlib.contextmanager
def grown(pids):
    """By how many bytes the memory of each process, and of "all", has grown at most since the block
    began, looked at 50 times a second."""
    before = {pid: resident(pid) for pid in pids}
    most = dict.fromkeys([*pids, "all"], 0)
    done = threading.Event()

    def watch():
        while not done.wait(0.02):
            now = {pid: resident(pid) - before[pid] for pid in pids}
            for name, growth in (*now.items(), ("all", sum(now.values()))):
                most[name] = max(most[name], growth)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


class Visitors:
    """A new client every 20 ms, which asks for a key of its own until it is answered with its
    value, or with an error, and then every 20 ms again."""

    KEYS = 500

    def __init__(self, port, redis_port):
        self.port = port
        self.answers, self.cut, self.mixed_up = [], 0, 0
        self.done = threading.Event()
        with socket.create_connection(("127.0.0.1", redis_port)) as direct:
            for key in range(self.KEYS):
                direct.sendall(request("SET", f"key:{key}", f"value:{key}:".encode()))
                read_exactly(direct, len(b"+OK\r\n"))

    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    def run(self):
        sockets, due, number = selectors.DefaultSelector(), [], 0
        next_visit = time.monotonic()
        while not self.done.is_set():
            now = time.monotonic()
            if now >= next_visit and number < self.KEYS:
                next_visit += 0.02
                client = socket.create_connection(("127.0.0.1", self.port))
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                visitor = {"socket": client, "key": number, "began": 0}
                sockets.register(client, selectors.EVENT_READ, visitor)
                due.append((now, visitor))
                number += 1
            while due and due[0][0] <= now:
                _, visitor = due.pop(0)
                visitor["began"] = time.monotonic()
                visitor["socket"].sendall(request("GET", f"key:{visitor['key']}"))
            for key, _ in sockets.select(0.001):
                visitor = key.data
                try:
                    reply = visitor["socket"].recv(4096)
                except OSError:
                    reply = b""
                at = time.monotonic()
                if not reply:
                    self.cut += 1
                    sockets.unregister(visitor["socket"])
                    visitor["socket"].close()
                    continue
                good = not reply.startswith(b"-")
                if good and f"\r\nvalue:{visitor['key']}:".encode() not in reply:
                    self.mixed_up += 1
                self.answers.append((at, at - visitor["began"], good))
                due.append((at + 0.02, visitor))


def request(*arguments):
    parts = [argument if isinstance(argument, bytes) else argument.encode() for argument in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def read_exactly(connection, count):
    while count:
        count -= len(connection.recv(count))


def info(port, section, field):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request("INFO", section))
        replies = connection.makefile("rb")
        text = replies.read(int(replies.readline()[1:]) + 2).decode()
        return int(text.partition(f"{field}:")[2].split()[0])


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS:")).split()[1]) * 1024
