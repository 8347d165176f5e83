"""weir top in a terminal of its own: top_in_terminal.py WEIR ADMIN_ADDRESS

Presses keys and looks at what is on the screen, by the small part of a terminal that this takes.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

DEADLINE = 30  # seconds; far above what anything here takes


class Terminal:
    """A child on a pseudo terminal, and what it has drawn."""

    def __init__(self, argv, rows, columns):
        self.rows, self.columns = rows, columns
        self.cells = [[" "] * columns for _ in range(rows)]
        self.row = self.column = 0
        self.raw = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execv(argv[0], argv)
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.fd)

    def resize(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.cells = [[" "] * columns for _ in range(rows)]
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys):
        os.write(self.fd, keys)

    def text(self):
        return "\n".join("".join(row).rstrip() for row in self.cells)

    def read(self, timeout):
        ready, _, _ = select.select([self.fd], [], [], timeout)
        if not ready:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        if not data:
            return False
        self.raw += data
        self.draw(data.decode("utf-8", "replace"))
        return True

    def draw(self, text):
        place = 0
        while place < len(text):
            escape = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])").match(text, place)
            if escape:
                place = escape.end()
                numbers, kind = escape.groups()
                if kind == "H":
                    parts = [int(part or 1) for part in numbers.split(";")] if numbers else [1, 1]
                    self.row, self.column = parts[0] - 1, parts[1] - 1
                elif kind == "J":
                    self.cells = [[" "] * self.columns for _ in range(self.rows)]
                continue
            letter = text[place]
            place += 1
            if letter >= " " and self.row < self.rows and self.column < self.columns:
                self.cells[self.row][self.column] = letter
                self.column += 1

    def wait_for(self, what, condition):
        given_up_at = time.monotonic() + DEADLINE
        while not condition(self.text()):
            alive = self.read(0.1)
            if not alive or time.monotonic() > given_up_at:
                raise AssertionError(f"waited in vain: {what}\n{self.text()}")

    def end(self):
        """Waits until the child has ended; how it did."""
        given_up_at = time.monotonic() + DEADLINE
        while self.read(0.1):
            if time.monotonic() > given_up_at:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"it does not end\n{self.text()}")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def shows(*texts):
    return lambda text: all(part in text for part in texts)


def put_back(terminal):
    """The other screen was left, the cursor is shown, and keys are echoed again."""
    for sequence in (b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"):
        if sequence not in terminal.raw:
            raise AssertionError(f"{sequence} is missing in {terminal.raw[-300:]}")
    assert terminal.raw.rindex(b"\x1b[?1049l") > terminal.raw.rindex(b"\x1b[?1049h")


def keys_do_what_they_say(argv):
    terminal = Terminal(argv, 30, 120)
    terminal.wait_for("who holds connections", shows("weir ", "main", "WHO", "127.0.0.1", "q quit"))
    terminal.wait_for("the node", shows("NODE", "primary", "up"))
    terminal.press(b"/nobody\r")
    terminal.wait_for("the filter", lambda text: "filter: nobody" in text and "127.0.0.1  " not in text)
    terminal.press(b"\x1b")
    terminal.wait_for("no filter", lambda text: "filter" not in text.replace("/ filter", ""))
    terminal.press(b"p")
    terminal.wait_for("the pause", shows("PAUSED"))
    terminal.press(b"p\t")
    terminal.wait_for("the next panel", shows("HOT KEYS"))
    terminal.press(b"?")
    terminal.wait_for("the help", shows("reverse the order"))
    terminal.press(b"x")
    terminal.resize(8, 40)
    terminal.wait_for("the small terminal", shows("WHO", "CLIENTS", "127.0.0.1"))
    terminal.press(b"q")
    assert terminal.end() == 0
    put_back(terminal)


def a_signal_leaves_the_terminal_as_it_was(argv):
    terminal = Terminal(argv, 24, 80)
    terminal.wait_for("who holds connections", shows("127.0.0.1"))
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.end() == 0
    put_back(terminal)


def a_weir_that_is_not_there_is_told_and_keys_work(argv):
    nowhere = [*argv[:-1], "127.0.0.1:1"]
    terminal = Terminal(nowhere, 24, 80)
    terminal.wait_for("the error", shows("refused"))
    terminal.press(b"\x03")
    assert terminal.end() == 0
    put_back(terminal)


def main():
    argv = [sys.argv[1], "top", "--delay", "1", "--admin", sys.argv[2]]
    for scenario in (
        keys_do_what_they_say,
        a_signal_leaves_the_terminal_as_it_was,
        a_weir_that_is_not_there_is_told_and_keys_work,
    ):
        print(scenario.__name__, flush=True)
        scenario(argv)


main()
