"""Clients that keep account: each increments a counter of its own or reads keys whose values name
them, notes what became of every request, and afterwards says what was lost, doubled or mixed up."""

import collections
import random
import socket
import threading
import time

from nodes import Line, Refusal

KEYS = 200
# Counter number n begins at n times this, so that a reply says whose it is.
RANGE = 1_000_000_000
THINK = 0.025
# Who gets no answer for so long goes away.
PATIENCE = 15

# What a primary answered before it went is there by then.
STILL_COMES = 0.05

# What was asked and answered: when, whether it wrote, "good" or the error, and an increment's value.
Event = collections.namedtuple("Event", "began ended writes outcome value")


def counter(number):
    return f"count:{number}"


def prepare(node, writers):
    """Writes what the clients need."""
    node.ask(*(["SET", f"read:{key}", f"value:{key}:"] for key in range(KEYS)))
    node.ask(*(["SET", counter(number), number * RANGE] for number in range(1, writers + 1)))


class Client(threading.Thread):
    """Asks, waits, thinks, and asks again. `commands` is what it sends in one write: letters of which
    "r" is a read and "w" an increment of counter `number`."""

    def __init__(self, port, number, commands):
        super().__init__(daemon=True)
        self.port = port
        self.number = number
        self.commands = commands
        self.events = []
        self.mixed_up = []
        self.line = None
        self.goes = threading.Event()
        self.rests = threading.Event()
        self.is_done = False

    def run(self):
        while not self.is_done:
            if not self.goes.is_set():
                self.rests.set()
                self.goes.wait(0.05)
                continue
            is_well = self.visit()
            # Not all at once, and after an error as soon as an application that tries again.
            time.sleep(random.uniform(0.5, 1.5) * (THINK if is_well else 0.01))

    def visit(self):
        keys = [random.randrange(KEYS) for _ in self.commands]
        asked = [["INCR", counter(self.number)] if command == "w" else ["GET", f"read:{key}"]
                 for command, key in zip(self.commands, keys)]
        began = time.monotonic()
        answered = 0
        is_sent = False
        try:
            if self.line is None:
                self.line = Line(self.port, PATIENCE)
            is_sent = True
            self.line.socket.sendall(b"".join(map(encode, asked)))
            for command, key in zip(self.commands, keys):
                self.note(began, command, key, self.line.reply())
                answered += 1
            return all(event.outcome == "good" for event in self.events[-len(asked):])
        except (OSError, ConnectionError) as error:
            late = isinstance(error, socket.timeout)
            outcome = f"no answer in {PATIENCE} s" if late else "connection closed"
            if not is_sent:
                outcome = "connection refused"
            if self.line:
                self.line.close()
            self.line = None
            for command in self.commands[answered:]:
                self.events.append(Event(began, time.monotonic(), command == "w", outcome, None))
            return False

    def note(self, began, command, key, reply):
        now = time.monotonic()
        writes = command == "w"
        if isinstance(reply, Refusal):
            self.events.append(Event(began, now, writes, str(reply), None))
            return
        is_mine = (isinstance(reply, int) and reply // RANGE == self.number if writes
                   else reply == f"value:{key}:".encode())
        outcome = "good"
        if not is_mine:
            # A server that has lost its data counts from nothing: that is not another's reply.
            is_empty = reply is None or isinstance(reply, int) and 0 < reply < RANGE
            outcome = "answered by a node without data" if is_empty else "mixed up"
            if not is_empty:
                self.mixed_up.append((command, key, reply))
        self.events.append(Event(began, now, writes, outcome, reply if writes and is_mine else None))

    def end(self):
        self.is_done = True
        self.goes.set()
        self.join()


def encode(command):
    from nodes import request
    return request(*command)


def is_unknown(event):
    """Whether an increment may have run, as far as its client can know."""
    return event.writes and event.outcome in ("connection closed", f"no answer in {PATIENCE} s") \
        or event.outcome.endswith("outcome unknown")


class Account:
    """What one client's increments of one round come to. `known` is the counter's value before the
    round; `kept` what the promoted replica had when it was promoted (None: everything), after the
    old primary went at `gone_at`; `final` what the primary has after the round."""

    def __init__(self, events, known, kept, gone_at, promoted_at, final):
        self.doubled = 0
        self.lost_by_redis = 0
        self.lost = 0
        self.kept, self.promoted_at = kept, promoted_at
        last, unknown, has_moved = known, 0, kept is None
        for event in events:
            if not event.writes:
                continue
            if event.value is None:
                unknown += is_unknown(event)
                continue
            if not has_moved and event.ended >= gone_at + STILL_COMES:
                # The first that the new primary has answered: the old one is gone.
                has_moved = True
                last, unknown = self.move(last, unknown, events)
            self.step(last, unknown, event.value)
            last, unknown = event.value, 0
        if not has_moved:
            last, unknown = self.move(last, unknown, events)
        # Nothing more than what was acknowledged and what is unknown; and nothing less.
        self.lost += max(0, last - final)
        self.doubled += max(0, final - last - unknown)

    def move(self, last, unknown, events):
        """From the old primary to the new one, which has what it had as a replica."""
        self.doubled += max(0, self.kept - last - unknown)
        self.lost_by_redis += max(0, last - self.kept)
        # What was unknown by then is among what it kept, or lost.
        late = sum(1 for event in events if is_unknown(event) and event.ended >= self.promoted_at)
        return self.kept, late

    def step(self, last, unknown, value):
        self.doubled += max(0, value - last - 1 - unknown)
        self.lost += max(0, last + 1 - value)
