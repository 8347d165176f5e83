"""Figures in, Markdown out: which rows there are, what Weir is to reach, whether it does."""

import dataclasses
import os
import platform
import statistics
import subprocess

from products import PROJECT

DIRECT = "Redis"


@dataclasses.dataclass
class Goal:
    """`of`: the product whose figure is the measure, None for an absolute bound.
    `how`: "times" (ratio), "plus" (difference) or "is"."""
    bound: float
    at_most: bool
    of: str | None = None
    how: str = "is"

    def text(self):
        side = "at most" if self.at_most else "at least"
        if self.how == "times":
            return f"{side} {self.bound:g} of {self.of}"
        if self.how == "plus":
            return f"{side} {self.bound:g} above {self.of}"
        return f"{side} {self.bound:g}"

    def reached(self, rounds):
        """The median over the rounds of what is to be bounded, and whether it is."""
        results = []
        for figures in rounds:
            weir, other = figures.get("Weir"), figures.get(self.of)
            if weir is None or (self.of and not other):
                continue
            results.append({"times": lambda: weir / other, "plus": lambda: weir - other,
                            "is": lambda: weir}[self.how]())
        if not results:
            return None, False
        result = statistics.median(results)
        return result, result <= self.bound if self.at_most else result >= self.bound


@dataclasses.dataclass
class Row:
    scenario: str
    figure: str
    title: str
    form: str
    goal: Goal | None = None


def at_most(bound, of=None, how="is"):
    return Goal(bound, True, of, how)


def at_least(bound, of=None, how="is"):
    return Goal(bound, False, of, how)


