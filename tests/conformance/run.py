"""Runs Redis's own test suite in external-server mode, directly and through Weir.

Each file of the suite runs against a fresh Redis: once straight, once with a fresh
Weir, as shipped, in front. The report names every test that passes straight and
does not through Weir. `impossible.txt` beside this file lists those that no proxy
that shares connections can pass, each with its reason; any other ends this with
exit code 1. Run it by `make conformance`.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
LINE = re.compile(r"^\[(ok|err|ignore|skip|exception|timeout)\]: (.*)$", re.IGNORECASE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def main():
    options = arguments()
    units = list_units(options)
    # What Redis does by itself changes only with its version, which the source is named for.
    baseline = options.work / f"direct-{options.source.name}.json"
    results = {"direct": {} if options.fresh_baseline else load(baseline), "weir": {}}
    if options.side != "weir":
        new = [unit for unit in units if unit not in results["direct"]]
        run_side("direct", new, results["direct"], baseline, options)
    if options.side != "direct":
        # A file none of whose tests runs against an external server says nothing about Weir.
        telling = [unit for unit in units if results["direct"].get(unit, {}).get("passed", True)]
        run_side("weir", telling, results["weir"], options.work / "weir.json", options)
    version = re.search(r"\d+\.\d+\.\d+", options.source.name)
    report, unexpected = compare(version.group() if version else "", units, results, load_impossible())
    options.report.write_text(report)
    print(report)
    print(f"(also in {options.report}; every output in {options.work}/logs)")
    sys.exit(1 if unexpected else 0)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--source", type=pathlib.Path, required=True, help="the unpacked source of Redis")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="where results go")
    parser.add_argument("--only", action="append", default=[], metavar="UNIT",
                        help="only this file, such as unit/multi; may be repeated")
    parser.add_argument("--side", choices=["both", "direct", "weir"], default="both")
    parser.add_argument("--limit", type=int, default=900, help="seconds that one file may take")
    parser.add_argument("--jobs", type=int, default=1, help="files at once")
    parser.add_argument("--fresh-baseline", action="store_true",
                        help="run the direct side again instead of reusing its last results")
    target = os.environ.get("CARGO_TARGET_DIR", PROJECT / "target")
    parser.add_argument("--weir", type=pathlib.Path, default=pathlib.Path(target) / "release/weir")
    parser.add_argument("--report", type=pathlib.Path, help="default: report.md among the results")
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.report = options.report or options.work / "report.md"
    (options.work / "logs").mkdir(parents=True, exist_ok=True)
    return options


def load(path):
    return json.loads(path.read_text()) if path.exists() else {}


def load_impossible():
    """`{(unit, test): reason}` from lines of `unit | test | reason`."""
    known = {}
    for line in (HERE / "impossible.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            unit, test, reason = (part.strip() for part in line.split(" | ", 2))
            known[unit, test] = reason
    return known


def list_units(options):
    output = subprocess.run(["tclsh", "tests/test_helper.tcl", "--list-tests"], cwd=options.source,
                            capture_output=True, text=True, check=True).stdout.split()
    # Not in the suite's own list, and without a server of its own to start it does nothing.
    units = [unit for unit in output if (options.source / "tests" / f"{unit}.tcl").exists()]
    unknown = set(options.only) - set(units)
    if unknown:
        sys.exit(f"no such file of the suite: {', '.join(sorted(unknown))}")
    return options.only or units


def run_side(side, units, results, path, options):
    print(f"{side}: {len(units)} files", file=sys.stderr)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        free_lanes = list(range(options.jobs))

        def run(unit):
            lane = free_lanes.pop()
            try:
                return run_unit(side, unit, lane, options)
            finally:
                free_lanes.append(lane)

        for unit, result in zip(units, pool.map(run, units)):
            results[unit] = result
            path.write_text(json.dumps(results, indent=1))
            passed, failed = len(result["passed"]), len(result["failed"])
            print(f"  {unit}: {passed} passed, {failed} failed, {result['ended']}, "
                  f"{result['seconds']:.0f} s", file=sys.stderr, flush=True)


def run_unit(side, unit, lane, options):
    """Runs one file against fresh processes; `lane` keeps simultaneous runs apart."""
    tree = suite_copy(options, lane)
    directory = tempfile.mkdtemp(prefix="conformance-")
    processes = []
    try:
        redis_port = free_port()
        processes.append(start_redis(redis_port, directory))
        wait_for(redis_port, processes[-1])
        port = redis_port
        if side == "weir":
            port = free_port()
            log = open(options.work / "logs" / f"weir-{unit.replace('/', '-')}.weir.log", "w")
            processes.append(subprocess.Popen(
                [options.weir, "--listen", f"127.0.0.1:{port}", "--backend", f"127.0.0.1:{redis_port}",
                 "--admin", "off"],
                stdout=log, stderr=log))
            wait_for(port, processes[-1])
        started = time.monotonic()
        output, in_time = run_suite(tree, unit, port, lane, options.limit)
        seconds = time.monotonic() - started
        survivors = [process.poll() is None for process in processes]
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
        shutil.rmtree(directory, ignore_errors=True)
    (options.work / "logs" / f"{side}-{unit.replace('/', '-')}.log").write_text(output)
    return {"seconds": seconds} | parse(output, in_time, survivors)


def suite_copy(options, lane):
    """A copy of the suite of its own for each lane: a run cleans up its whole tmp directory."""
    tree = options.work / f"lane{lane}"
    if not tree.exists():
        (tree / "src").mkdir(parents=True)
        shutil.copytree(options.source / "tests", tree / "tests")
        for file in ["redis.conf", "sentinel.conf"]:
            shutil.copy(options.source / file, tree)
        shutil.copytree(options.source / "utils", tree / "utils")
        for program in ["redis-server", "redis-cli", "redis-benchmark"]:
            (tree / "src" / program).symlink_to(shutil.which(program))
    return tree


def start_redis(port, directory):
    return subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory,
         "--logfile", f"{directory}/redis.log", "--enable-debug-command", "yes",
         "--enable-protected-configs", "yes", "--enable-module-command", "yes"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run_suite(tree, unit, port, lane, limit):
    """The suite's output, and whether it ended within `limit` seconds. `--durable` goes on
    after a test that throws, so that one failure does not hide what follows it. The suite
    itself listens on one of the 32 ports below the base, which are this process's own."""
    process = subprocess.Popen(
        ["tclsh", "tests/test_helper.tcl", "--host", "127.0.0.1", "--port", str(port), "--durable",
         "--single", unit, "--timeout", str(limit), "--baseport", str(20_032 + os.getpid() % 300 * 32)],
        cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        text=True, errors="replace", start_new_session=True)
    try:
        return process.communicate(timeout=limit)[0], True
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0], False


