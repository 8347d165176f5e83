"""Redis servers of a deployment that can be killed, stopped and cut off, and their sentinels."""

import os
import pathlib
import selectors
import signal
import socket
import subprocess
import tempfile
import threading
import time

from products import free_port

QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def request(*arguments):
    parts = [argument if isinstance(argument, bytes) else str(argument).encode() for argument in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


class Line:
    """A connection on which one asks and waits."""

    def __init__(self, port, timeout=15):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def ask(self, *commands):
        """The replies to commands that are sent in one write."""
        self.socket.sendall(b"".join(request(*command) for command in commands))
        return [self.reply() for _ in commands]

    def reply(self):
        kind, rest = (line := self.line())[:1], line[1:]
        if kind in b"+-":
            return rest.decode() if kind == b"+" else Refusal(rest.decode())
        if kind == b":":
            return int(rest)
        if int(rest) < 0:
            return None
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return self.exactly(int(rest) + 2)[:-2]

    def line(self):
        while b"\r\n" not in self.received:
            self.more()
        line, _, self.received = self.received.partition(b"\r\n")
        return line

    def exactly(self, count):
        while len(self.received) < count:
            self.more()
        taken, self.received = self.received[:count], self.received[count:]
        return taken

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        self.received += data

    def close(self):
        self.socket.close()


class Refusal(str):
    """An error reply."""


class Node:
    """One Redis. `port` is its own; `front` is where others reach it: behind a forwarder if it is to
    be cut off."""

    def __init__(self, is_cuttable):
        self.port = free_port()
        self.directory = tempfile.TemporaryDirectory()
        self.process = None
        self.forwarder = Forwarder(self.port) if is_cuttable else None
        self.front = self.forwarder.port if is_cuttable else self.port
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--protected-mode", "no",
             "--save", "", "--dir", self.directory.name, "--repl-diskless-sync-delay", "0",
             "--repl-timeout", "5"], **QUIET)
        wait_for(lambda: self.ask(["PING"])[0] == "PONG", "a node answers")

    def ask(self, *commands):
        line = Line(self.port)
        try:
            return line.ask(*commands)
        finally:
            line.close()

    def role(self):
        return self.ask(["ROLE"])[0][0]

    def offset(self):
        return info_field(self.ask(["INFO", "replication"])[0], "master_repl_offset")

    def follow(self, primary):
        assert self.ask(["REPLICAOF", "127.0.0.1", primary.front]) == ["OK"]

    def is_linked_to(self, primary):
        info = self.ask(["INFO", "replication"])[0]
        return (info_field(info, "master_port") == str(primary.front)
                and info_field(info, "master_link_status") == "up")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def signal(self, number):
        os.kill(self.process.pid, number)

    def end(self):
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.kill()
        if self.forwarder:
            self.forwarder.end()
        self.directory.cleanup()


def info_field(info, name):
    for line in info.decode().splitlines():
        if line.startswith(name + ":"):
            return line.partition(":")[2]
    return None


class Forwarder:
    """Passes bytes to a port on this machine until it is cut; then it passes none, closes nothing and
    takes no connection, as a network does that is gone: who dials hears nothing."""

    def __init__(self, target):
        self.target = target
        self.port = free_port()
        self.is_cut = False
        self.is_done = False
        self.fillers = []
        self.selector = selectors.DefaultSelector()
        self.wake, self.waker = socket.socketpair()
        self.selector.register(self.wake, selectors.EVENT_READ, None)
        self.listen()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def listen(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(128)

    def cut(self):
        # A listener whose queue is full lets the kernel drop what comes.
        self.is_cut = True
        self.waker.send(b"x")
        self.listener.listen(0)
        while True:
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self.fillers.append(filler)
            time.sleep(0.002)
            if filler.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\x01":
                return

    def mend(self):
        for filler in self.fillers:
            filler.close()
        self.fillers = []
        self.listener.listen(128)
        self.is_cut = False
        self.waker.send(b"x")

    def end(self):
        self.is_done = True
        self.waker.send(b"x")
        self.thread.join()
        self.listener.close()

    def run(self):
        pairs, watched = {}, False
        while not self.is_done:
            if watched == self.is_cut:
                # What was taken stays as it is: nothing is read and nothing is closed.
                watched = not self.is_cut
                for connection in [self.listener, *pairs]:
                    if watched:
                        self.selector.register(connection, selectors.EVENT_READ, connection)
                    else:
                        self.selector.unregister(connection)
            for key, _ in self.selector.select():
                if key.fileobj is self.wake:
                    self.wake.recv(64)
                    break
                if self.is_cut:
                    break
                if key.fileobj is self.listener:
                    self.take(pairs)
                elif key.fileobj in pairs:
                    self.pass_on(key.fileobj, pairs)
        for connection in pairs:
            connection.close()

    def take(self, pairs):
        client, _ = self.listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self.target), 1)
        except OSError:
            client.close()
            return
        for a, b in ((client, server), (server, client)):
            a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pairs[a] = b
            self.selector.register(a, selectors.EVENT_READ, a)

    def pass_on(self, connection, pairs):
        try:
            data = connection.recv(65536)
            pairs[connection].sendall(data)
        except OSError:
            data = b""
        if not data:
            for end in (connection, pairs.pop(connection)):
                pairs.pop(end, None)
                self.selector.unregister(end)
                end.close()


class Sentinels:
    """Three that watch the first node; they call it `main`."""

    # They begin no second failover sooner than twice their timeout of 5 s after the first.
    PAUSE = 11

    def __init__(self, nodes):
        self.directory = tempfile.TemporaryDirectory()
        self.ports = [free_port() for _ in range(3)]
        self.processes = []
        for port in self.ports:
            config = pathlib.Path(self.directory.name) / f"{port}.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\nprotected-mode no\ndir {self.directory.name}\n"
                f"sentinel monitor main 127.0.0.1 {nodes[0].front} 2\n"
                "sentinel down-after-milliseconds main 3000\nsentinel failover-timeout main 5000\n"
                "sentinel parallel-syncs main 4\n")
            self.processes.append(subprocess.Popen(["redis-server", str(config), "--sentinel"], **QUIET))
        wait_for(lambda: self.are_ready(len(nodes) - 1), "the sentinels know everybody")

    def are_ready(self, replicas):
        """Whether each knows the others and all replicas, and no failover is under way."""
        for port in self.ports:
            line = Line(port)
            fields = line.ask(["SENTINEL", "MASTER", "main"])[0]
            fields = dict(zip(fields[::2], fields[1::2]))
            replies = line.ask(["SENTINEL", "REPLICAS", "main"])[0]
            line.close()
            states = [dict(zip(it[::2], it[1::2])) for it in replies]
            good = [it for it in states if it[b"flags"] == b"slave" and it[b"master-link-status"] == b"ok"]
            if (fields[b"flags"] != b"master" or fields[b"num-other-sentinels"] != b"2"
                    or len(good) != replicas):
                return False
        return True

    def name(self, node):
        """Whether all of them say that this is the primary."""
        for port in self.ports:
            line = Line(port)
            address = line.ask(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"])[0]
            line.close()
            if address[1] != str(node.front).encode():
                return False
        return True

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.directory.cleanup()


def wait_for(condition, what, seconds=30):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (OSError, ConnectionError, TypeError, KeyError, IndexError):
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.01)