ROWS = [
    Row("cpu", "proxy_p1", "Proxy's CPU, seconds per million commands", "{:.2f}", at_most(0.64, "twemproxy", "times")),
    Row("cpu", "proxy_p16", "… in pipelines of 16", "{:.2f}", at_most(0.77, "HAProxy", "times")),
    Row("cpu", "redis_p1", "Redis's CPU, seconds per million commands", "{:.2f}", at_most(0.12, DIRECT, "times")),
    Row("cpu", "redis_p16", "… in pipelines of 16", "{:.2f}"),
    Row("cpu", "rate_p1", "Commands a second, one core for the proxy", "{:,.0f}"),
    Row("cpu", "rate_p16", "… in pipelines of 16", "{:,.0f}"),
    Row("many", "rate", "Commands a second, 9,000 clients, all cores", "{:,.0f}", at_least(1, DIRECT, "times")),
    Row("many", "connections", "… connections at Redis", "{:,.0f}", at_most(8)),
    Row("many", "p50_ms", "… median latency, ms", "{:.0f}"),
    Row("many", "p99_ms", "… 99th percentile, ms", "{:.0f}"),
    Row("values", "mget", "`MGET` of 100 keys a second", "{:,.0f}", at_least(0.9, DIRECT, "times")),
    Row("values", "get_16k", "`GET` of 16 KiB a second", "{:,.0f}", at_least(0.6, DIRECT, "times")),
    Row("values", "set_16k", "`SET` of 16 KiB a second", "{:,.0f}", at_least(0.6, DIRECT, "times")),
    Row("values", "get_1m", "`GET` of 1 MiB a second", "{:,.0f}", at_least(0.8, DIRECT, "times")),
    Row("values", "set_1m", "`SET` of 1 MiB a second", "{:,.0f}", at_least(0.8, DIRECT, "times")),
    Row("idle", "bytes", "Memory of an idle client, bytes", "{:,.0f}", at_most(1024)),
    Row("idle", "clients", "… measured with so many clients", "{:,.0f}"),
    Row("latency", "p50_us", "Median latency at 20,000 a second, µs", "{:.0f}", at_most(25, DIRECT, "plus")),
    Row("latency", "p99_us", "99th percentile at 20,000 a second, µs", "{:.0f}", at_most(150, DIRECT, "plus")),
    Row("storm", "rate", "Visits a second (connect, ask once, leave)", "{:,.0f}", at_least(0.95, DIRECT, "times")),
    Row("storm", "faults", "… that failed", "{:.0f}", at_most(0)),
    Row("overload", "goodput_percent", "Three times too much for 30 s: served, % of what Redis can do", "{:.0f}"),
    Row("overload", "goodput_worst_percent", "… in the worst second", "{:.0f}", at_least(90)),
    Row("overload", "served_p99_ms", "… 99th percentile of what is served, ms", "{:.0f}", at_most(300)),
    Row("overload", "refused_p99_ms", "… 99th percentile of refusals, ms", "{:.1f}", at_most(5)),
    Row("overload", "recovery_s", "… seconds until all is well again", "{:.1f}", at_most(1)),
    Row("overload", "lost", "… commands without any answer", "{:,.0f}"),
    Row("arrivals", "p99_ms", "2,000 clients, Redis takes 64: 99th percentile, ms", "{:.1f}", at_most(5)),
    Row("arrivals", "failed", "… requests that failed", "{:,.0f}", at_most(0)),
    Row("arrivals", "connections", "… most connections at Redis", "{:.0f}", at_most(51)),
    Row("arrivals", "rejected", "… connections that Redis rejected", "{:.0f}", at_most(0)),
    Row("leak", "failed_percent", "One address leaks 50 connections a second, Redis takes 1,000: others that failed, %",
        "{:.0f}", at_most(0)),
    Row("leak", "max_ms", "… longest of the others' visits, ms", "{:,.0f}"),
    Row("leak", "held", "… connections that the leaker holds in the end", "{:,.0f}", at_most(100)),
    Row("leak", "rejected", "… connections that Redis rejected", "{:,.0f}", at_most(0)),
    Row("sigstop", "error_ms", "Redis stopped for 12 s: median time of an error, ms", "{:.1f}", at_most(5)),
    Row("sigstop", "errors", "… errors meanwhile", "{:,.0f}"),
    Row("sigstop", "flows_ms", "… work flows after it goes on, ms", "{:.0f}", at_most(50)),
    Row("sigstop", "longest_s", "… longest wait, s", "{:.1f}", at_most(11)),
    Row("sigstop", "cut", "… clients cut", "{:.0f}", at_most(0)),
    Row("sigstop", "mixed_up", "… replies mixed up", "{:.0f}", at_most(0)),
    Row("full", "reads_percent", "Redis's memory is used up: reads that are served, %", "{:.1f}", at_least(100)),
    Row("full", "reads", "… reads served", "{:,.0f}"),
    Row("full", "reads_refused", "… reads refused", "{:,.0f}", at_most(0)),
    Row("full", "reads_cut", "… clients cut", "{:,.0f}", at_most(0)),
    Row("full", "oom", "… writes that heard Redis's own `-OOM`", "{:,.0f}"),
    Row("full", "writes_other", "… writes that heard anything else", "{:,.0f}", at_most(0)),
    Row("full", "writes_taken", "… writes that were taken", "{:,.0f}"),
    Row("failover", "kill_reads_ms", "Primary killed, another promoted 1 s later: reads work after ms", "{:,.0f}",
        at_most(200)),
    Row("failover", "kill_writes_ms", "… writes work after the promotion, ms", "{:,.0f}", at_most(300)),
    Row("failover", "stop_reads_ms", "Primary stopped, the same: reads, ms", "{:,.0f}", at_most(3000)),
    Row("failover", "stop_writes_ms", "… writes, ms", "{:,.0f}", at_most(300)),
    Row("failover", "cut_reads_ms", "Primary cut off, the same: reads, ms", "{:,.0f}", at_most(3000)),
    Row("failover", "cut_writes_ms", "… writes, ms", "{:,.0f}", at_most(300)),
    Row("failover", "switch_reads_ms", "`FAILOVER`: reads, ms", "{:,.0f}"),
    Row("failover", "switch_writes_ms", "… writes after the promotion, ms", "{:,.0f}", at_most(300)),
    Row("failover", "sentinel_reads_ms", "Primary killed, sentinels promote: reads, ms", "{:,.0f}", at_most(200)),
    Row("failover", "sentinel_writes_ms", "… writes after the promotion, ms", "{:,.0f}", at_most(300)),
    Row("failover", "errors", "All of these: requests that failed", "{:,.0f}"),
    Row("failover", "doubled", "… increments applied twice", "{:,.0f}", at_most(0)),
    Row("failover", "lost", "… acknowledged increments that Redis had not lost", "{:,.0f}", at_most(0)),
    Row("failover", "mixed_up", "… replies mixed up", "{:,.0f}", at_most(0)),
    Row("slowreaders", "grown_mib", "100 ask for large values, read nothing: memory in all, MiB", "{:,.0f}"),
    Row("slowreaders", "proxy_grown_mib", "… of this the proxy's, MiB", "{:,.0f}"),
    Row("slowreaders", "known_grown_mib", "… the same once somebody has read it: memory in all, MiB", "{:,.0f}"),
    Row("slowreaders", "known_proxy_grown_mib", "… of this the proxy's, MiB", "{:,.0f}"),
    Row("slowreaders", "known_others_max_ms", "… others meanwhile, longest, ms", "{:,.0f}"),
    Row("slowreaders", "megabytes", "… size of each value, MiB", "{:.0f}"),
    Row("slowreaders", "others_p50_ms", "… others meanwhile, median, ms", "{:.2f}"),
    Row("slowreaders", "others_max_ms", "… others meanwhile, longest, ms", "{:,.0f}"),
    Row("slowreaders", "others_failed", "… others meanwhile, answered with an error", "{:,.0f}"),
    Row("pubsub", "rate", "Messages handed out a second, 10,000 subscribers on 100 channels", "{:,.0f}",
        at_least(1, DIRECT, "times")),
    Row("pubsub", "connections", "… connections at Redis", "{:,.0f}", at_most(8)),
    Row("pubsub", "bytes", "… memory of a subscriber, bytes", "{:,.0f}", at_most(2048)),
    Row("pubsub", "proxy_cpu", "… proxy's CPU, seconds per million messages", "{:.2f}"),
    Row("pubsub", "redis_cpu", "… Redis's CPU, seconds per million messages", "{:.2f}"),
    Row("blocked", "connections", "10,000 workers in `BLPOP` on 1,000 queues: connections at Redis", "{:,.0f}",
        at_most(64)),
    Row("blocked", "proxy_bytes", "… proxy's memory for each, bytes", "{:,.0f}"),
    Row("blocked", "redis_bytes", "… Redis's memory for each, bytes", "{:,.0f}"),
    Row("blocked", "p50_us", "… from push to pop, median, µs", "{:,.0f}"),
    Row("blocked", "p99_us", "… from push to pop, 99th percentile, µs", "{:,.0f}"),
    Row("blocked", "rate", "… elements a second, 64 under way", "{:,.0f}"),
    Row("blocked", "proxy_cpu", "… proxy's CPU, seconds per million elements", "{:.2f}"),
    Row("blocked", "redis_cpu", "… Redis's CPU, seconds per million elements", "{:.2f}"),
    Row("blocked", "few_p50_us", "8 workers, a connection each: from push to pop, median, µs", "{:,.0f}",
        at_most(100, DIRECT, "plus")),
    Row("blocked", "few_p99_us", "… 99th percentile, µs", "{:,.0f}"),
    Row("syscalls", "all_p1", "System calls per command", "{:.2f}"),
    Row("syscalls", "all_p16", "… in pipelines of 16", "{:.2f}"),
]


