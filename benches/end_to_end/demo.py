"""2,000 clients and a Redis that allows 64 connections, without Weir and with. Run it by
`make demo`; other numbers: scripts/demo --clients 5000 --maxclients 100."""

import argparse
import json
import subprocess
import time

from products import TARGET, products, redis
from scenarios import ALL_CORES, LOADGEN, connections_at


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--maxclients", type=int, default=64, help="what Redis allows")
    options = parser.parse_args()
    weir = products(TARGET / "release/weir")["Weir"]
    print(f"\n{options.clients:,} clients connect, each writes a key of its own and reads it back, "
          f"five times;\nnobody leaves before the end. Redis allows {options.maxclients} connections.\n")
    # One more, for the connection that counts the others.
    with redis(ALL_CORES, "--maxclients", str(options.maxclients + 1)) as (redis_port, _):
        columns = [("straight to Redis", crowd(options, redis_port, redis_port))]
        with weir.running(redis_port, len(ALL_CORES), ALL_CORES) as (port, _):
            columns.append(("through Weir", crowd(options, port, redis_port)))
    rows = [("clients served", "served", "{:,}"), ("clients refused", "refused", "{:,}"),
            ("commands answered", "commands", "{:,}"), ("connections at Redis", "connections", "{:,}"),
            ("seconds", "seconds", "{:.2f}")]
    print(f"{'':22}" + "".join(f"{title:>20}" for title, _ in columns))
    for title, key, form in rows:
        print(f"{title:22}" + "".join(f"{form.format(result[key]):>20}" for _, result in columns))
    for title, result in columns:
        for reason, count in result["reasons"].items():
            print(f"\n{title}, {count:,} were told: {reason}")
    print()


def crowd(options, port, redis_port):
    started = time.monotonic()
    with connections_at(redis_port) as seen:
        output = subprocess.run([LOADGEN, "crowd", "--target", f"127.0.0.1:{port}",
                                 "--clients", str(options.clients)], capture_output=True, text=True)
    if output.returncode:
        raise SystemExit(output.stderr)
    result = json.loads(output.stdout)
    return {"served": result["served"], "refused": sum(result["refused"].values()),
            "commands": result["commands"], "connections": seen["max"], "reasons": result["refused"],
            "seconds": time.monotonic() - started}


if __name__ == "__main__":
    main()
