"""Takes the primary away again and again under load, in five ways, and keeps account.

Three nodes; clients that increment counters of their own, clients that read keys whose values name
them, and clients that do both in pipelines, about 400 requests a second in all. Each round takes the
primary away: killed (`kill`), stopped (`stop`), cut off from everybody (`cut`), demoted by
`FAILOVER` (`switch`), or killed while sentinels watch (`sentinel`). Where nobody else does, a script
promotes the replica that has most, a second later. Then the old primary comes back as it is, and
only after half a second follows the new one.

    python3 benches/end_to_end/failover.py --rounds 50 --products Weir
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import signal
import statistics
import sys
import tempfile
import threading
import time

import account
from nodes import Node, Sentinels, info_field, wait_for
from products import PROJECT, TARGET, find, free_port, process

NODES = 3
WRITERS, READERS, BOTH = 6, 6, 2
PROMOTED_AFTER = 1.0
STALE_FOR = 0.5

WEIR = """
[admin]
listen = "127.0.0.1:{other}"
[route.main]
listen = "127.0.0.1:{port}"
[route.main.backend]
{backend}
[route.main.failover]
stale_reads_on_failure = true
{more}
"""

HAPROXY = """
defaults
    mode tcp
    timeout connect 1s
    timeout client 5m
    timeout server 5m
listen redis
    bind 127.0.0.1:{port}
    option tcp-check
    tcp-check connect
    tcp-check send PING\\r\\n
    tcp-check expect string +PONG
    tcp-check send info\\ replication\\r\\n
    tcp-check expect string role:master
    tcp-check send QUIT\\r\\n
    tcp-check expect string +OK
    timeout check 1s
    default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