def parse(output, in_time, survivors):
    passed, failed, ended = [], [], "to the end"
    tests = COLOUR.sub("", output).partition("\n                   The End\n")[0]
    for line in tests.splitlines():
        match = LINE.match(line)
        if not match:
            if failed and not line.startswith("["):
                failed[-1][1] = (failed[-1][1] + " " + line.strip()).strip()[:400]
            continue
        kind, text = match.group(1).lower(), match.group(2)
        if kind == "ok":
            passed.append(re.sub(r" \(\d+ ms\)$", "", text))
        elif kind == "err":
            failed.append([re.sub(r" in tests/\S+\.tcl$", "", text), ""])
        elif kind in ("exception", "timeout"):
            ended = f"{kind}: {text[:200]}"
    if not in_time:
        ended = "time limit"
    if not all(survivors):
        ended = ["Redis died", "Weir died"][survivors.index(False)]
    return {"passed": passed, "failed": failed, "ended": ended}


def compare(version, units, results, impossible):
    """The report, and how many failures nobody has explained."""
    rows, unexpected, explained, healed = [], [], [], []
    totals = collections.Counter()
    for unit in units:
        direct, weir = results["direct"].get(unit), results["weir"].get(unit)
        if not direct:
            continue
        cells = [unit, len(direct["passed"]), len(direct["failed"])]
        totals["direct"] += len(direct["passed"])
        if weir:
            lost = collections.Counter(direct["passed"]) - collections.Counter(weir["passed"])
            why = dict(weir["failed"])
            totals["weir"] += len(weir["passed"])
            totals["lost"] += sum(lost.values())
            cells += [len(weir["passed"]), sum(lost.values()), weir["ended"]]
            for test, times in lost.items():
                reason = impossible.get((unit, test))
                named = test if times == 1 else f"{test} ({times} times)"
                if reason:
                    explained.append((unit, named, reason))
                else:
                    totals["unexplained"] += times
                    unexpected.append((unit, named, why.get(test, f"not reached ({weir['ended']})")))
            healed += [known for known in impossible if known[0] == unit and known[1] in weir["passed"]]
        else:
            cells += ["", "", direct["ended"]]
        if direct["passed"] or direct["failed"]:
            rows.append(cells)
    lines = ["# Redis's own test suite", "",
             f"The tests of Redis {version} that run against an external server, each file against a fresh "
             "Redis: once straight, once with a fresh Weir, as shipped, in front. `make conformance` "
             "runs them and writes this report. What fails straight says nothing about Weir; \"lost\" is "
             "what passes straight and not through Weir.", "",
             f"{totals['direct']} tests pass directly, {totals['weir']} through Weir; "
             f"{totals['lost']} pass directly and not through Weir, "
             f"{totals['unexplained']} of them unexplained.", "",
             "| file | pass directly | fail directly | pass through Weir | lost | ended |",
             "|---|---:|---:|---:|---:|---|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    lines += section("Lost, unexplained", unexpected)
    lines += section("Lost, each with its reason", explained)
    if healed:
        lines += ["", "## Named in `impossible.txt`, and passed this time", ""] + [f"- {unit}: {test}" for unit, test in healed]
    return "\n".join(lines) + "\n", len(unexpected)


def section(title, tests):
    if not tests:
        return []
    return ["", f"## {title}", ""] + [f"- `{unit}`: {test}: {why}" for unit, test, why in tests]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                probe.settimeout(5)
                probe.sendall(b"PING\r\n")
                if probe.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing answers on port {port}: {process.args}")


if __name__ == "__main__":
    main()
