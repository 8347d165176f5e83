"""Measures Weir beside other proxies and Redis asked directly, and prints a table.

All on this machine, over loopback, each product in turn in every round, so that what
the machine does besides meets all of them alike. Run it by `make bench`; a quick look
at one scenario: make bench ARGS="--only cpu --rounds 1 --seconds 3".
"""

import argparse
import json
import pathlib
import resource
import sys

import graph
import report
from products import PROJECT, TARGET, products
from scenarios import SCENARIOS, Bench


def main():
    options = arguments()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    known = products(options.weir)
    wanted = [known[name] for name in known if not options.products or name in options.products]
    results, faults = measure(options, wanted)
    names = [report.DIRECT] + [product.name for product in wanted]
    lines = report.surroundings(wanted, options) + [""] + report.table(results, names)
    lines += report.system_calls(results, names[1:])
    if faults:
        lines += ["", "What went wrong:", ""] + [f"- {fault}" for fault in faults]
    text = "\n".join(lines) + "\n"
    directory = PROJECT / "target/bench"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps({"results": results, "faults": faults}, indent=1))
    (directory / "table.md").write_text(text)
    if results.get("overload"):
        (directory / "overload.svg").write_text(graph.overload(results["overload"][-1]))
    print(text)
    print(f"(also in {directory}/table.md, every round in results.json)", file=sys.stderr)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), default=[],
                        help="only this scenario; may be repeated:\n" +
                        "\n".join(f"  {name}: {' '.join(run.__doc__.split())}" for name, run in SCENARIOS.items()))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="measured in each round (default 5)")
    parser.add_argument("--products", nargs="+", metavar="NAME",
                        help="only these (Weir HAProxy twemproxy Envoy); Redis itself always")
    parser.add_argument("--weir", type=pathlib.Path, default=TARGET / "release/weir",
                        help="another binary than the one just built")
    return parser.parse_args()


def measure(options, wanted):
    """`{scenario: [{product: figures} for each round]}`, and all faults in words."""
    results, faults = {}, []
    for name in options.only or SCENARIOS:
        results[name] = []
        for number in range(options.rounds):
            measured = {}
            for product in [None, *wanted]:
                title = product.name if product else report.DIRECT
                of_this = []
                print(f"{name}, round {number + 1} of {options.rounds}: {title}", file=sys.stderr, flush=True)
                try:
                    measured[title] = SCENARIOS[name](Bench(product, options.seconds, of_this))
                except RuntimeError as error:
                    of_this.append(str(error))
                    measured[title] = {}
                faults += [f"{name}, round {number + 1}, {title}: {fault}" for fault in of_this]
            results[name].append(measured)
    return results, faults


if __name__ == "__main__":
    main()