"""


class Deployment:
    """A primary, its replicas, perhaps sentinels, and a product in front of them."""

    def __init__(self, kind):
        self.kind = kind
        self.nodes = [Node(is_cuttable=kind == "cut") for _ in range(NODES)]
        self.primary = 0
        for node in self.nodes[1:]:
            node.follow(self.nodes[0])
        self.wait_until_linked()
        account.prepare(self.nodes[0], WRITERS + BOTH)
        self.wait_until_linked()
        self.sentinels = Sentinels(self.nodes) if kind == "sentinel" else None

    def replicas(self):
        return [node for index, node in enumerate(self.nodes) if index != self.primary]

    def wait_until_linked(self):
        primary = self.nodes[self.primary]
        wait_for(lambda: all(it.is_linked_to(primary) for it in self.replicas()), "replicas are linked")
        # A primary begins to stream only when its replica has said that it has loaded.
        goal = int(primary.offset())
        wait_for(lambda: all(int(it.offset()) >= goal for it in self.replicas()), "replicas have caught up")

    def counters(self):
        return [["GET", account.counter(number)] for number in range(1, WRITERS + BOTH + 1)]

    def promote(self):
        """Makes the replica that has most the primary. When, and what it had at that moment."""
        best = max(self.replicas(), key=lambda node: int(node.offset()))
        reply, *kept = best.ask(["REPLICAOF", "NO", "ONE"], *self.counters())
        promoted_at = time.monotonic()
        assert reply == "OK", reply
        self.primary = self.nodes.index(best)
        for node in self.nodes:
            if node is not best and node is not self.gone:
                node.follow(best)
        return promoted_at, [int(value) for value in kept]

    def watch_for_successor(self, seconds=30):
        """Waits until somebody has promoted one. When, and what it had last as a replica."""
        deadline = time.monotonic() + seconds
        kept = {}
        while time.monotonic() < deadline:
            for node in self.nodes:
                if node is self.gone:
                    continue
                try:
                    role, *values = node.ask(["ROLE"], *self.counters())
                except ConnectionError:
                    # Sentinels cut all clients of whom they promote.
                    continue
                if role[0] == b"master":
                    self.primary = self.nodes.index(node)
                    return time.monotonic(), kept.get(self.primary)
                is_loading = not all(isinstance(value, bytes) for value in values)
                kept[self.nodes.index(node)] = None if is_loading else [int(value) for value in values]
            time.sleep(0.002)
        raise RuntimeError("nobody was promoted")

    def end(self):
        if self.sentinels:
            self.sentinels.end()
        for node in self.nodes:
            node.end()

    def config(self, product, port):
        addresses = [f"127.0.0.1:{node.front}" for node in self.nodes]
        if product == "HAProxy":
            servers = [f"    server n{index} {address} check\n" for index, address in enumerate(addresses)]
            return HAPROXY.format(port=port) + "".join(servers)
        quoted = ", ".join(f'"{address}"' for address in addresses)
        backend = f'topology = "replicated"\nnodes = [{quoted}]'
        more = self.settings
        if self.sentinels:
            quoted = ", ".join(f'"127.0.0.1:{port}"' for port in self.sentinels.ports)
            backend = f'topology = "sentinel"\nsentinels = [{quoted}]\nsentinel_master = "main"'
            # Longer than the sentinels take.
            more += '\nhold = "8s"'
        return WEIR.format(port=port, other=free_port(), backend=backend, more=more)

    settings = ""

    @contextlib.contextmanager
    def behind(self, product, weir, log):
        """Yields the port of the product in front of the nodes."""
        port = free_port()
        with tempfile.TemporaryDirectory() as directory:
            config = pathlib.Path(directory) / "config"
            config.write_text(self.config(product, port))
            command = [find("haproxy"), "-f", str(config)] if product == "HAProxy" \
                else [str(weir), "--config", str(config)]
            try:
                with process(command, port, os.sched_getaffinity(0), directory):
                    yield port
            finally:
                log.write_text((pathlib.Path(directory) / "log").read_text())

    # Each takes the primary away: when that was, when there was another, and what that had.

    gone = None
    next_failover = 0

    def kill(self):
        self.gone = self.nodes[self.primary]
        self.gone.kill()
        return self.then_promote()

    def stop(self):
        self.gone = self.nodes[self.primary]
        self.gone.signal(signal.SIGSTOP)
        return self.then_promote()

    def cut(self):
        self.gone = self.nodes[self.primary]
        self.gone.forwarder.cut()
        return self.then_promote()

    def switch(self):
        self.gone = None
        old = self.nodes[self.primary]
        began = time.monotonic()
        assert old.ask(["FAILOVER"]) == ["OK"]
        self.gone = old
        promoted_at, _ = self.watch_for_successor()
        for node in self.replicas():
            if node is not old:
                node.follow(self.nodes[self.primary])
        return began, promoted_at, None

    def sentinel(self):
        # Those that wait meanwhile do what they do anyway.
        time.sleep(max(0, self.next_failover - time.monotonic()))
        self.next_failover = time.monotonic() + Sentinels.PAUSE
        self.gone = self.nodes[self.primary]
        self.gone.kill()
        began = time.monotonic()
        return began, *self.watch_for_successor()

    def then_promote(self):
        began = time.monotonic()
        time.sleep(PROMOTED_AFTER)
        return began, *self.promote()

    def mend(self):
        """The old primary comes back, says for a while that it is one, and then follows."""
        old, new = self.gone, self.nodes[self.primary]
        if self.sentinels:
            # One that comes back before they have named the other may be named again.
            wait_for(lambda: self.sentinels.name(new), "the sentinels name the new one")
        if self.kind in ("kill", "sentinel"):
            old.start()
        elif self.kind == "stop":
            old.signal(signal.SIGCONT)
        elif self.kind == "cut":
            old.forwarder.mend()
        if self.kind != "switch":
            time.sleep(STALE_FOR)
            old.follow(new)
        self.gone = None
        self.wait_until_linked()
        if self.sentinels:
            wait_for(lambda: self.sentinels.are_ready(NODES - 1), "the sentinels have settled")


KINDS = ["kill", "stop", "cut", "switch", "sentinel"]


class Load:
    """All clients of one run."""

    def __init__(self, port):
        numbers = iter(range(1, WRITERS + BOTH + 1))
        self.clients = [account.Client(port, next(numbers), "w") for _ in range(WRITERS)]
        self.clients += [account.Client(port, next(numbers), "wrwr") for _ in range(BOTH)]
        self.clients += [account.Client(port, 0, "r") for _ in range(READERS)]
        for client in self.clients:
            client.start()

    def go(self):
        for client in self.clients:
            client.rests.clear()
            client.goes.set()

    def rest(self):
        """Until nobody waits for an answer."""
        for client in self.clients:
            client.goes.clear()
        for client in self.clients:
            client.rests.clear()
            client.rests.wait()

    def are_all_well(self, since):
        """Whether every client had something done that it has asked for since then."""
        def is_well(client):
            return any(it.outcome == "good" and it.began >= since for it in client.events[-4:])
        return all(map(is_well, self.clients))

    def take_events(self):
        taken = [client.events for client in self.clients]
        for client in self.clients:
            client.events = []
        return taken

    def end(self):
        for client in self.clients:
            client.end()


def run_round(deployment, load, known):
    """Takes the primary away once. `(figures, the counters' values after it)`."""
    load.go()
    time.sleep(0.7)
    old = deployment.primary
    began, promoted_at, kept = getattr(deployment, deployment.kind)()
    is_restored = True
    try:
        wait_for(lambda: load.are_all_well(promoted_at), "everybody is served again", 30)
    except RuntimeError:
        is_restored = False
    time.sleep(0.3)
    deployment.mend()
    time.sleep(0.5)
    load.rest()
    # Sentinels may find the new one wanting as well. What was written there is lost then.
    is_final = not deployment.sentinels or deployment.sentinels.name(deployment.nodes[deployment.primary])
    final = [int(value) for value in deployment.nodes[deployment.primary].ask(*deployment.counters())]
    events = load.take_events()
    figures = figures_of(load.clients, events, began, promoted_at)
    figures["restored"] = is_restored
    figures["second_failover"] = not is_final
    figures["doubled"] = figures["lost_by_redis"] = figures["lost"] = 0
    for client, of_client in zip(load.clients, events):
        if client.number:
            place = client.number - 1
            result = account.Account(of_client, known[place], kept and kept[place], began, promoted_at,
                                     final[place])
            for name in ("doubled", "lost_by_redis", "lost"):
                figures[name] += getattr(result, name)
    figures["old"], figures["new"] = old, deployment.primary
    return figures, final


def figures_of(clients, events, began, promoted_at):
    def first_good(of_client, since):
        """When the first was answered that was not under way before."""
        return min((it.ended for it in of_client if it.outcome == "good" and it.ended >= since), default=None)

    readers = [it for client, it in zip(clients, events) if client.commands == "r"]
    writers = [it for client, it in zip(clients, events) if client.commands == "w"]
    # Those under way when it happened may have been answered already.
    asked_after = [[it for it in of_client if it.began >= began or it.ended - it.began > 0.02]
                   for of_client in readers]
    reads = [first_good(it, began) for it in asked_after]
    writes = [first_good(it, promoted_at) for it in writers]
    errors = collections.Counter(("write: " if it.writes else "read: ") + it.outcome
                                 for of_client in events for it in of_client if it.outcome != "good")
    # A read behind a write of the same pipeline waits as long as that does.
    waits = [(client.commands == "r", it.ended - it.began)
             for client, of_client in zip(clients, events) for it in of_client]
    longest = {name: max((wait for reads, wait in waits if reads == only_reads), default=0)
               for name, only_reads in (("longest_read", True), ("longest_write", False))}
    return {
        "reads_ms": 1000 * (max(reads) - began) if all(reads) else None,
        "writes_ms": 1000 * (max(writes) - promoted_at) if all(writes) else None,
        "promoted_ms": 1000 * (promoted_at - began),
        "longest_read_ms": 1000 * longest["longest_read"],
        "longest_write_ms": 1000 * longest["longest_write"],
        "requests": sum(map(len, events)),
        "errors": dict(errors),
        "mixed_up": sum(len(client.mixed_up) for client in clients),
    }


def measure(product, kind, rounds, weir, directory, settings="", say=lambda text: None):
    """The figures of each round."""
    deployment = Deployment(kind)
    deployment.settings = settings
    results = []
    try:
        with deployment.behind(product, weir, directory / f"{product}-{kind}.log") as port:
            load = Load(port)
            known = [number * account.RANGE for number in range(1, WRITERS + BOTH + 1)]
            try:
                for number in range(rounds):
                    try:
                        figures, known = run_round(deployment, load, known)
                    except (RuntimeError, OSError) as error:
                        # The nodes or their sentinels have not done what a round is about.
                        say(f"{product}, {kind}: ends after {number} rounds: {error}")
                        break
                    say(f"{product}, {kind}, round {number + 1} of {rounds}: {json.dumps(figures)}")
                    results.append(figures)
            finally:
                load.end()
    finally:
        deployment.end()
    return results


def failover(bench):
    """The primary is taken away in five ways, twice each, under numbered increments and reads; more
    rounds and all figures: python3 benches/end_to_end/failover.py --help."""
    if bench.product is None or bench.product.name not in PRODUCTS:
        # Nothing follows a primary there.
        return {}
    figures = {"errors": 0, "mixed_up": 0, "doubled": 0, "lost": 0}
    with tempfile.TemporaryDirectory() as directory:
        for kind in KINDS:
            rounds = measure(bench.product.name, kind, 2, bench.product.command[0], pathlib.Path(directory))
            for name in ("reads_ms", "writes_ms"):
                known = [it[name] for it in rounds if it[name] is not None]
                if known:
                    figures[f"{kind}_{name}"] = statistics.median(known)
            figures["errors"] += sum(sum(it["errors"].values()) for it in rounds)
            for name in ("mixed_up", "doubled", "lost"):
                figures[name] += sum(it[name] for it in rounds if not it["second_failover"])
    return figures


PRODUCTS = ["Weir", "HAProxy"]

ROWS = [
    ("rounds", lambda it: str(len(it))),
    ("reads work again, ms: median", lambda it: middle(it, "reads_ms")),
    ("… worst", lambda it: worst(it, "reads_ms")),
    ("writes work again after the promotion, ms: median", lambda it: middle(it, "writes_ms")),
    ("… worst", lambda it: worst(it, "writes_ms")),
    ("promotion after the fault, ms: median", lambda it: middle(it, "promoted_ms")),
    ("longest wait of a read, ms", lambda it: worst(it, "longest_read_ms")),
    ("longest wait of a write, ms", lambda it: worst(it, "longest_write_ms")),
    ("requests", lambda it: f"{total(it, 'requests'):,}"),
    ("failed reads", lambda it: f"{failed(it, 'read: '):,}"),
    ("failed writes: not executed", lambda it: f"{failed(it, 'write: ') - unknown(it):,}"),
    ("failed writes: outcome unknown", lambda it: f"{unknown(it):,}"),
    ("increments applied twice", lambda it: str(total(it, "doubled"))),
    ("acknowledged increments that Redis lost", lambda it: str(total(it, "lost_by_redis"))),
    ("acknowledged increments lost besides", lambda it: str(total(it, "lost"))),
    ("replies mixed up", lambda it: str(max((figures["mixed_up"] for figures in it), default=0))),
    ("rounds in which the sentinels made a second failover",
     lambda it: str(sum(figures.get("second_failover", False) for figures in it))),
    ("rounds after which somebody was not served within 30 s",
     lambda it: str(sum(not figures["restored"] for figures in it))),
]


def middle(rounds, name):
    known = [it[name] for it in rounds if it[name] is not None]
    return f"{statistics.median(known):,.0f}" if known else ""


def worst(rounds, name):
    known = [it[name] for it in rounds]
    return "never" if None in known else f"{max(known, default=0):,.0f}"


def total(rounds, name):
    return sum(it[name] for it in rounds)


def failed(rounds, prefix):
    return sum(count for it in rounds for error, count in it["errors"].items() if error.startswith(prefix))


def unknown(rounds):
    kinds = ("outcome unknown", "connection closed", f"no answer in {account.PATIENCE} s")
    return sum(count for it in rounds for error, count in it["errors"].items()
               if error.startswith("write: ") and error.endswith(kinds))


def table(results):
    """`results[product][kind]` is a list of rounds."""
    lines = []
    for product, by_kind in results.items():
        lines += ["", f"### {product}", "", "| | " + " | ".join(by_kind) + " |", "|---|" + "---:|" * len(by_kind)]
        for title, cell in ROWS:
            lines.append(f"| {title} | " + " | ".join(map(cell, by_kind.values())) + " |")
        errors = collections.Counter()
        for kind, rounds in by_kind.items():
            for it in rounds:
                errors.update({f"{kind}: {error}": count for error, count in it["errors"].items()})
        lines += ["", "Errors by kind:", ""] + [f"- {error} ({count:,} times)" for error, count in errors.items()]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of each kind (default 3)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--products", nargs="+", choices=PRODUCTS, default=PRODUCTS)
    parser.add_argument("--weir", type=pathlib.Path, default=TARGET / "release/weir",
                        help="another binary than the one just built")
    parser.add_argument("--settings", default="", help="more for [route.main.failover]")
    parser.add_argument("--output", type=pathlib.Path, default=PROJECT / "target/bench/failover")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    results = {}
    for product in options.products:
        results[product] = {}
        for kind in options.kinds:
            try:
                results[product][kind] = measure(
                    product, kind, options.rounds, options.weir, options.output, options.settings,
                    lambda text: print(text, file=sys.stderr, flush=True))
            except (RuntimeError, OSError, AssertionError) as error:
                print(f"{product}, {kind}: {error!r}", file=sys.stderr)
            (options.output / "results.json").write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