def table(results, names):
    """`results[scenario]` is a list of rounds, each `{product: {figure: value}}`."""
    lines = ["| | " + " | ".join(names) + " | Weir is to reach | Weir reaches | |",
             "|---|" + "---:|" * len(names) + "---|---:|---|"]
    for row in ROWS:
        rounds = [{name: figures[row.figure] for name, figures in measured.items() if row.figure in figures}
                  for measured in results.get(row.scenario, [])]
        if not any(rounds):
            continue
        cells = [row.title]
        for name in names:
            known = [figures[name] for figures in rounds if name in figures]
            cells.append(row.form.format(statistics.median(known)) if known else "")
        cells += verdict(row, rounds)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def verdict(row, rounds):
    goal = row.goal
    if goal is None:
        return ["", "", ""]
    reached, is_reached = goal.reached(rounds)
    if reached is None:
        return [goal.text(), "", ""]
    return [goal.text(), f"{reached:.2f}" if goal.how == "times" else row.form.format(reached),
            "yes" if is_reached else "**no**"]


def system_calls(results, names):
    """By name, where the scenario ran: what a command costs each product, and in what."""
    rounds = results.get("syscalls", [])
    calls = sorted({figure for measured in rounds for figures in measured.values() for figure in figures})
    lines = []
    for call in calls:
        cells = []
        for name in names:
            known = [measured[name].get(call, 0) for measured in rounds if measured.get(name)]
            cells.append(statistics.median(known) if known else 0)
        if max(cells) >= 0.005:
            title, _, pipeline = call.rpartition("_p")
            lines.append(f"| {title} | {pipeline} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    if not lines:
        return []
    return ["", "| system call, per command | pipeline | " + " | ".join(names) + " |",
            "|---|---:|" + "---:|" * len(names)] + lines


def surroundings(products, options):
    """On what, with which versions, how often: without this the figures mean nothing."""
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "?")
    versions = [first_line(["redis-server", "--version"])]
    versions += [first_line(product.version) for product in products]
    return [f"{os.cpu_count()} cores of {model}, Linux {platform.release()}; {options.rounds} rounds of "
            f"{options.seconds:g} s each, the products in turn; medians, and medians of each round's ratio.",
            "", "Versions: " + "; ".join(versions) + "."]


def first_line(command):
    output = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in (output.stdout + output.stderr).splitlines() if line.strip()]
    return lines[0].strip().replace(str(PROJECT) + '/', '')[:100] if lines else command[0]
