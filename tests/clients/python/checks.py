"""What the scripts of this directory share: checks that say what was wrong."""

import faulthandler
import sys
import time

DEADLINE = 30  # seconds; far above what anything here takes

# A script that hangs says where, and ends.
faulthandler.dump_traceback_later(4 * DEADLINE, exit=True)


def equal(actual, expected):
    """Fails with both values if they differ."""
    if actual != expected:
        raise AssertionError(f"expected {expected!r}, got {actual!r}")


def fails(error, text, action, *arguments, **named):
    """Fails unless the action raises this error with this text in it."""
    try:
        result = action(*arguments, **named)
    except error as raised:
        if text not in str(raised):
            raise AssertionError(f"expected {text!r} in {raised!r}") from raised
        return raised
    raise AssertionError(f"expected {error.__name__} with {text!r}, got {result!r}")


def wait_until(what, condition):
    """Polls the condition; fails if it does not come true."""
    given_up_at = time.monotonic() + DEADLINE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > given_up_at:
            raise AssertionError(f"waited {DEADLINE} s in vain: {what}")
        time.sleep(0.005)


def run(scenarios, *arguments):
    """Runs each scenario, and says which one failed."""
    for scenario in scenarios:
        print(scenario.__name__, *arguments[1:], flush=True)
        scenario(*arguments)
    sys.stdout.flush()
