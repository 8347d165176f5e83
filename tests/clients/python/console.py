"""WEIR commands as redis-py gives them: console.py PORT PROTOCOL"""

import sys

import redis
from checks import equal, fails, run


def table(answer, protocol):
    """One answer as a dict: redis-py makes one of a RESP3 map itself; in RESP2 it is flat."""
    if protocol == 3:
        equal(type(answer), dict)
        return answer
    equal(type(answer), list)
    equal(len(answer) % 2, 0)
    return dict(zip(answer[::2], answer[1::2]))


def tables(answer, protocol):
    equal(type(answer), list)
    return [table(row, protocol) for row in answer]


def weir(r, *words):
    return r.execute_command("WEIR", *words)


def lists(r, protocol):
    clients = tables(weir(r, "CLIENTS", "BY", "NAME"), protocol)
    mine = [row for row in clients if row["identity"] == "console-test"]
    equal(len(mine), 1)
    equal(type(mine[0]["clients"]), int)
    (pool,) = tables(weir(r, "POOLS"), protocol)
    equal(pool["max_connections"], 64)
    (node,) = tables(weir(r, "NODES"), protocol)
    equal((node["up"], node["role"], type(node["version"])), (1, "primary", str))
    limits = {row["limit"]: row for row in tables(weir(r, "LIMITS"), protocol)}
    equal(limits["route.main.clients.max_clients"]["value"], "10000")
    equal(type(limits["route.main.clients.max_clients"]["used"]), int)
    equal(limits["route.main.clients.output_max"]["used"], None)
    events = tables(weir(r, "EVENTS"), protocol)
    equal(events[0]["kind"], "started")
    equal("pid" in table(events[0]["facts"], protocol), True)
    for row in tables(weir(r, "SHED"), protocol):
        equal(sorted(row), ["count", "reason", "route", "what"])
    equal(tables(weir(r, "DOCTOR"), protocol), [])
    equal(tables(weir(r, "CHECK"), protocol), [])
    for entry in tables(weir(r, "SLOWLOG"), protocol):
        equal(type(entry["total_us"]), int)
    help_lines = weir(r, "HELP")
    equal(all(type(line) is str for line in help_lines), True)


def one_table(r, protocol):
    config = table(weir(r, "CONFIG", "GET", "process.*"), protocol)
    equal(config["process.max_clients"], "10000")
    hot = table(weir(r, "HOTKEYS", "3"), protocol)
    equal(type(hot["sampled_one_in"]), int)
    for name in ("by_commands", "by_bytes", "largest_replies"):
        equal(type(hot[name]), list)


def texts(r, protocol):
    record = weir(r, "RECORD")
    # The library takes the format off a RESP3 verbatim string, or leaves it.
    equal("# Weir: record" in record, True)
    equal(weir(r, "RECORD", "JSON").startswith("{"), True)


def actions(r, protocol):
    equal(weir(r, "PAUSE", "1000"), "OK" if protocol == 3 else "OK")
    equal(weir(r, "RESUME"), "OK")
    equal(weir(r, "KILL", "NAME", "nobody"), 0)
    equal(weir(r, "CONFIG", "SET", "process.max_clients", "9999"), "OK")
    equal(weir(r, "LIMITS", "SET", "process.max_clients", "10000"), "OK")
    fails(redis.ResponseError, "unknown subcommand", weir, r, "NOPE")
    fails(redis.ResponseError, "is no limit", weir, r, "LIMITS", "SET", "log.format", "json")


def main():
    port, protocol = int(sys.argv[1]), int(sys.argv[2])
    with redis.Redis(port=port, protocol=protocol, decode_responses=True) as r:
        run([one_table, texts, actions], r, protocol)
        if len(sys.argv) > 3:
            with redis.Redis(port=int(sys.argv[3]), client_name="console-test") as client:
                client.ping()
                run([lists], r, protocol)


main()
