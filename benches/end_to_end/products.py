"""What is compared: how to start each with so many threads in front of a Redis."""

import contextlib
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import tempfile
import time

PROJECT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
# As many descriptors as there may be, but no more than anything here needs.
FD_LIMIT = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 40_000)

# Every Redis and every proxy runs on its own defaults but for what it must be told:
# where to listen, where Redis is, how many threads, and to allow enough clients.
WEIR = """
[process]
workers = {threads}
max_clients = {clients}
[admin]
listen = "127.0.0.1:{other}"
[route.main]
listen = "127.0.0.1:{port}"
backend = "127.0.0.1:{redis}"
"""

HAPROXY = """
global
    nbthread {threads}
    maxconn {clients}
defaults
    mode tcp
    timeout connect 5s
    timeout client 5m
    timeout server 5m
listen redis
    bind 127.0.0.1:{port}
    server redis 127.0.0.1:{redis}
"""

TWEMPROXY = """
redis:
  listen: 127.0.0.1:{port}
  redis: true
  hash: fnv1a_64
  distribution: ketama
  backlog: 4096
  servers:
   - 127.0.0.1:{redis}:1
"""

ENVOY = """
static_resources:
  listeners:
  - name: redis
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.redis_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy
          stat_prefix: redis
          settings: {{op_timeout: 30s}}
          prefix_routes: {{catch_all_route: {{cluster: redis}}}}
  clusters:
  - name: redis
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: redis
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {redis}}}}}}}
"""


class Product:
    """A proxy. `descriptors_per_client` is 2 for one that opens a connection to Redis per client."""

    def __init__(self, name, command, config=None, descriptors_per_client=1, version=None):
        self.name = name
        self.command = command
        self.config = config
        self.descriptors_per_client = descriptors_per_client
        self.version = version

    def most_clients(self):
        return min(16_000, (FD_LIMIT - 1_500) // self.descriptors_per_client)

    @contextlib.contextmanager
    def running(self, redis_port, threads, cores, weir_too=""):
        """Yields `(port, pid)`. `weir_too` is added to Weir's configuration."""
        port = free_port()
        with tempfile.TemporaryDirectory() as directory:
            values = {"port": port, "redis": redis_port, "threads": threads, "other": free_port(),
                      "clients": self.most_clients(), "config": f"{directory}/config.yaml"}
            if self.config:
                more = weir_too if self.name == "Weir" else ""
                pathlib.Path(values["config"]).write_text(self.config.format(**values) + more)
            command = [part.format(**values) for part in self.command]
            with process(command, port, cores, directory) as pid:
                yield port, pid


def products(weir):
    """By name, in the order of the table."""
    envoy = PROJECT / "target/bench/venv/bin/envoy"
    known = [
        Product("Weir", [str(weir), "--config", "{config}"], WEIR, version=[str(weir), "--version"]),
        Product("HAProxy", [find("haproxy"), "-f", "{config}"], HAPROXY, 2, [find("haproxy"), "-v"]),
        Product("twemproxy", [find("nutcracker"), "-c", "{config}", "-a", "127.0.0.1", "-s", "{other}",
                              "-o", "/dev/null"], TWEMPROXY, version=[find("nutcracker"), "-V"]),
        # The wheel's launcher would stay in front of the program; the program itself is measured.
        Product("Envoy", [str(envoy_binary(envoy)), "-c", "{config}", "--concurrency", "{threads}",
                          "--use-dynamic-base-id", "-l", "error"], ENVOY,
                version=["sh", "-c", f"{envoy_binary(envoy)} --version | sed 's/.*version:/Envoy 1.40.0, build/'"]),
    ]
    return {product.name: product for product in known}


def find(program):
    """The path of a program that may be where only root's PATH leads."""
    return shutil.which(program) or f"/usr/sbin/{program}"


def envoy_binary(launcher):
    found = sorted(launcher.parent.parent.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    return found[0] if found else launcher


@contextlib.contextmanager
def redis(cores, *arguments):
    """Yields `(port, pid)` of a fresh Redis. Clients come from many loopback addresses, which
    protected mode would refuse; it listens on 127.0.0.1 alone."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--protected-mode", "no",
                   "--save", "", "--dir", directory, "--maxclients", str(FD_LIMIT - 100), *arguments]
        with process(command, port, cores, directory) as pid:
            yield port, pid


@contextlib.contextmanager
def process(command, port, cores, directory):
    """Runs `command` on these cores until the block ends; yields its pid once it answers PING."""
    log = pathlib.Path(directory) / "log"
    with log.open("w") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                                 preexec_fn=lambda: os.sched_setaffinity(0, cores))
    try:
        deadline = time.monotonic() + 30
        while not answers_ping(port):
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not answer: {last_words(log)}")
            time.sleep(0.05)
        yield child.pid
        if child.poll() is not None:
            raise RuntimeError(f"{command[0]} died: {last_words(log)}")
    finally:
        child.kill()
        child.wait()


def last_words(log):
    return " ".join(log.read_text().split())[-500:]


def answers_ping(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
